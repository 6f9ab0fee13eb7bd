package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/identity"
)

// tenantOf is a tenant, and what its admin holds.
type tenantOf struct {
	s            *services
	name, issuer string
	admin        apiKey
	token        string
}

func (s *services) newTenant(name string, more ...string) *tenantOf {
	s.t.Helper()
	var made struct {
		Issuer string
		Admin  apiKey
	}
	body := fmt.Sprintf(`{"name":%q,"reason":"test"%s}`, name, strings.Join(more, ""))
	s.decode(s.raw(s.token(s.operator), http.MethodPost, "/v1/tenants", body), http.StatusCreated, &made)
	t := &tenantOf{s: s, name: name, issuer: made.Issuer, admin: made.Admin}
	eventually(s.t, "the tenant "+name+" can sign", func() (err error) {
		t.token, err = t.exchange(t.admin.Secret)
		return err
	})
	return t
}

// exchange gets a token of the tenant's issuer.
func (t *tenantOf) exchange(secret string) (string, error) {
	r := t.s.form("/t/"+t.name+"/oauth/token", exchange(secret))
	var tok struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(r.body, &tok); err != nil || r.status != http.StatusOK {
		return "", fmt.Errorf("status %d: %.200s", r.status, r.body)
	}
	return tok.AccessToken, nil
}

func (t *tenantOf) send(method, path, body string) reply {
	return t.s.raw(t.token, method, path, body)
}

// raw calls a management API with a body as it stands, none if it is empty.
func (s *services) raw(token, method, path, body string) reply {
	s.t.Helper()
	if body == "" {
		return s.api(token, method, path, nil)
	}
	return s.api(token, method, path, json.RawMessage(body))
}

func (t *tenantOf) newKey(owner string) apiKey {
	t.s.t.Helper()
	var k apiKey
	t.s.decode(t.send(http.MethodPost, "/v1/keys", fmt.Sprintf(`{"owner":%q,"scopes":["orders:read"]}`, owner)), http.StatusCreated, &k)
	return k
}

// tenantsGuard is a guard for the tokens of every tenant.
func (s *services) tenantsGuard() *resource {
	s.t.Helper()
	g, err := guard.New([]guard.Issuer{{URL: s.url, Trust: s.trust, Tenants: true}}, guard.WithNATS(s.nats.URL, s.nats.Creds(s.t, "orders")))
	r := startGuard(s.t, g, err)
	r.ready()
	return r
}

func TestTenantsHaveIssuersOfTheirOwn(t *testing.T) {
	s := inProcess(t)
	a, b := s.newTenant("acme"), s.newTenant("globex")
	if a.issuer != s.url+"/t/acme" {
		t.Errorf("the issuer of acme is %s", a.issuer)
	}
	var doc struct {
		Issuer  string
		JWKSURI string `json:"jwks_uri"`
		Token   string `json:"token_endpoint"`
	}
	for _, path := range []string{"/.well-known/oauth-authorization-server/t/acme", "/t/acme/.well-known/openid-configuration"} {
		s.decode(s.send(http.MethodGet, path, ""), http.StatusOK, &doc)
		if doc.Issuer != a.issuer || doc.JWKSURI != a.issuer+"/oauth/jwks" || doc.Token != a.issuer+"/oauth/token" {
			t.Errorf("%s: %+v", path, doc)
		}
	}
	kids := func(path string) (out []string) {
		var set struct{ Keys []struct{ Kid string } }
		s.decode(s.send(http.MethodGet, path, ""), http.StatusOK, &set)
		for _, k := range set.Keys {
			out = append(out, k.Kid)
		}
		return out
	}
	own, others := kids("/t/acme/oauth/jwks"), append(kids("/oauth/jwks"), kids("/t/globex/oauth/jwks")...)
	if len(own) == 0 || slices.ContainsFunc(own, func(k string) bool { return slices.Contains(others, k) }) {
		t.Errorf("keys of acme %v, of others %v", own, others)
	}
	for _, path := range []string{"/t/default/oauth/jwks", "/t/nobody/oauth/jwks", "/t/UPPER/oauth/jwks", "/t/a.b/oauth/jwks", "/.well-known/oauth-authorization-server/t/nobody"} {
		if r := s.send(http.MethodGet, path, ""); r.status != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", path, r.status)
		}
	}
	// A guard takes the tokens of all, each under its tenant; and a key of one is none of the other.
	g := s.tenantsGuard()
	for _, x := range []*tenantOf{a, b} {
		k := x.newKey("alice")
		tok, err := x.exchange(k.Secret)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the guard takes it", func() error {
			d := g.Decide(t.Context(), tok, guard.Requirement{Scopes: []string{"orders:read"}})
			if !d.Allowed() || d.Token.Tenant != x.name || d.Token.Issuer != x.issuer {
				return fmt.Errorf("%+v", d)
			}
			return nil
		})
		for _, y := range []string{"/oauth/token", "/t/acme/oauth/token", "/t/globex/oauth/token"} {
			if r := s.form(y, exchange(k.Secret)); (r.status == http.StatusOK) != (y == "/t/"+x.name+"/oauth/token") {
				t.Errorf("a key of %s at %s: status %d", x.name, y, r.status)
			}
		}
	}
}

