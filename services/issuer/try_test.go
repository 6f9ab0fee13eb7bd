package issuer_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/problem"
)

// fakeTry is what is remembered of one request.
type fakeTry struct{ made, earlier string }

const seed = "0123456789ABCDEFGHIJKL"

func (*fakeTry) Seed() string      { return seed }
func (f *fakeTry) Earlier() string { return f.earlier }
func (f *fakeTry) next() *fakeTry  { return &fakeTry{made: f.made, earlier: f.made} }
func (f *fakeTry) Makes(_ context.Context, what string) error {
	f.made = what
	return nil
}

func by(t *fakeTry) issuer.Caller {
	c := operator()
	c.Try = t
	return c
}

// steps returns how many writes and commits do makes on a bench that set has prepared.
func steps(t *testing.T, set func(b *bench), do func(b *bench) error) int {
	t.Helper()
	b := newBench(t)
	set(b)
	before := b.p.n
	must(t, 0, do(b))
	return b.p.n - before
}

// TestAnotherTryMakesNoSecond lets each write of each creation fail, and be done
// without an answer, and tries again as the same request.
func TestAnotherTryMakesNoSecond(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(b *bench, c issuer.Caller) error
		made func(b *bench) int
	}{
		{"key", func(b *bench, c issuer.Caller) error {
			_, _, err := b.CreateKey(context.Background(), c, issuer.NewKey{Owner: "alice", Reason: "r"})
			return err
		}, func(b *bench) int { return len(b.keys.rows) }},
		{"client", func(b *bench, c issuer.Caller) error {
			_, _, _, err := b.CreateClient(context.Background(), c, issuer.NewClient{Name: "n", Grants: issuer.Grants(), Roles: []string{"clerk"}, Reason: "r"})
			return err
		}, func(b *bench) int { return len(b.clients.rows) }},
		{"role", func(b *bench, c issuer.Caller) error {
			return second(b.CreateRole(context.Background(), c, "new", []string{"a"}, "r"))
		}, func(b *bench) int { return len(b.roles.rows) - 1 }},
		{"principal", func(b *bench, c issuer.Caller) error {
			return second(b.CreatePrincipal(context.Background(), c, issuer.NewPrincipal{ID: "alice", Kind: issuer.Person, Reason: "r"}))
		}, func(b *bench) int { return len(b.principals.rows) }},
	} {
		set := func(b *bench) {
			must(t, 0, second(b.CreateRole(context.Background(), operator(), "clerk", []string{"a"}, "r")))
		}
		n := steps(t, set, func(b *bench) error { return c.make(b, operator()) })
		for step := range n {
			for _, what := range []outcome{failed, lost} {
				name := fmt.Sprintf("%s, step %d, outcome %d", c.name, step, what)
				b := newBench(t)
				set(b)
				b.p.at, b.p.what = b.p.n+step, what
				try := &fakeTry{}
				if err := c.make(b, by(try)); err == nil {
					t.Fatalf("%s: it did not notice", name)
				}
				try = try.next()
				err := c.make(b, by(try))
				if err != nil && problem.From(err).Existing == "" {
					t.Errorf("%s: another try: %v", name, err)
				}
				if got := c.made(b); got != 1 {
					t.Errorf("%s: %d were made", name, got)
				}
				err = c.make(b, by(try.next()))
				if c.name != "role" && c.name != "principal" && (err == nil || problem.From(err).Existing == "") {
					t.Errorf("%s: a third try: %v", name, err)
				}
				if got := c.made(b); got != 1 {
					t.Errorf("%s: a third try made another: %d", name, got)
				}
			}
		}
	}
}

