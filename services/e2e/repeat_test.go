package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/shared/problem"
)

// repeater sends changes under idempotency keys.
type repeater struct {
	*contract
	by       []string
	n        int
	repeated map[string]bool // operation ids
}

func newRepeater(t *testing.T) *repeater {
	c := newContract(t)
	return &repeater{contract: c, by: []string{"Authorization", "Bearer " + c.token(c.operator)}, repeated: map[string]bool{}}
}

// twice makes a change, makes it again under the same key, and another one under
// the same key. It returns the first answer and the key.
func (r *repeater) twice(method, path string, body map[string]any, want int) (reply, string) {
	r.t.Helper()
	r.n++
	key := fmt.Sprintf("repeat-%d", r.n)
	header := append([]string{"Idempotency-Key", key}, r.by...)
	var send any
	if body != nil {
		send = body
	}
	first := r.check(call{method: method, path: path, body: send, header: header, want: want})
	again := want
	var made struct {
		Secret string `json:"secret"`
		Client string `json:"client_secret"`
		Admin  struct{ Secret string }
	}
	if err := json.Unmarshal(first.body, &made); err != nil {
		r.t.Fatal(err)
	}
	secret := made.Secret + made.Client + made.Admin.Secret
	op, _ := r.find(method, strings.Split(path, "?")[0])
	switch {
	case secret != "":
		again = http.StatusConflict
	case op.ID == "commitRevocation":
		again = http.StatusOK
	}
	if op.ID == "beginEpoch" { // guards load the whole state before they accept anything
		eventually(r.t, "tokens are accepted again", func() error {
			if got := r.send("GET", "/v1/fleet", "", r.by...); got.status != 200 {
				return fmt.Errorf("status %d", got.status)
			}
			return nil
		})
	}
	second := r.check(call{name: method + " " + path + " again", method: method, path: path, body: send, header: header, want: again})
	switch {
	case secret != "":
		var p problem.Document
		if err := json.Unmarshal(second.body, &p); err != nil || p.Existing == "" || !strings.Contains(string(first.body), p.Existing[strings.Index(p.Existing, ":")+1:]) {
			r.t.Errorf("%s %s again: %s: does not name what was made", method, path, second.body)
		}
		if strings.Contains(string(second.body), secret[20:40]) {
			r.t.Errorf("%s %s again: shows the secret", method, path)
		}
	case op.ID != "commitRevocation" && op.ID != "createRotation" && string(second.body) != string(first.body):
		r.t.Errorf("%s %s again: %s, the first time %s", method, path, second.body, first.body)
	}
	another := path
	if body == nil {
		another += sep(path) + "reason=another"
	} else {
		send = map[string]any{}
		for k, v := range body {
			send.(map[string]any)[k] = v
		}
		member := "reason"
		switch op.ID { // what these are about says why
		case "openIncident":
			member = "title"
		case "addIncidentNote":
			member = "text"
		}
		send.(map[string]any)[member] = "another"
	}
	r.check(call{name: "another under the key of " + method + " " + path, method: method, path: another, body: send, header: header, want: http.StatusConflict})
	r.repeated[op.ID] = true
	return first, key
}