// Nothing of one tenant tells anything of another, by whatever parameter.
func TestTenantsAreApart(t *testing.T) {
	s := inProcess(t)
	a, b := s.newTenant("acme"), s.newTenant("globex")
	key, theirs := a.newKey("alice"), b.newKey("alice")
	tok, err := a.exchange(key.Secret)
	if err != nil {
		t.Fatal(err)
	}
	// Ids of acme in the hands of globex's admin: as if there were none.
	none := b.send(http.MethodGet, "/v1/keys/AAAAAAAAAAAAAAAAAAAAAA", "").status
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/v1/keys/" + key.ID, ""},
		{"DELETE", "/v1/keys/" + key.ID, ""},
		{"POST", "/v1/keys/" + key.ID + "/disable", `{"reason":"r"}`},
		{"POST", "/v1/keys/" + key.ID + "/enable", `{"reason":"r"}`},
		{"POST", "/v1/keys/" + key.ID + "/renew", `{"reason":"r"}`},
		{"POST", "/v1/keys/" + key.ID + "/rotate", `{"reason":"r"}`},
		{"POST", "/v1/keys/" + key.ID + "/rotation", `{"overlap":"1h"}`},
		{"POST", "/v1/keys/" + key.ID + "/rollback", `{"reason":"r"}`},
		{"PUT", "/v1/keys/" + key.ID + "/recipient", `{"recipient":""}`},
		{"POST", "/v1/keys/" + key.ID + "/delivery", `{"reason":"r"}`},
	} {
		if r := b.send(c.method, c.path, c.body); r.status != none || none != http.StatusNotFound {
			t.Errorf("%s %s by globex: status %d, want %d as for an unknown one: %s", c.method, c.path, r.status, none, r.body)
		}
	}
	tag := a.send("GET", "/v1/keys/"+key.ID, "").header.Get("ETag")
	for method, header := range map[string]string{http.MethodGet: "If-None-Match", http.MethodDelete: "If-Match"} {
		if r := s.api(b.token, method, "/v1/keys/"+key.ID, nil, header, tag); tag == "" || r.status != none {
			t.Errorf("%s with %s of acme's record by globex: status %d, want %d", method, header, r.status, none)
		}
	}
	if r := b.send("POST", "/v1/bindings", fmt.Sprintf(`{"subject":"key_%s","role":"viewer"}`, key.ID)); r.status/100 != 4 {
		t.Errorf("a binding to a key of acme: status %d", r.status)
	}
	if r := b.send("POST", "/v1/lookups", fmt.Sprintf(`{"secret":%q}`, key.Secret)); strings.Contains(string(r.body), "alice") {
		t.Errorf("a look-up of a secret of acme tells %s", r.body)
	}
	if r := b.send("POST", "/v1/revocations", `{"op":"hold","targets":["tenant:acme"],"reason":"r","tenant":"acme"}`); r.status != http.StatusForbidden {
		t.Errorf("globex holds acme: status %d: %s", r.status, r.body)
	}
	// The same target of its own tenant is another one.
	var cut struct{ ID string }
	s.decode(b.send("POST", "/v1/revocations?wait=5s", fmt.Sprintf(`{"op":"revoke","targets":["principal:alice","key:%s"],"reason":"r"}`, key.ID)), http.StatusCreated, &cut)
	if _, err := a.exchange(key.Secret); err != nil {
		t.Errorf("a revocation by globex hits acme: %v", err)
	}
	if _, err := b.exchange(theirs.Secret); err == nil {
		t.Error("a revocation by globex does not hit globex")
	}
	// Who still tries is told to globex alone, and not which of the servers that all share.
	tries := "/v1/receipts/" + cut.ID + "/attempts"
	eventually(t, "globex sees who has tried", func() error {
		r := b.send(http.MethodGet, tries, "")
		if r.status != http.StatusOK || !strings.Contains(string(r.body), `"principal:alice"`) {
			return fmt.Errorf("status %d: %s", r.status, r.body)
		}
		if strings.Contains(string(r.body), `"server"`) {
			t.Errorf("globex is told of servers: %s", r.body)
		}
		return nil
	})
	if r := a.send(http.MethodGet, tries, ""); r.status != http.StatusNotFound {
		t.Errorf("who tries with what globex has cut, asked by acme: status %d: %s", r.status, r.body)
	}
	// A token of acme, good or made up, is to globex no token at all.
	e := b.send("POST", "/v1/decisions", fmt.Sprintf(`{"token":%q}`, tok))
	if strings.Contains(string(e.body), "alice") || strings.Contains(string(e.body), "acme") {
		t.Errorf("globex is told of a token of acme: %s", e.body)
	}
	// What concerns the installation is not theirs.
	for _, path := range []string{"/v1/tenants", "/v1/tenants/acme", "/v1/tenants/globex", "/v1/tenants/acme/export", "/v1/tenants/acme/remains", "/v1/fleet", "/v1/audit/pages", "/v1/audit/checkpoint", "/v1/audit?tenant=acme", "/v1/slo"} {
		if r := b.send("GET", path, ""); r.status != http.StatusForbidden {
			t.Errorf("GET %s by globex: status %d", path, r.status)
		}
	}
	for _, path := range []string{"/v1/audit?limit=1000", "/v1/audit/export"} {
		r := b.send("GET", path, "")
		if text := string(r.body); r.status != http.StatusOK || !strings.Contains(text, `"tenant":"globex"`) || strings.Contains(text, "acme") || strings.Contains(text, "default") {
			t.Errorf("GET %s by globex: status %d: %s; want what is theirs alone", path, r.status, text)
		}
	}
	if r := b.send("POST", "/v1/tenants", `{"name":"evil"}`); r.status != http.StatusForbidden {
		t.Errorf("globex makes a tenant: status %d", r.status)
	}
	// A token of a page of acme's is none of globex's.
	a.newKey("bob")
	var page struct {
		Next string `json:"next_page"`
	}
	s.decode(a.send("GET", "/v1/keys?limit=1", ""), http.StatusOK, &page)
	if r := b.send("GET", "/v1/keys?limit=1&page="+url.QueryEscape(page.Next), ""); page.Next == "" || r.status/100 != 4 {
		t.Errorf("a page of acme in globex: status %d", r.status)
	}
}

