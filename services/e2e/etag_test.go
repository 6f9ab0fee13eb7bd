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
)

// TestARecordIsChangedOnlyAsItWasSeen: each change of a record with an old ETag is
// refused and leaves it as it is; with the current one it is done.
func TestARecordIsChangedOnlyAsItWasSeen(t *testing.T) {
	c := newContract(t)
	by := []string{"Authorization", "Bearer " + c.token(c.operator)}
	type m = map[string]any
	do := func(method, path string, body any, want int, header ...string) reply {
		t.Helper()
		return c.check(call{method: method, path: path, body: body, want: want, header: append(header, by...)})
	}
	var key struct{ ID string }
	c.decode(do("POST", "/v1/keys", m{"owner": "alice"}, 201), 201, &key)
	var client struct {
		ID string `json:"client_id"`
	}
	c.decode(do("POST", "/v1/clients", m{"name": "n", "grants": []string{"client_credentials"}}, 201), 201, &client)
	do("POST", "/v1/roles", m{"name": "clerk", "scopes": []string{"orders:read"}}, 201)
	do("POST", "/v1/tenants", m{"name": "acme"}, 201)
	do("POST", "/v1/schedules", m{"name": "weekly", "rotate": "signing-key", "cron": "0 3 1 1 *", "reason": "r"}, 201)
	do("POST", "/v1/principals", m{"id": "carol"}, 201)
	keyAt, clientAt := "/v1/keys/"+key.ID, "/v1/clients/"+client.ID
	for _, change := range []struct {
		record, method, path string
		body                 any
		touch                call // changes the record meanwhile
		want                 int  // 0: 200
	}{
		{keyAt, "POST", keyAt + "/renew", m{"reason": "r"}, call{method: "POST", path: keyAt + "/renew", body: m{"reason": "meanwhile"}}, 0},
		{keyAt, "POST", keyAt + "/disable", m{"reason": "r"}, call{method: "POST", path: keyAt + "/renew", body: m{"reason": "meanwhile 2"}}, 0},
		{keyAt, "POST", keyAt + "/enable", m{"reason": "r"}, call{method: "POST", path: keyAt + "/renew", body: m{"reason": "meanwhile 3"}}, 0},
		{keyAt, "PUT", keyAt + "/recipient", m{"recipient": ""}, call{method: "POST", path: keyAt + "/renew", body: m{"reason": "meanwhile 5"}}, 0},
		{keyAt, "POST", keyAt + "/rotate", m{"reason": "r"}, call{method: "POST", path: keyAt + "/renew", body: m{"reason": "meanwhile 4"}}, 201},
		{keyAt, "POST", keyAt + "/rotation", m{"overlap": "3h"}, call{method: "POST", path: keyAt + "/rotation", body: m{"overlap": "2h"}}, 0},
		{keyAt, "POST", keyAt + "/rollback", m{"reason": "r"}, call{method: "POST", path: keyAt + "/rotation", body: m{"overlap": "4h"}}, 0},
		{keyAt, "DELETE", keyAt, nil, call{method: "POST", path: keyAt + "/disable", body: m{"reason": "meanwhile"}}, 0},
		{"/v1/principals/carol", "DELETE", "/v1/principals/carol", nil, call{method: "POST", path: "/v1/bindings", body: m{"subject": "carol", "role": "clerk"}, want: 201}, 0},
		{clientAt, "DELETE", clientAt, nil, call{method: "POST", path: "/v1/bindings", body: m{"subject": client.ID, "role": "clerk"}, want: 201}, 0},
		{"/v1/roles/clerk", "PUT", "/v1/roles/clerk", m{"scopes": []string{"orders:read", "orders:write"}}, call{method: "POST", path: "/v1/roles/clerk/renew", body: m{"reason": "meanwhile"}}, 0},
		{"/v1/roles/clerk", "PUT", "/v1/roles/clerk", m{"scopes": []string{"orders:read"}}, call{method: "PUT", path: "/v1/roles/clerk", body: m{"scopes": []string{"orders:read", "orders:write", "orders:list"}}}, 0},
		{"/v1/roles/clerk", "POST", "/v1/roles/clerk/renew", m{"reason": "r"}, call{method: "POST", path: "/v1/roles/clerk/renew", body: m{"reason": "meanwhile 2"}}, 0},
		{"/v1/roles/clerk", "DELETE", "/v1/roles/clerk", nil, call{method: "POST", path: "/v1/roles/clerk/renew", body: m{"reason": "meanwhile 3"}}, 0},
		{"/v1/schedules/weekly", "POST", "/v1/schedules/weekly/pause", m{"reason": "r"}, call{method: "POST", path: "/v1/schedules/weekly/resume", body: m{"reason": "meanwhile"}}, 0},
		{"/v1/schedules/weekly", "POST", "/v1/schedules/weekly/resume", m{"reason": "r"}, call{method: "POST", path: "/v1/schedules/weekly/pause", body: m{"reason": "meanwhile 2"}}, 0},
		{"/v1/schedules/weekly", "DELETE", "/v1/schedules/weekly", nil, call{method: "POST", path: "/v1/schedules/weekly/pause", body: m{"reason": "meanwhile 3"}}, 0},
		{"/v1/tenants/acme", "PUT", "/v1/tenants/acme/limits", m{"limits": m{"keys": 5}}, call{method: "PUT", path: "/v1/tenants/acme/limits", body: m{"limits": m{"keys": 6}}}, 0},
		{"/v1/tenants/acme", "POST", "/v1/tenants/acme/hold", m{"reason": "r"}, call{method: "PUT", path: "/v1/tenants/acme/limits", body: m{"limits": m{"keys": 7}}}, 0},
		{"/v1/tenants/acme", "DELETE", "/v1/tenants/acme", nil, call{method: "POST", path: "/v1/tenants/acme/release", body: m{"reason": "meanwhile"}}, 0},
	} {
		name := change.method + " " + change.path
		old := do("GET", change.record, nil, 200).header.Get("ETag")
		do("GET", change.record, nil, 304, "If-None-Match", old)
		do(change.touch.method, change.touch.path, change.touch.body, max(change.touch.want, 200))
		now := do("GET", change.record, nil, 200, "If-None-Match", old)
		if now.header.Get("ETag") == old {
			t.Fatalf("%s: the ETag stayed the same over a change", name)
		}
		do(change.method, change.path, change.body, 412, "If-Match", old)
		do(change.method, change.path, change.body, 412, "If-Match", "W/"+now.header.Get("ETag"))
		do(change.method, change.path, change.body, 422, "If-Match", "unquoted")
		if after := do("GET", change.record, nil, 200); string(after.body) != string(now.body) {
			t.Errorf("%s: refused, and changed the record from %s to %s", name, now.body, after.body)
		}
		do(change.method, change.path, change.body, max(change.want, 200), "If-Match", `"other", `+now.header.Get("ETag"))
	}
	// A binding has no GET of its own: giving it tells the tag.
	do("POST", "/v1/roles", m{"name": "porter", "scopes": []string{}}, 201)
	give := m{"subject": "bob", "role": "porter"}
	old := do("POST", "/v1/bindings", give, 201).header.Get("ETag")
	give["reason"] = "for longer"
	now := do("POST", "/v1/bindings", give, 201).header.Get("ETag")
	take := "/v1/bindings?subject=bob&role=porter"
	do("DELETE", take, nil, 412, "If-Match", old)
	do("DELETE", take, nil, 200, "If-Match", now)

	var rotation struct{ ID string }
	made := do("POST", "/v1/rotations?wait=30s", m{"kind": "signing-key", "reason": "r"}, 200)
	c.decode(made, 200, &rotation)
	do("GET", "/v1/rotations/"+rotation.ID, nil, 304, "If-None-Match", made.header.Get("ETag"))
}

