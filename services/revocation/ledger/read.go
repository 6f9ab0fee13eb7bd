package ledger

import (
	"context"
	"fmt"

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
// upTo was reached, or the log's end is before it.
func (l *Ledger) read(ctx context.Context, from, upTo uint64, yield func(wire.Stored, string) error) error {
	err := l.broker.Read(ctx, from, func(r Raw) (bool, error) {
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
	if err != nil {
		return fmt.Errorf("read the log from %d: %w", from, err)
	}
	return nil
}

// history is what a read of the whole log has shown.
type history struct {
	view     *revoke.View
	epochSeq uint64 // where the newest epoch message stands; 0: none
	epoch    uint64
}

// reload reads the whole log up to a tick asked for now, and merges it into the
// view: what was known before stays. The ring and the head become those of the
// log as it is. It returns the log's own fold.
func (l *Ledger) reload(ctx context.Context) (*history, error) {
	tick, err := l.tickAnyHistory(ctx)
	if err != nil {
		return nil, err
	}
	h := &history{view: revoke.NewView()}
	l.mu.Lock()
	l.ring, l.keys, l.head = newRing(l.cfg.RingSize), map[string]wire.Stored{}, wire.Position{}
	l.stamp, l.observed = revoke.Stamp{}, revoke.Stamp{}
	l.mu.Unlock()
	for _, o := range l.observers {
		o.Restarted()
	}
	l.here, l.holes = 0, nil
	err = l.read(ctx, 1, tick.Seq, func(s wire.Stored, rawHeader string) error {
		s = placed(s, l.here)
		for k, st := range s.Message.States(s.Position().Stamp) {
			h.view.Merge(k, st)
		}
		if e, ok := s.Message.EpochState(); ok {
			h.view.MergeEpoch(e)
			if e.Number >= h.epoch {
				h.epoch, h.epochSeq = e.Number, s.Sequence
			}
		}
		l.apply(s, rawHeader)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if head := l.Head(); head.Seq != tick.Seq {
		return nil, fmt.Errorf("the log was read to %d, and a tick stands at %d", head.Seq, tick.Seq)
	}
	return h, nil
}

// tickAnyHistory commits a tick in the epoch that the log itself names now, and
// forgets how far this service has seen: the history may be another one.
func (l *Ledger) tickAnyHistory(ctx context.Context) (wire.Position, error) {
	e, err := l.getLast(ctx, wire.LogEpoch)
	if err != nil {
		return wire.Position{}, fmt.Errorf("the log's epoch: %w", err)
	}
	if e.err != nil || e.stored.Message.Kind != wire.KindEpoch {
		return wire.Position{}, fmt.Errorf("the log's epoch at %d can't be read: %w", e.seq, e.err)
	}
	l.mu.Lock()
	l.epoch, l.epochSeq, l.seen = e.stored.Message.Epoch, e.seq, 0
	l.mu.Unlock()
	return l.commitTick(ctx)
}