// TestEveryChangeIsDoneOnceUnderOneIdempotencyKey makes every change that the
// document has twice.
func TestEveryChangeIsDoneOnceUnderOneIdempotencyKey(t *testing.T) {
	r := newRepeater(t)
	type m = map[string]any
	count := func(path string) int {
		var l struct{ Items []json.RawMessage }
		r.decode(r.check(call{method: "GET", path: path, header: r.by, want: 200}), 200, &l)
		return len(l.Items)
	}
	var key struct{ ID string }
	made, _ := r.twice("POST", "/v1/keys", m{"owner": "alice", "scopes": []string{"orders:read"}}, 201)
	r.decode(made, 201, &key)
	if n := count("/v1/keys?owner=alice"); n != 1 {
		t.Errorf("%d keys were made", n)
	}
	r.twice("POST", "/v1/keys/import", m{"keys": []m{{"sha256": strings.Repeat("5e", 32), "owner": "bob"}}}, 200)
	r.twice("POST", "/v1/keys/"+key.ID+"/renew", m{"reason": "r"}, 200)
	r.twice("PUT", "/v1/keys/"+key.ID+"/recipient", m{"recipient": "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", "reason": "r"}, 200)
	r.twice("POST", "/v1/keys/"+key.ID+"/rotate", m{"reason": "r"}, 201)
	if n := count("/v1/keys?owner=alice"); n != 2 {
		t.Errorf("%d keys are there of one that was rotated once", n)
	}
	r.twice("POST", "/v1/keys/"+key.ID+"/rotation", m{"overlap": "2h", "reason": "r"}, 200)
	r.twice("POST", "/v1/keys/"+key.ID+"/rollback", m{"reason": "r"}, 200)
	r.fire(key.ID, "f1")
	r.twice("POST", "/v1/keys/"+key.ID+"/delivery", m{"reason": "r"}, 200)
	r.check(call{method: "POST", path: "/v1/keys/" + key.ID + "/rollback", body: m{"reason": "r"}, header: r.by, want: 200})
	r.twice("POST", "/v1/keys/"+key.ID+"/disable", m{"reason": "r"}, 200)
	r.twice("POST", "/v1/keys/"+key.ID+"/enable", m{"reason": "r"}, 200)
	var client struct {
		ID string `json:"client_id"`
	}
	made, _ = r.twice("POST", "/v1/clients", m{"name": "reports", "grants": []string{"client_credentials"}}, 201)
	r.decode(made, 201, &client)
	r.twice("POST", "/v1/clients/"+client.ID+"/secrets", m{}, 201)
	if n := count("/v1/clients"); n != 1 {
		t.Errorf("%d clients were made", n)
	}
	if n := count("/v1/keys?kind=secret&client_id=" + client.ID); n != 2 {
		t.Errorf("the client has %d secrets, want 2", n)
	}
	r.twice("POST", "/v1/roles", m{"name": "clerk", "scopes": []string{"orders:read", "orders:write"}}, 201)
	_, set := r.twice("PUT", "/v1/roles/clerk", m{"scopes": []string{"orders:read"}}, 200)
	r.check(call{method: "PUT", path: "/v1/roles/clerk", body: m{"scopes": []string{"orders:read", "orders:list"}}, header: r.by, want: 200})
	r.check(call{name: "a late repetition", method: "PUT", path: "/v1/roles/clerk", body: m{"scopes": []string{"orders:read"}}, header: append([]string{"Idempotency-Key", set}, r.by...), want: 200})
	var role struct{ Scopes []string }
	r.decode(r.check(call{method: "GET", path: "/v1/roles/clerk", header: r.by, want: 200}), 200, &role)
	if !slices.Contains(role.Scopes, "orders:list") {
		t.Errorf("a late repetition has undone what came after: %q", role.Scopes)
	}
	r.twice("POST", "/v1/roles/clerk/renew", m{"reason": "r"}, 200)
	give := m{"subject": "bob", "role": "clerk"}
	_, bind := r.twice("POST", "/v1/bindings", give, 201)
	r.twice("DELETE", "/v1/bindings?subject=bob&role=clerk", nil, 200)
	r.check(call{name: "a late repetition", method: "POST", path: "/v1/bindings", body: give, header: append([]string{"Idempotency-Key", bind}, r.by...), want: 201})
	if n := count("/v1/bindings?subject=bob"); n != 0 {
		t.Error("a late repetition has given the role again")
	}
	r.twice("POST", "/v1/tenants", m{"name": "acme"}, 201)
	r.twice("POST", "/v1/tenants/acme/admins", m{}, 201)
	r.twice("PUT", "/v1/tenants/acme/limits", m{"limits": m{"keys": 10}}, 200)
	for _, do := range []string{"hold", "release", "revoke"} {
		r.twice("POST", "/v1/tenants/acme/"+do, m{"reason": "r"}, 200)
	}
	r.twice("DELETE", "/v1/tenants/acme", nil, 200)
	r.twice("POST", "/v1/revocations", m{"op": "revoke", "targets": []string{"principal:mallory"}, "reason": "r"}, 201)
	var incident struct{ ID string }
	made, _ = r.twice("POST", "/v1/incidents", m{"title": "t"}, 201)
	r.decode(made, 201, &incident)
	r.twice("POST", "/v1/incidents/"+incident.ID+"/notes", m{"text": "t"}, 201)
	if n := count("/v1/incidents"); n != 1 {
		t.Errorf("%d incidents were opened", n)
	}
	var book struct{ Notes []json.RawMessage }
	r.decode(r.check(call{method: "GET", path: "/v1/incidents/" + incident.ID, header: r.by, want: 200}), 200, &book)
	if len(book.Notes) != 1 {
		t.Errorf("%d notes were written", len(book.Notes))
	}
	r.twice("POST", "/v1/incidents/"+incident.ID+"/close", m{"reason": "r"}, 200)
	r.twice("POST", "/v1/pending/"+r.waits()+"/approve", m{"reason": "r"}, 200)
	r.twice("POST", "/v1/pending/"+r.waits()+"/deny", m{"reason": "r"}, 200)
	r.twice("POST", "/v1/rotations?wait=30s", m{"kind": "signing-key", "reason": "r"}, 200)
	weekly := m{"name": "weekly", "rotate": "signing-key", "cron": "0 3 * * 1", "reason": "r"}
	_, plan := r.twice("POST", "/v1/schedules", weekly, 201)
	r.twice("POST", "/v1/schedules/weekly/pause", m{"reason": "r"}, 200)
	_, back := r.twice("POST", "/v1/schedules/weekly/resume", m{"reason": "r"}, 200)
	r.check(call{method: "POST", path: "/v1/schedules/weekly/pause", body: m{"reason": "again"}, header: r.by, want: 200})
	r.check(call{name: "a late repetition", method: "POST", path: "/v1/schedules/weekly/resume", body: m{"reason": "r"}, header: append([]string{"Idempotency-Key", back}, r.by...), want: 200})
	var paused struct{ State string }
	r.decode(r.check(call{method: "GET", path: "/v1/schedules/weekly", header: r.by, want: 200}), 200, &paused)
	if paused.State != "paused" {
		t.Errorf("a late repetition has undone what came after: %s", paused.State)
	}
	r.twice("DELETE", "/v1/schedules/weekly", nil, 200)
	r.check(call{name: "a late repetition", method: "POST", path: "/v1/schedules", body: weekly, header: append([]string{"Idempotency-Key", plan}, r.by...), want: 201})
	if n := count("/v1/schedules"); n != 0 {
		t.Error("a late repetition has made the schedule again")
	}
	r.twice("DELETE", "/v1/roles/clerk", nil, 200)
	r.twice("DELETE", "/v1/keys/"+key.ID, nil, 200)
	r.twice("DELETE", "/v1/clients/"+client.ID, nil, 200)
	who := m{"id": "carol", "kind": "workload"}
	_, first := r.twice("POST", "/v1/principals", who, 201)
	r.twice("DELETE", "/v1/principals/carol", nil, 200)
	r.check(call{name: "a late repetition", method: "POST", path: "/v1/principals", body: who, header: append([]string{"Idempotency-Key", first}, r.by...), want: 201})
	if n := count("/v1/principals"); n != 0 {
		t.Error("a late repetition has made the record again")
	}
	var fleet struct {
		Items []struct{ Name, Instance string }
	}
	r.decode(r.check(call{method: "GET", path: "/v1/fleet", header: r.by, want: 200}), 200, &fleet)
	for _, g := range fleet.Items {
		if g.Name == "rotator" { // it joins again
			r.twice("POST", "/v1/fleet/"+g.Instance+"/out", m{"reason": "r"}, 200)
		}
	}
	r.twice("POST", "/v1/epochs", m{"reason": "r"}, 201)
	for path, ops := range r.paths {
		for method, op := range ops {
			if strings.HasPrefix(path, "/v1/") && method != "get" && !r.repeated[op.ID] && op.ID != "lookup" && op.ID != "decide" && op.ID != "previewRevocation" && op.ID != "previewNewSchedule" {
				t.Errorf("%s was not repeated", op.ID)
			}
		}
	}
	silentAbout(t, r)
}

