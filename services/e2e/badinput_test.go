package e2e

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
)

// victim is the services, something of each kind in them, and secrets that stand
// in bad requests and must come back nowhere.
type victim struct {
	*services
	log, control jetstream.JetStream               // with every right
	watched      map[*nats.Subscription]*nats.Conn // all that is sent to the streams
	token        string                            // the operator's
	key          apiKey
	client       string
	clientSecret string
	instance     string // of a guard
	incident     string
	planted      map[string]string
	state        map[string]uint64 // what was written when it was last looked
	pending      string            // the id of a cut that waits for a second person
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	v := &victim{services: inProcess(t, twoPeople), watched: map[*nats.Subscription]*nats.Conn{}}
	v.log, v.control = v.watch(identity.Log, wire.LogAll), v.watch(identity.Control, "$KV.>")
	v.token = v.services.token(v.operator)
	v.decode(v.api(v.token, "POST", "/v1/keys", map[string]any{"owner": "alice", "scopes": []string{"orders:read"}}), 201, &v.key)
	var client struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	v.decode(v.api(v.token, "POST", "/v1/clients", map[string]any{"name": "reports", "grants": []string{"client_credentials"}, "scopes": []string{"orders:read"}}), 201, &client)
	v.client, v.clientSecret = client.ID, client.Secret
	v.decode(v.api(v.token, "POST", "/v1/roles", map[string]any{"name": "clerk", "scopes": []string{"orders:read"}}), 201, &struct{}{})
	v.decode(v.api(v.token, "POST", "/v1/bindings", map[string]any{"subject": "alice", "role": "clerk"}), 201, &struct{}{})
	v.decode(v.api(v.token, "POST", "/v1/schedules", map[string]any{"name": "monthly", "rotate": "signing-key", "cron": "0 3 1 1 *", "reason": "r"}), 201, &struct{}{})
	v.pending = v.waits()
	var fleet struct{ Items []struct{ Instance string } }
	v.decode(v.api(v.token, "GET", "/v1/fleet", nil), 200, &fleet)
	v.instance = fleet.Items[0].Instance
	var incident struct{ ID string }
	v.decode(v.api(v.token, "POST", "/v1/incidents", map[string]any{"title": "t"}), 201, &incident)
	v.incident = incident.ID
	v.planted = map[string]string{
		"the operator's key": v.operator, "the operator's token": v.token,
		"an API key": v.key.Secret, "a client secret": v.clientSecret,
	}
	// A secret that somebody shows is noted in its record the first time: here, before it
	// is looked what else is written.
	for _, secret := range v.planted {
		if r := v.send("POST", "/oauth/leaked", url.Values{"key": {secret}}.Encode(), "Content-Type", "application/x-www-form-urlencoded"); r.status != 200 {
			t.Fatalf("POST /oauth/leaked: %d %s", r.status, r.body)
		}
	}
	v.state = v.written()
	return v
}

// watch hears all that is sent to the streams of an account.
func (v *victim) watch(account, subject string) jetstream.JetStream {
	v.t.Helper()
	nc := v.nats.Admin(v.t, account)
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		v.t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		v.t.Fatal(err)
	}
	v.watched[sub] = nc
	return js
}

// streams gives every right in an account.
func (v *victim) streams(t *testing.T, account string) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(v.nats.Admin(t, account))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// byItself reports whether a message is one that services send all the time.
func byItself(subject string) bool {
	// Receipts follow the entries of the log, which are counted, some moments later.
	return subject == wire.LogTick || strings.Contains(subject, "."+kv.BeatPrefix) || strings.HasPrefix(subject, "$KV."+receipts.Bucket+".")
}

// written counts what was written, in every stream, but for what the services
// write all the time by themselves.
func (v *victim) written() map[string]uint64 {
	v.t.Helper()
	out := map[string]uint64{}
	count := func(js jetstream.JetStream, name string) {
		s, err := js.Stream(v.t.Context(), name)
		if err != nil {
			v.t.Fatal(err)
		}
		info, err := s.Info(v.t.Context(), jetstream.WithSubjectFilter(">"))
		if err != nil {
			v.t.Fatal(err)
		}
		for subject, n := range info.State.Subjects {
			if !byItself(subject) {
				out[subject] = n
			}
		}
	}
	count(v.log, wire.Stream)
	for service := range identity.Buckets {
		for _, bucket := range identity.Buckets[service] {
			if _, err := v.control.Stream(v.t.Context(), "KV_"+bucket); err == nil {
				count(v.control, "KV_"+bucket)
			}
		}
	}
	return out
}