// The same name in another tenant is somebody else, who has other keys.
func TestPrincipalsOfTenantsAreApart(t *testing.T) {
	s := inProcess(t)
	a, b := s.newTenant("acme"), s.newTenant("globex")
	key, theirs := a.newKey("alice"), b.newKey("alice")
	s.decode(a.send("POST", "/v1/principals", `{"id":"alice","name":"Alice of acme"}`), http.StatusCreated, &ignored)
	if r := b.send("GET", "/v1/principals", ""); strings.Contains(string(r.body), "alice") {
		t.Errorf("globex is told of a principal of acme: %s", r.body)
	}
	for _, method := range []string{"GET", "DELETE"} {
		there, none := b.send(method, "/v1/principals/alice", ""), b.send(method, "/v1/principals/nobody", "")
		if there.status != none.status || none.status != http.StatusNotFound {
			t.Errorf("%s of a principal of acme by globex: status %d, want %d as for an unknown one: %s", method, there.status, none.status, there.body)
		}
	}
	s.decode(b.send("POST", "/v1/principals", `{"id":"alice"}`), http.StatusCreated, &ignored)
	s.decode(b.send("DELETE", "/v1/principals/alice?reason=r", ""), http.StatusOK, &ignored)
	if _, err := b.exchange(theirs.Secret); err == nil {
		t.Error("a key of the deleted alice of globex is good")
	}
	var alice struct {
		ActiveKeys int `json:"active_keys"`
	}
	s.decode(a.send("GET", "/v1/principals/alice", ""), http.StatusOK, &alice)
	if _, err := a.exchange(key.Secret); err != nil || alice.ActiveKeys != 1 {
		t.Errorf("globex deletes its alice, and that of acme has %d keys that are good: %v", alice.ActiveKeys, err)
	}
	for tenant, want := range map[string]string{"acme": "Alice of acme", "globex": `"principals":[]`} {
		if r := s.raw(s.token(s.operator), "GET", "/v1/tenants/"+tenant+"/export", ""); !strings.Contains(string(r.body), want) {
			t.Errorf("the export of %s: %s, want %s in it", tenant, r.body, want)
		}
	}
}

