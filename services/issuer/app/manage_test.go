package app_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/rights"
)

func TestOwnScopesAreGivenByTheirHoldersOnly(t *testing.T) {
	w := newWorld(t)
	w.must(201, "POST", "/v1/roles", map[string]any{"name": "keymaster", "scopes": []string{rights.KeysWrite, rights.ClientsWrite, rights.RolesWrite}}, nil)
	master := w.newKey(map[string]any{"owner": "mel", "roles": []string{"keymaster"}})
	strong := w.newClient(map[string]any{"name": "strong", "grants": []string{"client_credentials"}, "scopes": []string{rights.Revoke}})
	w.must(201, "POST", "/v1/bindings", map[string]any{"subject": "olga", "role": "operator"}, nil)
	operators := w.newKey(map[string]any{"owner": "otto", "roles": []string{"operator"}})
	w.must(201, "POST", "/v1/keys/"+operators.ID+"/rotate", map[string]any{"overlap": "24h"}, nil)
	tok := w.token(master.Secret).AccessToken
	cases := []struct {
		name, method, path string
		body               map[string]any
		want               int
	}{
		{"application scope", "POST", "/v1/keys", map[string]any{"owner": "a", "scopes": []string{"anything:at-all"}}, 201},
		{"held scope", "POST", "/v1/keys", map[string]any{"owner": "a", "scopes": []string{rights.KeysWrite}}, 201},
		{"scope in a key", "POST", "/v1/keys", map[string]any{"owner": "a", "scopes": []string{rights.Revoke}}, 403},
		{"role in a key", "POST", "/v1/keys", map[string]any{"owner": "a", "roles": []string{"operator"}}, 403},
		{"owner's roles in a key", "POST", "/v1/keys", map[string]any{"owner": "olga", "owner_roles": true}, 403},
		{"scope in a client", "POST", "/v1/clients", map[string]any{"name": "x", "grants": []string{"client_credentials"}, "scopes": []string{rights.Revoke}}, 403},
		{"role in a client", "POST", "/v1/clients", map[string]any{"name": "x", "grants": []string{"client_credentials"}, "roles": []string{"operator"}}, 403},
		{"secret of a stronger client", "POST", "/v1/clients/" + strong.ID + "/secrets", map[string]any{}, 403},
		{"scope in a role", "POST", "/v1/roles", map[string]any{"name": "mine", "scopes": []string{rights.Revoke}}, 403},
		{"scope in a widened role", "PUT", "/v1/roles/keymaster", map[string]any{"scopes": []string{rights.KeysWrite, rights.ClientsWrite, rights.RolesWrite, rights.Revoke}}, 403},
		{"binding", "POST", "/v1/bindings", map[string]any{"subject": "mel", "role": "operator"}, 403},
		{"key in the place of a stronger one", "POST", "/v1/keys/" + operators.ID + "/rotate", map[string]any{}, 403},
		{"secret in the place of a stronger client's", "POST", "/v1/keys/" + strong.SecretID + "/rotate", map[string]any{}, 403},
		{"longer overlap of a stronger key", "POST", "/v1/keys/" + operators.ID + "/rotation", map[string]any{"overlap": "48h"}, 403},
		{"shorter overlap of a stronger key", "POST", "/v1/keys/" + operators.ID + "/rotation", map[string]any{"overlap": "1h"}, 403},
		{"rollback of a stronger key", "POST", "/v1/keys/" + operators.ID + "/rollback", map[string]any{"reason": "r"}, 403},
		{"renewal of a stronger key", "POST", "/v1/keys/" + operators.ID + "/renew", map[string]any{"reason": "r"}, 403},
		{"renewal of a stronger role", "POST", "/v1/roles/operator/renew", map[string]any{"reason": "r"}, 403},
		{"tenant", "POST", "/v1/tenants", map[string]any{"name": "acme"}, 403},
		{"admin of a tenant", "POST", "/v1/tenants/default/admins", map[string]any{}, 403},
		{"no right at all", "GET", "/v1/keys", nil, 403},
		{"unknown own scope", "POST", "/v1/keys", map[string]any{"owner": "a", "scopes": []string{"quash:nonsense"}}, 422},
		{"fixed role", "DELETE", "/v1/roles/scheduler", nil, 409},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			var body any
			if tc.body != nil {
				body = tc.body
			}
			if a := w.api(tok, tc.method, tc.path, body); a.status != tc.want {
				t.Errorf("%d %s, want %d", a.status, a.body, tc.want)
			}
		})
	}
	// What was refused left nothing behind.
	var clients struct{ Items []struct{ Name string } }
	w.must(200, "GET", "/v1/clients", nil, &clients)
	if len(clients.Items) != 1 {
		t.Errorf("clients = %v", clients)
	}
}

