package kvstore

import (
	"context"
	"iter"
	"sync"
	"time"
)

// replica is the copy of a bucket. The watch owns it; everyone reads it.
type replica[T any] struct {
	groupsOf func(T) []string

	mu      sync.RWMutex
	records map[string]held[T]
	groups  map[string]map[string]struct{} // keys of records
	seen    uint64                         // newest revision of the bucket that was applied
	changed chan struct{}                  // closed and replaced at each one
}

type held[T any] struct {
	v   T
	rev uint64
}

func newReplica[T any](groupsOf func(T) []string) *replica[T] {
	r := &replica[T]{groupsOf: groupsOf, changed: make(chan struct{})}
	r.reset()
	return r
}

func (r *replica[T]) reset() {
	r.records, r.groups = map[string]held[T]{}, map[string]map[string]struct{}{}
}

func (r *replica[T]) get(key string) (T, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	h, ok := r.records[key]
	return h.v, ok
}

// all goes over what there was when it began.
func (r *replica[T]) all() iter.Seq2[string, T] {
	type pair struct {
		key string
		v   T
	}
	r.mu.RLock()
	pairs := make([]pair, 0, len(r.records))
	for k, h := range r.records {
		pairs = append(pairs, pair{k, h.v})
	}
	r.mu.RUnlock()
	return func(yield func(string, T) bool) {
		for _, p := range pairs {
			if !yield(p.key, p.v) {
				return
			}
		}
	}
}

func (r *replica[T]) size(group string) int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.groups[group])
}

func (r *replica[T]) group(name string) []T {
	r.mu.RLock()
	defer r.mu.RUnlock()
	keys := r.groups[name]
	if len(keys) == 0 {
		return nil
	}
	out := make([]T, 0, len(keys))
	for k := range keys {
		out = append(out, r.records[k].v)
	}
	return out
}

// walk gives the records of a group one by one. Only their names are copied, so that a
// million of them neither hold up the watch nor take memory twice.
func (r *replica[T]) walk(name string) iter.Seq[T] {
	return func(yield func(T) bool) {
		r.mu.RLock()
		keys := make([]string, 0, len(r.groups[name]))
		for k := range r.groups[name] {
			keys = append(keys, k)
		}
		r.mu.RUnlock()
		for _, k := range keys {
			if v, ok := r.get(k); ok && !yield(v) {
				return
			}
		}
	}
}

// put takes a revision of a record, in the order of the watch.
func (r *replica[T]) put(key string, v T, rev uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unlink(key)
	r.records[key] = held[T]{v, rev}
	if r.groupsOf != nil {
		for _, g := range r.groupsOf(v) {
			if r.groups[g] == nil {
				r.groups[g] = map[string]struct{}{}
			}
			r.groups[g][key] = struct{}{}
		}
	}
	r.applied(rev)
}

// drop forgets a record.
func (r *replica[T]) drop(key string, rev uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unlink(key)
	delete(r.records, key)
	r.applied(rev)
}

// pass notes a revision that is no record's.
func (r *replica[T]) pass(rev uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.applied(rev)
}

func (r *replica[T]) unlink(key string) {
	h, ok := r.records[key]
	if !ok || r.groupsOf == nil {
		return
	}
	for _, g := range r.groupsOf(h.v) {
		delete(r.groups[g], key)
		if len(r.groups[g]) == 0 {
			delete(r.groups, g)
		}
	}
}

func (r *replica[T]) applied(rev uint64) {
	r.seen = rev
	close(r.changed)
	r.changed = make(chan struct{})
}

// take puts a new copy in the place of this one: a watch that was started again
// does not tell what vanished meanwhile.
func (r *replica[T]) take(o *replica[T]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records, r.groups = o.records, o.groups
	r.applied(o.seen)
}

// await waits until a revision has been applied, at most for d, and reports whether it was.
// After a write it is a courtesy to whoever reads next: nothing depends on it.
func (r *replica[T]) await(ctx context.Context, rev uint64, d time.Duration) bool {
	return r.wait(ctx, d, func() bool { return r.seen >= rev })
}

// awaitGone waits until the record of that revision is gone or another.
func (r *replica[T]) awaitGone(ctx context.Context, key string, rev uint64, d time.Duration) {
	r.wait(ctx, d, func() bool { h, ok := r.records[key]; return !ok || h.rev > rev })
}

func (r *replica[T]) wait(ctx context.Context, d time.Duration, done func() bool) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		r.mu.RLock()
		ok, changed := done(), r.changed
		r.mu.RUnlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
