// Package holds brings holds to their end. One that was made for a time is
// released then, or what it holds is revoked; one without an end is committed
// again at half the life of its entry, so that it does not end by itself.
//
// Every replica does all of it. What each commits is named by what it says, so
// that it stands in the log once, and names the positions of the holds that it
// is about: a newer hold is never undone. What could not be committed is tried
// again, also after a restart: what is held is read from the log.
package holds

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Log is what a Keeper needs of the ledger.
type Log interface {
	Ready() error
	View() *revoke.View
	EventAt(ctx context.Context, s wire.Stored) (ledger.Event, error)
	CommitHolds(ctx context.Context, o ledger.HoldOrder) error
}

// Config is what a Keeper can be told. The zero value is good.
type Config struct {
	Now func() time.Time // default time.Now
	Log *zap.Logger      // nil: none
	// From tells from where in the log on entries are of a tenant, and not of an earlier one
	// of its name; problem.NotFound: there is none of the name. nil: all are.
	From func(ctx context.Context, tenant string) (revoke.Stamp, error)
}

// retry is how long a round waits for what it has committed to be applied, or
// before it tries again what could not be committed.
const retry = time.Second

// Keeper is a ledger.Observer: register it before the ledger runs.
type Keeper struct {
	log Log
	cfg Config

	mu      sync.Mutex
	targets map[revoke.Key][]hold
	next    int64         // Unix milliseconds: nothing is due before
	sooner  chan struct{} // next has become earlier
}

// hold is one hold of a target.
type hold struct {
	first   revoke.Stamp // its position: that of its first copy
	copy    wire.Stored  // the copy that lives longest, without its targets
	settled bool         // nothing more is to be done at its time
}

// due returns when something is to be done, in Unix milliseconds: at the end of
// the hold, or at half the life of its entry.
func (h *hold) due() int64 {
	if end := h.copy.Message.HoldEnd; end != 0 {
		return end
	}
	return h.copy.Time + (h.copy.Message.Until*1000-h.copy.Time)/2
}

// New returns a Keeper of a log.
func New(log Log, cfg Config) *Keeper {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Keeper{log: log, cfg: cfg, targets: map[revoke.Key][]hold{}, sooner: make(chan struct{}, 1)}
}

// Restarted implements ledger.Observer.
func (k *Keeper) Restarted() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.targets)
}

// Applied implements ledger.Observer.
func (k *Keeper) Applied(s wire.Stored) {
	m := &s.Message
	if len(m.Hold)+len(m.Release) == 0 {
		return
	}
	bare := s
	bare.Message.Hold, bare.Message.First = nil, nil
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range m.Hold {
		h := hold{first: s.Position().Stamp, copy: bare}
		if first, again := m.First[key]; again {
			h.first = first
		}
		k.add(key, h)
		if due := h.due(); k.next == 0 || due < k.next {
			k.next = due
			select {
			case k.sooner <- struct{}{}:
			default:
			}
		}
	}
	for key, released := range m.Release {
		k.keep(key, slices.DeleteFunc(k.targets[key], func(h hold) bool { return !released.Less(h.first) }))
	}
}

func (k *Keeper) add(key revoke.Key, h hold) {
	hs := k.targets[key]
	for i := range hs {
		if hs[i].first == h.first {
			if hs[i].copy.Message.Until < h.copy.Message.Until {
				hs[i] = h
			}
			return
		}
	}
	k.targets[key] = append(hs, h)
}

func (k *Keeper) keep(key revoke.Key, hs []hold) {
	if len(hs) == 0 {
		delete(k.targets, key)
	} else {
		k.targets[key] = hs
	}
}

// Run acts until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	for {
		wait := retry
		if k.log.Ready() == nil {
			wait = min(k.round(ctx), time.Second) // the wall clock can be set meanwhile
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-k.sooner:
			t.Stop()
		case <-t.C:
		}
	}
}

// round does what is due, and returns for how long nothing more is.
func (k *Keeper) round(ctx context.Context) time.Duration {
	now := k.cfg.Now().UnixMilli()
	todo, next := k.plan(now)
	for _, o := range todo {
		if err := k.carryOut(ctx, o); err != nil && ctx.Err() == nil {
			k.cfg.Log.Warn("what comes at the end of a hold, or of its entry, could not be committed; trying again",
				zap.String("op", o.op), zap.Int("targets", len(o.holds)), zap.Error(err))
		}
	}
	switch {
	case len(todo) > 0:
		return retry
	case next == 0:
		return time.Hour
	}
	return time.Duration(next-now) * time.Millisecond
}
