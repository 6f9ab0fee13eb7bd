package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/errors"

	"github.com/quash-project/quash/schemas/schematest"
)

// contract holds requests and answers against schemas/openapi.json.
type contract struct {
	*services
	validator validator.Validator
	paths     map[string]map[string]operation
	seen      map[string]bool // operation id and status
}

type operation struct {
	ID         string `json:"operationId"`
	Parameters []struct{ Name, In string }
	Responses  map[string]struct {
		Ref     string `json:"$ref"`
		Headers map[string]any
	}
}

func newContract(t *testing.T) *contract {
	t.Helper()
	text := schematest.Read(t, "openapi.json")
	doc, err := libopenapi.NewDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	c := &contract{services: inProcess(t, twoPeople), validator: v, seen: map[string]bool{}}
	var parsed struct {
		Paths map[string]map[string]operation
	}
	if err := json.Unmarshal(text, &parsed); err != nil {
		t.Fatal(err)
	}
	c.paths = parsed.Paths
	return c
}

// find returns the operation that serves a request: OpenAPI, 4.8.8.2: "When matching
// URLs, concrete (non-templated) paths would be matched before their templated
// counterparts."
func (c *contract) find(method, path string) (operation, bool) {
	if op, ok := c.paths[path][strings.ToLower(method)]; ok {
		return op, true
	}
	for pattern, ops := range c.paths {
		if matches(pattern, path) {
			op, ok := ops[strings.ToLower(method)]
			return op, ok
		}
	}
	return operation{}, false
}

// matches compares a path with a pattern of OpenAPI; no two operations of ours with
// the same method take the same path.
func matches(pattern, path string) bool {
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if want[i] != got[i] && !strings.HasPrefix(want[i], "{") {
			return false
		}
	}
	return true
}

// call is one exchange. Good requests must be what the document says, too.
type call struct {
	name, method, path string
	body               any // url.Values: a form; string: as it is; else JSON
	header             []string
	want               int
}

