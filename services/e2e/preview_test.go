package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/problem"
)

// shown is what a preview tells.
type shown struct {
	counts        map[string]int // of what is hit, without zeros
	inexact       []string
	AtMost        *int
	ByClient      map[string]int
	Servers       []string
	CutsCaller    bool `json:"cuts_caller"`
	CutsLastAdmin bool `json:"cuts_last_admin"`
	Unknown       []string
	Plan          string
}

func readPreview(t *testing.T, r reply) shown {
	t.Helper()
	out := shown{counts: map[string]int{}, ByClient: map[string]int{}}
	var all map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(r.body, &out), json.Unmarshal(r.body, &all)); err != nil || r.status != http.StatusOK {
		t.Fatalf("status %d, %v: %.500s", r.status, err, r.body)
	}
	for name, text := range all {
		var c struct {
			Count *int
			Exact bool
		}
		if json.Unmarshal(text, &c) != nil || c.Count == nil {
			continue
		}
		if *c.Count > 0 {
			out.counts[name] = *c.Count
		}
		if !c.Exact {
			out.inexact = append(out.inexact, name)
		}
	}
	var more struct {
		Tokens struct {
			AtMost *int `json:"at_most"`
		}
		ByClient []struct {
			ID   string `json:"client_id"`
			Keys int
		} `json:"by_client"`
		Servers []struct{ Name string } `json:"resource_servers"`
	}
	if err := json.Unmarshal(r.body, &more); err != nil {
		t.Fatal(err)
	}
	out.AtMost = more.Tokens.AtMost
	for _, c := range more.ByClient {
		out.ByClient[c.ID] = c.Keys
	}
	for _, g := range more.Servers {
		out.Servers = append(out.Servers, g.Name)
	}
	slices.Sort(out.inexact)
	return out
}

// stock is a store with known content.
type stock struct {
	*services
	op              string // the operator's token
	alice, old, bob apiKey // keys; old is revoked
	client          string
	within          apiKey // alice's key within the client
	clerk           string // id of a role: given with a key of alice, and bound to bob
}

func newStock(t *testing.T) *stock {
	t.Helper()
	s := &stock{services: inProcess(t)}
	s.op = s.token(s.operator)
	make := func(path, body string, into any) {
		t.Helper()
		s.decode(s.raw(s.op, "POST", path, body), http.StatusCreated, into)
	}
	var role struct{ ID string }
	make("/v1/roles", `{"name":"clerk","scopes":["orders:read"]}`, &role)
	s.clerk = role.ID
	var client struct {
		ID string `json:"client_id"`
	}
	make("/v1/clients", `{"name":"reports","grants":["client_credentials"]}`, &client)
	s.client = client.ID
	make("/v1/clients/"+s.client+"/secrets", `{}`, &ignored)
	make("/v1/keys", `{"owner":"alice","roles":["clerk"],"labels":{"ci":"","env":"prod"}}`, &s.alice)
	make("/v1/keys", `{"owner":"alice","scopes":["orders:read"]}`, &s.old)
	make("/v1/keys", fmt.Sprintf(`{"owner":"alice","client_id":%q,"scopes":["orders:read"]}`, s.client), &s.within)
	make("/v1/keys", `{"owner":"bob","scopes":["orders:read"],"owner_roles":true}`, &s.bob)
	make("/v1/bindings", `{"subject":"bob","role":"clerk"}`, &ignored)
	make("/v1/revocations?wait=5s", `{"op":"revoke","targets":["key:`+s.old.ID+`"],"reason":"r"}`, &ignored)
	make("/v1/revocations?wait=5s", `{"op":"hold","targets":["key:`+s.bob.ID+`"],"reason":"r"}`, &ignored)
	return s
}

func (s *stock) preview(token, op string, targets ...string) reply {
	s.t.Helper()
	return s.api(token, "POST", "/v1/previews", map[string]any{"op": op, "targets": targets})
}