// What a tenant's admin has can't be more than a tenant's, by any way.
func TestTenantAdminsGiveNothingOfTheInstallation(t *testing.T) {
	s := inProcess(t)
	a := s.newTenant("acme")
	for _, scope := range []string{"quash:tenants:write", "quash:tenants:read", "quash:fleet:write", "quash:fleet:read", "quash:epochs:write"} {
		for _, c := range []struct{ path, body string }{
			{"/v1/keys", `{"owner":"eve","scopes":["%s"]}`},
			{"/v1/roles", `{"name":"evil","scopes":["%s"]}`},
			{"/v1/clients", `{"name":"evil","grants":["client_credentials"],"scopes":["%s"]}`},
		} {
			if r := a.send("POST", c.path, fmt.Sprintf(c.body, scope)); r.status != http.StatusForbidden {
				t.Errorf("%s with %s: status %d: %s", c.path, scope, r.status, r.body)
			}
		}
	}
	if r := a.send("POST", "/v1/bindings", `{"subject":"eve","role":"operator"}`); r.status/100 != 4 {
		t.Errorf("the role operator in a tenant: status %d", r.status)
	}
}

func TestTenantIsHeldReleasedRevokedAndDeleted(t *testing.T) {
	c := clockAt(0)
	s := inProcess(t, clocks(map[string]*clock{identity.Issuer: c}))
	a := s.newTenant("acme")
	key := a.newKey("alice")
	tok, err := a.exchange(key.Secret)
	if err != nil {
		t.Fatal(err)
	}
	g := s.tenantsGuard()
	taken := func(tok string) bool { return g.Decide(t.Context(), tok, guard.Requirement{}).Allowed() }
	eventually(t, "the guard takes it", func() error {
		if !taken(tok) {
			return fmt.Errorf("%+v", g.Decide(t.Context(), tok, guard.Requirement{}))
		}
		return nil
	})
	op := s.token(s.operator)
	do := func(what string) {
		t.Helper()
		s.decode(s.raw(op, "POST", "/v1/tenants/acme/"+what, `{"reason":"test"}`), http.StatusOK, &ignored)
	}
	becomes := func(what string, want bool) {
		t.Helper()
		eventually(t, what, func() error {
			_, err := a.exchange(key.Secret)
			if is := taken(tok); is != want || (err == nil) != want {
				return fmt.Errorf("the token is taken: %t; exchange: %w", is, err)
			}
			return nil
		})
	}
	do("hold")
	becomes("held", false)
	do("release")
	becomes("released", true)
	do("revoke")
	becomes("revoked", false)
	// What is made afterwards is clean; an operator lets a new admin in.
	s.decode(s.raw(op, "POST", "/v1/tenants/acme/admins", `{}`), http.StatusCreated, &a.admin)
	if a.token, err = a.exchange(a.admin.Secret); err != nil {
		t.Fatal(err)
	}
	key = a.newKey("alice")
	if tok, err = a.exchange(key.Secret); err != nil || !taken(tok) {
		t.Fatalf("what is made after a revocation is not clean: %v", err)
	}
	for _, path := range []string{"/v1/tenants/default/hold", "/v1/tenants/default/revoke"} {
		if r := s.raw(op, "POST", path, `{"reason":"r"}`); r.status != http.StatusConflict {
			t.Errorf("%s: status %d, want 409", path, r.status)
		}
	}
	if r := s.raw(op, "DELETE", "/v1/tenants/default", ""); r.status != http.StatusConflict {
		t.Errorf("the installation's own tenant is deleted: status %d", r.status)
	}
	const rotate = `{"kind":"signing-key","reason":"test"}`
	var rotation struct {
		ID        string
		CreatedAt string `json:"created_at"`
	}
	r := s.api(a.token, http.MethodPost, "/v1/rotations", json.RawMessage(rotate), "Idempotency-Key", "monday")
	s.decode(r, r.status, &rotation)
	if rotation.ID == "" {
		t.Fatalf("a rotation of its keys: %d %s", r.status, r.body)
	}
	s.decode(a.send("POST", "/v1/principals", `{"id":"alice"}`), http.StatusCreated, &ignored)
	const formerly = "of the former tenant"
	var cut struct{ ID string }
	s.decode(a.send("POST", "/v1/revocations", `{"op":"revoke","targets":["principal:bob"],"reason":"`+formerly+`"}`), http.StatusCreated, &cut)
	receipt := cut.ID
	stolen, stolenCut := a.cutKey()
	s.decode(a.send("GET", "/v1/receipts/"+receipt, ""), http.StatusOK, &ignored)
	var left struct {
		None, Record bool
		Requests     int
	}
	s.decode(s.api(a.token, http.MethodPost, "/v1/principals", json.RawMessage(`{"id":"carol"}`), "Idempotency-Key", "carol"), http.StatusCreated, &ignored)
	if s.decode(s.raw(op, "GET", "/v1/tenants/acme/remains", ""), http.StatusOK, &left); left.Requests == 0 {
		t.Error("its request is not remembered: then nothing shows that it is forgotten")
	}
	s.decode(s.raw(op, "DELETE", "/v1/tenants/acme?reason=test", ""), http.StatusOK, &ignored)
	becomes("deleted", false)
	if r := a.send("GET", "/v1/keys", ""); r.status != http.StatusUnauthorized {
		t.Errorf("its admin: status %d", r.status)
	}
	if r := s.raw(op, "POST", "/v1/tenants", `{"name":"acme"}`); r.status != http.StatusConflict {
		t.Errorf("the name before everything is gone: status %d", r.status)
	}
	// The record stays for as long as requests from before may run.
	s.decode(s.raw(op, "GET", "/v1/tenants/acme/remains", ""), http.StatusOK, &left)
	if left.None || !left.Record {
		t.Errorf("left at once: %+v", left)
	}
	c.set(70 * time.Second)
	eventually(t, "nothing is left", func() error {
		r := s.raw(op, "GET", "/v1/tenants/acme/remains", "")
		if r.status == http.StatusServiceUnavailable { // until its clock has been looked at again
			return fmt.Errorf("%s", r.body)
		}
		s.decode(r, http.StatusOK, &left)
		if !left.None {
			return fmt.Errorf("%s", r.body)
		}
		return nil
	})
	// The name can be given again, and what had it before stays dead.
	again := s.newTenant("acme")
	if r := again.send("GET", "/v1/rotations/"+rotation.ID, ""); r.status != http.StatusNotFound {
		t.Errorf("a rotation of the former tenant: %d %s", r.status, r.body)
	}
	if r := again.send("GET", "/v1/receipts/"+receipt, ""); r.status != http.StatusNotFound {
		t.Errorf("a receipt of the former tenant: %d %s", r.status, r.body)
	}
	var page struct {
		Items []struct {
			ID     string
			Reason string
		}
	}
	for _, path := range []string{"/v1/receipts", "/v1/audit?limit=1000"} {
		s.decode(again.send("GET", path, ""), http.StatusOK, &page)
		if slices.ContainsFunc(page.Items, func(x struct{ ID, Reason string }) bool { return x.ID == receipt || x.Reason == formerly }) {
			t.Errorf("%s tells of the former tenant: %+v", path, page.Items)
		}
	}
	// Its own is there at once.
	s.decode(again.send("POST", "/v1/revocations", `{"op":"revoke","targets":["principal:bob"],"reason":"now"}`), http.StatusCreated, &cut)
	s.decode(again.send("GET", "/v1/receipts/"+cut.ID, ""), http.StatusOK, &ignored)
	s.decode(again.send("GET", "/v1/receipts", ""), http.StatusOK, &page)
	if len(page.Items) == 0 || page.Items[0].ID != cut.ID {
		t.Errorf("its own receipts: %+v", page.Items)
	}
	again.isToldOfItsOwnAttempts(stolen, stolenCut)
	first := rotation.CreatedAt
	r = s.api(again.token, http.MethodPost, "/v1/rotations", json.RawMessage(rotate), "Idempotency-Key", "monday")
	if s.decode(r, r.status, &rotation); rotation.CreatedAt == first {
		t.Errorf("a rotation of its own is answered with that of the former tenant: %s", r.body)
	}
	if r := again.send("GET", "/v1/principals/alice", ""); r.status != http.StatusNotFound {
		t.Errorf("a principal of the former tenant of that name: status %d", r.status)
	}
	fresh := again.newKey("alice")
	if next, err := again.exchange(fresh.Secret); err != nil || taken(tok) {
		t.Errorf("another tenant of that name: %v; a token of the former is taken: %t", err, taken(tok))
	} else {
		eventually(t, "the guard takes the new one", func() error {
			if !taken(next) {
				return fmt.Errorf("%+v", g.Decide(t.Context(), next, guard.Requirement{}))
			}
			return nil
		})
	}
}

