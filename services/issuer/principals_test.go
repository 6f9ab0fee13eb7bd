package issuer_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// A name that comes again has nothing of what it had, and what it gets then is good: also
// when the entries have ended that only need to outlive tokens.
func TestANameThatComesAgainIsClean(t *testing.T) {
	b := newBench(t)
	ctx, c := t.Context(), operator()
	newAlice(t, b)
	_, old := keyWithRole(t, b)
	// It is made at the same time, and written too late for the mark to name it.
	k, unnamed, err := b.CreateKey(ctx, c, issuer.NewKey{Owner: "alice", Scopes: []string{"own"}, Reason: "test"})
	must(t, 0, err)
	delete(b.keys.rows, issuer.RecordKey("default", k.ID))
	must(t, 0, second(b.DeletePrincipal(ctx, c, "alice", "test")))
	b.keys.rows[issuer.RecordKey("default", k.ID)] = k

	newAlice(t, b)
	_, secret, err := b.CreateKey(ctx, c, issuer.NewKey{Owner: "alice", OwnerRoles: true, Scopes: []string{"new"}, Reason: "test"})
	must(t, 0, err)
	for _, when := range []string{"at once", "later"} {
		tok, err := b.Exchange(ctx, issuer.TokenRequest{APIKey: secret.Reveal()})
		must(t, 0, err)
		if b.hit(tok.Claims) || !slices.Equal(tok.Scopes, []string{"new"}) || !b.hit(old) {
			t.Errorf("%s: a new token has %v and is hit: %t; an old one is hit: %t", when, tok.Scopes, b.hit(tok.Claims), b.hit(old))
		}
		if _, err := b.Exchange(ctx, issuer.TokenRequest{APIKey: unnamed.Reveal()}); codeOf(err) != issuer.CodeInvalidRequest {
			t.Errorf("%s: the key that nobody named gives a token: %v", when, err)
		}
		b.log.pass()
	}
	must(t, 0, second(b.Bind(ctx, c, issuer.NewBinding{Subject: "alice", Role: "clerk", Reason: "test"})))
	tok, err := b.Exchange(ctx, issuer.TokenRequest{APIKey: secret.Reveal()})
	must(t, 0, err)
	if !slices.Contains(tok.Scopes, "a") {
		t.Errorf("the role that was given again gives %v", tok.Scopes)
	}
}

// A copy that is behind misses nothing: it is brought up to date, or nothing is deleted.
func TestDeletingAPrincipalMissesNothing(t *testing.T) {
	for _, stale := range []bool{false, true} {
		b := newBench(t)
		_, tok := keyWithRole(t, b)
		newAlice(t, b)
		b.keys.behind, b.bindings.behind, b.bindings.stale = true, true, stale
		err := second(b.DeletePrincipal(t.Context(), operator(), "alice", "test"))
		gone := len(b.principals.rows)+len(b.keys.rows)+len(b.bindings.rows) == 0
		if stale && (problem.KindOf(err) != problem.Unavailable || gone || len(b.log.answers) > 0) {
			t.Errorf("with a copy that is behind: %v, all gone: %t, %d entries", err, gone, len(b.log.answers))
		}
		if !stale && (err != nil || !gone || !b.hit(tok)) {
			t.Errorf("%v, all gone: %t, a token is hit: %t", err, gone, b.hit(tok))
		}
	}
}