// TestAnotherTryIsTheSameEnding: a try that goes on with what one before has marked is
// the same entry, also where the record must be as it was seen.
func TestAnotherTryIsTheSameEnding(t *testing.T) {
	unmarked := func(k issuer.Key) error {
		if k.Mark != nil {
			return problem.New(problem.Precondition, "it is another one")
		}
		return nil
	}
	synctest.Test(t, func(t *testing.T) {
		for step := range 3 {
			for _, what := range []outcome{failed, lost} {
				b := newBench(t)
				k, _, err := b.CreateKey(t.Context(), operator(), issuer.NewKey{Owner: "alice", Reason: "r"})
				must(t, 0, err)
				b.p.at, b.p.what = b.p.n+step, what
				first, firstErr := b.DeleteKey(t.Context(), by(&fakeTry{}), k.ID, "r", unmarked)
				again, err := b.DeleteKey(t.Context(), by(&fakeTry{}), k.ID, "r", unmarked)
				if err != nil && (firstErr != nil || problem.KindOf(err) != problem.NotFound) {
					t.Errorf("step %d, outcome %d: %v, then %v", step, what, firstErr, err)
				}
				if firstErr == nil && err == nil && first.Answer.ID != again.Answer.ID {
					t.Errorf("step %d, outcome %d: two entries: %v and %v", step, what, first.Answer, again.Answer)
				}
				if len(b.log.answers) != 1 || b.log.answers[seed].ID == "" {
					t.Errorf("step %d, outcome %d: entries %v, want one under the seed", step, what, b.log.answers)
				}
				if len(b.keys.rows) != 0 {
					t.Errorf("step %d, outcome %d: the record is still there", step, what)
				}
			}
		}
		// Somebody else's ending is another: the record is not what was seen.
		b := newBench(t)
		k, _, err := b.CreateKey(t.Context(), operator(), issuer.NewKey{Owner: "alice", Reason: "r"})
		must(t, 0, err)
		b.p.at, b.p.what = b.p.n+1, failed
		if _, err := b.DeleteKey(t.Context(), operator(), k.ID, "r"); err == nil {
			t.Fatal("the commit did not fail")
		}
		if _, err := b.DeleteKey(t.Context(), by(&fakeTry{}), k.ID, "r", unmarked); problem.KindOf(err) != problem.Precondition {
			t.Errorf("another one's ending: %v", err)
		}
	})
}

// rereading is a table whose every change loses its first answer and is read back, as
// that of the store does.
type rereading[T any] struct{ issuer.Table[T] }

func (r rereading[T]) Change(ctx context.Context, key string, fn func(T) (T, error)) (T, error) {
	if v, err := r.Table.Change(ctx, key, fn); err != nil {
		return v, err
	}
	return r.Table.Change(ctx, key, fn)
}

// TestAConditionIsNotHeldAgainstOwnWork: a change whose answer was lost meets what it
// has written itself.
func TestAConditionIsNotHeldAgainstOwnWork(t *testing.T) {
	b := newBench(t)
	s, err := issuer.New(issuer.Config{Issuer: "https://quash.test", Tenant: "default"}, issuer.Deps{
		Store: &issuer.Store{
			Tenants: b.tenants, Principals: b.principals, Keys: rereading[issuer.Key]{b.keys}, Clients: b.clients,
			Roles: rereading[issuer.Role]{b.roles}, Bindings: b.bindings,
		},
		Reader: b.log, Committer: b.log, Signers: fakeSigner{}, Log: zap.NewNop(), Now: time.Now, Rand: rand.Reader,
	})
	must(t, 0, err)
	ctx := t.Context()
	k, _, err := s.CreateKey(ctx, operator(), issuer.NewKey{Owner: "alice", Reason: "made"})
	must(t, 0, err)
	must(t, 0, second(s.CreateRole(ctx, operator(), "clerk", []string{"a"}, "made")))
	asMade := func(reason string) error {
		if reason != "made" {
			return problem.New(problem.Precondition, "it is another one")
		}
		return nil
	}
	key := func(k issuer.Key) error { return asMade(k.Meta.Reason) }
	role := func(r issuer.Role) error { return asMade(r.Meta.Reason) }
	must(t, 0, second(s.RenewKey(ctx, operator(), k.ID, "again", key)))
	must(t, 0, second(s.RenewRole(ctx, operator(), "clerk", "again", role)))
	must(t, 0, second(s.CreateRole(ctx, operator(), "porter", []string{"a"}, "made")))
	_, _, err = s.SetRole(ctx, operator(), "porter", []string{"a", "b"}, "more", role)
	must(t, 0, err)
	must(t, 0, second(s.CreateRole(ctx, operator(), "guest", []string{"a", "b"}, "made")))
	_, _, err = s.SetRole(ctx, operator(), "guest", []string{"a"}, "less", role)
	must(t, 0, err)
	if _, err := s.RenewKey(ctx, operator(), k.ID, "once more", key); problem.KindOf(err) != problem.Precondition {
		t.Errorf("after another change: %v", err)
	}
	if _, err := s.DeleteKey(ctx, operator(), k.ID, "r", key); problem.KindOf(err) != problem.Precondition {
		t.Errorf("after another change: %v", err)
	}
}