func (s *stock) commit(token, op, plan, key string, targets ...string) (int, problem.Document) {
	s.t.Helper()
	r := s.api(token, "POST", "/v1/revocations", map[string]any{"op": op, "targets": targets, "reason": "r", "plan": plan}, "Idempotency-Key", key)
	var p problem.Document
	if err := json.Unmarshal(r.body, &p); err != nil {
		s.t.Fatalf("%v in %s", err, r.body)
	}
	return r.status, p
}

func TestPreviewCountsWhatEachKindOfTargetHits(t *testing.T) {
	s := newStock(t)
	var signing struct{ Items []struct{ Kid, State string } }
	s.decode(s.api(s.op, "GET", "/v1/signing-keys", nil), http.StatusOK, &signing)
	kid := ""
	for _, k := range signing.Items {
		if k.State == "signing" {
			kid = k.Kid
		}
	}
	type m = map[string]int
	one, none := 1, 0
	for _, c := range []struct {
		name, op string
		targets  []string
		want     m
		atMost   *int
		byClient m
		caller   bool
		admin    bool
		unknown  int
	}{
		{name: "a principal", targets: []string{"principal:alice"}, want: m{"api_keys": 2}, byClient: m{"": 1, s.client: 1}},
		{name: "what is held, by a revocation", targets: []string{"principal:bob"}, want: m{"api_keys": 1}, byClient: m{"": 1}},
		{name: "what is held, by a hold", op: "hold", targets: []string{"principal:bob"}, want: m{}},
		{name: "nobody", targets: []string{"principal:nobody"}, want: m{}},
		{name: "a key", targets: []string{"key:" + s.alice.ID}, want: m{"api_keys": 1}, byClient: m{"": 1}},
		{name: "a dead key", targets: []string{"key:" + s.old.ID}, want: m{}},
		{name: "no key", targets: []string{"key:AAAAAAAAAAAAAAAAAAAAAA"}, want: m{}, unknown: 1},
		{name: "a client", targets: []string{"client:" + s.client}, want: m{"api_keys": 1, "client_secrets": 2, "clients": 1}, byClient: m{s.client: 3}},
		{name: "a key as a client", targets: []string{"client:key_" + s.alice.ID}, want: m{"api_keys": 1}, byClient: m{"": 1}},
		{name: "a grant", targets: []string{"grant:alice/" + s.client}, want: m{"api_keys": 1}, byClient: m{s.client: 1}},
		{name: "a role", targets: []string{"role:" + s.clerk}, want: m{"roles": 1, "bindings": 1, "narrowed": 1}},
		{name: "a binding", targets: []string{"binding:bob/" + s.clerk}, want: m{"bindings": 1}},
		{name: "a role given with a key", targets: []string{"binding:alice/" + s.clerk}, want: m{"narrowed": 1}},
		{name: "a role given with a key, and no binding", targets: []string{"binding:alice/" + s.clerk, "binding:nobody/" + s.clerk}, want: m{"narrowed": 1}, unknown: 1},
		{name: "a session", targets: []string{"session:x", "sign-ins:alice"}, want: m{}, atMost: &none},
		{name: "a token", targets: []string{"token:x", "token:x"}, want: m{}, atMost: &one},
		{name: "a signing key", targets: []string{"signing-key:" + kid}, want: m{}, caller: true},
		{name: "another signing key", targets: []string{"signing-key:x"}, want: m{}},
		{name: "the issuer", targets: []string{"issuer:own"}, want: m{"api_keys": 4, "client_secrets": 2, "clients": 1}, byClient: m{"": 3, s.client: 3}, caller: true, admin: true},
		{name: "the tenant, and something in it", targets: []string{"tenant:default", "key:" + s.alice.ID}, want: m{"api_keys": 4, "client_secrets": 2, "clients": 1}, byClient: m{"": 3, s.client: 3}, caller: true, admin: true},
		{name: "the operator", targets: []string{"principal:operator"}, want: m{"api_keys": 1}, byClient: m{"": 1}, caller: true, admin: true},
	} {
		if c.op == "" {
			c.op = "revoke"
		}
		p := readPreview(t, s.preview(s.op, c.op, c.targets...))
		if c.byClient == nil {
			c.byClient = m{}
		}
		same := (p.AtMost == nil) == (c.atMost == nil) && (p.AtMost == nil || *p.AtMost == *c.atMost)
		if !maps.Equal(p.counts, c.want) || !maps.Equal(p.ByClient, c.byClient) || !same || p.CutsCaller != c.caller || p.CutsLastAdmin != c.admin || len(p.Unknown) != c.unknown || len(p.inexact) > 0 {
			t.Errorf("%s: %+v", c.name, p)
		}
		if !slices.Contains(p.Servers, identity.Issuer) || p.Plan == "" {
			t.Errorf("%s: guards %v, plan %q", c.name, p.Servers, p.Plan)
		}
	}
	if p := readPreview(t, s.preview(s.op, "revoke", "principal:alice", "issuer:okta")); p.counts["api_keys"] != 2 || !slices.Equal(p.inexact, []string{"grants", "sessions"}) {
		t.Errorf("of two issuers: %+v", p)
	}
	if p := readPreview(t, s.api(s.op, "POST", "/v1/previews", map[string]any{"op": "revoke", "issuer": "okta", "targets": []string{"principal:alice"}})); len(p.counts) > 0 || !slices.Equal(p.inexact, []string{"grants", "sessions"}) {
		t.Errorf("of another issuer: %+v", p)
	}
}