// TestNothingIsGivenToAPrincipalThatIsEnding: between mark and finish.
func TestNothingIsGivenToAPrincipalThatIsEnding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, c := t.Context(), operator()
		must(t, 0, second(b.CreateRole(ctx, c, "clerk", []string{"a"}, "test")))
		newAlice(t, b)
		b.p.n, b.p.at, b.p.what = 0, 1, failed // the mark is set, the commit fails
		if _, err := b.DeletePrincipal(ctx, c, "alice", "test"); err == nil {
			t.Fatal("the commit did not fail")
		}
		key := func() error { return errOf2(b.CreateKey(ctx, c, issuer.NewKey{Owner: "alice", Reason: "test"})) }
		bind := func() error {
			return second(b.Bind(ctx, c, issuer.NewBinding{Subject: "alice", Role: "clerk", Reason: "test"}))
		}
		again := func() error {
			return second(b.CreatePrincipal(ctx, c, issuer.NewPrincipal{ID: "alice", Kind: issuer.Workload, Reason: "test"}))
		}
		for what, do := range map[string]func() error{"key": key, "binding": bind, "record": again} {
			stays(t, what, do())
		}
		run, cancel := context.WithCancel(ctx)
		go func() { _ = b.Run(run) }()
		time.Sleep(30 * time.Second)
		cancel()
		synctest.Wait()
		for what, do := range map[string]func() error{"key": key, "binding": bind, "record": again} {
			if err := do(); err != nil {
				t.Errorf("%s, after the sweep: %v", what, err)
			}
		}
	})
}

func errOf2[T, U any](_ T, _ U, err error) error { return err }

func TestAPrincipalIsShownWithWhatItHas(t *testing.T) {
	b := newBench(t)
	ctx, c := t.Context(), operator()
	keyWithRole(t, b)
	newAlice(t, b)
	p, err := b.Principal(ctx, c, "alice")
	must(t, 0, err)
	has := func(keys, active int, roles ...string) {
		t.Helper()
		if got := b.PossessionsOf(&p); got.Keys != keys || got.ActiveKeys != active || !slices.Equal(got.Roles, roles) {
			t.Errorf("%+v: want %d keys, %d of them active, and %v", got, keys, active, roles)
		}
	}
	has(1, 1, "clerk")
	b.cut(revoke.KindPrincipal, "alice")
	has(1, 0, "clerk")
	must(t, 0, errOf2(b.CreateKey(ctx, c, issuer.NewKey{Owner: "alice", Reason: "test"})))
	has(2, 1, "clerk")
	if hits := b.HeldBy(issuer.PrincipalTarget(&p)); len(hits) != 0 {
		t.Errorf("hit by %v: a record has no stamp, and no cut hits it", hits)
	}

	must(t, 0, second(b.CreatePrincipal(ctx, c, issuer.NewPrincipal{ID: "ci", Kind: issuer.Workload, Labels: map[string]string{"env": "prod"}, Reason: "test"})))
	list := func(f issuer.PrincipalFilter, want ...string) {
		t.Helper()
		found, err := b.Principals(ctx, c, f)
		var ids []string
		for _, p := range found {
			ids = append(ids, p.ID)
		}
		if slices.Sort(ids); err != nil || !slices.Equal(ids, want) {
			t.Errorf("%+v: %v, %v, want %v", f, ids, err, want)
		}
	}
	list(issuer.PrincipalFilter{}, "alice", "ci")
	list(issuer.PrincipalFilter{Kind: issuer.Person}, "alice")
	list(issuer.PrincipalFilter{Labels: map[string]string{"env": "prod"}}, "ci")
	list(issuer.PrincipalFilter{Kind: issuer.Person, Labels: map[string]string{"env": "prod"}})
}

func TestPrincipalsThatCanNotBe(t *testing.T) {
	b := newBench(t)
	ctx, c := t.Context(), operator()
	newAlice(t, b)
	for name, x := range map[string]struct {
		n     issuer.NewPrincipal
		field string
	}{
		"no id":      {issuer.NewPrincipal{Kind: issuer.Person}, "id"},
		"a client":   {issuer.NewPrincipal{ID: "client_x", Kind: issuer.Person}, "id"},
		"a path":     {issuer.NewPrincipal{ID: "..", Kind: issuer.Person}, "id"},
		"no kind":    {issuer.NewPrincipal{ID: "bob"}, "kind"},
		"a label":    {issuer.NewPrincipal{ID: "bob", Kind: issuer.Person, Labels: map[string]string{"": "x"}}, "labels"},
		"long":       {issuer.NewPrincipal{ID: "bob", Kind: issuer.Person, Name: string(make([]byte, 300))}, "name"},
		"that there": {issuer.NewPrincipal{ID: "alice", Kind: issuer.Person}, ""},
	} {
		e := problem.From(second(b.CreatePrincipal(ctx, c, x.n)))
		if e == nil || e.Field != x.field || (x.field == "") != (e.Kind == problem.Conflict) {
			t.Errorf("%s: %v, want that %q is refused", name, e, x.field)
		}
	}
	other := c
	other.Tenant = "acme"
	if _, err := b.Principal(ctx, other, "alice"); problem.KindOf(err) != problem.Forbidden {
		t.Errorf("of another tenant: %v", err)
	}
	if _, err := b.DeletePrincipal(ctx, c, "bob", "test"); problem.KindOf(err) != problem.NotFound || !strings.Contains(err.Error(), "quash revoke principal:bob") {
		t.Errorf("without a record: %v, want to be told what to do", err)
	}
}

