package receipts

import (
	"context"
	"errors"
	"time"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/problem"
)

// Pauses between two looks at an entry: they double.
const (
	firstPause   = time.Second
	longestPause = 5 * time.Minute
	// halfway is the look at which an incomplete receipt is written again, if there
	// is more to say than at first: after a minute. It is also written at its last.
	halfway = 6
)

// look brings the receipts of some entries forward, and queues again what is not
// done. The error is one of them.
func (k *Keeper) look(ctx context.Context, chunk []pending) error {
	if len(chunk) == 0 {
		return nil
	}
	var (
		first  error
		writes []*write
		owners []pending
	)
	for _, p := range chunk {
		w, done, err := k.advance(ctx, &p)
		switch {
		case err != nil:
			first = errors.Join(first, err)
			k.later(p, false)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		case w != nil:
			writes, owners = append(writes, w), append(owners, p)
		case !done:
			k.later(p, true)
		}
	}
	k.store.putAll(ctx, writes)
	for i, w := range writes {
		if w.err == nil {
			k.noteWritten(&w.receipt)
		} else if !errors.Is(w.err, errRaced) {
			k.failed.Add(1)
			first = errors.Join(first, w.err)
		}
		if w.err != nil || !k.finished(&owners[i], &w.receipt) {
			owners[i].raced = errors.Is(w.err, errRaced)
			k.later(owners[i], w.err == nil || owners[i].raced)
		}
	}
	return first
}

func (k *Keeper) noteWritten(r *Receipt) {
	k.written.Add(1)
	k.index.take(r.ID, noteOf(r))
}

// later queues an entry for its next look. One that has a receipt is dropped if the
// queue is full; one without goes back where it came from, the queue or the log.
func (k *Keeper) later(p pending, stored bool) {
	if p.unplaced {
		return // catchUp reads it again
	}
	p.due = k.cfg.Now().Add(min(firstPause<<min(p.looks, 20), longestPause))
	p.looks++
	p.owed = p.owed && (!stored || p.raced)
	p.raced = false
	k.mu.Lock()
	defer k.mu.Unlock()
	if stored && len(k.queue) >= k.most {
		return
	}
	k.queue.add(p)
}

// finished reports whether an entry need not be looked at again.
func (k *Keeper) finished(p *pending, r *Receipt) bool { return r.Complete || k.old(p) }

// old reports whether this is the last look, whatever it shows.
func (k *Keeper) old(p *pending) bool {
	return k.cfg.Now().Sub(time.UnixMilli(p.stored.Message.At)) >= giveUp
}

// advance judges one entry, and returns what is to be written, if anything is; or
// that no more is to be done for it.
func (k *Keeper) advance(ctx context.Context, p *pending) (w *write, done bool, err error) {
	if !p.unplaced {
		if it, ok := k.index.find(p.stored.Position().Stamp); ok && it.complete {
			return nil, true, nil
		}
	}
	if err := k.cfg.Ledger.Ready(); err != nil {
		return nil, false, err
	}
	epoch := k.cfg.Ledger.Epoch()
	ev, err := k.cfg.Ledger.EventAt(ctx, p.stored)
	switch {
	case errors.Is(err, ledger.ErrNoMessage):
		return nil, true, nil // it has left the log, or the log went back
	case err != nil:
		return nil, false, err
	case !needsOne(ev):
		return nil, true, nil
	}
	if p.unplaced {
		_, s, err := k.cfg.Ledger.Find(ctx, ev.Data.Entry)
		if errors.Is(err, ledger.ErrNoMessage) || err == nil && s.Message.ID != p.stored.Message.ID {
			return nil, true, nil
		}
		if err != nil {
			return nil, false, err
		}
		p.stored, p.unplaced, p.reread = bare(s), false, true
	}
	r, rev, err := k.standing(ctx, ev.Data.Entry, p)
	switch {
	case err != nil && problem.KindOf(err) != problem.NotFound:
		return nil, false, err
	case err != nil:
		r = begin(ev, p.stored)
	case r.Message != p.stored.Message.ID:
		if !r.At().Less(p.stored.Position().Stamp) {
			return nil, true, nil
		}
		r = begin(ev, p.stored) // the log lost the first one, and it was asked for again
	default:
		k.index.take(r.ID, noteOf(&r)) // another replica wrote it
	}
	if r.Complete {
		return nil, true, nil
	}
	next := r.With(k.judge(ctx, r.entry(), epoch, 0), k.cfg.Now())
	more := r.provesMore(&next)
	if rev == 0 || r.JudgedAt == 0 && more || next.Complete || more && (p.looks == halfway || k.old(p)) {
		return &write{receipt: next, revision: rev}, false, nil
	}
	return nil, k.finished(p, &next), nil
}

// standing reads a receipt. At the first look at an entry that the list has no receipt
// of there is mostly none, and if there is, writing the first one tells.
func (k *Keeper) standing(ctx context.Context, id string, p *pending) (Receipt, uint64, error) {
	if p.looks == 0 && !p.reread && k.index.lacks(p.stored.Position().Stamp) {
		return Receipt{}, 0, errMissing
	}
	return k.store.get(ctx, id)
}

// appliedIn bounds how long a judgement waits for this replica's own view.
const appliedIn = 5 * time.Second

// judge asks the fleet about an entry that the log had in an epoch. A judgement
// during which another one began, or had to, is none.
func (k *Keeper) judge(ctx context.Context, e fleet.Entry, epoch uint64, wait time.Duration) fleet.Confirmation {
	applied, cancel := context.WithTimeout(ctx, appliedIn)
	defer cancel()
	if k.cfg.Ledger.WaitApplied(applied, e.At) != nil {
		return fleet.Confirmation{}
	}
	c := k.cfg.Fleet.Wait(ctx, e, wait)
	if c.Epoch != epoch || k.cfg.Ledger.Epoch() != epoch || k.cfg.Ledger.Ready() != nil {
		return fleet.Confirmation{}
	}
	return c
}
