package schedule

import (
	"container/heap"
	"maps"
	"slices"
	"sync"
	"time"
)

// The states of a schedule, for those who count them.
const (
	Active  = "active"
	Paused  = "paused"
	Failing = "failing" // its last firing could not be done
	Deleted = "deleted"
)

// State is what becomes of it.
func (s *Schedule) State() string {
	switch {
	case s.DeletedAt != 0:
		return Deleted
	case s.Paused:
		return Paused
	case s.Last != nil && s.Last.Failed != "":
		return Failing
	}
	return Active
}

// When a record is looked at for other reasons than that it fires.
const (
	// takeOver is how long another replica has for what it has claimed.
	takeOver = 5 * time.Second
	// lookAgain is how often it is looked whether the age of something is still what it was,
	// and lookSoon, where nothing is known of it.
	lookAgain = time.Hour
	lookSoon  = time.Minute
	// keptDeleted is how long the record of a deleted schedule stays.
	keptDeleted = requestsLife
)

// wake is when a record is to be looked at, as it was at a moment; 0: not before it changes.
func (s *Schedule) wake(now time.Time) int64 {
	switch {
	case s.Claimed != nil:
		return s.Claimed.ClaimedAt + takeOver.Milliseconds()
	case s.DeletedAt != 0:
		return s.DeletedAt + keptDeleted.Milliseconds()
	case s.Paused:
		return 0
	case s.aged() && s.Next == nil:
		return now.Add(lookSoon).UnixMilli()
	case s.aged():
		return min(s.Next.At, now.Add(lookAgain).UnixMilli())
	case s.Next == nil:
		return 0
	}
	return s.Next.At
}

// entry is what is kept in memory of a schedule.
type entry struct {
	tenant, name string
	revision     uint64
	wake         int64 // as the record says
	next         int64 // when it fires, of one that is looked at more often; see lookAgain
	aged         bool
	at           int64 // by which it stands in the heap
	index        int   // there; -1: it does not
	busy         bool  // somebody works on it
	fails        uint8
	state        string
}

// queue holds all schedules by when they are to be looked at. It is safe for concurrent use.
type queue struct {
	mu     sync.Mutex
	of     map[string]map[string]*entry // by tenant and name
	heap   byTime
	states map[string]int
	kick   chan struct{} // holds one
}

func newQueue() *queue {
	return &queue{of: map[string]map[string]*entry{}, states: map[string]int{}, kick: make(chan struct{}, 1)}
}

// take takes a revision of a record; nil: it was removed.
func (q *queue) take(tenant, name string, revision uint64, s *Schedule, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.of[tenant][name]
	switch {
	case e != nil && e.revision >= revision:
		return
	case s == nil && e == nil:
		return
	case s == nil:
		q.forget(e)
		return
	case e == nil:
		e = &entry{tenant: tenant, name: name, index: -1}
		if q.of[tenant] == nil {
			q.of[tenant] = map[string]*entry{}
		}
		q.of[tenant][name] = e
	default:
		q.states[e.state]--
	}
	e.revision, e.wake, e.state = revision, s.wake(now), s.State()
	if e.aged, e.next = s.aged() && s.Claimed == nil && s.DeletedAt == 0 && !s.Paused, 0; s.Next != nil {
		e.next = s.Next.At
	}
	q.states[e.state]++
	if !e.busy {
		q.put(e, e.wake)
	}
}

// forget is called with the lock held.
func (q *queue) forget(e *entry) {
	q.put(e, 0)
	q.states[e.state]--
	if delete(q.of[e.tenant], e.name); len(q.of[e.tenant]) == 0 {
		delete(q.of, e.tenant)
	}
}

// put is called with the lock held.
func (q *queue) put(e *entry, at int64) {
	e.at = at
	switch {
	case at == 0 && e.index >= 0:
		heap.Remove(&q.heap, e.index)
	case at == 0:
	case e.index >= 0:
		heap.Fix(&q.heap, e.index)
	default:
		heap.Push(&q.heap, e)
	}
	if at != 0 && e.index == 0 {
		q.wakeUp()
	}
}

func (q *queue) wakeUp() {
	select {
	case q.kick <- struct{}{}:
	default:
	}
}

// next returns one that is to be looked at, and marks it as busy; nil: none is, and how long
// that stays so.
func (q *queue) next(now time.Time) (*entry, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.heap) == 0 {
		return nil, time.Hour
	}
	e := q.heap[0]
	if wait := time.UnixMilli(e.at).Sub(now); wait > 0 {
		return nil, wait
	}
	q.put(e, 0)
	e.busy = true
	return e, 0
}

// done gives one back at a moment, not to be looked at before another one unless its record
// changes.
func (q *queue) done(e *entry, failed bool, now, notBefore time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e.busy = false
	if failed {
		e.fails = min(e.fails+1, 10)
	} else {
		e.fails = 0
	}
	if q.of[e.tenant][e.name] != e || e.wake == 0 {
		return
	}
	if e.aged && e.wake <= now.UnixMilli() { // it was looked at, and nothing has changed
		e.wake = now.Add(lookSoon).UnixMilli()
		if e.next > now.UnixMilli() {
			e.wake = min(e.next, now.Add(lookAgain).UnixMilli())
		}
	}
	q.put(e, max(e.wake, notBefore.UnixMilli()))
}

// names returns the schedules of a tenant.
func (q *queue) names(tenant string) []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Collect(maps.Keys(q.of[tenant]))
}

// living returns those of a tenant that are not deleted, sorted.
func (q *queue) living(tenant string) []string {
	q.mu.Lock()
	names := make([]string, 0, len(q.of[tenant]))
	for name, e := range q.of[tenant] {
		if e.state != Deleted {
			names = append(names, name)
		}
	}
	q.mu.Unlock()
	slices.Sort(names)
	return names
}

// count returns how many are in each state.
func (q *queue) count() map[string]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return maps.Clone(q.states)
}

// byTime is a heap.
type byTime []*entry

func (h byTime) Len() int           { return len(h) }
func (h byTime) Less(i, j int) bool { return h[i].at < h[j].at }
func (h byTime) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *byTime) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *byTime) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	e.index = -1
	*h = old[:len(old)-1]
	return e
}