// cutKey makes a key and revokes it; it returns the secret and the id of the receipt.
func (t *tenantOf) cutKey() (secret, receipt string) {
	t.s.t.Helper()
	k := t.newKey("carol")
	var cut struct{ ID string }
	t.s.decode(t.send("POST", "/v1/revocations", `{"op":"revoke","targets":["key:`+k.ID+`"],"reason":"test"}`), http.StatusCreated, &cut)
	return k.Secret, cut.ID
}

// isToldOfItsOwnAttempts: somebody tries with a key that a former tenant of the name has
// revoked, and then with one of its own; its feed tells of that alone. The log has both.
func (t *tenantOf) isToldOfItsOwnAttempts(stolen, former string) {
	t.s.t.Helper()
	feed := t.s.watchAs(t.token, "")
	try := func(secret, receipt string) {
		t.s.t.Helper()
		eventually(t.s.t, "the issuer refuses it", func() error {
			if _, err := t.exchange(secret); err == nil {
				return errors.New("a revoked key is exchanged")
			}
			return nil
		})
		eventually(t.s.t, "the attempt is in the log", func() error {
			for line := range strings.Lines(t.s.log.String()) {
				if strings.Contains(line, "somebody tries with what was revoked") && strings.Contains(line, receipt) {
					return nil
				}
			}
			return fmt.Errorf("nothing of %s", receipt)
		})
	}
	try(stolen, former)
	secret, own := t.cutKey()
	try(secret, own)
	lines := bufio.NewScanner(feed.Body)
	for lines.Scan() {
		var h struct{ Kind, Receipt string }
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok || json.Unmarshal([]byte(data), &h) != nil || h.Kind != "attempt" {
			continue
		}
		if h.Receipt == own {
			return
		}
		t.s.t.Errorf("the feed tells of an attempt on the receipt %s, which is not its own", h.Receipt)
	}
	t.s.t.Errorf("the feed ends before it tells of its own: %v", lines.Err())
}

