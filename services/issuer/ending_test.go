package issuer_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/problem"
)

// An ending under test: what there is before, the request, and whether the
// record is as it was.
type endingCase struct {
	name   string
	set    func(t *testing.T, b *bench) (token issuer.Claims, do func(context.Context) error)
	intact func(b *bench) bool
	done   func(b *bench) bool
}

func must[T any](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// keyWithRole makes an API key with a role of its owner's and a token from it.
func keyWithRole(t *testing.T, b *bench) (issuer.Key, issuer.Claims) {
	t.Helper()
	ctx, c := t.Context(), operator()
	must(t, 0, second(b.CreateRole(ctx, c, "clerk", []string{"a", "b"}, "test")))
	must(t, 0, second(b.Bind(ctx, c, issuer.NewBinding{Subject: "alice", Role: "clerk", Reason: "test"})))
	k, secret, err := b.CreateKey(ctx, c, issuer.NewKey{Owner: "alice", OwnerRoles: true, Reason: "test"})
	must(t, 0, err)
	tok, err := b.Exchange(ctx, issuer.TokenRequest{APIKey: secret.Reveal()})
	must(t, 0, err)
	if len(tok.Claims.Via) != 3 {
		t.Fatalf("via = %v", tok.Claims.Via)
	}
	return k, tok.Claims
}

func second[T any](_ T, err error) error { return err }

func newAlice(t *testing.T, b *bench) {
	t.Helper()
	must(t, 0, second(b.CreatePrincipal(t.Context(), operator(), issuer.NewPrincipal{ID: "alice", Kind: issuer.Person, Reason: "test"})))
}

func endingCases() []endingCase {
	hasMark := func(b *bench) bool {
		for _, p := range b.principals.rows {
			if p.Mark != nil {
				return true
			}
		}
		for _, k := range b.keys.rows {
			if k.Mark != nil {
				return true
			}
		}
		for _, c := range b.clients.rows {
			if c.Mark != nil {
				return true
			}
		}
		for _, r := range b.roles.rows {
			if r.Mark != nil {
				return true
			}
		}
		for _, x := range b.bindings.rows {
			if x.Mark != nil {
				return true
			}
		}
		return false
	}
	count := func(keys, clients, roles, bindings int) func(*bench) bool {
		return func(b *bench) bool {
			return !hasMark(b) && len(b.keys.rows) == keys && len(b.clients.rows) == clients && len(b.roles.rows) == roles && len(b.bindings.rows) == bindings
		}
	}
	principals := func(n int) func(*bench) bool { return func(b *bench) bool { return len(b.principals.rows) == n } }
	both := func(one, other func(*bench) bool) func(*bench) bool {
		return func(b *bench) bool { return one(b) && other(b) }
	}
	return []endingCase{
		{"delete key", func(t *testing.T, b *bench) (issuer.Claims, func(context.Context) error) {
			k, c := keyWithRole(t, b)
			return c, func(ctx context.Context) error { return second(b.DeleteKey(ctx, operator(), k.ID, "test")) }
		}, count(1, 0, 1, 1), count(0, 0, 1, 1)},
		{"unbind", func(t *testing.T, b *bench) (issuer.Claims, func(context.Context) error) {
			_, c := keyWithRole(t, b)
			return c, func(ctx context.Context) error { return second(b.Unbind(ctx, operator(), "alice", "clerk", "test")) }
		}, count(1, 0, 1, 1), count(1, 0, 1, 0)},
		{"delete role", func(t *testing.T, b *bench) (issuer.Claims, func(context.Context) error) {
			_, c := keyWithRole(t, b)
			return c, func(ctx context.Context) error { return second(b.DeleteRole(ctx, operator(), "clerk", "test")) }
		}, count(1, 0, 1, 1), count(1, 0, 0, 0)},
		{"narrow role", func(t *testing.T, b *bench) (issuer.Claims, func(context.Context) error) {
			_, c := keyWithRole(t, b)
			return c, func(ctx context.Context) error {
				_, _, err := b.SetRole(ctx, operator(), "clerk", []string{"a"}, "test")
				return err
			}
		}, func(b *bench) bool {
			r := b.roles.rows[issuer.RoleKey("default", "clerk")]
			return !hasMark(b) && slices.Equal(r.Scopes, []string{"a", "b"})
		}, func(b *bench) bool {
			r := b.roles.rows[issuer.RoleKey("default", "clerk")]
			return !hasMark(b) && slices.Equal(r.Scopes, []string{"a"})
		}},
		{"delete client", func(t *testing.T, b *bench) (issuer.Claims, func(context.Context) error) {
			ctx, c := t.Context(), operator()
			must(t, 0, second(b.CreateRole(ctx, c, "clerk", []string{"a"}, "test")))
			cl, _, secret, err := b.CreateClient(ctx, c, issuer.NewClient{
				Name: "x", Grants: issuer.Grants(), Scopes: []string{"b"}, Roles: []string{"clerk"}, Reason: "test",
			})
			must(t, 0, err)
			tok, err := b.ClientCredentials(ctx, issuer.TokenRequest{Client: issuer.ClientAuth{ID: cl.ID, Secret: secret.Reveal()}})
			must(t, 0, err)
			return tok.Claims, func(ctx context.Context) error { return second(b.DeleteClient(ctx, c, cl.ID, "test")) }
		}, count(1, 1, 1, 1), count(0, 0, 1, 0)},
		{"delete principal", func(t *testing.T, b *bench) (issuer.Claims, func(context.Context) error) {
			k, c := keyWithRole(t, b)
			newAlice(t, b)
			// What another key of the principal has of its own goes with that key.
			must(t, 0, second(b.Bind(t.Context(), operator(), issuer.NewBinding{Subject: issuer.KeyClientPrefix + k.ID, Role: "clerk", Reason: "test"})))
			return c, func(ctx context.Context) error { return second(b.DeletePrincipal(ctx, operator(), "alice", "test")) }
		}, both(count(1, 0, 1, 2), principals(1)), both(count(0, 0, 1, 0), principals(0))},
	}
}

// TestLostAnswerAtEachStep lets each write and each commit of each ending fail,
// and be done without an answer. Whatever happened: a success means that tokens
// are dead, nothing is removed that was not revoked, and after a sweep nothing is
// half done.
func TestLostAnswerAtEachStep(t *testing.T) {
	for _, tc := range endingCases() {
		t.Run(tc.name, func(t *testing.T) {
			var steps int
			synctest.Test(t, func(t *testing.T) { steps = runEnding(t, tc, -1, fine) })
			if steps < 3 {
				t.Fatalf("only %d steps were seen", steps)
			}
			for at := range steps {
				for _, what := range []outcome{failed, lost} {
					t.Run(fmt.Sprintf("step=%d/lost=%v", at, what == lost), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { runEnding(t, tc, at, what) })
					})
				}
			}
		})
	}
}

