package app_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/rights"
)

// TestRightForAWhileIsGivenForNoLonger: an hour as an operator must not become one for ever,
// by whichever way something is given.
func TestRightForAWhileIsGivenForNoLonger(t *testing.T) {
	w := newWorld(t)
	jim := w.newKey(map[string]any{"owner": "jim", "owner_roles": true})
	pal := w.newKey(map[string]any{"owner": "pal"})
	w.must(201, "POST", "/v1/roles", map[string]any{"name": "plain", "scopes": []string{"read"}}, nil)
	strong := w.newClient(map[string]any{"name": "strong", "grants": []string{"client_credentials"}, "scopes": []string{rights.Revoke}})
	admin := w.newKey(map[string]any{"owner": "olga", "roles": []string{"operator"}})
	w.must(201, "POST", "/v1/tenants", map[string]any{"name": "acme"}, nil)
	w.must(201, "POST", "/v1/bindings", map[string]any{"subject": "jim", "role": "operator", "expires_in": "1h"}, nil)
	tok := w.token(jim.Secret).AccessToken
	type m = map[string]any
	own := []string{rights.Revoke}
	for _, c := range []struct {
		name, method, path string
		body               m
		want               int
	}{
		{"binding for ever", "POST", "/v1/bindings", m{"subject": "pal", "role": "operator"}, 403},
		{"binding for longer", "POST", "/v1/bindings", m{"subject": "pal", "role": "operator", "expires_in": "2h"}, 403},
		{"binding to oneself", "POST", "/v1/bindings", m{"subject": "jim", "role": "operator"}, 403},
		{"binding of a part of it", "POST", "/v1/bindings", m{"subject": "key_" + pal.ID, "role": "auditor"}, 403},
		{"binding for less", "POST", "/v1/bindings", m{"subject": "pal", "role": "operator", "expires_in": "30m"}, 201},
		{"binding of an application's", "POST", "/v1/bindings", m{"subject": "pal", "role": "plain"}, 201},
		{"scope in a key", "POST", "/v1/keys", m{"owner": "a", "scopes": own}, 403},
		{"scope in a key for less", "POST", "/v1/keys", m{"owner": "a", "scopes": own, "expires_in": "30m"}, 201},
		{"role in a key", "POST", "/v1/keys", m{"owner": "a", "roles": []string{"operator"}}, 403},
		{"role in a key for less", "POST", "/v1/keys", m{"owner": "a", "roles": []string{"operator"}, "expires_in": "30m"}, 201},
		{"one's own roles in a key", "POST", "/v1/keys", m{"owner": "jim", "owner_roles": true}, 403},
		{"application's scope in a key", "POST", "/v1/keys", m{"owner": "a", "scopes": []string{"read"}}, 201},
		{"scope in a client", "POST", "/v1/clients", m{"name": "x", "grants": []string{"client_credentials"}, "scopes": own}, 403},
		{"role in a client", "POST", "/v1/clients", m{"name": "x", "grants": []string{"client_credentials"}, "roles": []string{"operator"}}, 403},
		{"client of an application", "POST", "/v1/clients", m{"name": "x", "grants": []string{"client_credentials"}, "scopes": []string{"read"}}, 201},
		{"secret of a stronger client", "POST", "/v1/clients/" + strong.ID + "/secrets", m{}, 403},
		{"such a secret for less", "POST", "/v1/clients/" + strong.ID + "/secrets", m{"expires_in": "30m"}, 201},
		{"key in the place of an operator's", "POST", "/v1/keys/" + admin.ID + "/rotate", m{}, 403},
		{"admin of a tenant", "POST", "/v1/tenants/acme/admins", m{}, 403},
		{"admin of a tenant for less", "POST", "/v1/tenants/acme/admins", m{"expires_in": "30m"}, 201},
		{"wider role", "PUT", "/v1/roles/plain", m{"scopes": []string{"read", rights.Revoke}}, 403},
		{"new role, which nobody has", "POST", "/v1/roles", m{"name": "new", "scopes": own}, 201},
	} {
		a := w.api(tok, c.method, c.path, c.body)
		if a.status != c.want {
			t.Errorf("%s: %d %s, want %d", c.name, a.status, a.body, c.want)
		}
		if c.want == 403 && !strings.Contains(string(a.body), "yourself") {
			t.Errorf("%s: it does not say why: %s", c.name, a.body)
		}
	}
	// What was given for less is no way round: neither by another key nor by its successor.
	var hop, next madeKey
	a := w.api(tok, "POST", "/v1/keys", m{"owner": "jim", "scopes": []string{rights.KeysWrite, rights.Revoke}, "expires_in": "30m"})
	if a.json(t, &hop); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	by := w.token(hop.Secret).AccessToken
	if a := w.api(by, "POST", "/v1/keys", m{"owner": "jim", "scopes": own}); a.status != 403 {
		t.Errorf("a key by a key for less: %d %s", a.status, a.body)
	}
	a = w.api(by, "POST", "/v1/keys/"+hop.ID+"/rotate", m{"current": hop.Secret, "expires_in": "9600h"})
	if a.json(t, &next); a.status != 201 {
		t.Fatalf("its rotation: %d %s", a.status, a.body)
	}
	end, err := time.Parse(time.RFC3339, next.ExpiresAt)
	if err != nil || end.After(time.Now().Add(61*time.Minute)) {
		t.Errorf("its successor lives until %s", next.ExpiresAt)
	}
	if a := w.api(w.token(next.Secret).AccessToken, "POST", "/v1/keys", m{"owner": "jim", "scopes": own, "expires_in": "2h"}); a.status != 403 {
		t.Errorf("a key by its successor: %d %s", a.status, a.body)
	}
	// Nor is what was cut: who has the secret of an operator's key brings it back for an hour only.
	for _, what := range []string{"enable", "renew"} {
		if a := w.api(tok, "POST", "/v1/keys/"+admin.ID+"/"+what, m{"reason": "a test"}); a.status != 403 {
			t.Errorf("%s of an operator's key: %d %s", what, a.status, a.body)
		}
	}
	if a := w.api(tok, "POST", "/v1/roles/new/renew", m{"reason": "a test"}); a.status != 403 {
		t.Errorf("renewal of a role: %d %s", a.status, a.body)
	}
	// Who has it for ever gives it for ever.
	w.must(201, "POST", "/v1/bindings", m{"subject": "olga", "role": "operator"}, nil)
	if a := w.api(w.token(admin.Secret).AccessToken, "POST", "/v1/bindings", m{"subject": "otto", "role": "operator"}); a.status != 201 {
		t.Errorf("by an operator's key: %d %s", a.status, a.body)
	}
}

