package issuer_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// A role that is given for a while is gone at its end by itself, from tokens too: none
// that carries it lives longer.
func TestBindingThatEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, c := t.Context(), operator()
		must(t, 0, second(b.CreateRole(ctx, c, "clerk", []string{"a"}, "test")))
		bind := func(life time.Duration) error {
			return second(b.Bind(ctx, c, issuer.NewBinding{Subject: "alice", Role: "clerk", Life: life, Reason: "test"}))
		}
		for _, life := range []time.Duration{time.Second, -time.Hour, issuer.MaxBindingLife + 1} {
			if e := problem.From(bind(life)); e == nil || e.Field != "expires_in" {
				t.Errorf("%v: %v, want that expires_in is refused", life, e)
			}
		}
		must(t, 0, bind(2*time.Minute))
		until := time.Now().Add(2 * time.Minute)
		_, secret, err := b.CreateKey(ctx, c, issuer.NewKey{Owner: "alice", OwnerRoles: true, Scopes: []string{"own"}, Reason: "test"})
		must(t, 0, err)
		token := func() issuer.Token {
			t.Helper()
			tok, err := b.Exchange(ctx, issuer.TokenRequest{APIKey: secret.Reveal()})
			must(t, 0, err)
			return tok
		}
		has := func(tok issuer.Token) bool { return slices.Contains(tok.Claims.Roles, "clerk") }
		time.Sleep(90 * time.Second)
		if tok := token(); !has(tok) || tok.Claims.Expires > until.Unix() || !slices.Contains(tok.Scopes, "a") {
			t.Errorf("%+v: want the role, and no life after %d", tok.Claims, until.Unix())
		}
		if err := bind(time.Minute); err != nil { // its end is moved away
			t.Errorf("longer: %v", err)
		}
		if err := bind(0); err != nil {
			t.Errorf("for ever: %v", err)
		}
		if err := bind(time.Hour); problem.KindOf(err) != problem.Conflict {
			t.Errorf("for a shorter time than before: %v, want a conflict", err)
		}
		must(t, 0, second(b.Unbind(ctx, c, "alice", "clerk", "test")))
		must(t, 0, bind(time.Minute))
		time.Sleep(time.Minute)
		if tok := token(); has(tok) || slices.Contains(tok.Scopes, "a") || !slices.Contains(tok.Scopes, "own") {
			t.Errorf("%+v: want what the key has itself, alone", tok.Claims)
		}
		must(t, 0, bind(time.Minute)) // and it can be given anew
		if !has(token()) {
			t.Error("given anew, it is not there")
		}
	})
}

func TestCanSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, c := t.Context(), operator()
		must(t, 0, second(b.CreateRole(ctx, c, "clerk", []string{"a", "b"}, "test")))
		must(t, 0, second(b.Bind(ctx, c, issuer.NewBinding{Subject: "alice", Role: "clerk", Life: time.Hour, Reason: "test"})))
		k, _, err := b.CreateKey(ctx, c, issuer.NewKey{Owner: "alice", OwnerRoles: true, Scopes: []string{"own"}, Reason: "test"})
		must(t, 0, err)
		key := issuer.KeyClientPrefix + k.ID
		can := func(subject, scope string, allowed bool, ways ...issuer.State) {
			t.Helper()
			is, err := b.Can(ctx, c, subject, scope)
			must(t, 0, err)
			var states []issuer.State
			for _, w := range is.Ways {
				states = append(states, w.State)
			}
			if is.Allowed != allowed || !slices.Equal(states, ways) {
				t.Errorf("can %s %s: %+v, want %t by %v", subject, scope, is, allowed, ways)
			}
		}
		can("alice", "a", true, issuer.StateActive)
		can("alice", "own", false)
		can(key, "own", true, issuer.StateActive)
		can(key, "b", true, issuer.StateActive)
		can("bob", "a", false)
		b.cut(revoke.KindBinding, revoke.PairID("alice", b.roles.rows[issuer.RoleKey("default", "clerk")].ID))
		can("alice", "a", false, issuer.StateRevoked)
		can(key, "a", false, issuer.StateRevoked)
		must(t, 0, second(b.Bind(ctx, c, issuer.NewBinding{Subject: "alice", Role: "clerk", Life: time.Hour, Reason: "test"})))
		can("alice", "a", true, issuer.StateActive)
		time.Sleep(time.Hour)
		can("alice", "a", false, issuer.StateExpired)
		b.cut(revoke.KindPrincipal, "alice")
		can(key, "own", false, issuer.StateActive) // the key is dead, whatever it had
		for field, q := range map[string][2]string{"subject": {"client_none", "a"}, "scope": {"alice", "not a scope"}} {
			if _, err := b.Can(ctx, c, q[0], q[1]); err == nil || problem.From(err).Field != field {
				t.Errorf("%q: %v, want that %s is refused", q, err, field)
			}
		}
	})
}

// stale gives a role as it was.
type stale struct {
	*fakeTable[issuer.Role]
	role issuer.Role
}

func (s stale) Load(context.Context, string) (issuer.Role, error) { return s.role, nil }

// TestRightThatWasTakenFromARoleDoesNotComeBack: whoever sees the role as it was must not
// write back what they can't give.
func TestRightThatWasTakenFromARoleDoesNotComeBack(t *testing.T) {
	weak := issuer.Caller{Actor: "wanda", Tenant: "default", Scopes: []string{rights.RolesWrite}}
	for name, next := range map[string][]string{"narrowed": {rights.Revoke, "a"}, "widened": {rights.Revoke, "a", "b", "c"}} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			b := newBench(t)
			before, err := b.CreateRole(ctx, operator(), "clerk", []string{rights.Revoke, "a", "b"}, "test")
			must(t, 0, err)
			_, _, err = b.SetRole(ctx, operator(), "clerk", []string{"a", "b"}, "test")
			must(t, 0, err)
			behind := b.replica(t, &issuer.Store{
				Tenants: b.tenants, Principals: b.principals, Keys: b.keys, Clients: b.clients, Roles: stale{b.roles, before}, Bindings: b.bindings, Uses: b.uses,
			})
			if _, _, err := behind.SetRole(ctx, weak, "clerk", next, "test"); problem.KindOf(err) != problem.Forbidden {
				t.Errorf("%v, want it forbidden", err)
			}
			now, err := b.roles.Load(ctx, issuer.RoleKey("default", "clerk"))
			if err != nil || slices.Contains(now.Scopes, rights.Revoke) {
				t.Errorf("the role has %q, %v", now.Scopes, err)
			}
		})
	}
}
