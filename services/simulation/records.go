package simulation

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// records is the record store: what the replicas of the issuer share.
type records struct {
	w          *world
	tenants    *bucket[issuer.Tenant]
	principals *bucket[issuer.Principal]
	keys       *bucket[issuer.Key]
	clients    *bucket[issuer.Client]
	roles      *bucket[issuer.Role]
	bindings   *bucket[issuer.Binding]
	// troubled loses most of what is to finish an ending.
	troubled atomic.Bool
	// mute has no commit of an issuer reach anybody.
	mute atomic.Bool

	mu   sync.Mutex
	born map[revoke.Key]origin // of every record that ever had a stamp
}

// origin is when, in true time, a record got the stamp that it has, and the stamp:
// that was read before.
type origin struct {
	at    time.Time
	stamp revoke.Stamp
	role  bool
}

func newRecords(w *world) *records {
	s := &records{w: w, born: map[revoke.Key]origin{}}
	s.tenants = &bucket[issuer.Tenant]{s: s}
	s.principals = &bucket[issuer.Principal]{s: s, groups: issuer.PrincipalGroups, mark: func(p issuer.Principal) *endings.Mark { return p.Mark }}
	s.keys = &bucket[issuer.Key]{
		s: s, groups: issuer.KeyGroups, mark: func(k issuer.Key) *endings.Mark { return k.Mark },
		birth: func(k issuer.Key) (revoke.Target, revoke.Stamp) { return own(revoke.KindKey, k.ID), k.Stamp },
	}
	s.clients = &bucket[issuer.Client]{s: s, groups: issuer.ClientGroups, mark: func(c issuer.Client) *endings.Mark { return c.Mark }}
	s.roles = &bucket[issuer.Role]{
		s: s, groups: issuer.RoleGroups, mark: func(r issuer.Role) *endings.Mark { return r.Mark },
		birth: func(r issuer.Role) (revoke.Target, revoke.Stamp) { return issuer.RoleTarget(&r), r.Stamp },
	}
	s.bindings = &bucket[issuer.Binding]{
		s: s, groups: issuer.BindingGroups, mark: func(b issuer.Binding) *endings.Mark { return b.Mark },
		birth: func(b issuer.Binding) (revoke.Target, revoke.Stamp) { return issuer.BindingTarget(&b), b.Stamp },
	}
	return s
}

// marked names the records that are marked.
func (s *records) marked() []string {
	return slices.Concat(markedIn("principal", s.principals), markedIn("key", s.keys), markedIn("client", s.clients), markedIn("role", s.roles), markedIn("binding", s.bindings))
}

func markedIn[T any](kind string, b *bucket[T]) (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(b.rows)) {
		if m := b.mark(b.rows[key].v); m != nil {
			out = append(out, fmt.Sprintf("%s/%s since %s", kind, key, clock(m.At)))
		}
	}
	return out
}

// keyIDs returns the ids of all keys that there are.
func (s *records) keyIDs() (out []string) {
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(s.keys.rows)) {
		out = append(out, s.keys.rows[key].v.ID)
	}
	return out
}

// origin tells of a target when the record behind it got its stamp; ok is false if
// there never was one.
func (s *records) origin(k revoke.Key) (o origin, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok = s.born[k]
	return o, ok
}

func (s *records) stamped(t revoke.Target, stamp revoke.Stamp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := t.Key(); s.born[k].stamp != stamp {
		s.born[k] = origin{time.Now(), stamp, t.Kind == revoke.KindRole}
	}
}

// bucket has the records of one kind, and all that was ever written.
type bucket[T any] struct {
	s      *records
	groups func(T) []string
	mark   func(T) *endings.Mark
	birth  func(T) (revoke.Target, revoke.Stamp) // nil: it has no stamp

	mu   sync.Mutex
	rows map[string]row[T]
	log  []change[T]
}

type row[T any] struct {
	v   T
	rev uint64
}

type change[T any] struct {
	key  string
	v    T
	gone bool
	at   time.Time
}

var errRace = errors.New("simulated: somebody wrote in between")

// put writes over a revision, 0 for none; gone removes the record.
func (b *bucket[T]) put(key string, v T, rev uint64, gone bool) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rows[key].rev != rev {
		return 0, errRace
	}
	b.log = append(b.log, change[T]{key, v, gone, time.Now()})
	next := uint64(len(b.log))
	if gone {
		delete(b.rows, key)
		return next, nil
	}
	if b.rows == nil {
		b.rows = map[string]row[T]{}
	}
	b.rows[key] = row[T]{v, next}
	if b.birth != nil {
		b.s.stamped(b.birth(v))
	}
	return next, nil
}

func (b *bucket[T]) get(key string) (row[T], bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.rows[key]
	return r, ok
}

func (b *bucket[T]) isMarked(key string) bool {
	r, ok := b.get(key)
	return ok && b.mark != nil && b.mark(r.v) != nil
}

// head is how much was ever written.
func (b *bucket[T]) head() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return uint64(len(b.log))
}

// after returns what was written after the first n.
func (b *bucket[T]) after(n int) []change[T] {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log[n:]
}

// table is a bucket as one replica of the issuer sees it: an issuer.Table. It asks
// again after lost answers as the real one does.
type table[T any] struct {
	b *bucket[T]
	p *process
	watched[T]
}