// bad is a request that must be refused.
type bad struct {
	name, method, path, body string
	header                   []string // in place of the usual ones where not nil
	want                     int
	field                    string // what the problem names; empty: nothing in particular
}

// refused sends it and looks at the answer, and at what it left behind.
func (v *victim) refused(t *testing.T, b bad) {
	t.Helper()
	header := b.header
	if header == nil {
		header = []string{"Authorization", "Bearer " + v.token}
		if b.body != "" {
			header = append(header, "Content-Type", "application/json")
		}
	}
	r := v.send(b.method, b.path, b.body, header...)
	if r.status != b.want {
		t.Errorf("status %d, want %d: %.500s", r.status, b.want, r.body)
	}
	v.problem(t, r, b.field)
	v.unchanged(t)
}

// problem holds an answer against what every refusal is.
func (v *victim) problem(t *testing.T, r reply, field string) {
	t.Helper()
	var p problem.Document
	if err := json.Unmarshal(r.body, &p); err != nil || r.header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("Content-Type %q, body %.300s: want a problem document", r.header.Get("Content-Type"), r.body)
	}
	if p.Status != r.status || p.Type != problem.TypeBase+problem.ByName(strings.TrimPrefix(p.Type, problem.TypeBase)).Name() || p.Detail == "" || p.RequestID == "" {
		t.Errorf("problem %+v of an answer %d", p, r.status)
	}
	if field != "" && p.Field != field {
		t.Errorf("the problem names the field %q, want %q: %s", p.Field, field, p.Detail)
	}
	if r.header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control %q", r.header.Get("Cache-Control"))
	}
	if r.status == 401 && r.header.Get("WWW-Authenticate") == "" {
		t.Error("401 without WWW-Authenticate")
	}
	v.silent(t, "the answer", r)
}

// silent fails if an answer has one of the planted secrets in it.
func (v *victim) silent(t *testing.T, what string, r reply) {
	t.Helper()
	text := string(r.body)
	for name, values := range r.header {
		text += name + ": " + strings.Join(values, ",")
	}
	v.nothingIn(t, what, text)
}

func (v *victim) nothingIn(t *testing.T, what, text string) {
	t.Helper()
	for name, secret := range v.planted {
		// The last part of a token is its signature; of ours, random digits. In any
		// case and cut short it is still enough to tell of it.
		part := secret[len(secret)-30 : len(secret)-6]
		if strings.Contains(strings.ToLower(text), strings.ToLower(part)) {
			t.Errorf("%s has %s in it", what, name)
		}
	}
}

// unchanged fails if anything was written since it was last asked. A request is
// answered after its writes, and what was sent before a flush has come before
// its end: only if something was sent has one to look whether it was stored.
func (v *victim) unchanged(t *testing.T) {
	t.Helper()
	sent := false
	for sub, nc := range v.watched {
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		for n, _, err := sub.Pending(); n > 0 || err != nil; n-- {
			m, err := sub.NextMsg(time.Second)
			if err != nil {
				t.Fatal(err)
			}
			sent = sent || !byItself(m.Subject)
		}
	}
	if !sent {
		return
	}
	now := v.written()
	for subject, n := range now {
		if v.state[subject] != n {
			t.Errorf("something was written: %s has %d messages, had %d", subject, n, v.state[subject])
		}
	}
	v.state = now
}

// alive fails unless the services still do their work.
func (v *victim) alive(t *testing.T) {
	t.Helper()
	defer func() { v.state = v.written() }()
	var k apiKey
	v.decode(v.api(v.token, "POST", "/v1/keys", map[string]any{"owner": "alive", "scopes": []string{"orders:read"}}), 201, &k)
	tok := v.services.token(k.Secret)
	v.decode(v.api(v.token, "POST", "/v1/revocations?wait=60s", map[string]any{"op": "revoke", "targets": []string{"key:" + k.ID}, "reason": "alive"}), 201, &struct{}{})
	if r := v.api(tok, "GET", "/v1/keys", nil); r.status != 401 {
		t.Errorf("a revoked key's token: status %d, want 401", r.status)
	}
	v.decode(v.api(v.token, "GET", "/v1/signing-keys", nil), 200, &struct{}{})
	v.nothingIn(t, "the services' log", v.services.log.String())
	if strings.Contains(v.services.log.String(), `"level":"error"`) {
		t.Errorf("an error was logged: %s", lineWith(v.services.log.String(), `"level":"error"`))
	}
}

