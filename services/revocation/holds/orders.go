package holds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// order is what is to be committed about the holds of one entry.
type order struct {
	op    string
	copy  wire.Stored // the entry
	holds map[revoke.Key]revoke.Stamp
}

type orderKey struct {
	op  string
	seq uint64
	id  string
}

// plan returns what is due now, and when something more will be; 0: nothing is
// known of.
func (k *Keeper) plan(now int64) (todo []order, next int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.next == 0 || now < k.next {
		return nil, k.next
	}
	orders := map[orderKey]order{}
	view, epochs := k.log.View(), k.log.View().Epochs()
	later := func(due int64) {
		if next == 0 || due < next {
			next = due
		}
	}
	for key, hs := range k.targets {
		s := view.State(key)
		released := epochs.Clamp(s.Released)
		hs = slices.DeleteFunc(hs, func(h hold) bool {
			return s.Ended || !released.Less(h.first) || h.copy.Message.Until*1000 < now
		})
		k.keep(key, hs)
		for _, step := range steps(hs, s.Held, now) {
			id := orderKey{step.op, step.hold.copy.Sequence, step.hold.copy.Message.ID}
			o, ok := orders[id]
			if !ok {
				o = order{op: step.op, copy: step.hold.copy, holds: map[revoke.Key]revoke.Stamp{}}
				orders[id] = o
			}
			o.holds[key] = step.hold.first
			later(now + retry.Milliseconds())
		}
		for i := range hs {
			if due := hs[i].due(); due > now {
				later(due)
			}
		}
	}
	k.next = next
	for _, o := range orders {
		todo = append(todo, o)
	}
	return todo, next
}

type step struct {
	op   string
	hold *hold
}

// steps returns what is due for one target with these living holds, of which
// the view knows the newest.
func steps(hs []hold, newest revoke.Stamp, now int64) (out []step) {
	ended, last := true, (*hold)(nil)
	for i := range hs {
		h := &hs[i]
		if last == nil || last.first.Less(h.first) {
			last = h
		}
		m, due := &h.copy.Message, h.due() <= now
		switch {
		case m.HoldEnd == 0 && due && !h.settled:
			out = append(out, step{wire.OpHold, h})
		case m.HoldEnd != 0 && due && m.Then == wire.ThenRevoke && !h.settled:
			out = append(out, step{wire.OpEnd, h})
			ended = false // the release comes after the revocation
		}
		ended = ended && m.HoldEnd != 0 && due
	}
	// Only when all have ended; and a hold that has been committed, and is not in
	// the feed yet, may be one that goes on.
	if last != nil && ended && last.first == newest {
		out = append(out, step{wire.OpRelease, last})
	}
	return out
}

// owner is whose entry the one about a hold is: the tenant's, unless that has been deleted,
// and another has its name now or none. Then it is the installation's. What can't be told
// now keeps no hold from its end.
func (k *Keeper) owner(ctx context.Context, tenant string, at revoke.Stamp) string {
	if k.cfg.From == nil || tenant == "" {
		return tenant
	}
	from, err := k.cfg.From(ctx, tenant)
	if err != nil && problem.KindOf(err) == problem.NotFound || err == nil && at.Less(from) {
		return ""
	}
	return tenant
}

// carryOut commits an order.
func (k *Keeper) carryOut(ctx context.Context, o order) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	at := o.copy.Position().Stamp
	do := ledger.HoldOrder{Op: o.op, Holds: o.holds, Copy: at, Reason: reason(o)}
	switch ev, err := k.log.EventAt(ctx, o.copy); {
	case err == nil:
		do.Tenant = k.owner(ctx, ev.Data.Tenant, at)
		do.Known = known(ev)
	case !errors.Is(err, ledger.ErrNoMessage):
		return fmt.Errorf("read the hold at %s: %w", at, err)
	}
	if o.op == wire.OpHold {
		// What has a random id is dead before its entry ends; nothing new comes
		// under it.
		for key := range o.holds {
			if t, ok := do.Known[key]; ok && t.Kind.Final() {
				delete(o.holds, key)
				k.settle(key, at)
			}
		}
		if len(o.holds) == 0 {
			return nil
		}
	}
	if err := k.log.CommitHolds(ctx, do); err != nil {
		return err
	}
	if o.op == wire.OpEnd {
		for key := range o.holds {
			k.settle(key, at)
		}
	}
	return nil
}

// settle notes that nothing more is to be done about the copy of a hold.
func (k *Keeper) settle(key revoke.Key, at revoke.Stamp) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.targets[key] {
		if h := &k.targets[key][i]; h.copy.Position().Stamp == at {
			h.settled = true
		}
	}
}

// known returns the targets of an event by their keys.
func known(ev ledger.Event) map[revoke.Key]revoke.Target {
	out := map[revoke.Key]revoke.Target{}
	for _, t := range ev.Data.Targets {
		if target, err := revoke.NewTarget(ev.Data.Tenant, t.Issuer, t.Kind, t.ID); err == nil {
			out[target.Key()] = target
		}
	}
	return out
}

func reason(o order) string {
	switch at := o.copy.Position().Stamp; o.op {
	case wire.OpHold:
		return fmt.Sprintf("the hold at %s goes on", at)
	case wire.OpEnd:
		return fmt.Sprintf("the hold at %s has come to its end, and then revokes", at)
	default:
		return fmt.Sprintf("the hold at %s has come to its end", at)
	}
}