func TestPlanIsWhatIsCommitted(t *testing.T) {
	s := newStock(t)
	acme := s.newTenant("acme")
	plan := func(op string, targets ...string) string { return readPreview(t, s.preview(s.op, op, targets...)).Plan }
	refused := func(what, token, op, plan, detail string, targets ...string) {
		t.Helper()
		if status, p := s.commit(token, op, plan, "refused-"+what, targets...); status != http.StatusConflict || p.Field != "plan" || !strings.Contains(p.Detail, detail) {
			t.Errorf("%s: status %d, %+v", what, status, p)
		}
	}
	alice := plan("revoke", "principal:alice", "key:"+s.old.ID)
	refused("another target", s.op, "revoke", alice, "other targets", "principal:bob")
	refused("one target less", s.op, "revoke", alice, "other targets", "principal:alice")
	refused("another op", s.op, "hold", alice, "of a revoke", "principal:alice", "key:"+s.old.ID)
	refused("a plan of another tenant", acme.token, "revoke", alice, "no such plan", "principal:alice", "key:"+s.old.ID)
	refused("a forged plan", s.op, "revoke", "AAAAAAAAAAAAAAAAAAAAAA", "no such plan", "principal:alice", "key:"+s.old.ID)
	if status, p := s.commit(s.op, "revoke", "a.b*>", "none", "principal:alice"); status != http.StatusUnprocessableEntity || p.Field != "plan" {
		t.Errorf("what can be no plan: status %d, %+v", status, p)
	}

	// A hold that ends as a revocation is none, and hits what is held already.
	hold := func(path, plan, length, then, key string) reply {
		body := map[string]any{"op": "hold", "targets": []string{"principal:bob"}, "for": length, "then": then}
		if path != "/v1/previews" {
			body["plan"], body["reason"] = plan, "r"
		}
		if key == "" {
			return s.api(s.op, "POST", path, body)
		}
		return s.api(s.op, "POST", path, body, "Idempotency-Key", key)
	}
	for name, p := range map[string]string{"of a plain hold": plan("hold", "principal:bob"), "released": readPreview(t, hold("/v1/previews", "", "1h", "", "")).Plan} {
		if r := hold("/v1/revocations", p, "1h", "revoke", "end "+name); r.status != http.StatusConflict || !strings.Contains(string(r.body), "not of one for 1h0m0s, then revoke") {
			t.Errorf("a hold that revokes by the plan %s: status %d, %s", name, r.status, r.body)
		}
	}
	ends := readPreview(t, hold("/v1/previews", "", "1h", "revoke", ""))
	if ends.counts["api_keys"] != 1 {
		t.Errorf("a hold that revokes: %+v", ends)
	}
	if r := hold("/v1/revocations", ends.Plan, "2h", "revoke", "longer"); r.status != http.StatusConflict {
		t.Errorf("a longer hold: status %d, %s", r.status, r.body)
	}
	if r := hold("/v1/revocations", ends.Plan, "1h", "revoke", "as shown"); r.status != http.StatusCreated {
		t.Errorf("a hold as shown: status %d, %s", r.status, r.body)
	}
	for _, bad := range [][2]string{{"x", ""}, {"", "revoke"}, {"1h", "x"}} {
		if r := hold("/v1/previews", "", bad[0], bad[1], ""); r.status != http.StatusUnprocessableEntity {
			t.Errorf("a preview of a hold for %q, then %q: status %d, %s", bad[0], bad[1], r.status, r.body)
		}
	}

	// Another key in the place of one that has gone is growth too.
	s.decode(s.raw(s.op, "DELETE", "/v1/keys/"+s.within.ID+"?reason=r", ""), http.StatusOK, &ignored)
	var made apiKey
	s.decode(s.raw(s.op, "POST", "/v1/keys", `{"owner":"alice","scopes":["orders:read"]}`), http.StatusCreated, &made)
	refused("what has grown", s.op, "revoke", alice, "has grown", "principal:alice", "key:"+s.old.ID)

	// What has shrunk is committed, the targets in any order, and once.
	again := plan("revoke", "principal:alice", "key:"+s.old.ID)
	s.decode(s.raw(s.op, "DELETE", "/v1/keys/"+made.ID+"?reason=r", ""), http.StatusOK, &ignored)
	for n, want := range []int{http.StatusCreated, http.StatusOK} {
		if status, p := s.commit(s.op, "revoke", again, "by a plan", "key:"+s.old.ID, "principal:alice"); status != want {
			t.Errorf("time %d: status %d, %+v", n+1, status, p)
		}
	}

	// A plan ends; what was committed by it is answered all the same.
	s.age(t, again)
	if status, p := s.commit(s.op, "revoke", again, "by a plan", "key:"+s.old.ID, "principal:alice"); status != http.StatusOK {
		t.Errorf("repeated after the plan's end: status %d, %+v", status, p)
	}
	refused("an old plan", s.op, "revoke", again, "has expired", "key:"+s.old.ID, "principal:alice")
}