func (c *contract) request(k call) *http.Request {
	c.t.Helper()
	var body io.Reader = http.NoBody
	kind := ""
	switch b := k.body.(type) {
	case nil:
	case url.Values:
		body, kind = strings.NewReader(b.Encode()), "application/x-www-form-urlencoded"
	case string:
		body, kind = strings.NewReader(b), "application/json"
	default:
		text, err := json.Marshal(b)
		if err != nil {
			c.t.Fatal(err)
		}
		body, kind = bytes.NewReader(text), "application/json"
	}
	req, err := http.NewRequest(k.method, c.url+k.path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for i := 0; i+1 < len(k.header); i += 2 {
		req.Header.Set(k.header[i], k.header[i+1])
	}
	return req
}

// check sends a request and holds both sides against the document.
func (c *contract) check(k call) reply {
	c.t.Helper()
	name := k.name
	if name == "" {
		name = k.method + " " + k.path
	}
	got := c.do(c.request(k))
	if got.status != k.want {
		c.t.Fatalf("%s: status %d, want %d: %.600s", name, got.status, k.want, got.body)
	}
	c.holds(name, c.request(k), got)
	return got
}

// holds holds an answer against the document, and the request too if it was taken.
func (c *contract) holds(name string, req *http.Request, got reply) {
	c.t.Helper()
	resp := &http.Response{StatusCode: got.status, Header: got.header, Body: io.NopCloser(bytes.NewReader(got.body)), Request: req}
	var found []*errors.ValidationError
	if got.status < 400 {
		_, found = c.validator.ValidateHttpRequestResponse(req, resp)
	} else {
		_, found = c.validator.ValidateHttpResponse(req, resp)
	}
	for _, f := range found {
		c.t.Errorf("%s: %s: %s (answer %.600s)", name, f.Message, f.Reason, got.body)
		for _, s := range f.SchemaValidationErrors {
			c.t.Errorf("    %s", s.Reason)
		}
	}
	op, ok := c.find(req.Method, req.URL.Path)
	if !ok {
		c.t.Errorf("%s: there is no such operation in the document", name)
		return
	}
	c.seen[op.ID+" "+strconv.Itoa(got.status)] = true
	c.headers(name, op, got)
}

// headers that the document names without saying that they are optional are there.
func (c *contract) headers(name string, op operation, got reply) {
	c.t.Helper()
	want := []string{"X-Request-Id", "Cache-Control"}
	switch got.status {
	case http.StatusServiceUnavailable:
		want = append(want, "Retry-After")
	case http.StatusUnauthorized, http.StatusForbidden:
		want = append(want, "WWW-Authenticate")
	}
	for _, h := range want {
		if got.header.Get(h) == "" {
			c.t.Errorf("%s: status %d without %s", name, got.status, h)
		}
	}
	r := op.Responses[strconv.Itoa(got.status)]
	if r.Ref == "" && r.Headers["X-Request-Id"] == nil {
		c.t.Errorf("%s: the document does not name the headers of %d", name, got.status)
	}
}

// lacking returns the operations of which no success was seen.
func (c *contract) lacking() []string {
	var out []string
	for path, ops := range c.paths {
		for method, op := range ops {
			ok := false
			for seen := range c.seen {
				id, status, _ := strings.Cut(seen, " ")
				ok = ok || id == op.ID && status[0] == '2'
			}
			if !ok {
				out = append(out, strings.ToUpper(method)+" "+path)
			}
		}
	}
	slices.Sort(out)
	return out
}

// TestAnswersAreWhatTheDocumentSays calls every operation, rightly and wrongly.
func TestAnswersAreWhatTheDocumentSays(t *testing.T) {
	c := newContract(t)
	tok := c.token(c.operator)
	by := []string{"Authorization", "Bearer " + tok}
	ok := func(method, path string, body any, want int, into any, header ...string) {
		t.Helper()
		r := c.check(call{method: method, path: path, body: body, want: want, header: append(header, by...)})
		if into != nil {
			c.decode(r, want, into)
		}
	}
	type m = map[string]any
	var key struct{ ID, Secret string }
	ok("POST", "/v1/keys", m{"owner": "alice", "scopes": []string{"orders:read"}, "expires_in": "720h", "reason": "contract"}, 201, &key)
	ok("GET", "/v1/keys?limit=1", nil, 200, nil)
	ok("GET", "/v1/keys?owner=alice&kind=all", nil, 200, nil)
	ok("GET", "/v1/keys/"+key.ID, nil, 200, nil)
	ok("POST", "/v1/keys/"+key.ID+"/renew", m{"reason": "contract"}, 200, nil)
	ok("PUT", "/v1/keys/"+key.ID+"/recipient", m{"recipient": "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", "reason": "contract"}, 200, nil)
	ok("POST", "/v1/keys/"+key.ID+"/delivery", m{"reason": "contract"}, 404, nil)
	ok("POST", "/v1/keys/"+key.ID+"/rotate", m{"overlap": "1h", "reason": "contract"}, 201, nil)
	ok("POST", "/v1/keys/"+key.ID+"/rotate", m{"emergency": true, "reason": "contract"}, 409, nil)
	ok("POST", "/v1/keys/"+key.ID+"/rotation", m{"overlap": "2h", "reason": "contract"}, 200, nil)
	ok("GET", "/v1/keys/"+key.ID, nil, 200, nil)
	ok("POST", "/v1/keys/"+key.ID+"/rollback", m{"reason": "contract"}, 200, nil)
	c.fire(key.ID, "f1")
	ok("POST", "/v1/keys/"+key.ID+"/delivery", m{"reason": "contract"}, 200, nil)
	ok("POST", "/v1/keys/"+key.ID+"/delivery", m{"reason": "contract"}, 409, nil)
	ok("GET", "/v1/keys/"+key.ID, nil, 200, nil)
	ok("POST", "/v1/keys/"+key.ID+"/rollback", m{"reason": "contract"}, 200, nil)
	var stolen struct{ ID string }
	ok("POST", "/v1/keys", m{"owner": "alice"}, 201, &stolen)
	ok("POST", "/v1/keys/"+stolen.ID+"/rotate", m{"emergency": true, "expires_in": "24h", "reason": "contract"}, 201, &stolen)
	ok("DELETE", "/v1/keys/"+stolen.ID, nil, 200, nil)
	ok("POST", "/v1/keys/"+key.ID+"/disable", m{"reason": "contract"}, 200, nil)
	ok("POST", "/v1/keys/"+key.ID+"/enable", m{"reason": "contract"}, 200, nil)
	ok("POST", "/v1/keys/import", m{"keys": []m{
		{"sha256": strings.Repeat("ab", 32), "owner": "alice", "networks": []string{"192.0.2.0/24"}, "rate_limit": 60, "expires": time.Now().Add(time.Hour).Format(time.RFC3339)},
		{"sha256": "none", "owner": "alice"},
	}, "reason": "contract"}, 200, nil)
	ok("GET", "/v1/keys?unused_since=90d", nil, 200, nil)
	ok("POST", "/v1/lookups", m{"secret": key.Secret}, 200, nil)
	var client struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	ok("POST", "/v1/clients", m{"name": "reports", "grants": []string{"client_credentials"}, "scopes": []string{"orders:read"}, "serves": []string{c.url}}, 201, &client)
	ok("GET", "/v1/clients", nil, 200, nil)
	ok("GET", "/v1/clients/"+client.ID, nil, 200, nil)
	ok("POST", "/v1/clients/"+client.ID+"/secrets", m{}, 201, nil)
	ok("POST", "/v1/roles", m{"name": "clerk", "scopes": []string{"orders:read", "orders:write"}}, 201, nil)
	ok("GET", "/v1/roles", nil, 200, nil)
	ok("GET", "/v1/roles/clerk", nil, 200, nil)
	ok("PUT", "/v1/roles/clerk", m{"scopes": []string{"orders:read"}}, 200, nil)
	ok("POST", "/v1/roles/clerk/renew", m{"reason": "contract"}, 200, nil)
	ok("POST", "/v1/bindings", m{"subject": "alice", "role": "clerk", "expires_in": "8h"}, 201, nil)
	ok("GET", "/v1/bindings?subject=alice", nil, 200, nil)
	ok("GET", "/v1/abilities?subject=alice&scope=orders:read", nil, 200, nil)
	ok("POST", "/v1/principals", m{"id": "alice", "kind": "person", "name": "Alice", "labels": m{"team": "orders"}, "reason": "contract"}, 201, nil)
	ok("GET", "/v1/principals?kind=person&label=team=orders", nil, 200, nil)
	ok("GET", "/v1/principals/alice", nil, 200, nil)
	c.oauth(key.Secret, client.ID, client.Secret)
	c.tenants(ok)

	ok("GET", "/v1/targets?select=keys+where+owner%3Dalice", nil, 200, nil)
	var plan struct{ Plan string }
	ok("POST", "/v1/previews", m{"op": "revoke", "targets": []string{"principal:dave", "key:AAAAAAAAAAAAAAAAAAAAAA"}}, 200, &plan)
	ok("POST", "/v1/revocations", m{"op": "revoke", "targets": []string{"principal:dave", "key:AAAAAAAAAAAAAAAAAAAAAA"}, "reason": "contract", "code": "superseded", "plan": plan.Plan}, 201, nil)
	var rev struct{ ID string }
	again := []string{"Idempotency-Key", "contract-1"}
	cut := m{"op": "revoke", "targets": []string{"principal:mallory"}, "reason": "contract"}
	ok("POST", "/v1/revocations?wait=60s", cut, 201, &rev, again...)
	ok("POST", "/v1/revocations", cut, 200, nil, again...)
	ok("GET", "/v1/keys/"+key.ID, nil, 304, nil, "If-None-Match", "*")
	ok("POST", "/v1/keys/"+key.ID+"/renew", m{"reason": "contract"}, 412, nil, "If-Match", `"old"`)
	ok("POST", "/v1/revocations", m{"op": "hold", "targets": []string{"key:" + key.ID}, "reason": "contract", "for": "1h"}, 201, nil)
	ok("POST", "/v1/revocations", m{"op": "release", "targets": []string{"key:" + key.ID}, "reason": "contract"}, 201, nil)
	ok("GET", "/v1/revocations/"+rev.ID+"?wait=1s", nil, 200, nil)
	for _, form := range []string{"json", "jws", "html"} {
		ok("GET", "/v1/receipts/"+rev.ID+"?wait=1s&format="+form, nil, 200, nil)
	}
	ok("GET", "/v1/receipts", nil, 200, nil)
	wide := c.waits()
	ok("GET", "/v1/pending", nil, 200, nil)
	ok("GET", "/v1/pending/"+wide, nil, 200, nil)
	ok("POST", "/v1/pending/"+wide+"/approve", m{"reason": "contract"}, 200, nil)
	ok("POST", "/v1/pending/"+c.waits()+"/deny", m{"reason": "contract"}, 200, nil)
	ok("POST", "/v1/revocations", m{"op": "hold", "targets": []string{"signing-key:mine"}, "reason": "contract"}, 202, nil)
	ok("POST", "/v1/revocations", m{"op": "hold", "targets": []string{"signing-key:mine"}, "reason": "contract", "break_glass": true}, 201, nil)
	ok("GET", "/v1/receipts/"+rev.ID+"/attempts", nil, 200, nil)
	ok("GET", "/v1/receipts/keys", nil, 200, nil)
	var incident struct{ ID string }
	ok("POST", "/v1/incidents", m{"title": "contract", "severity": "high"}, 201, &incident)
	ok("POST", "/v1/previews", m{"op": "hold", "targets": []string{"principal:dave"}, "incident": incident.ID}, 200, nil)
	ok("POST", "/v1/revocations", m{"op": "hold", "targets": []string{"principal:dave"}, "reason": "contract", "incident": incident.ID}, 201, nil)
	ok("POST", "/v1/incidents/"+incident.ID+"/notes", m{"text": "contract"}, 201, nil)
	ok("GET", "/v1/incidents", nil, 200, nil)
	for _, form := range []string{"json", "markdown", "html"} {
		ok("GET", "/v1/incidents/"+incident.ID+"/report?format="+form, nil, 200, nil)
	}
	ok("POST", "/v1/incidents/"+incident.ID+"/close", m{"reason": "contract"}, 200, nil)
	ok("POST", "/v1/incidents/"+incident.ID+"/close", m{"reason": "once more"}, 409, nil)
	ok("POST", "/v1/revocations", m{"op": "hold", "targets": []string{"principal:dave"}, "reason": "contract", "incident": incident.ID}, 409, nil)
	ok("GET", "/v1/incidents/"+incident.ID, nil, 200, nil)
	ok("POST", "/v1/decisions", m{"token": tok, "fresh": true}, 200, nil)
	ok("POST", "/v1/decisions", m{"token": "no token"}, 200, nil)
	var fleet struct {
		Items []struct{ Name, Instance string }
	}
	ok("GET", "/v1/fleet", nil, 200, &fleet)
	ok("GET", "/v1/slo", nil, 200, nil)
	c.feed(by)
	ok("GET", "/v1/audit?type=dev.quash.log.entry&limit=2", nil, 200, nil)
	for path, kind := range map[string]string{"/v1/audit/export?type=dev.quash.log.entry": "application/jsonl", "/v1/audit/pages": "application/jsonl", "/v1/audit/checkpoint": "text/plain; charset=utf-8"} {
		got := c.check(call{method: "GET", path: path, header: by, want: 200})
		if got.header.Get("Content-Type") != kind || len(got.body) == 0 {
			t.Errorf("%s: Content-Type %q, %.100q", path, got.header.Get("Content-Type"), got.body)
		}
	}

	var rotation struct{ ID string }
	ok("POST", "/v1/rotations?wait=30s", m{"kind": "signing-key", "reason": "contract"}, 200, &rotation, "Idempotency-Key", "contract-2")
	ok("GET", "/v1/rotations/"+rotation.ID, nil, 200, nil)
	ok("GET", "/v1/signing-keys", nil, 200, nil)
	weekly := m{"name": "weekly", "rotate": "signing-key", "cron": "0 3 * * 1", "time_zone": "Europe/Berlin", "jitter": "10m", "windows": []string{"Mon 02:00-06:00"}, "reason": "contract"}
	ok("POST", "/v1/schedules", weekly, 201, nil)
	ok("POST", "/v1/schedules", weekly, 200, nil)
	weekly["cron"] = "0 4 * * 1"
	ok("POST", "/v1/schedules", weekly, 409, nil)
	delete(weekly, "name")
	ok("POST", "/v1/schedules/preview?n=3", weekly, 200, nil)
	ok("GET", "/v1/schedules", nil, 200, nil)
	ok("GET", "/v1/schedules/weekly", nil, 200, nil)
	ok("GET", "/v1/schedules/weekly", nil, 304, nil, "If-None-Match", "*")
	ok("GET", "/v1/schedules/weekly/preview", nil, 200, nil)
	for _, form := range []string{"json", "ical"} {
		ok("GET", "/v1/schedules/calendar?for=60d&format="+form, nil, 200, nil)
	}
	ok("POST", "/v1/schedules/weekly/pause", m{"reason": "contract"}, 412, nil, "If-Match", `"old"`)
	ok("POST", "/v1/schedules/weekly/pause", m{"reason": "contract"}, 200, nil)
	ok("POST", "/v1/schedules/weekly/resume", m{"reason": "contract"}, 200, nil)

	c.refusals(by, key.ID)
	ok("DELETE", "/v1/bindings?subject=alice&role=clerk&reason=contract", nil, 200, nil)
	ok("POST", "/v1/principals", m{"id": "carol"}, 201, nil)
	ok("DELETE", "/v1/principals/carol?reason=contract", nil, 200, nil)
	ok("DELETE", "/v1/roles/clerk", nil, 200, nil)
	ok("DELETE", "/v1/schedules/weekly?reason=contract", nil, 200, nil)
	ok("DELETE", "/v1/keys/"+key.ID, nil, 200, nil)
	ok("DELETE", "/v1/clients/"+client.ID, nil, 200, nil)
	for _, g := range fleet.Items {
		if g.Name == "rotator" { // it joins again
			ok("POST", "/v1/fleet/"+g.Instance+"/out", m{"reason": "contract"}, 200, nil)
		}
	}
	ok("POST", "/v1/epochs", m{"reason": "contract"}, 201, nil)
	if l := c.lacking(); len(l) > 0 {
		t.Errorf("no success was seen of %q", l)
	}
	var seen []string
	for s := range maps.Keys(c.seen) {
		seen = append(seen, s)
	}
	t.Logf("%d operations with a status each", len(seen))
}

// tenants makes a tenant and deletes it.
func (c *contract) tenants(ok func(method, path string, body any, want int, into any, header ...string)) {
	type m = map[string]any
	var tenant struct{ Admin apiKey }
	ok("POST", "/v1/tenants", m{"name": "acme", "limits": m{"keys": 10}, "reason": "contract"}, 201, &tenant)
	ok("GET", "/v1/tenants", nil, 200, nil)
	ok("GET", "/v1/tenants/acme", nil, 200, nil)
	ok("PUT", "/v1/tenants/acme/limits", m{"limits": m{"keys": 20, "clients": 5, "tokens_per_second": 100}}, 200, nil)
	ok("POST", "/v1/tenants/acme/admins", m{"expires_in": "24h"}, 201, nil)
	s := c.services
	eventually(c.t, "the tenant can sign", func() error {
		if r := s.form("/t/acme/oauth/token", exchange(tenant.Admin.Secret)); r.status != 200 {
			return fmt.Errorf("status %d: %s", r.status, r.body)
		}
		return nil
	})
	c.check(call{method: "POST", path: "/t/acme/oauth/token", body: exchange(tenant.Admin.Secret), want: 200})
	basic := []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("key_"+tenant.Admin.ID+":"+tenant.Admin.Secret))}
	c.check(call{method: "POST", path: "/t/acme/oauth/introspect", body: url.Values{"token": {"x"}}, header: basic, want: 200})
	c.check(call{method: "POST", path: "/t/acme/oauth/revoke", body: url.Values{"token": {"x"}}, header: basic, want: 200})
	c.check(call{method: "POST", path: "/t/acme/oauth/leaked", body: url.Values{"key": {"x"}}, want: 200})
	c.check(call{method: "GET", path: "/t/acme/oauth/jwks", want: 200})
	c.check(call{method: "GET", path: "/t/acme/.well-known/openid-configuration", want: 200})
	c.check(call{method: "GET", path: "/.well-known/oauth-authorization-server/t/acme", want: 200})
	c.check(call{method: "GET", path: "/t/nobody/oauth/jwks", want: 404})
	ok("POST", "/v1/tenants/acme/hold", m{"reason": "contract"}, 200, nil)
	ok("POST", "/v1/tenants/acme/release", m{"reason": "contract"}, 200, nil)
	ok("POST", "/v1/tenants/acme/revoke", m{"reason": "contract"}, 200, nil)
	ok("GET", "/v1/tenants/acme/export", nil, 200, nil)
	ok("DELETE", "/v1/tenants/acme?reason=contract", nil, 200, nil)
	ok("GET", "/v1/tenants/acme/remains", nil, 200, nil)
}

