package ledger

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// leastLife is how long every message stays in the log at least: what is missing
// before that was lost. A broker that starts on a damaged file serves it without what
// it could not read, and may say nothing.
const leastLife = time.Hour

// sparedLife is for what ends while the log is being read.
const sparedLife = leastLife - 5*time.Minute

// hole is a stretch that a reading of the log has passed.
type hole struct {
	from, to uint64
	after    int64 // when the message before it was stored, Unix milliseconds
}

// passes notes what lies between the head and the next message. Nothing is noted of
// what was before the newest epoch: that has been made good under it.
func (l *Ledger) passes(seq uint64, at int64) {
	l.mu.Lock()
	head, headTime := l.head.Seq, l.headTime
	l.mu.Unlock()
	if head > 0 && seq > head+1 {
		h := hole{head + 1, seq - 1, headTime}
		if h.lost(at) {
			l.holes = append(l.holes, h)
		}
	}
}

// lost reports whether what stood there can't have ended at a time by the broker's
// clock.
func (h hole) lost(now int64) bool { return h.after+sparedLife.Milliseconds() > now }

// foundHole returns why the log is believed to have lost something, "" if it has not.
func (l *Ledger) foundHole() string {
	l.mu.Lock()
	now := l.headTime
	l.mu.Unlock()
	for _, h := range l.holes {
		if h.lost(now) {
			return fmt.Sprintf("the log lacks what stood at %d to %d, which can't have ended", h.from, h.to)
		}
	}
	return ""
}

// lookEvery is how often the log is held against what is known of it, besides after
// each reconnect: on three nodes another server may have become the one that is read
// while this service stayed connected.
const lookEvery = 5 * time.Minute

// lookBack holds the log against the newest messages that are known here: a server that
// has started on a damaged file may lack one in the middle, which its end does not show.
// It runs beside everything else, and tells Run what it finds.
func (l *Ledger) lookBack(ctx context.Context) {
	for {
		p, err := l.compare(ctx)
		if p.why != "" {
			l.tell(p)
		}
		if err == nil {
			return
		}
		if !pause(ctx, time.Second) {
			l.log.Warn("the log could not be held against what is known of it; that is done again in some minutes", zap.Error(err))
			return
		}
	}
}

// compare returns a proof that the log lacks something, with an empty why if it does
// not.
func (l *Ledger) compare(ctx context.Context) (proof, error) {
	p := l.ownProof("")
	l.mu.Lock()
	known := make([]item, l.ring.len())
	for i := range known {
		it := l.ring.at(i)
		known[i] = item{seq: it.seq, id: it.id, time: it.time}
	}
	l.mu.Unlock()
	if len(known) == 0 {
		return p, nil
	}
	newest, i := known[len(known)-1], 0
	err := l.broker.Read(ctx, known[0].seq, func(r Raw) (bool, error) {
		for ; i < len(known) && known[i].seq < r.Sequence; i++ {
			if h := (hole{known[i].seq, known[i].seq, known[i].time}); h.lost(newest.time) {
				p.why = fmt.Sprintf("the log lacks what this service has read at %d, which can't have ended", h.from)
				return false, nil
			}
		}
		if i == len(known) {
			return false, nil
		}
		if r.Sequence == known[i].seq {
			if s, err := r.stored(); err != nil || s.Message.ID != known[i].id {
				p.why = fmt.Sprintf("the log has another message at %d than this service has read there", r.Sequence)
				return false, nil
			}
			i++
		}
		return r.Sequence < newest.seq, nil
	})
	if end := (hole{after: newest.time}); err == nil && p.why == "" && i < len(known) && end.lost(l.cfg.Now().UnixMilli()) {
		err = fmt.Errorf("the log was read to before %d, and has more", known[i].seq)
	}
	return p, err
}

// lookBackLater has lookBack run by itself; one that still runs asks another server.
func (l *Ledger) lookBackLater(ctx context.Context) {
	if l.stopLooking != nil {
		l.stopLooking()
	}
	ctx, l.stopLooking = context.WithTimeout(ctx, 2*time.Minute)
	l.looking.Go(func() { l.lookBack(ctx) })
}