// age makes a plan 16 minutes older: the services' clocks can't be moved so far.
func (s *stock) age(t *testing.T, plan string) {
	t.Helper()
	js, err := jetstream.New(s.nats.Admin(t, identity.Log))
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), identity.Requests)
	if err != nil {
		t.Fatal(err)
	}
	e, err := kv.Get(t.Context(), "default.plan."+plan)
	if err != nil {
		t.Fatal(err)
	}
	var note map[string]any
	if err := json.Unmarshal(e.Value(), &note); err != nil {
		t.Fatal(err)
	}
	answer := note["answer"].(map[string]any)
	answer["at"] = answer["at"].(float64) - float64((16 * time.Minute).Milliseconds())
	data, err := json.Marshal(note)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), "default.plan."+plan, data); err != nil {
		t.Fatal(err)
	}
}

// A preview tells a tenant nothing of another, nor who serves all of them; and what can't be
// seen is no small number.
func TestPreviewTellsNothingOfOthersAndNothingInDoubt(t *testing.T) {
	s := newStock(t)
	acme := s.newTenant("acme")
	for _, target := range []string{"principal:alice", "client:" + s.client, "key:" + s.alice.ID, "role:" + s.clerk, "grant:alice/" + s.client} {
		r := s.preview(acme.token, "revoke", target)
		if p := readPreview(t, r); len(p.counts) > 0 || len(p.ByClient) > 0 || p.CutsCaller || p.CutsLastAdmin {
			t.Errorf("%s in acme: %+v", target, p)
		}
		if text := string(r.body); strings.Contains(text, identity.Issuer+`"`) || strings.Contains(text, `"default"`) {
			t.Errorf("%s in acme tells %s", target, text)
		}
	}
	if r := s.api(acme.token, "POST", "/v1/previews", map[string]any{"op": "revoke", "tenant": "default", "targets": []string{"principal:alice"}}); r.status != http.StatusForbidden {
		t.Errorf("another tenant by name: status %d", r.status)
	}
	if p := readPreview(t, s.preview(acme.token, "revoke", "tenant:acme")); !p.CutsCaller || !p.CutsLastAdmin || p.counts["api_keys"] != 1 {
		t.Errorf("acme as a whole: %+v", p)
	}
	plan := readPreview(t, s.preview(s.op, "revoke", "principal:alice")).Plan
	s.byName["issuer"]()
	r := s.preview(s.op, "revoke", "principal:alice")
	if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("without the issuer: status %d, %s", r.status, r.body)
	}
	if status, p := s.commit(s.op, "revoke", plan, "k", "principal:alice"); status != http.StatusServiceUnavailable {
		t.Errorf("a commit by plan without the issuer: status %d, %+v", status, p)
	}
	if status, p := s.commit(s.op, "revoke", "", "k", "principal:alice"); status != http.StatusCreated {
		t.Errorf("a commit without a plan needs no issuer: status %d, %+v", status, p)
	}
}