func lineWith(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

// route is an operation that changes something, or takes a body.
type route struct {
	method, path string // with {} where an id stands
	good         map[string]any
	text         []string // members that are a text
	limit        int      // bytes of a body
}

func (v *victim) routes() []route {
	const most, bulk = 64 << 10, 1 << 20
	type m = map[string]any
	return []route{
		{"POST", "/v1/principals", m{"id": "bob"}, []string{"id", "kind", "name", "reason"}, most},
		{"POST", "/v1/keys", m{"owner": "alice"}, []string{"owner", "client_id", "name", "expires_in", "recipient", "reason"}, most},
		{"POST", "/v1/keys/" + v.key.ID + "/renew", m{"reason": "r"}, []string{"reason"}, most},
		{"POST", "/v1/keys/" + v.key.ID + "/rotate", m{}, []string{"reason", "overlap", "expires_in"}, most},
		{"POST", "/v1/keys/" + v.key.ID + "/rotation", m{"overlap": "1h"}, []string{"reason", "overlap"}, most},
		{"PUT", "/v1/keys/" + v.key.ID + "/recipient", m{"recipient": ""}, []string{"recipient", "reason"}, most},
		{"POST", "/v1/keys/" + v.key.ID + "/delivery", m{}, []string{"reason"}, most},
		{"POST", "/v1/keys/" + v.key.ID + "/rollback", m{"reason": "r"}, []string{"reason"}, most},
		{"POST", "/v1/keys/" + v.key.ID + "/disable", m{"reason": "r"}, []string{"reason"}, most},
		{"POST", "/v1/keys/" + v.key.ID + "/enable", m{"reason": "r"}, []string{"reason"}, most},
		{"POST", "/v1/keys/import", m{"keys": []m{{"sha256": strings.Repeat("ab", 32), "owner": "alice"}}}, []string{"reason"}, bulk},
		{"POST", "/v1/lookups", m{"secret": v.key.Secret}, []string{"secret"}, most},
		{"POST", "/v1/clients", m{"name": "n", "grants": []string{"client_credentials"}}, []string{"name", "secret_expires_in", "recipient", "reason"}, most},
		{"POST", "/v1/clients/" + v.client + "/secrets", m{}, []string{"name", "expires_in", "recipient", "reason"}, most},
		{"POST", "/v1/roles", m{"name": "new", "scopes": []string{}}, []string{"name", "reason"}, most},
		{"PUT", "/v1/roles/clerk", m{"scopes": []string{"orders:read"}}, []string{"reason"}, most},
		{"POST", "/v1/roles/clerk/renew", m{"reason": "r"}, []string{"reason"}, most},
		{"POST", "/v1/bindings", m{"subject": "bob", "role": "clerk"}, []string{"subject", "role", "expires_in", "reason"}, most},
		{"POST", "/v1/revocations", m{"op": "revoke", "targets": []string{"principal:bob"}, "reason": "r"}, []string{"op", "reason", "code", "plan", "for", "then", "issuer", "tenant", "incident"}, bulk},
		{"POST", "/v1/previews", m{"op": "revoke", "targets": []string{"principal:bob"}}, []string{"op", "for", "then", "issuer", "tenant", "incident"}, bulk},
		{"POST", "/v1/incidents", m{"title": "t"}, []string{"title", "severity"}, most},
		{"POST", "/v1/incidents/" + v.incident + "/notes", m{"text": "t"}, []string{"text"}, most},
		{"POST", "/v1/incidents/" + v.incident + "/close", m{"reason": "r"}, []string{"reason"}, most},
		{"POST", "/v1/pending/" + v.pending + "/approve", m{}, []string{"reason"}, most},
		{"POST", "/v1/pending/" + v.pending + "/deny", m{"reason": "r"}, []string{"reason"}, most},
		{"POST", "/v1/fleet/" + v.instance + "/out", m{"reason": "r"}, []string{"reason"}, most},
		{"POST", "/v1/epochs", m{"reason": "r"}, []string{"reason", "backup_at"}, most},
		{"POST", "/v1/decisions", m{"token": v.token}, []string{"token", "audience"}, most},
		{"POST", "/v1/rotations", m{"kind": "signing-key", "reason": "r"}, []string{"kind", "reason", "alg"}, most},
		{"POST", "/v1/schedules", m{"name": "weekly", "rotate": "signing-key", "cron": "0 3 * * 1", "reason": "r"}, []string{"name", "rotate", "cron", "time_zone", "every", "max_age", "before_expiry", "jitter", "missed", "overlap", "reason"}, most},
		{"POST", "/v1/schedules/preview", m{"rotate": "signing-key", "cron": "0 3 * * 1", "reason": "r"}, []string{"rotate", "cron", "time_zone", "every", "max_age", "before_expiry", "jitter", "missed", "overlap", "reason"}, most},
		{"POST", "/v1/schedules/monthly/pause", m{"reason": "r"}, []string{"reason"}, most},
		{"POST", "/v1/schedules/monthly/resume", m{"reason": "r"}, []string{"reason"}, most},
		{"POST", "/v1/tenants", m{"name": "acme"}, []string{"name", "expires_in", "reason"}, most},
		{"PUT", "/v1/tenants/default/limits", m{"limits": m{"keys": 1000}}, []string{"reason"}, most},
		{"POST", "/v1/tenants/default/admins", m{}, []string{"expires_in", "reason"}, most},
		{"POST", "/v1/tenants/default/hold", m{"reason": "r"}, []string{"reason"}, most},
		{"POST", "/v1/tenants/default/release", m{"reason": "r"}, []string{"reason"}, most},
		{"POST", "/v1/tenants/default/revoke", m{"reason": "r"}, []string{"reason"}, most},
		{method: "DELETE", path: "/v1/tenants/default"},
		{method: "DELETE", path: "/v1/principals/bob"},
		{method: "DELETE", path: "/v1/keys/" + v.key.ID},
		{method: "DELETE", path: "/v1/clients/" + v.client},
		{method: "DELETE", path: "/v1/roles/clerk"},
		{method: "DELETE", path: "/v1/schedules/monthly"},
		{method: "DELETE", path: "/v1/bindings?subject=alice&role=clerk"},
	}
}

// TestTheTableHasEveryRoute fails when a route is added and not attacked.
func TestTheTableHasEveryRoute(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct{}
	}
	if err := json.Unmarshal(schematest.Read(t, "openapi.json"), &doc); err != nil {
		t.Fatal(err)
	}
	v := &victim{key: apiKey{ID: "x"}, client: "x", instance: "x", pending: "x"}
	for path, ops := range doc.Paths {
		for method := range ops {
			if method == "get" || strings.Contains(path, "/oauth/") {
				continue
			}
			if !slices.ContainsFunc(v.routes(), func(r route) bool {
				at, _, _ := strings.Cut(r.path, "?")
				return strings.EqualFold(r.method, method) && matches(path, at)
			}) {
				t.Errorf("%s %s is not in the table", method, path)
			}
		}
	}
}

