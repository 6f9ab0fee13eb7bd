package issuer_test

import (
	"slices"
	"testing"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/approvers"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/rights"
)

// Who may be a second person is who could sign in with the right now: every way to have it
// counts, and nothing that is gone, held, or no person.
func TestApproversAreThePeopleWhoMayMakeCutsNow(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	must(t, 0, errOf(b.CreateRole(ctx, operator(), "oncall", []string{rights.Revoke}, "test")))
	key := func(n issuer.NewKey) issuer.Key {
		t.Helper()
		n.Life = time.Hour
		k, _, err := b.CreateKey(ctx, operator(), n)
		must(t, 0, err)
		return k
	}
	all := []string{"scope", "role", "bound", "robot", "reader", "gone", "client_none"}
	ask := func() approvers.Answer {
		t.Helper()
		a, err := b.Approvers(ctx, revoke.Stamp{}, all)
		must(t, 0, err)
		slices.Sort(a.May)
		slices.Sort(a.People)
		return a
	}
	want := func(count int, may, people []string) {
		t.Helper()
		if a := ask(); a.Count != count || !slices.Equal(a.May, may) || !slices.Equal(a.People, people) {
			t.Errorf("%+v, want %d, %q, %q", a, count, may, people)
		}
	}
	want(0, nil, nil)
	key(issuer.NewKey{Owner: "reader", Scopes: []string{"orders:read"}, OwnerRoles: true})
	key(issuer.NewKey{Owner: "scope", Scopes: []string{rights.Revoke}})
	key(issuer.NewKey{Owner: "scope", Scopes: []string{rights.Revoke}})
	want(1, []string{"scope"}, []string{"scope"}) // two keys of one are one
	key(issuer.NewKey{Owner: "role", Roles: []string{"oncall"}})
	want(2, []string{"role", "scope"}, []string{"role", "scope"})
	key(issuer.NewKey{Owner: "bound", OwnerRoles: true})
	must(t, 0, errOf(b.Bind(ctx, operator(), issuer.NewBinding{Subject: "bound", Role: "oncall"})))
	must(t, 0, errOf(b.CreatePrincipal(ctx, operator(), issuer.NewPrincipal{ID: "robot", Kind: issuer.Workload})))
	key(issuer.NewKey{Owner: "robot", Scopes: []string{rights.Revoke}})
	want(2, []string{"bound", "robot", "role", "scope"}, []string{"bound", "role", "scope"})

	// Nobody becomes the only person by cutting the others off first: who is held, or was cut
	// within a day, counts, and may not.
	hit := func(kind revoke.Kind, id string, st revoke.State) {
		b.log.view.Merge(revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: kind, ID: id}.Key(), st)
	}
	high := revoke.Stamp{Epoch: 1, Seq: 1 << 40}
	ago := func(d time.Duration) revoke.State {
		return revoke.State{Cut: high, CutAt: time.Now().Add(-d).UnixMilli()}
	}
	hit(revoke.KindPrincipal, "scope", revoke.State{Held: high})
	role := only(b.Role(ctx, operator(), "oncall"))(t)
	hit(revoke.KindBinding, revoke.PairID("role", role.ID), ago(23*time.Hour))
	want(2, []string{"bound", "robot"}, []string{"bound"})
	hit(revoke.KindPrincipal, "bound", ago(time.Minute))
	want(2, []string{"robot"}, nil)
	hit(revoke.KindPrincipal, "scope", ago(25*time.Hour))
	want(2, []string{"robot"}, nil)
	hit(revoke.KindRole, role.ID, ago(25*time.Hour))
	want(0, []string{"robot"}, nil)

	// What can't be seen is not taken for nobody.
	for name, stale := range map[string]*bool{"keys": &b.keys.stale, "principals": &b.principals.stale} {
		*stale = true
		if a, err := b.Approvers(ctx, revoke.Stamp{}, nil); err == nil {
			t.Errorf("the copy of %s is stale: %+v", name, a)
		}
		*stale = false
	}
}