// seenAt is what a preview says of who has accepted a token of a target, by server.
func (s *stock) seenAt(token, target string) (by map[string]string, named bool) {
	s.t.Helper()
	by = map[string]string{}
	eventually(s.t, "every server says what it has seen", func() error {
		var p struct {
			Asked   bool `json:"resource_servers_seen"`
			Servers []struct {
				Name, Instance, Seen string
				Since                *time.Time `json:"remembers_since"`
			} `json:"resource_servers"`
		}
		s.decode(s.preview(token, "revoke", target), http.StatusOK, &p)
		if !p.Asked || len(p.Servers) == 0 {
			return fmt.Errorf("asked: %t, %d servers", p.Asked, len(p.Servers))
		}
		for _, g := range p.Servers {
			if g.Seen == "unknown" || g.Since == nil {
				return fmt.Errorf("%+v", g)
			}
			if age := time.Since(*g.Since); age < -time.Minute || age > 25*time.Hour {
				s.t.Errorf("%s remembers since %s", g.Name, g.Since)
			}
			named = named || g.Name != ""
			who := g.Name // each has one instance
			if who == "" {
				who = g.Instance
			}
			by[who] = g.Seen
		}
		return nil
	})
	return by, named
}

// TestPreviewTellsWhichServersHaveSeenIt: those that have accepted a token of it, and no
// other; a tenant hears of its own targets alone, and of servers without their names.
func TestPreviewTellsWhichServersHaveSeenIt(t *testing.T) {
	s := newStock(t)
	acme := s.newTenant("acme")
	if by, _ := s.seenAt(s.op, "principal:operator"); by[identity.Revocation] != "yes" || by[identity.Issuer] != "yes" || by[identity.Rotator] != "no" {
		t.Errorf("the operator: %v", by)
	}
	s.decode(s.api(s.op, "GET", "/v1/signing-keys", nil), http.StatusOK, &ignored)
	if by, _ := s.seenAt(s.op, "principal:operator"); by[identity.Rotator] != "yes" {
		t.Errorf("the operator has asked the rotator, and %v", by)
	}
	for _, target := range []string{"principal:alice", "client:" + s.client, "role:" + s.clerk} { // their tokens open nothing here
		if by, _ := s.seenAt(s.op, target); len(by) != 3 || slices.Contains(slices.Collect(maps.Values(by)), "yes") {
			t.Errorf("%s: %v", target, by)
		}
	}
	by, named := s.seenAt(acme.token, "tenant:acme")
	if named || !slices.Contains(slices.Collect(maps.Values(by)), "yes") {
		t.Errorf("acme is told %v (with names: %t)", by, named)
	}
	if by, _ := s.seenAt(acme.token, "principal:operator"); slices.Contains(slices.Collect(maps.Values(by)), "yes") {
		t.Errorf("acme is told of the operator of another tenant: %v", by)
	}
}