// silentAbout looks for secrets in what is remembered of requests.
func silentAbout(t *testing.T, r *repeater) {
	t.Helper()
	v := &victim{services: r.services}
	for _, account := range []string{"CONTROL", "LOG"} {
		js := v.streams(t, account)
		s, err := js.Stream(t.Context(), "KV_requests")
		if err != nil {
			t.Fatal(err)
		}
		last := s.CachedInfo().State.LastSeq
		for seq := s.CachedInfo().State.FirstSeq; seq <= last; seq++ {
			m, err := s.GetMsg(t.Context(), seq)
			if err != nil {
				continue // replaced by a newer one
			}
			if strings.Contains(string(m.Data), "quash_key_") || strings.Contains(string(m.Data), "quash_secret_") {
				t.Errorf("%s has a secret in it", m.Subject)
			}
		}
	}
}

// TestTheSameIdempotencyKeyOfAnotherActorIsAnother: what one has made tells another
// one nothing.
func TestTheSameIdempotencyKeyOfAnotherActorIsAnother(t *testing.T) {
	r := newRepeater(t)
	type m = map[string]any
	var other struct{ Secret string }
	r.decode(r.api(r.token(r.operator), "POST", "/v1/keys", m{"owner": "olga", "roles": []string{"operator"}}), 201, &other)
	header := func(token string) []string {
		return []string{"Idempotency-Key", "the-same", "Authorization", "Bearer " + token}
	}
	make := func(by []string) (out struct{ ID string }) {
		r.decode(r.check(call{method: "POST", path: "/v1/keys", body: m{"owner": "alice"}, header: by, want: 201}), 201, &out)
		return out
	}
	mine, theirs := make(header(r.token(r.operator))), make(header(r.token(other.Secret)))
	if mine.ID == theirs.ID {
		t.Error("two actors made the same key")
	}
	// The same actor with another token is the same.
	r.check(call{method: "POST", path: "/v1/keys", body: m{"owner": "alice"}, header: header(r.token(r.operator)), want: 409})
	// And another one's disabling is not mine.
	for by, want := range map[string]string{r.token(r.operator): mine.ID, r.token(other.Secret): theirs.ID} {
		h := []string{"Idempotency-Key", "hold", "Authorization", "Bearer " + by}
		var e struct{ Target string }
		r.decode(r.check(call{method: "POST", path: "/v1/keys/" + want + "/disable", body: m{"reason": "r"}, header: h, want: 200}), 200, &e)
		if e.Target != "key:"+want {
			t.Errorf("held %s, want key:%s", e.Target, want)
		}
	}
}

