package issuer_test

import (
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// The fakes stand for the log and the buckets where a test needs to lose an
// answer at an exact step, or to put something between two steps. The real ones
// are in package app's tests.

type outcome int

const (
	fine   outcome = iota
	failed         // it was not done, and said so
	lost           // it was done, and the answer did not come
)

// plan decides what becomes of the n-th write or commit.
type plan struct {
	mu    sync.Mutex
	n     int
	at    int // -1: nothing goes wrong
	what  outcome
	dead  bool // whoever meets it does nothing more
	died  bool
	steps []string
}

func (p *plan) next(name string) outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	p.steps = append(p.steps, name)
	if p.died {
		return failed
	}
	if p.n-1 == p.at {
		p.died = p.dead
		return p.what
	}
	return fine
}

var errGone = problem.New(problem.Unavailable, "no answer")

// fakeLog is the log, its reader and its committer in one.
type fakeLog struct {
	p        *plan
	mu       sync.Mutex
	view     *revoke.View
	seq      uint64
	known    uint64 // how far the reader has heard
	lag      bool   // the reader hears only at Fresh
	down     bool   // nothing can be committed
	answers  map[string]commit.Answer
	requests map[string]commit.Request
	pending  []func()
}

func newLog(p *plan) *fakeLog {
	l := &fakeLog{p: p, view: revoke.NewView(), seq: 10, known: 10, answers: map[string]commit.Answer{}, requests: map[string]commit.Request{}}
	l.view.MergeEpoch(revoke.Epoch{Number: 1})
	return l
}

func (l *fakeLog) Stamp() revoke.Stamp {
	l.mu.Lock()
	defer l.mu.Unlock()
	return revoke.Stamp{Epoch: 1, Seq: l.known}
}
func (l *fakeLog) Position() wire.Position       { return wire.Position{Stamp: l.Stamp()} }
func (l *fakeLog) View() *revoke.View            { return l.view }
func (l *fakeLog) Check() (time.Duration, error) { return 0, nil }
func (l *fakeLog) Fresh(context.Context) error   { l.hear(); return nil }
func (l *fakeLog) WaitFor(context.Context, revoke.Stamp) error {
	l.hear()
	return nil
}

func (l *fakeLog) hear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.pending {
		f()
	}
	l.pending, l.known = nil, l.seq
}

func (l *fakeLog) Commit(_ context.Context, r commit.Request) (commit.Answer, error) {
	what := fine
	if l.p != nil {
		what = l.p.next("commit")
	}
	if what == failed || l.down {
		return commit.Answer{}, errGone
	}
	a := l.store(r)
	if what == lost {
		return commit.Answer{}, problem.New(problem.UnknownOutcome, "no answer")
	}
	return a, nil
}

func (l *fakeLog) store(r commit.Request) commit.Answer {
	l.mu.Lock()
	if a, ok := l.answers[r.Key]; ok {
		l.mu.Unlock()
		return a
	}
	l.seq++
	a := commit.Answer{ID: r.Key, Epoch: 1, Sequence: l.seq}
	l.answers[r.Key], l.requests[r.Key] = a, r
	l.pending = append(l.pending, func() {
		for _, t := range r.Targets {
			target := revoke.Target{Tenant: r.Tenant, Issuer: revoke.Own, Kind: t.Kind, ID: t.ID}
			st := revoke.State{Cut: a.Stamp(), Until: 1 << 40}
			if t.Kind.Final() {
				st = revoke.State{Ended: true, Until: 1 << 40}
			}
			l.view.Merge(target.Key(), st)
		}
	})
	lag := l.lag
	l.mu.Unlock()
	if !lag {
		l.hear()
	}
	return a
}

// pass has the entries come to their end that need only outlive tokens.
func (l *fakeLog) pass() {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.view
	l.view = revoke.NewView()
	l.view.MergeEpoch(revoke.Epoch{Number: 1})
	for _, r := range l.requests {
		for _, t := range r.Targets {
			if k := (revoke.Target{Tenant: r.Tenant, Issuer: revoke.Own, Kind: t.Kind, ID: t.ID}).Key(); !r.Record {
				l.view.Merge(k, old.State(k))
			}
		}
	}
}