func TestBadInputNamesTheField(t *testing.T) {
	w := newWorld(t)
	tok := w.token(w.operator).AccessToken
	cases := []struct {
		name, path, field string
		body              map[string]any
	}{
		{"empty owner", "/v1/keys", "owner", map[string]any{"owner": ""}},
		{"missing owner", "/v1/keys", "owner", map[string]any{}},
		{"long owner", "/v1/keys", "owner", map[string]any{"owner": strings.Repeat("a", 513)}},
		{"control character", "/v1/keys", "owner", map[string]any{"owner": "a\x00b"}},
		{"reserved owner", "/v1/keys", "owner", map[string]any{"owner": "key_alice"}},
		{"reserved owner", "/v1/keys", "owner", map[string]any{"owner": "client_alice"}},
		{"scope with a space", "/v1/keys", "scopes", map[string]any{"owner": "a", "scopes": []string{"a b"}}},
		{"unknown role", "/v1/keys", "roles", map[string]any{"owner": "a", "roles": []string{"nobody"}}},
		{"unknown client", "/v1/keys", "client_id", map[string]any{"owner": "a", "client_id": "client_nobody"}},
		{"too long a life", "/v1/keys", "expires_in", map[string]any{"owner": "a", "expires_in": "9601h"}},
		{"no life", "/v1/keys", "expires_in", map[string]any{"owner": "a", "expires_in": "-1h"}},
		{"nonsense life", "/v1/keys", "expires_in", map[string]any{"owner": "a", "expires_in": "tomorrow"}},
		{"relative audience", "/v1/keys", "audiences", map[string]any{"owner": "a", "audiences": []string{"orders"}}},
		{"unknown member", "/v1/keys", "secret", map[string]any{"owner": "a", "secret": "mine"}},
		{"unknown grant", "/v1/clients", "grants", map[string]any{"name": "a", "grants": []string{"password"}}},
		{"no grant", "/v1/clients", "grants", map[string]any{"name": "a", "grants": []string{}}},
		{"role name", "/v1/roles", "name", map[string]any{"name": "a/b", "scopes": []string{}}},
		{"no such client", "/v1/bindings", "subject", map[string]any{"subject": "client_x", "role": "auditor"}},
		{"no secret", "/v1/lookups", "secret", map[string]any{"secret": "hunter2-and-more"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			a := w.api(tok, "POST", tc.path, tc.body)
			var p struct{ Field, Type string }
			a.json(t, &p)
			if a.status != 422 || p.Field != tc.field || a.header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%d %s, want 422 and the field %s", a.status, a.body, tc.field)
			}
			if strings.Contains(string(a.body), "hunter2") {
				t.Error("what was pasted is repeated")
			}
		})
	}
	var keys struct{ Items []madeKey }
	w.must(200, "GET", "/v1/keys", nil, &keys)
	if len(keys.Items) != 1 {
		t.Errorf("%d keys, want the operator's alone", len(keys.Items))
	}
}