func runEnding(t *testing.T, tc endingCase, at int, what outcome) (steps int) {
	b := newBench(t)
	token, do := tc.set(t, b)
	if !tc.intact(b) || b.hit(token) {
		t.Fatal("the test begins wrong")
	}
	b.p.n, b.p.steps, b.p.at, b.p.what = 0, nil, at, what
	err := do(t.Context())
	steps = len(b.p.steps)
	b.p.at = -1
	committed := len(b.log.answers) > 0
	switch {
	case err == nil && !b.hit(token):
		t.Errorf("success after %v, and the token lives", b.p.steps)
	case tc.done(b) && !committed:
		t.Errorf("after %v the record is gone and nothing was revoked", b.p.steps)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { _ = b.Run(ctx) }()
	time.Sleep(30 * time.Second) // the bubble's clock
	cancel()
	synctest.Wait()
	switch {
	case tc.intact(b) && len(b.log.answers) == 0 && err != nil: // nothing has happened, and that was said
	case tc.done(b) && len(b.log.answers) == 1 && b.hit(token):
	default:
		t.Errorf("after %v and a sweep: %d entries, token hit %v, intact %v, done %v", b.p.steps, len(b.log.answers), b.hit(token), tc.intact(b), tc.done(b))
	}
	if err := do(t.Context()); err != nil && problem.KindOf(err) != problem.NotFound {
		t.Errorf("the request again: %v", err)
	}
	if !tc.done(b) || !b.hit(token) {
		t.Errorf("the request again did not do it")
	}
	return steps
}

// TestNothingIsIssuedFromWhatIsEnding: between mark and finish a key gives
// nothing, and a role or binding makes the caller wait.
func TestNothingIsIssuedFromWhatIsEnding(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(b *bench, k issuer.Key) error
		want problem.Kind
		code string
	}{
		{"key", func(b *bench, k issuer.Key) error { return second(b.DeleteKey(t.Context(), operator(), k.ID, "test")) }, problem.Internal, issuer.CodeInvalidRequest},
		{"role", func(b *bench, _ issuer.Key) error {
			return second(b.DeleteRole(t.Context(), operator(), "clerk", "test"))
		}, problem.Unavailable, ""},
		{"binding", func(b *bench, _ issuer.Key) error {
			return second(b.Unbind(t.Context(), operator(), "alice", "clerk", "test"))
		}, problem.Unavailable, ""},
		{"principal", func(b *bench, _ issuer.Key) error {
			return second(b.DeletePrincipal(t.Context(), operator(), "alice", "test"))
		}, problem.Internal, issuer.CodeInvalidRequest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t)
			ctx, c := t.Context(), operator()
			must(t, 0, second(b.CreateRole(ctx, c, "clerk", []string{"a", "b"}, "test")))
			must(t, 0, second(b.Bind(ctx, c, issuer.NewBinding{Subject: "alice", Role: "clerk", Reason: "test"})))
			k, secret, err := b.CreateKey(ctx, c, issuer.NewKey{Owner: "alice", OwnerRoles: true, Reason: "test"})
			must(t, 0, err)
			newAlice(t, b)
			b.p.n, b.p.at, b.p.what = 0, 1, failed // the mark is set, the commit fails
			if err := tc.end(b, k); err == nil {
				t.Fatal("the commit did not fail")
			}
			_, err = b.Exchange(ctx, issuer.TokenRequest{APIKey: secret.Reveal()})
			if code := codeOf(err); err == nil || code != tc.code || problem.KindOf(err) != tc.want {
				t.Errorf("exchange: %v", err)
			}
		})
	}
}