func TestTheLastWhoRulesGoesWithNoPrincipal(t *testing.T) {
	b, first := ruled(t)
	ctx, c := t.Context(), operator()
	for _, id := range []string{issuer.FirstOperator, "olga"} {
		must(t, 0, second(b.CreatePrincipal(ctx, c, issuer.NewPrincipal{ID: id, Kind: issuer.Person, Reason: "test"})))
	}
	must2(b.CreateKey(ctx, c, issuer.NewKey{Owner: "olga", OwnerRoles: true}))(t)
	stays(t, "the only operator", errOf(b.DeletePrincipal(ctx, c, issuer.FirstOperator, "test")))
	must(t, 0, errOf(b.Bind(ctx, c, issuer.NewBinding{Subject: "olga", Role: rights.Operator})))
	must(t, 0, errOf(b.DeleteKey(ctx, c, first, "test")))
	stays(t, "who is it by a binding", errOf(b.DeletePrincipal(ctx, c, "olga", "test")))
	// Another key of hers does not count either.
	must2(b.CreateKey(ctx, c, issuer.NewKey{Owner: "olga", Roles: []string{rights.Operator}}))(t)
	stays(t, "with two keys", errOf(b.DeletePrincipal(ctx, c, "olga", "test")))
	must2(b.CreateKey(ctx, c, issuer.NewKey{Owner: issuer.FirstOperator, Roles: []string{rights.Operator}}))(t)
	must(t, 0, errOf(b.DeletePrincipal(ctx, c, "olga", "test")))
}

// A mark has room for so many keys, and a principal with more stays whole.
func TestAPrincipalWithTooManyKeysStays(t *testing.T) {
	b := newBench(t)
	newAlice(t, b)
	for i := range issuer.MaxOwned + 1 {
		k := issuer.Key{ID: strconv.Itoa(i), Kind: issuer.APIKey, Tenant: "default", Owner: "alice"}
		b.keys.rows[issuer.RecordKey(k.Tenant, k.ID)] = k
	}
	err := second(b.DeletePrincipal(t.Context(), operator(), "alice", "test"))
	if stays(t, "with one too many", err); !strings.Contains(err.Error(), "quash revoke principal:alice") {
		t.Errorf("%v: want to be told what to do", err)
	}
	if p, err := b.Principal(t.Context(), operator(), "alice"); err != nil || p.Mark != nil || len(b.log.answers) > 0 {
		t.Errorf("%+v, %v, %d entries", p, err, len(b.log.answers))
	}
}

// A binding that is given while the mark is made is in no mark, and must not wait for who
// gets the name next.
func TestABindingGivenDuringTheDeletionGoesToo(t *testing.T) {
	b := newBench(t)
	keyWithRole(t, b)
	newAlice(t, b)
	role := b.bindings.Group(issuer.SubjectGroup("default", "alice"))[0]
	reads := 0
	b.principals.onGet = func() {
		if reads++; reads == 2 { // the copies are up to date, and the mark is about to be made
			b.bindings.behind = true
		}
	}
	must(t, 0, second(b.DeletePrincipal(t.Context(), operator(), "alice", "test")))
	if reads < 2 || len(b.principals.rows) > 0 {
		t.Fatalf("%d reads, %d records", reads, len(b.principals.rows))
	}
	if left := b.bindings.Group(issuer.SubjectGroup("default", "alice")); len(left) > 0 {
		t.Errorf("%v is left", role.Role)
	}
}