// oauth calls the OAuth endpoints.
func (c *contract) oauth(secret, id, clientSecret string) {
	c.t.Helper()
	form := func(pairs ...string) url.Values {
		f := url.Values{}
		for i := 0; i+1 < len(pairs); i += 2 {
			f.Add(pairs[i], pairs[i+1])
		}
		return f
	}
	var tok struct {
		AccessToken string `json:"access_token"`
	}
	both := []string{"client_id", id, "client_secret", clientSecret}
	good := exchange(secret)
	good.Set("scope", "orders:read")
	good.Set("resource", c.url)
	c.decode(c.check(call{method: "POST", path: "/oauth/token", body: good, want: 200}), 200, &tok)
	c.check(call{method: "POST", path: "/oauth/token", body: form(append(both, "grant_type", "client_credentials")...), want: 200})
	basic := func() []string {
		req, _ := http.NewRequest("GET", "/", nil)
		req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(clientSecret))
		return []string{"Authorization", req.Header.Get("Authorization")}
	}()
	about := form("token", tok.AccessToken)
	c.check(call{method: "POST", path: "/oauth/introspect", body: about, header: basic, want: 200})
	c.check(call{method: "POST", path: "/oauth/introspect", body: form("token", "x"), header: basic, want: 200})
	c.check(call{method: "POST", path: "/oauth/revoke", body: form("token", "x"), header: basic, want: 200})
	c.check(call{method: "POST", path: "/oauth/leaked", body: form("key", secret, "where", "a test"), want: 200})
	c.check(call{method: "POST", path: "/oauth/leaked", body: form(), want: 400})
	c.check(call{method: "GET", path: "/oauth/jwks", want: 200})
	c.check(call{method: "GET", path: "/.well-known/oauth-authorization-server", want: 200})
	c.check(call{method: "GET", path: "/.well-known/openid-configuration", want: 200})

	for _, path := range []string{"/oauth/token", "/oauth/introspect", "/oauth/revoke"} {
		c.check(call{method: "POST", path: path, body: form(), want: 400})
		c.check(call{method: "POST", path: path, body: form("grant_type", "client_credentials", "token", "x"), header: []string{"Authorization", "Basic !"}, want: 401})
		c.check(call{method: "POST", path: path, body: form("x", strings.Repeat("a", 65<<10)), want: 413})
		c.check(call{method: "POST", path: path, body: "{}", want: 415})
	}
}

