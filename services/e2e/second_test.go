package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quash-project/quash/services/revocation"
	revocationapp "github.com/quash-project/quash/services/revocation/app"
)

// twoPeople has wide cuts wait for a second person, once there is one.
func twoPeople(s *setting) { s.second = revocationapp.SecondPerson{Mode: revocation.SecondAuto} }

// waits has somebody beside the operator ask for a cut of a signing key that nobody has, and
// returns the id of what waits.
func (s *services) waits() string {
	s.t.Helper()
	if s.other == "" {
		var k apiKey
		s.decode(s.api(s.token(s.operator), "POST", "/v1/keys", map[string]any{"owner": "olga", "scopes": []string{"quash:revoke"}}), http.StatusCreated, &k)
		s.other = k.Secret
	}
	var off struct{ Pending struct{ ID string } }
	body := map[string]any{"op": "revoke", "targets": []string{"signing-key:" + rand.Text()}, "reason": "a test"}
	s.decode(s.api(s.token(s.other), "POST", "/v1/revocations", body), http.StatusAccepted, &off)
	return off.Pending.ID
}

// A second person on the command line: one asks, another one agrees or does not, and each
// stands in what is left of it.
func TestTwoPeopleOnTheCommandLine(t *testing.T) {
	if processes != nil {
		t.Skip("the separate processes need no second person")
	}
	q := start(t, t.TempDir(), "--second-person", "auto")
	as := func(secret, stdin string, args ...string) result {
		file := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
		return q.runEnv(map[string]string{"QUASH_KEY_FILE": file}, stdin, args...)
	}
	alice := q.newKey("alice", "--role", "responder")
	// The operator is one who may make cuts, and alice another.
	type pending struct {
		ID, State, Actor, Why, Whole string
		DecidedBy                    string `json:"decided_by"`
		Decision                     string
	}
	type off struct {
		Pending pending
		Whole   string
		Parts   int
	}
	asks := func(args ...string) (o off) {
		t.Helper()
		r := as(alice.Secret, "", append(args, "--reason", "a test", "-o", "json")...)
		if err := json.Unmarshal([]byte(r.out), &o); r.code != 7 || err != nil || !strings.Contains(r.err, "quash approve") {
			t.Fatalf("quash %s: exit code %d, want 7, %v\n%s%s", strings.Join(args, " "), r.code, err, r.out, r.err)
		}
		return o
	}
	wide := asks("revoke", "signing-key:none")
	if wide.Pending.State != "pending" || wide.Pending.Actor != "alice" || wide.Pending.Why == "" {
		t.Errorf("%+v", wide)
	}
	if r := as(alice.Secret, "", "approve", wide.Pending.ID); r.code != 4 || !strings.Contains(r.err, "another person") {
		t.Errorf("approved by whoever asked: exit code %d, want 4\n%s", r.code, r.err)
	}
	mine := q.newKey("alice", "--role", "responder")
	if r := as(mine.Secret, "", "approve", wide.Pending.ID); r.code != 4 || !strings.Contains(r.err, "another person") {
		t.Errorf("approved by another key of whoever asked: exit code %d, want 4\n%s", r.code, r.err)
	}
	var entry struct {
		ID, Actor  string
		ApprovedBy string `json:"approved_by"`
	}
	q.json(&entry, "approve", wide.Pending.ID, "--reason", "seen")
	if entry.ID != wide.Pending.ID || entry.Actor != "alice" || entry.ApprovedBy == "" || entry.ApprovedBy == "alice" {
		t.Errorf("%+v", entry)
	}
	said := fmt.Sprintf(`"approved_by":%q`, entry.ApprovedBy)
	for _, args := range [][]string{{"receipt", "show", entry.ID, "-o", "json"}, {"audit", "search", "--target", "signing-key:none", "-o", "json"}} {
		eventually(t, strings.Join(args, " ")+" names the second person", func() error {
			var text bytes.Buffer
			r := q.run("", args...)
			if err := json.Compact(&text, []byte(r.out)); err != nil || !strings.Contains(text.String(), said) {
				return fmt.Errorf("%v: no %s in %.500s%s", err, said, r.out, r.err)
			}
			return nil
		})
	}

	// A no, and what is done at once all the same.
	no := asks("hold", "tenant:default")
	q.ok("deny", no.Pending.ID, "--reason", "not today")
	var denied pending
	q.json(&denied, "pending", no.Pending.ID)
	if denied.State != "denied" || denied.Decision != "not today" {
		t.Errorf("%+v", denied)
	}
	if r := q.run("", "approve", no.Pending.ID); r.code != 1 || !strings.Contains(r.err, "not today") {
		t.Errorf("approved after it was denied: exit code %d, want 1\n%s", r.code, r.err)
	}
	if r := as(alice.Secret, "", "revoke", "signing-key:other", "--reason", "nobody is there", "--break-glass", "-o", "json"); r.code != 0 || !strings.Contains(r.out, `"break_glass": true`) {
		t.Errorf("break-glass: exit code %d\n%s%s", r.code, r.out, r.err)
	}

	// A whole file is one question, and its parts are not smaller ones.
	var lines strings.Builder
	for i := range 1200 {
		fmt.Fprintf(&lines, "token:t%d\n", i)
	}
	file := filepath.Join(t.TempDir(), "targets")
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	all := asks("revoke", "--file", file)
	if all.Parts != 2 || all.Whole == "" {
		t.Fatalf("%+v", all)
	}
	again := asks("revoke", "--file", file)
	if again.Whole != all.Whole || again.Parts != 2 {
		t.Errorf("asked for again: %+v, want %+v", again, all)
	}
	waited := make(chan result, 1)
	go func() {
		waited <- as(alice.Secret, "", "revoke", "--file", file, "--reason", "a test", "--wait", "60s", "-o", "json")
	}()
	q.ok("approve", "--whole", all.Whole)
	if r := <-waited; r.code != 0 && r.code != 3 || strings.Contains(r.out, `"pending"`) {
		t.Errorf("waiting for the second person: exit code %d\n%s%s", r.code, r.out, r.err)
	}
	if out := q.ok("pending"); strings.Contains(out, "token:") {
		t.Errorf("still waiting: %s", out)
	}
	if r := as(alice.Secret, "", "revoke", "--file", file, "--reason", "a test"); r.code != 0 {
		t.Errorf("after all was approved the file is done: exit code %d\n%s%s", r.code, r.out, r.err)
	}
}