func TestTenantLimits(t *testing.T) {
	s := inProcess(t)
	a := s.newTenant("acme", `,"limits":{"keys":3,"clients":1}`)
	a.newKey("one")
	a.newKey("two")
	limited := func(r reply, what string) {
		t.Helper()
		if r.status != http.StatusTooManyRequests || r.header.Get("Retry-After") == "" {
			t.Errorf("%s: status %d, Retry-After %q: %s", what, r.status, r.header.Get("Retry-After"), r.body)
		}
	}
	limited(a.send("POST", "/v1/keys", `{"owner":"three"}`), "a key more")
	op := s.token(s.operator)
	set := func(limits string) {
		t.Helper()
		s.decode(s.raw(op, "PUT", "/v1/tenants/acme/limits", `{"limits":`+limits+`}`), http.StatusOK, &ignored)
	}
	set(`{"clients":1}`)
	client := `{"name":"c","grants":["client_credentials"]}`
	s.decode(a.send("POST", "/v1/clients", client), http.StatusCreated, &ignored)
	limited(a.send("POST", "/v1/clients", client), "a client more")
	set(`{"tokens_per_second":0.01}`)
	for range 3 { // what nobody may use takes nothing from those who may
		if r := s.form("/t/acme/oauth/token", exchange("quash_key_junk")); r.status != http.StatusBadRequest {
			t.Errorf("a junk key: status %d, want 400", r.status)
		}
	}
	if _, err := a.exchange(a.admin.Secret); err != nil {
		t.Errorf("the first token: %v", err)
	}
	limited(s.form("/t/acme/oauth/token", exchange(a.admin.Secret)), "a token more")
	if r := s.form("/oauth/token", exchange(s.operator)); r.status != http.StatusOK {
		t.Errorf("the limit of acme holds for another tenant: status %d", r.status)
	}
	for _, bad := range []string{`{"keys":-1}`, `{"tokens_per_second":1e300}`, `{"tokens_per_second":0.0001}`, `{"sheep":1}`} {
		if r := s.raw(op, "PUT", "/v1/tenants/acme/limits", `{"limits":`+bad+`}`); r.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: status %d", bad, r.status)
		}
	}
}

var ignored any

// Guards serve all tenants: their names can tell of others.
func TestTenantIsNotToldTheNamesOfGuards(t *testing.T) {
	s := inProcess(t)
	a := s.newTenant("acme")
	s.tenantsGuard()
	type confirmations struct {
		Confirmed, Unconfirmed []struct{ Name, Instance string }
	}
	ask := func(token string) (e confirmations) {
		t.Helper()
		const body = `{"op":"revoke","targets":["principal:alice"],"reason":"test"}`
		s.decode(s.raw(token, "POST", "/v1/revocations?wait=10s", body), http.StatusCreated, &e)
		if len(e.Confirmed) == 0 || e.Confirmed[0].Instance == "" {
			t.Fatalf("%+v: want a guard that has confirmed", e)
		}
		return e
	}
	if e := ask(s.token(s.operator)); e.Confirmed[0].Name == "" {
		t.Errorf("the operator is not told who has confirmed: %+v", e)
	}
	for _, g := range ask(a.token).Confirmed {
		if g.Name != "" {
			t.Errorf("the tenant is told of the guard %q", g.Name)
		}
	}
}
