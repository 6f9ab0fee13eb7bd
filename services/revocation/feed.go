package revocation

import (
	"context"
	"sync"
	"time"

	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// maxBehind is how many messages a watcher may be behind before it is told that
// it has missed some.
const maxBehind = 1024

// Happening is one message of the log as a person reads it.
type Happening struct {
	At     revoke.Stamp
	Kind   string
	Event  ledger.Event
	Stored time.Time
	Missed bool // some before it were not shown: the watcher was too slow
	// Attempt is set for what is no message of the log: the first attempt with what the
	// entry at At has cut.
	Attempt *Attempt
}

// KindAttempt is the kind of a Happening that is an attempt.
const KindAttempt = "attempt"

// Attempt is one with what was cut.
type Attempt struct {
	Receipt, Tenant, Target, Network string
	Server, Instance                 string
	Committed                        time.Time // the entry
}

// Watcher is who watches.
type Watcher struct {
	Tenant string
	Since  time.Time // what was committed before is of an earlier tenant of that name
	All    bool      // also what concerns every tenant: epochs, who joins
}

// sees says whether what is of a tenant is theirs. The log is read from its beginning where
// it went back, so that a watcher may be told of what was long before.
func (w Watcher) sees(tenant string, committed time.Time) bool {
	return tenant == w.Tenant && !committed.Before(w.Since) || tenant == "" && w.All
}

// Targets returns its targets, readable.
func (h Happening) Targets() []string { return readable(h.Event) }

// Issuer returns the foreign issuer of its targets; empty: the tenant's own.
func (h Happening) Issuer() string { return issuerOf(h.Event) }

// Feed hands on what is stored to whoever watches. As a ledger.Observer it is
// told by the goroutine that applies the log, and blocks nobody.
type Feed struct {
	mu       sync.Mutex
	watchers map[chan wire.Stored]*watcher
}

type watcher struct {
	told   chan Happening // what is no message of the log
	missed bool           // one of either
}

// Restarted implements ledger.Observer.
func (f *Feed) Restarted() {}

// Applied implements ledger.Observer.
func (f *Feed) Applied(s wire.Stored) {
	if s.Message.Kind == wire.KindTick {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for ch, w := range f.watchers {
		select {
		case ch <- s:
		default:
			w.missed = true
		}
	}
}

// Tell hands on an attempt.
func (f *Feed) Tell(h Happening) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.watchers {
		select {
		case w.told <- h:
		default:
			w.missed = true
		}
	}
}

// attempt returns an attempt as a watcher may see it. Guards serve all tenants: their
// names are for those who see everything.
func (h Happening) attempt(who Watcher) (Happening, bool) {
	a := *h.Attempt
	if !who.All {
		a.Server = ""
	}
	h.Attempt = &a
	return h, who.sees(a.Tenant, a.Committed)
}

// Watch calls show for everything that is stored from now on and theirs to see, until ctx
// ends or show fails.
func (f *Feed) Watch(ctx context.Context, l *ledger.Ledger, who Watcher, show func(Happening) error) error {
	ch, w := make(chan wire.Stored, maxBehind), &watcher{told: make(chan Happening, maxBehind)}
	f.mu.Lock()
	if f.watchers == nil {
		f.watchers = map[chan wire.Stored]*watcher{}
	}
	f.watchers[ch] = w
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.watchers, ch)
		f.mu.Unlock()
	}()
	for {
		var s wire.Stored
		var h Happening
		select {
		case <-ctx.Done():
			return nil
		case s = <-ch:
		case h = <-w.told:
			var ok bool
			if h, ok = h.attempt(who); ok {
				if err := f.show(w, h, show); err != nil {
					return err
				}
			}
			continue
		}
		if s.Message.At == 0 && s.Time == 0 {
			continue
		}
		h = Happening{At: s.Position().Stamp, Kind: s.Message.Kind, Stored: time.UnixMilli(s.Time)}
		if ev, err := l.EventAt(ctx, s); err == nil {
			h.Event = ev
		}
		if h.Event.Data.Canary() {
			continue // it is of nobody, and every few seconds
		}
		if !who.sees(h.Event.Data.Tenant, h.Stored) {
			continue
		}
		if err := f.show(w, h, show); err != nil {
			return err
		}
	}
}

func (f *Feed) show(w *watcher, h Happening, show func(Happening) error) error {
	f.mu.Lock()
	h.Missed, w.missed = w.missed, false
	f.mu.Unlock()
	return show(h)
}