// TestOneOfManyRequestsAtOnceIsDone sends one request a hundred times at once.
func TestOneOfManyRequestsAtOnceIsDone(t *testing.T) {
	r := newRepeater(t)
	by := append([]string{"Idempotency-Key", "at-once", "Content-Type", "application/json"}, r.by...)
	status := make([]int, 100)
	var wg sync.WaitGroup
	for i := range status {
		wg.Go(func() { status[i] = r.send("POST", "/v1/keys", `{"owner":"alice"}`, by...).status })
	}
	wg.Wait()
	made := 0
	for _, s := range status {
		if s == 201 {
			made++
		} else if s != 409 {
			t.Errorf("status %d", s)
		}
	}
	var l struct{ Items []json.RawMessage }
	r.decode(r.send("GET", "/v1/keys?owner=alice", "", r.by...), 200, &l)
	if made != 1 || len(l.Items) != 1 {
		t.Errorf("%d were told that they made it, and there are %d", made, len(l.Items))
	}
}

// TestEveryChangeTakesAnIdempotencyKey holds of the document.
func TestEveryChangeTakesAnIdempotencyKey(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct {
			ID         string `json:"operationId"`
			Parameters []struct{ Name, In, Description string }
		}
	}
	if err := json.Unmarshal(schematest.Read(t, "openapi.json"), &doc); err != nil {
		t.Fatal(err)
	}
	for path, ops := range doc.Paths {
		for method, op := range ops {
			if !strings.HasPrefix(path, "/v1/") || method == "get" || op.ID == "lookup" || op.ID == "decide" || op.ID == "previewRevocation" || op.ID == "previewNewSchedule" {
				continue
			}
			i := slices.IndexFunc(op.Parameters, func(p struct{ Name, In, Description string }) bool { return p.Name == "Idempotency-Key" })
			if i < 0 {
				t.Errorf("%s takes no Idempotency-Key", op.ID)
				continue
			}
			if about := op.Parameters[i].Description; !strings.Contains(about, "24 hours") && !strings.Contains(about, "as long as") {
				t.Errorf("%s does not say how long a key is known: %s", op.ID, about)
			}
		}
	}
}
