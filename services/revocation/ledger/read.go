package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// readOn applies what the log has after the head, up to upTo.
func (l *Ledger) readOn(ctx context.Context, upTo uint64) error {
	head := l.Head()
	if upTo <= head.Seq {
		return nil
	}
	err := l.read(ctx, head.Seq+1, upTo, func(s wire.Stored, rawHeader string) error {
		return l.take(ctx, s, rawHeader)
	})
	if head = l.Head(); err == nil && head.Seq < upTo {
		err = fmt.Errorf("the log was read to %d, and has %d", head.Seq, upTo)
	}
	return err
}

// read yields the messages from a sequence to another, headers only. It ends when
// upTo was reached, or the log's end is before it. On another connection than the one
// that the head was read by, the log may be another one: then it is an error.
func (l *Ledger) read(ctx context.Context, from, upTo uint64, yield func(wire.Stored, string) error) error {
	err := l.broker.Read(ctx, from, func(r Raw) (bool, error) {
		if l.broker.Reconnects() != l.connections {
			return false, errReconnected
		}
		if r.Sequence > upTo {
			return false, nil
		}
		s, err := r.stored()
		if err != nil {
			l.incomplete(s, err)
			return false, fmt.Errorf("message at %d: %w", r.Sequence, err)
		}
		return r.Sequence < upTo, yield(s, r.Header.Get(wire.Header))
	})
	if err == nil && l.broker.Reconnects() != l.connections {
		err = errReconnected // and its end is that of another one
	}
	if err != nil {
		return fmt.Errorf("read the log from %d: %w", from, err)
	}
	return nil
}

// readWhole reads what the log itself says into l.own, up to a tick asked for now. It
// goes on where a try before this one ended: to forget what that has read would be to
// miss that the log has lost it since.
func (l *Ledger) readWhole(ctx context.Context) error {
	e, err := l.getLast(ctx, wire.LogEpoch)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if err = l.setUpStream(ctx); err == nil {
			e, err = l.getLast(ctx, wire.LogEpoch)
		}
	}
	if errors.Is(err, ErrNoMessage) {
		l.wentBack("the log has no epoch any more")
		return errWentBack
	}
	if err != nil {
		return fmt.Errorf("the log's epoch: %w", err)
	}
	here := e.err == nil && e.stored.Message.Kind == wire.KindEpoch && e.stored.Message.Epoch == l.Epoch()
	if l.own == nil || !here {
		return l.reload(ctx)
	}
	same, err := l.sameHistory(ctx)
	if err != nil {
		return err
	}
	if !same {
		l.wentBack("the log does not have what was read for the new epoch")
		return errWentBack
	}
	tick, err := l.commitTick(ctx)
	if err != nil {
		return err
	}
	if err := l.readOn(ctx, tick.Seq); err != nil {
		return err
	}
	if l.doubts(l.Epoch()) {
		return errWentBack
	}
	return nil
}

// reload reads the whole log up to a tick asked for now, and merges it into the
// view: what was known before stays. The ring and the head become those of the
// log as it is. l.own is the log's own fold then.
func (l *Ledger) reload(ctx context.Context) error {
	l.connection()
	l.own = nil // of another history, it may be; there is one again once the reading begins
	tick, err := l.tickAnyHistory(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.ring, l.keys, l.head = newRing(l.cfg.RingSize), map[string]wire.Stored{}, wire.Position{}
	l.stamp, l.observed = revoke.Stamp{}, revoke.Stamp{}
	l.mu.Unlock()
	for _, o := range l.observers {
		o.Restarted()
	}
	l.here, l.holes, l.own = 0, nil, newFold()
	err = l.read(ctx, 1, tick.Seq, func(s wire.Stored, rawHeader string) error {
		l.apply(s, rawHeader)
		return nil
	})
	if err != nil {
		return err
	}
	if head := l.Head(); head.Seq != tick.Seq || head.ID != tick.ID {
		return fmt.Errorf("the log was read to %d (%s), and a tick stands at %d (%s)", head.Seq, head.ID, tick.Seq, tick.ID)
	}
	return nil
}

// tickAnyHistory commits a tick in the epoch that the log itself names now. In another
// one than it knew it forgets how far this service has seen: the history is another one.
func (l *Ledger) tickAnyHistory(ctx context.Context) (wire.Position, error) {
	e, err := l.getLast(ctx, wire.LogEpoch)
	if err != nil {
		return wire.Position{}, fmt.Errorf("the log's epoch: %w", err)
	}
	if e.err != nil || e.stored.Message.Kind != wire.KindEpoch {
		return wire.Position{}, fmt.Errorf("the log's epoch at %d can't be read: %w", e.seq, e.err)
	}
	l.mu.Lock()
	if is := e.stored.Message.Epoch; is != l.epoch {
		l.newest = max(l.newest, l.epoch) // the log may have lost it
		l.epoch, l.seen, l.acked = is, 0, map[uint64]string{}
	}
	l.epochSeq = e.seq
	l.mu.Unlock()
	return l.commitTick(ctx)
}