// with returns the route's good body with a member changed; nil takes it away.
func (r route) with(member string, value any) string {
	body := maps.Clone(r.good)
	if body[member] = value; value == nil {
		delete(body, member)
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // a table that can't be marshalled
	}
	return string(text)
}

// TestEveryRouteRefusesBadRequests sends each route what no route takes.
func TestEveryRouteRefusesBadRequests(t *testing.T) {
	v := newVictim(t)
	for _, r := range v.routes() {
		path, _, _ := strings.Cut(r.path, "?")
		name := strings.NewReplacer(v.key.ID, "ID", v.client, "ID", v.instance, "ID", v.incident, "ID").Replace(path)
		t.Run(r.method+" "+name, func(t *testing.T) {
			cases := slices.Concat(v.badCallers(r), v.badQueries(r), v.badMethods(r))
			if r.good != nil {
				cases = slices.Concat(cases, v.badTypes(r), v.badForms(r), v.badMembers(r))
			} else {
				cases = append(cases, bad{name: "a body", body: `{"reason":"` + v.key.Secret + `"}`, want: 422})
			}
			for _, b := range cases {
				b.method, b.path = cmp(b.method, r.method), cmp(b.path, r.path)
				t.Run(b.name, func(t *testing.T) { v.refused(t, b) })
			}
		})
	}
	v.alive(t)
}

func cmp(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