// TestATagTellsNothing: with a tag or without, what is not there is not there.
func TestATagTellsNothing(t *testing.T) {
	c := newContract(t)
	by := []string{"Authorization", "Bearer " + c.token(c.operator)}
	tag := c.check(call{method: "GET", path: "/v1/roles/operator", header: by, want: 200}).header.Get("ETag")
	for _, path := range []string{"/v1/keys/nothing", "/v1/keys/" + strings.Repeat("a", 22), "/v1/clients/nothing", "/v1/roles/nothing", "/v1/tenants/nothing", "/v1/principals/nothing"} {
		for _, method := range []string{"GET", "DELETE"} {
			bare := c.check(call{method: method, path: path, header: by, want: 404})
			for _, h := range [][]string{{"If-Match", "*"}, {"If-Match", tag}, {"If-None-Match", "*"}, {"If-None-Match", tag}} {
				r := c.check(call{method: method, path: path, header: append(slices.Clone(h), by...), want: 404})
				if r.header.Get("ETag") != "" || detail(t, r) != detail(t, bare) {
					t.Errorf("%s %s with %q: %s, without %s", method, path, h, r.body, bare.body)
				}
			}
		}
	}
}

func detail(t *testing.T, r reply) string {
	t.Helper()
	var p struct{ Detail string }
	if err := json.Unmarshal(r.body, &p); err != nil {
		t.Fatal(err)
	}
	return p.Detail
}