// feed reads the stream until it ends by itself.
func (c *contract) feed(by []string) {
	c.t.Helper()
	got := c.check(call{method: "GET", path: "/v1/feed?for=100ms", header: by, want: 200})
	if kind := got.header.Get("Content-Type"); kind != "text/event-stream" || !bytes.HasPrefix(got.body, []byte(": ")) {
		c.t.Errorf("feed: Content-Type %q, %.100q: want server-sent events", kind, got.body)
	}
}

// refusals are answers that are no success, of every kind that can be had from
// a service that is well.
func (c *contract) refusals(by []string, key string) {
	c.t.Helper()
	type m = map[string]any
	weak := []string{"Authorization", "Bearer " + c.weak()}
	for path, ops := range c.paths {
		for method := range ops {
			if !strings.HasPrefix(path, "/v1/") || path == "/v1/receipts/keys" { // that is open to everybody
				continue
			}
			at := strings.NewReplacer("{id}", "nothing", "{name}", "nothing", "{instance}", "nothing").Replace(path)
			if path == "/v1/bindings" && method == "delete" {
				at += "?subject=nobody&role=clerk"
			}
			method = strings.ToUpper(method)
			c.check(call{method: method, path: at, want: 401})
			c.check(call{method: method, path: at, want: 401, header: []string{"Authorization", "Bearer a.b.c"}})
			refused := call{method: method, path: at, want: 403, header: weak}
			// Who may do these is decided by what the body says.
			switch {
			case strings.HasSuffix(path, "/rotate"), strings.HasSuffix(path, "/delivery"):
				refused.body = `{}`
			case strings.HasSuffix(path, "/recipient"):
				refused.body = `{"recipient":""}`
			}
			c.check(refused)
			c.check(call{method: method, path: at + sep(at) + "unknown=1", want: 422, body: emptyFor(method), header: by})
			if method == "POST" || method == "PUT" {
				c.check(call{method: method, path: at, body: `{"`, want: 422, header: by})
				c.check(call{method: method, path: at, body: `{}`, want: 415, header: append([]string{"Content-Type", "text/plain"}, by...)})
				c.check(call{method: method, path: at, body: strings.Repeat(" ", 1<<20+1), want: 413, header: by})
			}
			if strings.Contains(path, "{") && method != "POST" && method != "PUT" {
				c.check(call{method: method, path: at, want: 404, header: by})
			}
		}
	}
	c.check(call{method: "POST", path: "/v1/roles", body: m{"name": "auditor", "scopes": []string{}}, want: 409, header: by})
	c.check(call{method: "POST", path: "/v1/fleet/nothing/out", body: m{}, want: 404, header: by})
	c.check(call{method: "POST", path: "/v1/revocations", body: m{"op": "revoke", "targets": []string{"principal:trent"}, "reason": "another"}, want: 409, header: append([]string{"Idempotency-Key", "contract-1"}, by...)})
	c.check(call{method: "POST", path: "/v1/rotations", body: m{"kind": "signing-key", "reason": "another"}, want: 409, header: append([]string{"Idempotency-Key", "contract-2"}, by...)})
	_ = key
}

