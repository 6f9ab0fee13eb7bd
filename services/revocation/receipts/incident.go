package receipts

import (
	"container/heap"
	"context"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// Gathered is what was done under an incident.
type Gathered struct {
	List []Listed // oldest first
	More int      // how many are left out
	// Whole says that nothing is missing that the log had when it was asked for.
	Whole bool
}

// Under returns the receipts of what was done under an incident, the newest so many. It waits
// up to wait for those of what this replica has applied.
func (k *Keeper) Under(ctx context.Context, tenant, incident string, most int, wait time.Duration) Gathered {
	g := Gathered{Whole: k.settle(ctx, wait)}
	items, whole := k.index.under(tenant, incident)
	g.Whole = g.Whole && whole
	g.More = max(len(items)-most, 0)
	for _, it := range items[g.More:] {
		g.List = append(g.List, Listed{it.id, it.at.Epoch, it.at.Seq, it})
	}
	return g
}

// under returns the receipts of an incident, oldest first; false: not all are known yet.
func (x *index) under(tenant, incident string) ([]item, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	name := incidentOf(tenant, incident)
	// Those whose time has come are found here, and nowhere else: there are few.
	there := slices.DeleteFunc(x.incidents[name], func(it *item) bool {
		_, is := x.items.search(*it)
		return !is
	})
	if len(there) == 0 {
		delete(x.incidents, name)
		return nil, x.whole
	}
	x.incidents[name] = there
	out := make([]item, len(there))
	for i, it := range there {
		out[i] = *it
	}
	return out, x.whole
}

// settleEach spaces the looks at whether all is settled.
const settleEach = 10 * time.Millisecond

// settle waits until everything that this replica has applied by now has a receipt that the
// list knows of, and reports whether that is so.
func (k *Keeper) settle(ctx context.Context, wait time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	head := k.hurry()
	for !k.settled(head) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(settleEach):
		}
	}
	return true
}

// hurry makes what has no receipt yet due, and returns up to where that is.
func (k *Keeper) hurry() revoke.Stamp {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.cfg.Now()
	head := k.read
	for i := range k.queue {
		p := &k.queue[i]
		head = head.Max(p.stored.Position().Stamp)
		if p.owed && p.due.After(now) {
			p.due = now
		}
	}
	heap.Init(&k.queue)
	return head
}

func (k *Keeper) settled(head revoke.Stamp) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.again && !k.catching && !k.looking && !slices.ContainsFunc(k.queue, func(p pending) bool {
		return p.owed && !head.Less(p.stored.Position().Stamp)
	})
}
