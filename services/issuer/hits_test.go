package issuer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
)

func only[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Whoever has given up leaves no work behind, and the work is that of the records, not of
// the records times the targets.
func TestHitsWalksRecordsOnceAndStopsWithItsAsker(t *testing.T) {
	b := newBench(t)
	const n = 5
	var roles []issuer.Role
	for i := range n {
		r := only(b.CreateRole(t.Context(), operator(), fmt.Sprintf("role%d", i), []string{"orders:read"}, "test"))(t)
		roles = append(roles, r)
		must(t, 0, errOf(b.Bind(t.Context(), operator(), issuer.NewBinding{Subject: fmt.Sprintf("sub%d", i), Role: r.Name})))
		must2(b.CreateKey(t.Context(), operator(), issuer.NewKey{Owner: "alice", Scopes: []string{"orders:read"}, Life: time.Hour}))(t)
	}
	target := func(kind revoke.Kind, id string) revoke.Target {
		return revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: kind, ID: id}
	}
	var grants, all []revoke.Target
	for k := range b.keys.Walk(issuer.TenantGroup("default")) {
		grants = append(grants, target(revoke.KindGrant, revoke.PairID("alice", k.ClientID())))
	}
	for _, r := range roles {
		all = append(all, target(revoke.KindRole, r.ID))
	}
	var walked int
	walk := func() { walked++ }
	for _, c := range []struct {
		name    string
		on      *func()
		targets []revoke.Target
		once    int // how many records a walk for all of them takes; 0: any
	}{
		{"grants", &b.keys.onWalk, grants, n},
		{"a principal", &b.keys.onWalk, []revoke.Target{target(revoke.KindPrincipal, "alice")}, n},
		{"the tenant", &b.keys.onWalk, []revoke.Target{target(revoke.KindTenant, "default")}, n},
		{"roles", &b.roles.onWalk, all, n},
		{"bindings of roles", &b.bindings.onWalk, all, n},
	} {
		walked, *c.on = 0, walk
		a, err := b.Hits(t.Context(), commit.Revoke, revoke.Stamp{}, c.targets)
		if err != nil || walked != c.once || a.Keys+a.Roles != n {
			t.Errorf("%s: %v, %d records looked at, %d keys and %d roles; want %d of each", c.name, err, walked, a.Keys, a.Roles, c.once)
		}
		ctx, cancel := context.WithCancel(t.Context())
		walked, *c.on = 0, func() { walked++; cancel() }
		if _, err := b.Hits(ctx, commit.Revoke, revoke.Stamp{}, c.targets); !errors.Is(err, context.Canceled) || walked != 1 {
			t.Errorf("%s, given up: %v after %d records", c.name, err, walked)
		}
		*c.on = nil
		cancel()
	}

	// Between targets too: a read of the first one's record is the last.
	ctx, cancel := context.WithCancel(t.Context())
	read := 0
	b.keys.onGet = func() { read++; cancel() }
	two := []revoke.Target{target(revoke.KindKey, "a"), target(revoke.KindKey, "b")}
	if _, err := b.Hits(ctx, commit.Revoke, revoke.Stamp{}, two); !errors.Is(err, context.Canceled) || read != 1 {
		t.Errorf("targets, given up: %v after %d reads", err, read)
	}
}

// A role that is given with a key has no binding's record, but the keys that lose it.
func TestHitsOfABindingAreTheKeysThatLoseTheRole(t *testing.T) {
	b := newBench(t)
	role := only(b.CreateRole(t.Context(), operator(), "clerk", []string{"orders:read"}, "test"))(t)
	give := func() {
		must2(b.CreateKey(t.Context(), operator(), issuer.NewKey{Owner: "alice", Roles: []string{"clerk"}, Life: time.Hour}))(t)
	}
	give()
	give()
	of := func(subject string) revoke.Target {
		return revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: revoke.KindBinding, ID: revoke.PairID(subject, role.ID)}
	}
	shown := only(b.Hits(t.Context(), commit.Revoke, revoke.Stamp{}, []revoke.Target{of("alice"), of("bob")}))(t)
	if shown.Narrowed != 2 || len(shown.Unknown) != 1 || shown.Unknown[0].ID != of("bob").ID {
		t.Errorf("%d narrowed, unknown %v", shown.Narrowed, shown.Unknown)
	}
	give()
	if now := only(b.Hits(t.Context(), commit.Revoke, revoke.Stamp{}, []revoke.Target{of("alice"), of("bob")}))(t); now.Narrowed != 3 || !now.Boxes.Grown(&shown.Boxes) {
		t.Errorf("another key with the role: %d narrowed, and it shows as growth: %v", now.Narrowed, now.Boxes.Grown(&shown.Boxes))
	}
	// What has been taken is not taken again.
	b.log.view.Merge(of("alice").Key(), revoke.State{Cut: revoke.Stamp{Epoch: 1, Seq: 1 << 40}})
	if now := only(b.Hits(t.Context(), commit.Revoke, revoke.Stamp{}, []revoke.Target{of("alice")}))(t); now.Narrowed != 0 || len(now.Unknown) != 0 {
		t.Errorf("taken before: %d narrowed, unknown %v", now.Narrowed, now.Unknown)
	}
}