const (
	answerIn    = 3 * time.Second
	readTries   = 3
	changeTries = 20
	seenIn      = time.Second
)

var errNoAnswer = problem.New(problem.Unavailable, "simulated: the record store does not answer")

func errNone() error { return problem.New(problem.NotFound, "there is no such record") }

func (t *table[T]) load(ctx context.Context, key string) (row[T], error) {
	err := error(errNoAnswer)
	for try := 0; try < readTries && err != nil && ctx.Err() == nil; try++ {
		var r row[T]
		var ok bool
		err = t.p.question(ctx, false, func() error { r, ok = t.b.get(key); return nil })
		if err == nil && !ok {
			return r, errNone()
		}
		if err == nil {
			return r, nil
		}
	}
	return row[T]{}, err
}

// Load implements issuer.Table.
func (t *table[T]) Load(ctx context.Context, key string) (T, error) {
	r, err := t.load(ctx, key)
	return r.v, err
}

// Get implements issuer.Table. A process is slow now and then, before it reads and
// after.
func (t *table[T]) Get(ctx context.Context, key string) (T, error) {
	t.p.dawdle()
	t.arrive()
	v, ok := t.row(key)
	t.p.dawdle()
	if ok {
		return v, nil
	}
	return t.Load(ctx, key)
}

// Peek implements issuer.Table.
func (t *table[T]) Peek(key string) (T, bool) {
	t.arrive()
	return t.row(key)
}

func (t *table[T]) write(ctx context.Context, key string, v T, rev uint64, gone bool) (next uint64, err error) {
	err = t.p.question(ctx, t.b.isMarked(key), func() (err error) { next, err = t.b.put(key, v, rev, gone); return err })
	return next, err
}

// Create implements issuer.Table.
func (t *table[T]) Create(ctx context.Context, key string, v T) error {
	rev, err := t.write(ctx, key, v, 0, false)
	if err != nil {
		r, readErr := t.load(ctx, key)
		switch {
		case readErr == nil && reflect.DeepEqual(r.v, v):
			rev = r.rev
		case readErr == nil:
			return problem.Wrap(problem.Conflict, err, "it exists already")
		default:
			return errNoAnswer
		}
	}
	t.await(ctx, rev)
	return nil
}

// Change implements issuer.Table.
func (t *table[T]) Change(ctx context.Context, key string, fn func(T) (T, error)) (T, error) {
	var zero T
	for try := 0; try < changeTries && ctx.Err() == nil; try++ {
		r, err := t.load(ctx, key)
		if err != nil {
			return zero, err
		}
		next, err := fn(r.v)
		if err != nil {
			return zero, err
		}
		rev, err := t.write(ctx, key, next, r.rev, false)
		if err == nil {
			t.await(ctx, rev)
			return next, nil
		}
	}
	return zero, errNoAnswer
}

// Remove implements issuer.Table.
func (t *table[T]) Remove(ctx context.Context, key string, ok func(T) bool) error {
	for try := 0; try < changeTries && ctx.Err() == nil; try++ {
		r, err := t.load(ctx, key)
		if problem.KindOf(err) == problem.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		if !ok(r.v) {
			return nil
		}
		rev, err := t.write(ctx, key, r.v, r.rev, true)
		if err == nil {
			t.await(ctx, rev)
			return nil
		}
	}
	return errNoAnswer
}

// await waits a short while until a write is in the own copy, and reports whether it is.
func (t *table[T]) await(ctx context.Context, rev uint64) bool {
	for end := time.Now().Add(seenIn); t.arrive() < int(rev); { //nolint:gosec // a count
		if !time.Now().Before(end) || !pause(ctx, 20*time.Millisecond) {
			return false
		}
	}
	return true
}

// Fresh implements issuer.Table.
func (t *table[T]) Fresh(ctx context.Context) error {
	var head uint64
	if err := t.p.question(ctx, false, func() error { head = t.b.head(); return nil }); err != nil {
		return err
	}
	if !t.await(ctx, head) {
		return errNoAnswer
	}
	return nil
}

// All implements issuer.Table.
func (t *table[T]) All() iter.Seq2[string, T] {
	t.arrive()
	t.mu.Lock()
	rows := maps.Clone(t.rows)
	t.mu.Unlock()
	return func(yield func(string, T) bool) {
		for _, key := range slices.Sorted(maps.Keys(rows)) {
			if !yield(key, rows[key]) {
				return
			}
		}
	}
}

// Walk implements issuer.Table.
func (t *table[T]) Walk(group string) iter.Seq[T] { return slices.Values(t.Group(group)) }

// Group implements issuer.Table.
func (t *table[T]) Group(name string) []T {
	t.p.dawdle()
	t.arrive()
	out := t.group(name)
	t.p.dawdle()
	return out
}

// Size implements issuer.Table.
func (t *table[T]) Size(group string) int { return len(t.Group(group)) }

// Stored implements issuer.Table.
func (t *table[T]) Stored(context.Context, string) ([]string, error) {
	return nil, errors.New("no tenant is deleted here")
}

// Ready implements issuer.Table.
func (t *table[T]) Ready() error {
	t.arrive()
	return t.ready()
}

func (t *table[T]) arrive() int { return t.watched.arrive(t.b, t.p) }
