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
}

// Targets returns its targets, readable.
func (h Happening) Targets() []string { return readable(h.Event) }

// Issuer returns the foreign issuer of its targets; empty: the tenant's own.
func (h Happening) Issuer() string { return issuerOf(h.Event) }

// Feed hands on what is stored to whoever watches. As a ledger.Observer it is
// told by the goroutine that applies the log, and blocks nobody.
type Feed struct {
	mu       sync.Mutex
	watchers map[chan wire.Stored]*bool // to whether one was missed
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
	for ch, missed := range f.watchers {
		select {
		case ch <- s:
		default:
			*missed = true
		}
	}
}

// Watch calls show for everything of the tenant that is stored from now on, and
// for what concerns all tenants, until ctx ends or show fails.
func (f *Feed) Watch(ctx context.Context, l *ledger.Ledger, tenant string, show func(Happening) error) error {
	ch, missed := make(chan wire.Stored, maxBehind), new(bool)
	f.mu.Lock()
	if f.watchers == nil {
		f.watchers = map[chan wire.Stored]*bool{}
	}
	f.watchers[ch] = missed
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.watchers, ch)
		f.mu.Unlock()
	}()
	for {
		var s wire.Stored
		select {
		case <-ctx.Done():
			return nil
		case s = <-ch:
		}
		if s.Message.At == 0 && s.Time == 0 {
			continue
		}
		h := Happening{At: s.Position().Stamp, Kind: s.Message.Kind, Stored: time.UnixMilli(s.Time)}
		if ev, err := l.EventAt(ctx, s); err == nil {
			h.Event = ev
		}
		if t := h.Event.Data.Tenant; t != "" && t != tenant {
			continue
		}
		f.mu.Lock()
		h.Missed, *missed = *missed, false
		f.mu.Unlock()
		if err := show(h); err != nil {
			return err
		}
	}
}