// TestOneOfManyWhoHaveSeenTheSameChangesIt: the condition is checked in the step that
// changes the record, so that of many at once one finds it as it was.
func TestOneOfManyWhoHaveSeenTheSameChangesIt(t *testing.T) {
	c := newContract(t)
	by := []string{"Authorization", "Bearer " + c.token(c.operator), "Content-Type", "application/json"}
	c.decode(c.send("POST", "/v1/roles", `{"name":"clerk","scopes":["orders:read"]}`, by...), 201, &struct{}{})
	tag := c.send("GET", "/v1/roles/clerk", "", by[:2]...).header.Get("ETag")
	status := make([]int, 30)
	var wg sync.WaitGroup
	for i := range status {
		wg.Go(func() {
			body := fmt.Sprintf(`{"scopes":["orders:read","orders:s%d"],"reason":"%d"}`, i, i)
			status[i] = c.send("PUT", "/v1/roles/clerk", body, append([]string{"If-Match", tag}, by...)...).status
		})
	}
	wg.Wait()
	slices.Sort(status)
	if status[0] != 200 || status[1] != 412 || status[len(status)-1] != 412 {
		t.Errorf("statuses %d: want one 200, and 412", status)
	}
}

// TestEveryRecordHasATag holds of the document: who shows one record tells its tag,
// and who changes one takes a condition.
func TestEveryRecordHasATag(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct {
			ID         string `json:"operationId"`
			Parameters []struct{ Name string }
			Responses  map[string]struct{ Headers map[string]any }
		}
	}
	if err := json.Unmarshal(schematest.Read(t, "openapi.json"), &doc); err != nil {
		t.Fatal(err)
	}
	// These are of no record: a place in the log, a guard, a notebook, which only grows, what hangs on a client or a
	// tenant without changing it, and what a tenant has.
	without := []string{"getRevocation", "getReceipt", "listReceiptAttempts", "declareOut", "getIncident", "addIncidentNote", "closeIncident", "getIncidentReport", "createSecret", "createTenantAdmin", "getTenantRemains", "exportTenant", "previewSchedule", "getPending", "approvePending", "denyPending"}
	for path, ops := range doc.Paths {
		for method, op := range ops {
			if !strings.HasPrefix(path, "/v1/") || !strings.Contains(path, "{") || slices.Contains(without, op.ID) {
				continue
			}
			header, status := "If-Match", http.StatusPreconditionFailed
			if method == "get" {
				header, status = "If-None-Match", http.StatusNotModified
			}
			if !slices.ContainsFunc(op.Parameters, func(p struct{ Name string }) bool { return p.Name == header }) {
				t.Errorf("%s takes no %s", op.ID, header)
			}
			if _, ok := op.Responses[fmt.Sprint(status)]; !ok {
				t.Errorf("%s does not say that it may answer %d", op.ID, status)
			}
			if method == "get" && op.Responses["200"].Headers["ETag"] == nil {
				t.Errorf("%s tells no ETag", op.ID)
			}
		}
	}
}
