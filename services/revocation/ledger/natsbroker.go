package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/guard/wire"
)

// natsBroker is the real one.
type natsBroker struct {
	nc         *nats.Conn
	js         jetstream.JetStream
	rand       io.Reader
	replicas   int
	syncAlways bool
}

// NewBroker returns the broker of a connection of the revocation service, with what
// cfg says of the stream.
func NewBroker(nc *nats.Conn, cfg Config) (Broker, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	if cfg.wrap != nil {
		js = cfg.wrap(js)
	}
	return &natsBroker{nc: nc, js: js, rand: cfg.Rand, replicas: cfg.Replicas, syncAlways: cfg.SyncAlways}, nil
}

func (b *natsBroker) SetUp(ctx context.Context) ([]string, error) {
	want := streamConfig(b.replicas)
	s, err := b.js.CreateOrUpdateStream(ctx, want)
	if err != nil {
		return nil, fmt.Errorf("create stream %s: %w", wire.Stream, err)
	}
	info, err := s.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("read settings of stream %s: %w", wire.Stream, err)
	}
	return hazardsOf(info, want, b.syncAlways), nil
}

func (b *natsBroker) Gone(ctx context.Context) bool {
	_, err := b.js.Stream(ctx, wire.Stream)
	return errors.Is(err, jetstream.ErrStreamNotFound)
}

func (b *natsBroker) Get(ctx context.Context, seq uint64) (Raw, error) {
	return b.get(ctx, map[string]any{"seq": seq})
}

func (b *natsBroker) Last(ctx context.Context, subject string) (Raw, error) {
	return b.get(ctx, map[string]any{"last_by_subj": subject})
}

func (b *natsBroker) get(ctx context.Context, ask map[string]any) (Raw, error) {
	body, err := json.Marshal(ask)
	if err != nil {
		return Raw{}, err
	}
	resp, err := b.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+wire.Stream, body)
	if err != nil {
		return Raw{}, fmt.Errorf("read the log: %w", err)
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Seq    uint64    `json:"seq"`
			Header []byte    `json:"hdrs"`
			Data   []byte    `json:"data"`
			Time   time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(resp.Data, &answer); err != nil {
		return Raw{}, fmt.Errorf("read the log: %w", err)
	}
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return Raw{}, ErrNoMessage
	case answer.Error != nil:
		return Raw{}, fmt.Errorf("read the log: %w", answer.Error)
	case answer.Message == nil:
		return Raw{}, errors.New("read the log: an answer without a message")
	}
	m := answer.Message
	r := Raw{Sequence: m.Seq, Time: m.Time, Data: m.Data}
	if len(m.Header) > 0 {
		if r.Header, err = nats.DecodeHeadersMsg(m.Header); err != nil {
			return Raw{}, fmt.Errorf("read the log at %d: %w", m.Seq, err)
		}
	}
	return r, nil
}

// silence is how long the broker may take to bring the next message that it has.
// A consumer that was made while a cluster had no leader may stay silent for
// ever, without an error.
const silence = 5 * time.Second

var errSilent = errors.New("the broker does not bring what it has")

// few is how many messages are read one by one, for less than a consumer costs. A
// consumer is also made by the leader of the whole cluster, which may have gone with
// the log's.
const few = 64

func (b *natsBroker) Read(ctx context.Context, from uint64, yield func(Raw) (bool, error)) error {
	for range few {
		one, cancel := context.WithTimeout(ctx, silence)
		at := from // a question that was overtaken may still be about to be asked
		r, err := repeating(one, func(ctx context.Context) (Raw, error) {
			return b.get(ctx, map[string]any{"seq": at, "next_by_subj": ">"})
		})
		cancel()
		if errors.Is(err, ErrNoMessage) {
			return nil
		}
		if err != nil {
			return err
		}
		if more, err := yield(r); err != nil || !more {
			return err
		}
		from = r.Sequence + 1
	}
	return b.stream(ctx, from, yield)
}