func TestKeysEnd(t *testing.T) {
	w := newWorld(t)
	life := func(k madeKey) time.Duration {
		c, err1 := time.Parse(time.RFC3339, k.CreatedAt)
		e, err2 := time.Parse(time.RFC3339, k.ExpiresAt)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		return e.Sub(c)
	}
	if d := life(w.newKey(map[string]any{"owner": "a"})); d != 90*24*time.Hour {
		t.Errorf("by default %v", d)
	}
	if d := life(w.newKey(map[string]any{"owner": "a", "expires_in": "9600h"})); d != 400*24*time.Hour {
		t.Errorf("at most %v", d)
	}
	// A token does not outlive what it came from.
	if tok := w.token(w.newKey(map[string]any{"owner": "a", "expires_in": "2m"}).Secret); tok.ExpiresIn > 120 {
		t.Errorf("expires_in = %d", tok.ExpiresIn)
	}
}

func TestListsCanBePagedThrough(t *testing.T) {
	w := newWorld(t)
	want := map[string]bool{}
	for range 7 {
		want[w.newKey(map[string]any{"owner": "pat"}).ID] = true
	}
	path, got := "/v1/keys?owner=pat&limit=3", 0
	for pages := 0; path != "" && pages < 10; pages++ {
		var p struct {
			Items []madeKey `json:"items"`
			Next  string    `json:"next_page"`
		}
		w.must(200, "GET", path, nil, &p)
		for _, k := range p.Items {
			if !want[k.ID] || k.Secret != "" {
				t.Errorf("item %+v", k)
			}
			delete(want, k.ID)
			got++
		}
		path = ""
		if p.Next != "" {
			path = "/v1/keys?owner=pat&limit=3&page=" + p.Next
		}
	}
	if got != 7 || len(want) != 0 {
		t.Errorf("%d items, missing %v", got, want)
	}
}

type shownRole struct {
	ID     string   `json:"id"`
	Name   string   `json:"name"`
	Scopes []string `json:"scopes"`
	State  string   `json:"state"`
}

func TestRolesCountInTokensUntilTakenAway(t *testing.T) {
	w := newWorld(t)
	var role shownRole
	w.must(201, "POST", "/v1/roles", map[string]any{"name": "clerk", "scopes": []string{"orders:read", "orders:write"}}, &role)
	inKey := w.newKey(map[string]any{"owner": "alice", "roles": []string{"clerk"}})
	bound := w.newKey(map[string]any{"owner": "bob"})
	w.must(201, "POST", "/v1/bindings", map[string]any{"subject": "key_" + bound.ID, "role": "clerk"}, nil)
	ofOwner := w.newKey(map[string]any{"owner": "carol", "owner_roles": true})
	w.must(201, "POST", "/v1/bindings", map[string]any{"subject": "carol", "role": "clerk"}, nil)
	check := func(when string, k madeKey, scope string, via int) string {
		t.Helper()
		tok := w.token(k.Secret)
		n := len(claims(t, tok.AccessToken)["via"].([]any))
		if tok.Scope != scope || n != via {
			t.Errorf("%s: scope = %q with %d via, want %q with %d", when, tok.Scope, n, scope, via)
		}
		return tok.AccessToken
	}
	const all = "orders:read orders:write"
	old := []string{check("in the key", inKey, all, 3), check("bound", bound, all, 3), check("of the owner", ofOwner, all, 3)}
	server := w.newClient(map[string]any{"name": "s", "grants": []string{"client_credentials"}, "serves": []string{apiURL}})
	active := func(tok string) bool { return w.introspect(tok, server.ID, server.Secret).Active }

	// Narrowing cuts what was made with the role; what is made now has less.
	w.must(200, "PUT", "/v1/roles/clerk", map[string]any{"scopes": []string{"orders:read"}}, &role)
	if !slices.Equal(role.Scopes, []string{"orders:read"}) || role.State != "active" {
		t.Errorf("role = %+v", role)
	}
	for i, tok := range old {
		if active(tok) {
			t.Errorf("token %d outlives the narrowed role", i)
		}
	}
	one := check("narrowed", inKey, "orders:read", 3)
	// Widening only gives.
	w.must(200, "PUT", "/v1/roles/clerk", map[string]any{"scopes": []string{"orders:read", "stock:read"}}, nil)
	check("widened", inKey, "orders:read stock:read", 3)
	if !active(one) {
		t.Error("widening cut a token")
	}
	// Taking a binding away hits its subject alone.
	b := check("before unbinding", bound, "orders:read stock:read", 3)
	w.must(200, "DELETE", "/v1/bindings?subject=key_"+bound.ID+"&role=clerk&reason=moved", nil, nil)
	check("unbound", bound, "", 1)
	if active(b) || !active(one) {
		t.Error("unbinding hit the wrong tokens")
	}
	// A responder's cut of the owner's binding takes the role from the key, too.
	w.commit(commit.Revoke, "binding:alice/"+role.ID)
	check("owner's binding cut", inKey, "", 1)
	// Deleting the role ends it for all; a new one of that name is another.
	check("before deleting", ofOwner, "orders:read stock:read", 3)
	w.must(200, "DELETE", "/v1/roles/clerk", nil, nil)
	check("deleted", ofOwner, "", 1)
	w.must(201, "POST", "/v1/roles", map[string]any{"name": "clerk", "scopes": []string{"orders:read"}}, nil)
	check("made anew", ofOwner, "", 1)
	w.must(404, "GET", "/v1/roles/nobody", nil, nil)
}

