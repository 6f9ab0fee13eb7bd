package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/jsm.go/api"
	"github.com/nats-io/nats.go"
)

const (
	chunkSize = 128 << 10 // bytes

	// deafFor is how long a node may not know yet that another one listens for the
	// chunks. The broker gives up an upload that is silent for 5 s.
	deafFor = 4 * time.Second
	retry   = 20 * time.Millisecond

	// builtWithin is how long the broker may take to build a stream from what it has got.
	builtWithin = time.Hour
)

// upload restores a stream from what a snapshot of it said and had, and returns its last
// sequence. It is not the client library's because of clusters: the node that answers the
// request listens for the chunks from then on, but ours may hear of that only after the
// answer, and says "no responders" until then. The library gives up at that.
func upload(ctx context.Context, nc *nats.Conn, stream string, config []byte, data io.Reader) (lastSeq uint64, err error) {
	var begun api.JSApiStreamRestoreResponse
	reply, err := ask(ctx, nc, fmt.Sprintf(api.JSApiStreamRestoreT, stream), config, patience)
	if err != nil {
		return 0, err
	}
	if err := decoded(reply, &begun, &begun.JSApiResponse); err != nil {
		return 0, err
	}
	if begun.DeliverSubject == "" {
		return 0, fmt.Errorf("the broker does not say where it wants the data: %.200q", reply.Data)
	}
	for chunk := make([]byte, min(chunkSize, nc.MaxPayload())); ; {
		n, err := io.ReadFull(data, chunk)
		if n > 0 {
			if err := send(ctx, nc, begun.DeliverSubject, chunk[:n]); err != nil {
				return 0, err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if reply, err = ask(ctx, nc, begun.DeliverSubject, nil, builtWithin); err != nil {
		return 0, err
	}
	var made api.JSApiStreamCreateResponse
	if err := decoded(reply, &made, &made.JSApiResponse); err != nil {
		return 0, err
	}
	if made.StreamInfo == nil {
		return 0, fmt.Errorf("the broker does not say what it has restored: %.200q", reply.Data)
	}
	return made.State.LastSeq, nil
}

// send uploads one chunk. What had no responder has reached nobody, and can be sent again.
func send(ctx context.Context, nc *nats.Conn, subject string, chunk []byte) error {
	reply, err := ask(ctx, nc, subject, chunk, patience)
	for until := time.Now().Add(deafFor); errors.Is(err, nats.ErrNoResponders) && time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry):
		}
		reply, err = ask(ctx, nc, subject, chunk, patience)
	}
	if err != nil || len(reply.Data) == 0 {
		return err
	}
	var refused api.JSApiStreamCreateResponse
	return decoded(reply, &refused, &refused.JSApiResponse)
}

func ask(ctx context.Context, nc *nats.Conn, subject string, data []byte, within time.Duration) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return nc.RequestWithContext(ctx, subject, data)
}

// decoded reads an answer of the broker, and returns the error that it may be.
func decoded(reply *nats.Msg, into any, head *api.JSApiResponse) error {
	if err := json.Unmarshal(reply.Data, into); err != nil {
		return fmt.Errorf("the broker's answer can't be read: %w: %.200q", err, reply.Data)
	}
	return head.ToError()
}