// stream is Read by a consumer.
func (b *natsBroker) stream(ctx context.Context, from uint64, yield func(Raw) (bool, error)) error {
	opening, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	c, err := b.js.OrderedConsumer(opening, wire.Stream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from, HeadersOnly: true,
		InactiveThreshold: 10 * time.Second,
		MaxResetAttempts:  1, // by default it tries for ever, whatever ctx says
	})
	if err != nil {
		return err
	}
	if info := c.CachedInfo(); info != nil && info.NumPending == 0 {
		return nil
	}
	it, err := c.Messages(jetstream.PullMaxMessages(4096), jetstream.PullThresholdMessages(2048))
	if err != nil {
		return err
	}
	defer it.Stop()
	reading, giveUp := context.WithCancel(ctx)
	defer giveUp()
	silent := time.AfterFunc(silence, giveUp)
	defer silent.Stop()
	for {
		silent.Reset(silence)
		msg, err := it.Next(jetstream.NextContext(reading))
		if err != nil && reading.Err() != nil && ctx.Err() == nil {
			err = errSilent
		}
		if err != nil {
			return err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		more, err := yield(Raw{Sequence: meta.Sequence.Stream, Time: meta.Timestamp, Header: msg.Headers()})
		if err != nil || !more || meta.NumPending == 0 {
			return err
		}
	}
}

func (b *natsBroker) Follow(ch chan *nats.Msg) (func(), error) {
	sub, err := b.nc.ChanSubscribe(wire.FeedAll, ch)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", wire.FeedAll, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil // the connection may be gone: then so is it
}

func (b *natsBroker) Connected(ctx context.Context) <-chan bool {
	status := b.nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.DISCONNECTED)
	out := make(chan bool)
	go func() {
		defer b.nc.RemoveStatusListener(status)
		for {
			select {
			case s := <-status:
				select {
				case out <- s == nats.CONNECTED:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func (b *natsBroker) Reconnects() uint64 { return b.nc.Stats().Reconnects }

func (b *natsBroker) MaxPayload() int64 { return b.nc.MaxPayload() }

// The headers of an atomic batch (NATS ADR-50).
const (
	headerBatchID     = "Nats-Batch-Id"
	headerBatchSeq    = "Nats-Batch-Sequence"
	headerBatchCommit = "Nats-Batch-Commit"
)

func (b *natsBroker) Publish(ctx context.Context, m *nats.Msg) (uint64, error) {
	ack, err := b.js.PublishMsg(ctx, m)
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

func (b *natsBroker) PublishBatch(ctx context.Context, ms []*nats.Msg) (uint64, error) {
	id, err := wire.NewID(b.rand)
	if err != nil {
		return 0, err
	}
	for i, m := range ms {
		// The caller's message stays as it is: it may have to go alone.
		one := &nats.Msg{Subject: m.Subject, Data: m.Data, Header: nats.Header{
			headerBatchID: {id}, headerBatchSeq: {strconv.Itoa(i + 1)},
		}}
		for name, values := range m.Header {
			one.Header[name] = values
		}
		if i < len(ms)-1 {
			if err := b.nc.PublishMsg(one); err != nil {
				return 0, err
			}
			continue
		}
		one.Header[headerBatchCommit] = []string{"1"}
		answer, err := b.nc.RequestMsgWithContext(ctx, one)
		if err != nil {
			return 0, err
		}
		return batchAck(answer.Data, len(ms))
	}
	return 0, fmt.Errorf("an empty batch")
}

func batchAck(data []byte, members int) (uint64, error) {
	var ack struct {
		Error *jetstream.APIError `json:"error"`
		Seq   uint64              `json:"seq"`
		Count int                 `json:"count"`
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return 0, fmt.Errorf("the answer to a batch: %w", err)
	}
	if ack.Error != nil {
		return 0, ack.Error
	}
	if ack.Count != members || ack.Seq < uint64(members) {
		return 0, fmt.Errorf("a batch of %d was answered with %d members up to %d", members, ack.Count, ack.Seq)
	}
	return ack.Seq, nil
}
