package holds

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Held is a hold in effect.
type Held struct {
	Tenant string
	Issuer string
	Target string // kind:id, or only its key where no record names it
	At     time.Time
	Actor  string
	Reason string
	End    time.Time // zero: until it is released
	Then   string    // what comes then
}

// List returns the holds in effect, newest first, at most so many.
func (k *Keeper) List(ctx context.Context, limit int) ([]Held, error) {
	type one struct {
		key  revoke.Key
		hold hold
	}
	var all []one
	k.mu.Lock()
	for key, hs := range k.targets {
		for _, h := range hs {
			all = append(all, one{key, h})
		}
	}
	k.mu.Unlock()
	slices.SortFunc(all, func(a, b one) int {
		return cmp.Or(cmp.Compare(b.hold.copy.Sequence, a.hold.copy.Sequence), slices.Compare(a.key[:], b.key[:]))
	})
	out := []Held{}
	events := map[uint64]ledger.Event{} // one entry holds many targets
	for _, o := range all[:min(len(all), limit)] {
		ev, read := events[o.hold.copy.Sequence]
		if !read {
			var err error
			if ev, err = k.log.EventAt(ctx, o.hold.copy); err != nil {
				return nil, err
			}
			events[o.hold.copy.Sequence] = ev
		}
		out = append(out, describe(o.key, o.hold.copy, ev))
	}
	return out, nil
}

// Holding implements ledger.Holders.
func (k *Keeper) Holding(key revoke.Key) (out []ledger.LiveHold) {
	view := k.log.View()
	released := view.Epochs().Clamp(view.State(key).Released)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range k.targets[key] {
		if released.Less(h.first) {
			out = append(out, ledger.LiveHold{First: h.first, Copy: h.copy})
		}
	}
	return out
}

func describe(key revoke.Key, m wire.Stored, ev ledger.Event) Held {
	h := Held{
		Tenant: ev.Data.Tenant, Target: key.String(), At: time.UnixMilli(m.Message.At),
		Actor: ev.Data.Actor, Reason: ev.Data.Reason, Then: m.Message.Then,
	}
	if end := m.Message.HoldEnd; end != 0 {
		h.End = time.UnixMilli(end)
	}
	for _, t := range ev.Data.Targets {
		if x := (revoke.Target{Tenant: ev.Data.Tenant, Issuer: t.Issuer, Kind: t.Kind, ID: t.ID}); x.Key() == key {
			h.Issuer, h.Target = t.Issuer, x.String()
		}
	}
	return h
}