// A request that is slower than the whole end of what it gives, or of whom it gives it to,
// leaves nothing for whoever has the name next.
func TestASlowBindingLeavesNothing(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *bench){
		"role": func(t *testing.T, b *bench) {
			must(t, 0, second(b.DeleteRole(t.Context(), operator(), "clerk", "test")))
		},
		"role, and its name comes again": func(t *testing.T, b *bench) {
			must(t, 0, second(b.DeleteRole(t.Context(), operator(), "clerk", "test")))
			must(t, 0, second(b.CreateRole(t.Context(), operator(), "clerk", []string{"a"}, "test")))
		},
		"principal": func(t *testing.T, b *bench) {
			must(t, 0, second(b.DeletePrincipal(t.Context(), operator(), "bob", "test")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			keyWithRole(t, b)
			must(t, 0, second(b.CreatePrincipal(t.Context(), operator(), issuer.NewPrincipal{ID: "bob", Kind: issuer.Person, Reason: "test"})))
			b.bindings.onNew = func() {
				b.bindings.onNew = nil
				end(t, b)
			}
			made, err := b.Bind(t.Context(), operator(), issuer.NewBinding{Subject: "bob", Role: "clerk", Reason: "test"})
			if err == nil || b.bindings.onNew != nil {
				t.Errorf("%+v, %v: want it refused", made, err)
			}
			if left := b.bindings.Group(issuer.SubjectGroup("default", "bob")); len(left) > 0 {
				t.Errorf("%+v is left", left)
			}
		})
	}
}

// Bindings of roles that have ended, as one whose request died may leave, take no place.
func TestBindingsOfDeletedRolesCountForNothing(t *testing.T) {
	b := newBench(t)
	keyWithRole(t, b)
	must(t, 0, second(b.Bind(t.Context(), operator(), issuer.NewBinding{Subject: "bob", Role: "clerk", Reason: "test"})))
	orphan := b.bindings.Group(issuer.SubjectGroup("default", "bob"))[0]
	for i := range issuer.MaxRoles {
		orphan.Role = issuer.RoleRef{ID: fmt.Sprint("gone", i), Name: fmt.Sprint("gone", i)}
		b.bindings.rows[issuer.BindingKey("default", "bob", orphan.Role.ID)] = orphan
	}
	must(t, 0, second(b.CreateRole(t.Context(), operator(), "seller", []string{"a"}, "test")))
	must(t, 0, second(b.Bind(t.Context(), operator(), issuer.NewBinding{Subject: "bob", Role: "seller", Reason: "test"})))
}

// A replica whose copy shows a mark that others have finished takes nothing of who has the
// name now.
func TestLateReplicaTakesNoBindingOfAReusedName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, c := t.Context(), operator()
		keyWithRole(t, b)
		newAlice(t, b)
		var marked issuer.Principal
		b.principals.onGet = func() {
			for _, p := range b.principals.rows {
				if p.Mark != nil {
					marked = p
				}
			}
		}
		must(t, 0, second(b.DeletePrincipal(ctx, c, "alice", "test")))
		if marked.Mark == nil || len(b.principals.rows) > 0 {
			t.Fatalf("%+v, %d records: want it marked, and then gone", marked, len(b.principals.rows))
		}
		b.principals.onGet = nil
		must(t, 0, second(b.Bind(ctx, c, issuer.NewBinding{Subject: "alice", Role: "clerk", Reason: "test"})))
		stop := b.replica(t, &issuer.Store{
			Tenants: b.tenants, Principals: late[issuer.Principal]{b.principals, marked}, Keys: b.keys, Clients: b.clients, Roles: b.roles, Bindings: b.bindings, Uses: b.uses,
		}).running(t)
		time.Sleep(time.Minute)
		stop()
		if left := b.bindings.Group(issuer.SubjectGroup("default", "alice")); len(left) != 1 {
			t.Errorf("%d bindings are left, want the one that was given again", len(left))
		}
	})
}
