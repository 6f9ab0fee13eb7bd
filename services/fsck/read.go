package fsck

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// patience is how long the broker may take for one answer, or for the next message
// that it has.
const patience = 10 * time.Second

func streamInfo(ctx context.Context, js jetstream.JetStream, name string) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, err)
	}
	return s.CachedInfo(), nil
}

// readAgain is how often a stream is read on that ends before it should, and after how
// long: the replica that answers may be behind the one that told the end.
const (
	readAgain = 10
	readPause = 100 * time.Millisecond
)

// silence is how long the broker may take to bring the next message that it says it
// has. It stays silent for ever at one whose file is damaged.
const silence = 3 * time.Second

var errSilent = errors.New("the broker does not bring what it has")

// reading is one stream that is read.
type reading struct {
	js   jetstream.JetStream
	name string
	take func(jetstream.Msg, *jetstream.MsgMetadata)
	// stuck is told which messages the broker has and can't bring.
	stuck func(from, to uint64, why error)
}

// read hands on the messages from a sequence up to another.
func (r *reading) read(ctx context.Context, from, upTo uint64) error {
	for try := 0; from <= upTo && try < readAgain; try++ {
		if try > 0 {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(readPause):
			}
		}
		began := from
		err := r.once(ctx, &from, upTo)
		if errors.Is(err, errSilent) {
			var next uint64
			if next, err = r.pass(ctx, from, upTo, err); next > from {
				from = next
			}
		}
		if err != nil {
			return fmt.Errorf("read %s from %d: %w", r.name, from, err)
		}
		if from > began {
			try = 0
		}
	}
	return nil
}

// once reads what the replica has that answers, and moves from along.
func (r *reading) once(ctx context.Context, from *uint64, upTo uint64) error {
	opening, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := r.js.OrderedConsumer(opening, r.name, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: *from, InactiveThreshold: 2 * patience,
		MaxResetAttempts: 1, // by default it tries for ever, whatever ctx says
	})
	if err != nil {
		return err
	}
	if info := c.CachedInfo(); info != nil && info.NumPending == 0 {
		return nil
	}
	it, err := c.Messages(jetstream.PullMaxMessages(1024))
	if err != nil {
		return err
	}
	defer it.Stop()
	for {
		next, stop := context.WithTimeout(ctx, silence)
		msg, err := it.Next(jetstream.NextContext(next))
		silent := next.Err() != nil && ctx.Err() == nil
		stop()
		if err != nil && silent {
			return errSilent
		}
		if err != nil {
			return err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Stream > upTo {
			*from = upTo + 1
			return nil
		}
		r.take(msg, meta)
		*from = meta.Sequence.Stream + 1
		if meta.NumPending == 0 || *from > upTo {
			return nil
		}
	}
}

// mostUnread is after how many messages that the broker has and does not bring the rest
// counts as such: each takes seconds.
const mostUnread = 20

// pass finds the next message that can be read, one by one.
func (r *reading) pass(ctx context.Context, from, upTo uint64, why error) (uint64, error) {
	opening, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := r.js.Stream(opening, r.name)
	if err != nil {
		return from, err
	}
	// What has been removed is not there to be brought.
	info, err := s.Info(opening, jetstream.WithDeletedDetails(true))
	if err != nil {
		return from, err
	}
	removed := make(map[uint64]bool, len(info.State.Deleted))
	for _, seq := range info.State.Deleted {
		removed[seq] = true
	}
	seq, lacks := from, false
	for unread := 0; seq <= upTo; seq++ {
		if unread == mostUnread {
			seq = upTo + 1
			break
		}
		if seq < info.State.FirstSeq || removed[seq] {
			continue
		}
		one, cancel := context.WithTimeout(ctx, silence)
		_, err := s.GetMsg(one, seq)
		cancel()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return from, context.Cause(ctx)
		}
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			why = err
			unread++
		}
		lacks = true
	}
	if lacks {
		r.stuck(from, seq-1, why)
	}
	return seq, nil
}

// ttlOf reads a Nats-TTL: seconds, or a duration as Go writes it.
func ttlOf(header map[string][]string) (time.Duration, bool) {
	v := header[jetstream.MsgTTLHeader]
	if len(v) == 0 {
		return 0, false
	}
	if n, err := strconv.ParseInt(v[0], 10, 64); err == nil {
		return time.Duration(n) * time.Second, true
	}
	d, err := time.ParseDuration(v[0])
	return d, err == nil
}
