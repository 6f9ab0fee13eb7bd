package receipts

import (
	"container/heap"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/guard/wire"
)

// pending is an entry that is looked at again.
type pending struct {
	stored   wire.Stored
	unplaced bool // its epoch is that of its publisher, which may not be that of its place
	reread   bool // from the log: it may be older than this process
	due      time.Time
	looks    int
	owed     bool // the list has no receipt of it that is known of
	raced    bool // another replica was about to write one
}

// queue is a heap of them by due.
type queue []pending

// Len implements heap.Interface, as the others do.
func (q queue) Len() int { return len(q) }

// Less implements heap.Interface.
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

// Swap implements heap.Interface.
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *queue) Push(x any) { *q = append(*q, x.(pending)) }

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = pending{}
	*q = old[:len(old)-1]
	return last
}

func (q *queue) add(p pending) { heap.Push(q, p) }

// drop takes out what is meant.
func (q *queue) drop(meant func(*pending) bool) {
	*q = slices.DeleteFunc(*q, func(p pending) bool { return meant(&p) })
	heap.Init(q)
}

// due takes out what is due, at most so many.
func (q *queue) due(now time.Time, most int) []pending {
	var out []pending
	for len(*q) > 0 && len(out) < most && !(*q)[0].due.After(now) {
		out = append(out, heap.Pop(q).(pending))
	}
	return out
}
