package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/apikey"
)

// TestAnIncidentFromItsOpeningToItsReport goes the way of a responder by the command line, in
// one started quash dev.
func TestAnIncidentFromItsOpeningToItsReport(t *testing.T) {
	q := start(t, t.TempDir())
	home := map[string]string{"XDG_CONFIG_HOME": t.TempDir()}
	run := func(want int, stdin string, args ...string) result {
		t.Helper()
		r := q.runEnv(home, stdin, args...)
		if r.code != want {
			t.Fatalf("quash %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), r.code, want, r.out, r.err)
		}
		return r
	}
	read := func(v any, args ...string) {
		t.Helper()
		r := run(0, "", append(args, "-o", "json")...)
		if err := json.Unmarshal([]byte(r.out), v); err != nil {
			t.Fatalf("quash %s: %v in %q", strings.Join(args, " "), err, r.out)
		}
	}
	key := q.newKey("alice", "--scope", "orders:read")
	var incident struct{ ID string }
	var entry struct {
		ID, Incident string
		NotGathered  string `json:"not_gathered"`
	}
	read(&entry, "revoke", "token:before", "--reason", "before there was one")
	if entry.Incident != "" {
		t.Errorf("before there was one: %+v", entry)
	}
	read(&incident, "incident", "open", "--title", "a stolen laptop", "--severity", "high")
	if r := run(2, "", "incident", "open", "--title", "it was "+key.Secret); strings.Contains(r.err, key.Secret) {
		t.Error("the refusal of a secret shows it")
	}
	var plan struct{ Plan string }
	read(&plan, "revoke", "principal:alice", "--dry-run")
	want := []string{}
	cut := func(args ...string) {
		t.Helper()
		entry.Incident, entry.NotGathered = "", ""
		read(&entry, args...)
		if entry.Incident != incident.ID || entry.NotGathered != "" {
			t.Errorf("quash %s: %+v", strings.Join(args, " "), entry)
		}
		want = append(want, entry.ID)
	}
	cut("hold", "principal:alice", "--reason", "her laptop was stolen", "--wait", "10s")
	held := entry.ID
	cut("revoke", "principal:alice", "--reason", "<b>stolen</b>", "--plan", plan.Plan, "--code", "credential-compromise", "--wait", "10s")
	cut("undo", held, "--reason", "she has a new one")
	cut("hold", "principal:bob", "--reason", "to be sure")
	file := filepath.Join(t.TempDir(), "targets")
	if err := os.WriteFile(file, []byte("token:a\ntoken:b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cut("revoke", "--file", file, "--reason", "in bulk")
	without := entry.ID
	entry.Incident = ""
	read(&entry, "revoke", "token:without", "--reason", "another thing", "--incident", "none")
	if entry.ID == without || entry.Incident != "" {
		t.Errorf("without: %+v", entry)
	}
	run(0, "She called\n# from a phone <script>\n", "incident", "note", "-")
	run(0, "", "incident", "note", incident.ID, "she is back")
	if r := run(2, key.Secret, "incident", "note", "-"); strings.Contains(r.err+r.out, key.Secret) {
		t.Error("the refusal of a secret shows it")
	}
	read(&struct{}{}, "incident", "close", "--reason", "she has a new laptop")
	entry.Incident = ""
	if read(&entry, "revoke", "token:after", "--reason", "after it"); entry.Incident != "" {
		t.Errorf("after it was closed here: %+v", entry)
	}
	if r := run(1, "", "revoke", "token:late", "--reason", "r", "--incident", incident.ID); !strings.Contains(r.err, "was closed at") {
		t.Errorf("under a closed one: %s", r.err)
	}
	if r := run(2, "", "revoke", "token:late", "--reason", "r", "--incident", "inc_20260131120000_aaaaaaaa"); !strings.Contains(r.err, "there is no incident") {
		t.Errorf("under none that there is: %s", r.err)
	}
	run(2, "", "revoke", "token:late", "--reason", "r", "--incident", "17")
	// A colleague has closed what is open here only: no cut fails for that.
	var other struct{ ID string }
	for _, args := range [][]string{
		{"revoke", "key:" + key.ID, "--reason", "it leaked"},
		{"revoke", "principal:zoe", "--reason", "a test", "--dry-run"},
		{"rotate", "signing-key", "--reason", "a test"},
	} {
		read(&other, "incident", "open", "--title", "another")
		q.ok("incident", "close", other.ID, "--reason", "a colleague")
		r := run(0, "", append(args, "-o", "json")...)
		if !strings.Contains(r.err, other.ID+", which was open here, is closed") || strings.Contains(r.out, other.ID) {
			t.Errorf("quash %s: %s%s", strings.Join(args, " "), r.out, r.err)
		}
		if r := run(0, "", "revoke", "token:next", "--reason", "a test"); strings.Contains(r.err, "which was open") {
			t.Errorf("it is still kept: %s", r.err)
		}
	}
	run(1, "", "incident", "note", incident.ID, "too late")
	run(2, "", "incident", "note", "nowhere")

	var report struct {
		Whole    bool
		State    string
		Timeline []struct{ Kind string }
		Plans    []struct{ ID string }
		Notes    []struct{ Text, Actor string }
		Holds    []struct{ Target string }
		Cuts     []struct {
			ID       string
			Complete bool
			JWS      string
		}
	}
	kept := t.TempDir()
	eventually(t, "the report is whole, and all is complete", func() error {
		read(&report, "incident", "report", incident.ID, "--receipts", kept)
		for _, c := range report.Cuts {
			if !c.Complete {
				return fmt.Errorf("%s is not complete", c.ID)
			}
		}
		if !report.Whole {
			return fmt.Errorf("it is not whole")
		}
		return nil
	})
	var ids, kinds []string
	for _, c := range report.Cuts {
		ids = append(ids, c.ID)
	}
	for _, e := range report.Timeline {
		if e.Kind != "effect" {
			kinds = append(kinds, e.Kind)
		}
	}
	if !slices.Equal(ids, want) || report.State != "closed" || len(report.Plans) != 1 || report.Plans[0].ID != plan.Plan || len(report.Notes) != 2 || report.Notes[1].Actor != "operator" {
		t.Errorf("%+v; want the cuts %q", report, want)
	}
	if len(report.Holds) != 1 || report.Holds[0].Target != "principal:bob" {
		t.Errorf("holds that run: %+v", report.Holds)
	}
	if got := strings.Join(kinds, " "); got != "opened plan cut cut cut cut cut note note closed" {
		t.Errorf("the timeline: %s", got)
	}
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte(run(0, "", "receipt", "keys").out), 0o600); err != nil {
		t.Fatal(err)
	}
	away := map[string]string{"QUASH_URL": "http://127.0.0.1:1"}
	for _, id := range want {
		r := q.runEnv(away, "", "receipt", "verify", filepath.Join(kept, id+".jws"), "--keys", keys)
		if r.code != 0 || !strings.Contains(r.out, incident.ID) {
			t.Errorf("%s, offline: exit code %d, %s%s", id, r.code, r.out, r.err)
		}
	}
	text, page := run(0, "", "incident", "report", incident.ID).out, run(0, "", "incident", "report", incident.ID, "-o", "html").out
	for _, id := range append(want, plan.Plan, "principal:alice", "she is back") {
		if !strings.Contains(text, id) || !strings.Contains(page, id) {
			t.Errorf("%s is missing in the Markdown or the page", id)
		}
	}
	if strings.Contains(page, "<script") || strings.Contains(page, "<b>") || strings.Contains(text, "\n# from") {
		t.Error("what somebody wrote is a part of the report")
	}
	var audit struct {
		Items []struct{ ID, Bucket, Request, Incident, Actor string }
	}
	read(&audit, "audit", "search", "--incident", incident.ID, "--oldest")
	ids = nil
	records := 0
	for _, it := range audit.Items {
		switch {
		case it.Incident != incident.ID || it.Request == "" || it.Actor != "operator":
			t.Errorf("%+v", it)
		case it.Bucket != "":
			records++
		default:
			ids = append(ids, it.ID)
		}
	}
	if !slices.Equal(ids, want) || records != 5 { // opened, a plan, two notes, closed
		t.Errorf("the audit has %q and %d records; want %q and 5", ids, records, want)
	}
}

// TestWhatARequestHasChangedIsFoundByItsID: in the log, in records, and in a record's end.
func TestWhatARequestHasChangedIsFoundByItsID(t *testing.T) {
	s := inProcess(t)
	op, acme := s.token(s.operator), s.newTenant("acme")
	type m = map[string]any
	var key, incident struct{ ID string }
	made := s.api(op, "POST", "/v1/keys", m{"owner": "alice", "scopes": []string{"orders:read"}})
	s.decode(made, 201, &key)
	held := s.api(op, "POST", "/v1/revocations", m{"op": "hold", "targets": []string{"principal:alice"}, "reason": "r"})
	disabled := s.api(op, "POST", "/v1/keys/"+key.ID+"/disable", m{"reason": "r"})
	ended := s.api(op, "DELETE", "/v1/keys/"+key.ID, nil)
	opened := s.api(op, "POST", "/v1/incidents", m{"title": "t"})
	s.decode(opened, 201, &incident)
	type item struct{ Type, Request string }
	find := func(token, query string) (items []item) {
		t.Helper()
		var l struct{ Items []item }
		s.decode(s.api(token, "GET", "/v1/audit?order=oldest&"+query, nil), 200, &l)
		return l.Items
	}
	for name, c := range map[string]struct {
		r    reply
		want []string
	}{
		"a record": {made, []string{"dev.quash.record.put"}}, "an entry": {held, []string{"dev.quash.log.entry"}}, "an entry of the issuer": {disabled, []string{"dev.quash.log.entry"}},
		"an end": {ended, []string{"dev.quash.record.put", "dev.quash.log.entry"}}, "a notebook": {opened, []string{"dev.quash.record.put"}},
	} {
		id := c.r.header.Get("X-Request-Id")
		var types []string
		for _, it := range find(op, "request="+id) {
			if it.Request != id {
				t.Errorf("%s: %+v", name, it)
			}
			types = append(types, it.Type)
		}
		for _, want := range c.want {
			if !slices.Contains(types, want) {
				t.Errorf("%s: request %q found %q, want %s", name, id, types, want)
			}
		}
		if got := find(acme.token, "request="+id); len(got) != 0 {
			t.Errorf("%s: another tenant finds %+v", name, got)
		}
	}

	// Notebooks are of their tenant.
	for _, c := range []struct {
		method, path string
		body         any
		want         int
	}{
		{"GET", "", nil, 404},
		{"GET", "/report", nil, 404},
		{"POST", "/notes", m{"text": "t"}, 404},
		{"POST", "/close", m{"reason": "r"}, 404},
	} {
		if r := s.api(acme.token, c.method, "/v1/incidents/"+incident.ID+c.path, c.body); r.status != c.want {
			t.Errorf("another tenant: %s %s: %d %s", c.method, c.path, r.status, r.body)
		}
	}
	var list struct{ Items []struct{ ID string } }
	if s.decode(s.api(acme.token, "GET", "/v1/incidents", nil), 200, &list); len(list.Items) != 0 {
		t.Errorf("another tenant lists %+v", list)
	}
	for _, path := range []string{"/v1/revocations", "/v1/previews"} {
		body := m{"op": "hold", "targets": []string{"principal:x"}, "incident": incident.ID}
		if path == "/v1/revocations" {
			body["reason"] = "r"
		}
		if r := s.api(acme.token, "POST", path, body); r.status != http.StatusUnprocessableEntity {
			t.Errorf("another tenant: %s under it: %d %s", path, r.status, r.body)
		}
	}
	if got := find(acme.token, "incident="+incident.ID); len(got) != 0 {
		t.Errorf("another tenant finds %+v", got)
	}
	if apikey.In(string(s.api(op, "GET", "/v1/incidents/"+incident.ID+"/report?format=markdown", nil).body)) {
		t.Error("there is a secret in a report")
	}
}
