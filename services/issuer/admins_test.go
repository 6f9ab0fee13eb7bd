package issuer_test

import (
	"cmp"
	"sync"
	"testing"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// ruled is a Service whose first operator's key has been handed over.
func ruled(t *testing.T) (b *bench, first string) {
	t.Helper()
	b = newBench(t)
	must(t, 0, b.EnsureRoles(t.Context()))
	made, err := b.EnsureOperator(t.Context(), func(id, _ string) error { first = id; return nil })
	if err != nil || !made {
		t.Fatal(made, err)
	}
	return b, first
}

func stays(t *testing.T, what string, err error) {
	t.Helper()
	if problem.KindOf(err) != problem.Conflict || err == nil {
		t.Errorf("%s: %v, want a conflict", what, err)
	}
}

func TestTheLastWhoRulesATenantIsNotTakenAway(t *testing.T) {
	ctx := t.Context()
	t.Run("key with the role", func(t *testing.T) {
		b, first := ruled(t)
		_, err := b.DeleteKey(ctx, operator(), first, "test")
		stays(t, "the only operator's key", err)
		second := must2(b.CreateKey(ctx, operator(), issuer.NewKey{Owner: "olga", Roles: []string{rights.Operator}, Life: time.Hour}))(t)
		must(t, 0, errOf(b.DeleteKey(ctx, operator(), first, "test")))
		_, err = b.DeleteKey(ctx, operator(), second.ID, "test")
		stays(t, "the other one then", err)
	})
	t.Run("bindings", func(t *testing.T) {
		b, first := ruled(t)
		// olga has a key that takes her roles, and then one role too.
		k := must2(b.CreateKey(ctx, operator(), issuer.NewKey{Owner: "olga", OwnerRoles: true}))(t)
		_, err := b.DeleteKey(ctx, operator(), first, "test")
		stays(t, "before olga has the role", err)
		must(t, 0, errOf(b.Bind(ctx, operator(), issuer.NewBinding{Subject: "olga", Role: rights.Operator})))
		must(t, 0, errOf(b.DeleteKey(ctx, operator(), first, "test")))
		stays(t, "olga's binding", errOf(b.Unbind(ctx, operator(), "olga", rights.Operator, "test")))
		stays(t, "olga's key", errOf(b.DeleteKey(ctx, operator(), k.ID, "test")))
		must(t, 0, errOf(b.Bind(ctx, operator(), issuer.NewBinding{Subject: "key_" + k.ID, Role: rights.Operator})))
		must(t, 0, errOf(b.Unbind(ctx, operator(), "olga", rights.Operator, "test")))
		stays(t, "the key's own binding", errOf(b.Unbind(ctx, operator(), "key_"+k.ID, rights.Operator, "test")))
	})
	t.Run("client", func(t *testing.T) {
		b, first := ruled(t)
		cl, _, _, err := b.CreateClient(ctx, operator(), issuer.NewClient{Name: "ops", Grants: []string{issuer.GrantClientCredentials}, Roles: []string{rights.Operator}})
		if err != nil {
			t.Fatal(err)
		}
		must(t, 0, errOf(b.DeleteKey(ctx, operator(), first, "test")))
		stays(t, "the client", errOf(b.DeleteClient(ctx, operator(), cl.ID, "test")))
	})
	t.Run("key of a client", func(t *testing.T) {
		b, first := ruled(t)
		cl, _, _, err := b.CreateClient(ctx, operator(), issuer.NewClient{Name: "ops", Grants: []string{issuer.GrantTokenExchange}})
		if err != nil {
			t.Fatal(err)
		}
		must2(b.CreateKey(ctx, operator(), issuer.NewKey{Owner: "olga", Client: cl.ID, Roles: []string{rights.Operator}}))(t)
		must(t, 0, errOf(b.DeleteKey(ctx, operator(), first, "test")))
		stays(t, "the client", errOf(b.DeleteClient(ctx, operator(), cl.ID, "test")))
	})
	t.Run("held", func(t *testing.T) {
		b, first := ruled(t)
		stays(t, "the only operator's key", errOf(b.DisableKey(ctx, operator(), first, "test")))
		must2(b.CreateKey(ctx, operator(), issuer.NewKey{Owner: "olga", Roles: []string{rights.Operator}}))(t)
		must(t, 0, errOf(b.DisableKey(ctx, operator(), first, "test")))
	})
	t.Run("the successor of a key that is held", func(t *testing.T) {
		b, first := ruled(t)
		_, _, err := b.rotate(ctx, first, issuer.Rotate{})
		must(t, 0, err)
		must(t, 0, errOf(b.DisableKey(ctx, operator(), first, "test")))
		stays(t, "it", errOf(b.RollBack(ctx, operator(), first, "test")))
		must2(b.CreateKey(ctx, operator(), issuer.NewKey{Owner: "olga", Roles: []string{rights.Operator}}))(t)
		must(t, 0, errOf(b.RollBack(ctx, operator(), first, "test")))
	})
	t.Run("the successor of a key that rules again", func(t *testing.T) {
		b, first := ruled(t)
		_, _, err := b.rotate(ctx, first, issuer.Rotate{})
		must(t, 0, err)
		must(t, 0, errOf(b.RollBack(ctx, operator(), first, "test")))
	})
	t.Run("who can't reach the API", func(t *testing.T) {
		b, first := ruled(t)
		_, _, _, err := b.CreateClient(ctx, operator(), issuer.NewClient{Name: "no grant", Grants: []string{issuer.GrantTokenExchange}, Roles: []string{rights.Operator}})
		must(t, 0, err)
		_, _, _, err = b.CreateClient(ctx, operator(), issuer.NewClient{
			Name: "elsewhere", Grants: []string{issuer.GrantClientCredentials}, Audiences: []string{"https://orders.test"}, Roles: []string{rights.Operator},
		})
		must(t, 0, err)
		must2(b.CreateKey(ctx, operator(), issuer.NewKey{Owner: "olga", Roles: []string{rights.Operator}, Audiences: []string{"https://orders.test"}}))(t)
		must2(b.CreateKey(ctx, issuer.Caller{Actor: "mel", Tenant: "default", Scopes: []string{rights.KeysWrite}}, issuer.NewKey{Owner: "otto", OwnerRoles: true}))(t)
		must(t, 0, errOf(b.Bind(ctx, operator(), issuer.NewBinding{Subject: "otto", Role: rights.Operator})))
		stays(t, "the only operator's key", errOf(b.DeleteKey(ctx, operator(), first, "test")))
	})
	t.Run("another role of it", func(t *testing.T) {
		b, _ := ruled(t)
		must(t, 0, errOf(b.Bind(ctx, operator(), issuer.NewBinding{Subject: "olga", Role: rights.Auditor})))
		must(t, 0, errOf(b.Unbind(ctx, operator(), "olga", rights.Auditor, "test")))
	})
}

// Two who would each leave it to the other: one of them stays, whichever way they go.
func TestOfTwoWhoGoAtOnceOneStays(t *testing.T) {
	for name, end := range map[string]func(b *bench, key issuer.Key) error{
		"key":  func(b *bench, k issuer.Key) error { return errOf(b.DeleteKey(t.Context(), operator(), k.ID, "test")) },
		"hold": func(b *bench, k issuer.Key) error { return errOf(b.DisableKey(t.Context(), operator(), k.ID, "test")) },
		"principal": func(b *bench, k issuer.Key) error {
			return errOf(b.DeletePrincipal(t.Context(), operator(), k.Owner, "test"))
		},
		"binding": func(b *bench, k issuer.Key) error {
			return errOf(b.Unbind(t.Context(), operator(), k.Owner, rights.Operator, "test"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			b, first := ruled(t)
			var keys []issuer.Key
			for _, owner := range []string{"olga", "otto"} {
				must(t, 0, errOf(b.CreatePrincipal(ctx, operator(), issuer.NewPrincipal{ID: owner, Kind: issuer.Person})))
				keys = append(keys, must2(b.CreateKey(ctx, operator(), issuer.NewKey{Owner: owner, OwnerRoles: true, Life: time.Hour}))(t))
				must(t, 0, errOf(b.Bind(ctx, operator(), issuer.NewBinding{Subject: owner, Role: rights.Operator})))
			}
			must(t, 0, errOf(b.DeleteKey(ctx, operator(), first, "test")))
			var ends sync.WaitGroup
			errs := make([]error, len(keys))
			for i := range keys {
				ends.Go(func() { errs[i] = end(b, keys[i]) })
			}
			ends.Wait()
			if (errs[0] == nil) == (errs[1] == nil) {
				t.Fatalf("%v and %v: want that just one goes", errs[0], errs[1])
			}
			stays(t, "the other", cmp.Or(errs[0], errs[1]))
		})
	}
}

func errOf[T any](_ T, err error) error { return err }

func must2[T, U any](v T, _ U, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