func sep(path string) string {
	if strings.Contains(path, "?") {
		return "&"
	}
	return "?"
}

func emptyFor(method string) any {
	if method == "POST" || method == "PUT" {
		return map[string]any{}
	}
	return nil
}

// weak returns a token with no scope of Quash's own.
func (c *contract) weak() string {
	c.t.Helper()
	var key struct{ Secret string }
	c.decode(c.api(c.token(c.operator), "POST", "/v1/keys", map[string]any{"owner": "weak", "scopes": []string{"orders:read"}}), 201, &key)
	return c.token(key.Secret)
}

// TestMethodsAreThoseOfTheDocument asks every path with a method that nobody
// has: Allow names what is served there.
func TestMethodsAreThoseOfTheDocument(t *testing.T) {
	c := newContract(t)
	for path := range c.paths {
		at := strings.NewReplacer("{id}", "x", "{name}", "x", "{instance}", "x").Replace(path)
		served := map[string]operation{}
		for pattern, ops := range c.paths {
			if matches(pattern, at) {
				maps.Copy(served, ops)
			}
		}
		want := slices.Sorted(maps.Keys(served))
		r := c.send("BREW", at, "")
		if r.status != http.StatusMethodNotAllowed {
			t.Errorf("BREW %s: status %d, want 405", at, r.status)
		}
		var got []string
		for _, method := range strings.Split(r.header.Get("Allow"), ",") {
			if m := strings.ToLower(strings.TrimSpace(method)); m != "head" { // GET brings it
				got = append(got, m)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: Allow %q, the document has %q", at, got, want)
		}
		if kind := r.header.Get("Content-Type"); !strings.Contains(path, "/oauth/") && kind != "application/problem+json" {
			t.Errorf("BREW %s: Content-Type %q", at, kind)
		}
	}
}

// TestEachServiceServesItsPartOfTheDocument compares what a service tells of
// itself with the whole.
func TestEachServiceServesItsPartOfTheDocument(t *testing.T) {
	c := newContract(t)
	served := map[string]map[string]operation{}
	for _, name := range []string{"issuer", "rotator", "revocation"} {
		var part struct {
			Paths map[string]map[string]operation
		}
		c.decode(c.send("GET", "/openapi/"+name+".json", ""), 200, &part)
		own := httptest.NewServer(c.each[name])
		t.Cleanup(own.Close)
		for _, path := range []string{"/docs", "/docs/start.js", "/docs/swagger-ui.css", "/openapi.json", "/openapi-3.0.json", "/openapi/" + name + "-3.0.json"} {
			resp, err := http.Get(own.URL + path)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != 200 || len(text) == 0 {
				t.Errorf("%s: GET %s: status %d, %d bytes, %v", name, path, resp.StatusCode, len(text), err)
			}
			if strings.HasPrefix(path, "/openapi/") {
				older, err := openapi3.NewLoader().LoadFromData(text)
				if err == nil {
					err = older.Validate(t.Context())
				}
				if err != nil {
					t.Errorf("%s: GET %s: %v", name, path, err)
				}
			}
		}
		for path, ops := range part.Paths {
			if served[path] == nil {
				served[path] = map[string]operation{}
			}
			maps.Copy(served[path], ops)
		}
	}
	names := func(paths map[string]map[string]operation) (out []string) {
		for path, ops := range paths {
			for method, op := range ops {
				out = append(out, fmt.Sprintf("%s %s %s", method, path, op.ID))
			}
		}
		slices.Sort(out)
		return out
	}
	if got, want := names(served), names(c.paths); !slices.Equal(got, want) {
		t.Errorf("the services tell of\n%q\nthe document of\n%q", got, want)
	}
}