// TestFinishRemovesWhatTheMarkNames: a replica goes on with the end of a client,
// and its copies do not have the client's secret and binding yet.
func TestFinishRemovesWhatTheMarkNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, c := t.Context(), operator()
		must(t, 0, second(b.CreateRole(ctx, c, "clerk", []string{"a"}, "test")))
		cl, _, _, err := b.CreateClient(ctx, c, issuer.NewClient{Name: "x", Grants: issuer.Grants(), Roles: []string{"clerk"}, Reason: "test"})
		must(t, 0, err)
		b.p.n, b.p.at, b.p.what = 0, 1, failed // the mark is set, the commit fails
		if _, err := b.DeleteClient(ctx, c, cl.ID, "test"); err == nil {
			t.Fatal("the commit did not fail")
		}
		b.p.at = -1
		b.keys.behind, b.bindings.behind = true, true
		run, cancel := context.WithCancel(ctx)
		go func() { _ = b.Run(run) }()
		time.Sleep(30 * time.Second)
		cancel()
		synctest.Wait()
		if len(b.clients.rows) != 0 || len(b.keys.rows) != 0 || len(b.bindings.rows) != 0 {
			t.Errorf("%d clients, %d keys, %d bindings are left", len(b.clients.rows), len(b.keys.rows), len(b.bindings.rows))
		}
	})
}

// TestUnboundRoleStaysAway: a role that was given with a key goes with the owner's
// binding, for as long as the key lives and not only for the life of a token.
func TestUnboundRoleStaysAway(t *testing.T) {
	b := newBench(t)
	ctx, c := t.Context(), operator()
	must(t, 0, second(b.CreateRole(ctx, c, "clerk", []string{"a"}, "test")))
	must(t, 0, second(b.Bind(ctx, c, issuer.NewBinding{Subject: "alice", Role: "clerk", Reason: "test"})))
	_, secret, err := b.CreateKey(ctx, c, issuer.NewKey{Owner: "alice", Roles: []string{"clerk"}, Scopes: []string{"b"}, Reason: "test"})
	must(t, 0, err)
	must(t, 0, second(b.Unbind(ctx, c, "alice", "clerk", "test")))
	for _, when := range []string{"at once", "when entries that outlive tokens only have come to their end"} {
		tok, err := b.Exchange(ctx, issuer.TokenRequest{APIKey: secret.Reveal()})
		must(t, 0, err)
		if !slices.Equal(tok.Scopes, []string{"b"}) {
			t.Errorf("%s: the key gives %v", when, tok.Scopes)
		}
		b.log.pass()
	}
}
