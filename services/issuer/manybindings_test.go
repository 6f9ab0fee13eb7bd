package issuer_test

import (
	"fmt"
	"testing"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// A role with more bindings than an entry takes is cut alone, and who held it gets tokens
// without it while its bindings are being removed.
func TestRoleWithManyBindingsIsCutAlone(t *testing.T) {
	b, _ := ruled(t)
	ctx := t.Context()
	role, err := b.CreateRole(ctx, operator(), "clerk", []string{"orders:write"}, "test")
	must(t, 0, err)
	_, secret := b.key(t, issuer.NewKey{OwnerRoles: true, Scopes: []string{"orders:read"}})
	for i := range 1500 {
		x := issuer.Binding{Tenant: "default", Subject: fmt.Sprintf("holder-%d", i), Role: issuer.RoleRef{ID: role.ID, Name: role.Name}, Stamp: role.Stamp}
		if i == 0 {
			x.Subject = "alice" // whose key it is
		}
		b.bindings.rows[issuer.BindingKey(x.Tenant, x.Subject, x.Role.ID)] = x
	}
	exchange := func() issuer.Claims {
		t.Helper()
		tok, err := b.Exchange(ctx, issuer.TokenRequest{APIKey: secret})
		must(t, 0, err)
		return tok.Claims
	}
	before := exchange()
	if len(before.Roles) != 1 {
		t.Fatalf("roles %v in a token, want one", before.Roles)
	}
	b.bindings.stale = true // so that nothing can be removed yet
	ended, err := b.DeleteRole(ctx, operator(), role.Name, "test")
	must(t, 0, err)
	if r := b.log.requests[ended.Answer.ID]; len(r.Targets) != 1 || r.Targets[0].Kind != revoke.KindRole {
		t.Errorf("committed about %d targets, want the role alone", len(r.Targets))
	}
	if !b.hit(before) {
		t.Error("a token with the role lives on")
	}
	if left, err := b.roles.Load(ctx, issuer.RoleKey("default", role.Name)); err != nil || left.Mark == nil {
		t.Fatalf("%+v, %v: the role is gone before its bindings are", left, err)
	}
	if now := exchange(); len(now.Roles) != 0 {
		t.Errorf("roles %v in a token that was made after the role's end", now.Roles)
	}
	b.bindings.stale = false
	must(t, 0, errOf(b.DeleteRole(ctx, operator(), role.Name, "test"))) // as the sweep does
	if left := len(b.bindings.Group(issuer.RoleGroup("default", role.ID))); left != 0 {
		t.Errorf("%d bindings are left", left)
	}
}