func TestDeletingAClientEndsItsSecretsAndKeys(t *testing.T) {
	w := newWorld(t)
	c := w.newClient(map[string]any{"name": "app", "grants": []string{"client_credentials", "token-exchange"}, "scopes": []string{"a"}, "roles": []string{"auditor"}})
	k := w.newKey(map[string]any{"owner": "alice", "client_id": c.ID, "scopes": []string{"a"}})
	if got := claims(t, w.token(k.Secret).AccessToken); got["client_id"] != c.ID || got["sub"] != "alice" {
		t.Errorf("claims = %v", got)
	}
	w.must(200, "DELETE", "/v1/clients/"+c.ID, nil, nil)
	if a := w.post("/oauth/token", exchangeForm(k.Secret)); a.status != 400 {
		t.Errorf("its key: %d %s", a.status, a.body)
	}
	form := map[string][]string{"grant_type": {"client_credentials"}}
	if a := w.post("/oauth/token", form, c.ID, c.Secret); a.status != 401 {
		t.Errorf("its secret: %d %s", a.status, a.body)
	}
	for _, path := range []string{"/v1/clients/" + c.ID, "/v1/keys/" + k.ID, "/v1/keys/" + c.SecretID} {
		w.must(404, "GET", path, nil, nil)
	}
	var bindings struct{ Items []any }
	w.must(200, "GET", "/v1/bindings?subject="+c.ID, nil, &bindings)
	if len(bindings.Items) != 0 {
		t.Errorf("bindings = %v", bindings.Items)
	}
}

func TestPastedSecretIsRecognized(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "alice"})
	var f struct {
		Kind, ID, Target, Owner string
		Known                   bool
	}
	w.must(200, "POST", "/v1/lookups", map[string]any{"secret": k.Secret}, &f)
	if f.Kind != "key" || f.ID != k.ID || f.Target != "key:"+k.ID || f.Owner != "alice" || !f.Known {
		t.Errorf("found %+v", f)
	}
	w.must(200, "DELETE", "/v1/keys/"+k.ID, nil, nil)
	f.Known = true
	w.must(200, "POST", "/v1/lookups", map[string]any{"secret": k.Secret}, &f)
	if f.Target != "key:"+k.ID || f.Known {
		t.Errorf("a removed key: %+v", f)
	}
}

func TestManagementNeedsAToken(t *testing.T) {
	w := newWorld(t)
	if a := w.api("", "GET", "/v1/keys", nil); a.status != http.StatusUnauthorized || a.header.Get("WWW-Authenticate") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.api("x.y.z", "GET", "/v1/keys", nil); a.status != http.StatusUnauthorized {
		t.Errorf("%d %s", a.status, a.body)
	}
	k := w.newKey(map[string]any{"owner": "alice", "scopes": []string{"orders:read"}})
	if a := w.api(w.token(k.Secret).AccessToken, "GET", "/v1/keys", nil); a.status != http.StatusForbidden {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.api(w.token(w.operator).AccessToken, "PATCH", "/v1/keys", nil); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
}