// TestKeyHasOfItsOwnersRolesWhatItsMakerCouldGive: whoever makes a key for somebody has its
// secret. It becomes no operator's because its owner does.
func TestKeyHasOfItsOwnersRolesWhatItsMakerCouldGive(t *testing.T) {
	w := newWorld(t)
	type m = map[string]any
	w.must(201, "POST", "/v1/roles", m{"name": "keymaster", "scopes": []string{rights.KeysWrite}}, nil)
	w.must(201, "POST", "/v1/roles", m{"name": "mixed", "scopes": []string{"read", rights.KeysWrite, rights.Revoke}}, nil)
	master := w.newKey(m{"owner": "mel", "roles": []string{"keymaster"}})
	var trap, again madeKey
	a := w.api(w.token(master.Secret).AccessToken, "POST", "/v1/keys", m{"owner": "olga", "owner_roles": true})
	if a.json(t, &trap); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	meant := w.newKey(m{"owner": "olga", "owner_roles": true})
	for _, role := range []string{"operator", "mixed"} {
		w.must(201, "POST", "/v1/bindings", m{"subject": "olga", "role": role}, nil)
	}
	gives := func(secret string) []string {
		scopes := strings.Fields(w.token(secret).Scope)
		slices.Sort(scopes)
		return scopes
	}
	want := []string{rights.KeysWrite, "read"}
	if got := gives(trap.Secret); !slices.Equal(got, want) {
		t.Errorf("it gives %q, want %q", got, want)
	}
	if got := gives(meant.Secret); !slices.Contains(got, rights.Revoke) {
		t.Errorf("one that an operator has made gives %q", got)
	}
	a = w.api(w.token(w.operator).AccessToken, "POST", "/v1/keys/"+trap.ID+"/rotate", m{})
	if a.json(t, &again); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if got := gives(again.Secret); !slices.Equal(got, want) {
		t.Errorf("its successor gives %q, want %q", got, want)
	}
	var can struct{ Allowed bool }
	w.must(200, "GET", "/v1/abilities?subject=key_"+trap.ID+"&scope="+rights.Revoke, nil, &can)
	if can.Allowed {
		t.Error("can says otherwise")
	}
}