// fakeTable keeps records in memory.
type fakeTable[T any] struct {
	name   string
	p      *plan
	groups func(T) []string
	onGet  func()       // called before each read
	onNew  func()       // called before a record is made
	onWalk func()       // called before each record that a walk gives
	behind bool         // the copy has nothing yet
	old    map[string]T // what the copy has, if it is not what there is
	stale  bool         // it can't be brought up to date
	mu     sync.Mutex
	rows   map[string]T
}

func (t *fakeTable[T]) Load(_ context.Context, key string) (T, error) {
	if t.onGet != nil {
		t.onGet()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	v, ok := t.rows[key]
	if !ok {
		return v, problem.New(problem.NotFound, "there is no such record")
	}
	return v, nil
}

func (t *fakeTable[T]) Get(ctx context.Context, key string) (T, error) {
	if v, ok := t.old[key]; ok {
		return v, nil
	}
	return t.Load(ctx, key)
}

func (t *fakeTable[T]) write(name string, do func()) error {
	what := t.p.next(t.name + "." + name)
	if what == failed {
		return errGone
	}
	do()
	if what == lost {
		return errGone
	}
	return nil
}

func (t *fakeTable[T]) Create(ctx context.Context, key string, v T) error {
	if t.onNew != nil {
		t.onNew()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.rows[key]; ok {
		return problem.New(problem.Conflict, "it exists already")
	}
	return t.write("create", func() { t.rows[key] = v })
}

func (t *fakeTable[T]) Change(ctx context.Context, key string, fn func(T) (T, error)) (T, error) {
	cur, err := t.Load(ctx, key)
	if err != nil {
		return cur, err
	}
	next, err := fn(cur)
	if err != nil {
		return cur, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return next, t.write("change", func() { t.rows[key] = next })
}

func (t *fakeTable[T]) Remove(_ context.Context, key string, ok func(T) bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, there := t.rows[key]
	if !there || !ok(v) {
		return nil
	}
	return t.write("remove", func() { delete(t.rows, key) })
}

func (t *fakeTable[T]) All() iter.Seq2[string, T] {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.All(maps.Clone(t.rows))
}

func (t *fakeTable[T]) Walk(name string) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, v := range t.Group(name) {
			if t.onWalk != nil {
				t.onWalk()
			}
			if !yield(v) {
				return
			}
		}
	}
}

func (t *fakeTable[T]) Group(name string) []T {
	var out []T
	t.mu.Lock()
	behind := t.behind
	t.mu.Unlock()
	if behind {
		return nil
	}
	for _, v := range t.All() {
		for _, g := range t.groups(v) {
			if g == name {
				out = append(out, v)
			}
		}
	}
	return out
}

func (t *fakeTable[T]) Size(group string) int { return len(t.Group(group)) }

func (t *fakeTable[T]) Stored(_ context.Context, tenant string) (out []string, _ error) {
	for key := range t.All() {
		if strings.HasPrefix(key, tenant+".") {
			out = append(out, key)
		}
	}
	return out, nil
}

func (t *fakeTable[T]) Ready() error { return nil }

func (t *fakeTable[T]) Fresh(context.Context) error {
	if t.stale {
		return errGone
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.behind = false
	return nil
}

// Peek is of a copy that is never behind.
func (t *fakeTable[T]) Peek(key string) (T, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, ok := t.rows[key]
	return v, ok
}

type fakeSigner struct{ last *issuer.Claims }

func (f fakeSigner) Signer(context.Context, string) (issuer.Signer, error) { return f, nil }
func (fakeSigner) Gone(context.Context, string) error                      { return nil }
func (f fakeSigner) Sign(_ string, c jwt.Claims) (string, error) {
	if c, ok := c.(*issuer.Claims); ok && f.last != nil {
		*f.last = *c
	}
	return "token", nil
}

// bench is a Service on fakes.
type bench struct {
	*issuer.Service
	p          *plan
	log        *fakeLog
	principals *fakeTable[issuer.Principal]
	keys       *fakeTable[issuer.Key]
	clients    *fakeTable[issuer.Client]
	roles      *fakeTable[issuer.Role]
	bindings   *fakeTable[issuer.Binding]
	tenants    *fakeTable[issuer.Tenant]
	uses       *fakeTable[issuer.Use]
	deliveries *fakeTable[issuer.Delivery]
	due        []issuer.KeyDue
	told       []issuer.KeyExpiring
	rotations  []issuer.KeyRotated
	onTold     func()
	turn       chan struct{} // is empty while somebody has the turn

	presented issuer.Claims // what every token says
	signed    issuer.Claims // what the last token says that was made
	own       bool          // it is that token that is looked at
	blind     bool          // every token is taken
}

func (b *bench) Verify(context.Context, string) (issuer.Verified, error) {
	shown := b.presented
	if b.own {
		shown = b.signed
	}
	return issuer.Verified{Token: shown, Active: b.blind || !b.hit(shown)}, nil
}

func table[T any](p *plan, name string, groups func(T) []string) *fakeTable[T] {
	return &fakeTable[T]{name: name, p: p, groups: groups, rows: map[string]T{}}
}

func newBench(t testing.TB) *bench {
	t.Helper()
	p := &plan{at: -1}
	b := &bench{
		p: p, log: newLog(p), principals: table(p, "principals", issuer.PrincipalGroups), keys: table(p, "keys", issuer.KeyGroups), clients: table(p, "clients", issuer.ClientGroups),
		roles: table(p, "roles", issuer.RoleGroups), bindings: table(p, "bindings", issuer.BindingGroups),
		turn: make(chan struct{}, 1), tenants: table(p, "tenants", issuer.TenantGroups), uses: table(&plan{at: -1}, "uses", func(issuer.Use) []string { return nil }),
		deliveries: table(p, "deliveries", func(issuer.Delivery) []string { return nil }),
	}
	s, err := issuer.New(issuer.Config{Issuer: "https://quash.test", Tenant: "default"}, issuer.Deps{
		Store: &issuer.Store{Tenants: b.tenants, Principals: b.principals, Keys: b.keys, Clients: b.clients, Roles: b.roles, Bindings: b.bindings, Uses: b.uses, Deliveries: b.deliveries, Turn: b.turns},
		Expiring: func(_ context.Context, e issuer.KeyExpiring) error {
			b.told = append(b.told, e)
			if b.onTold != nil {
				b.onTold()
			}
			return nil
		},
		Due: func(_ context.Context, d issuer.KeyDue) error {
			b.due = append(b.due, d)
			return nil
		},
		Rotated: func(_ context.Context, r issuer.KeyRotated) error {
			b.keys.mu.Lock()
			defer b.keys.mu.Unlock()
			b.rotations = append(b.rotations, r)
			return nil
		},
		Reader: b.log, Committer: b.log, Signers: fakeSigner{&b.signed}, Verifier: b, Log: zap.NewNop(), Now: time.Now, Rand: rand.Reader,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Service = s
	b.turn <- struct{}{}
	return b
}

func (b *bench) turns(ctx context.Context, _ string) (done func(), err error) {
	select {
	case <-b.turn:
		return func() { b.turn <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func operator() issuer.Caller {
	return issuer.Caller{Actor: "olga", Tenant: "default", Scopes: rights.All()}
}

// hit reports whether a guard would refuse the token: by its claims' targets.
func (b *bench) hit(c issuer.Claims) bool {
	keys := c.Via
	for kind, id := range map[revoke.Kind]string{
		revoke.KindToken: c.ID, revoke.KindPrincipal: c.Subject, revoke.KindClient: c.ClientID,
		revoke.KindGrant: revoke.PairID(c.Subject, c.ClientID), revoke.KindTenant: c.Tenant, revoke.KindIssuer: revoke.Own,
	} {
		keys = append(keys, revoke.Target{Tenant: c.Tenant, Issuer: revoke.Own, Kind: kind, ID: id}.Key())
	}
	for _, k := range keys {
		if b.log.view.Hit(k, c.Stamp) {
			return true
		}
	}
	return false
}

var errTest = errors.New("test")
