package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTenantsByCommandLine: a tenant's life as its installation's operator and its own admin
// type it.
func TestTenantsByCommandLine(t *testing.T) {
	q := start(t, t.TempDir())
	name := fmt.Sprintf("acme%d", os.Getpid()) // of processes that others share
	var made struct {
		Name, Issuer string
		Admin        apiKey
	}
	q.json(&made, "tenant", "create", name, "--keys", "3", "--reason", "a customer")
	if made.Name != name || !strings.HasSuffix(made.Issuer, "/t/"+name) || made.Admin.Secret == "" {
		t.Fatalf("made %+v", made)
	}
	for _, form := range []string{"table", "yaml", "json"} {
		if out := q.ok("tenant", "show", name, "-o", form); !strings.Contains(out, name) || strings.Contains(out, made.Admin.Secret) {
			t.Errorf("show as %s: %s", form, out)
		}
		if out := q.ok("tenant", "list", "-o", form); !strings.Contains(out, name) {
			t.Errorf("list as %s: %s", form, out)
		}
	}
	q.ok("tenant", "limits", name, "--keys", "2", "--reason", "less")
	var shown struct {
		State  string
		Limits struct{ Keys int }
	}
	if q.json(&shown, "tenant", "show", name); shown.Limits.Keys != 2 {
		t.Errorf("limits: %+v", shown)
	}
	var second apiKey
	if q.json(&second, "tenant", "admin", name); second.Secret == "" {
		t.Error("no other admin's key")
	}

	// Its own admin signs in, and rules it alone.
	file := filepath.Join(t.TempDir(), "admin.key")
	if err := os.WriteFile(file, []byte(made.Admin.Secret), 0o600); err != nil {
		t.Fatal(err)
	}
	_, env := person(t)
	as := func(args ...string) result {
		return q.runEnv(env, "", args...)
	}
	if r := as("login", "--issuer", made.Issuer, "--key-file", file); r.code != 0 {
		t.Fatalf("login: %d %s", r.code, r.out+r.err)
	}
	if r := as("key", "list", "-o", "json"); r.code != 0 || !strings.Contains(r.out, made.Admin.ID) {
		t.Errorf("its keys: %d %s", r.code, r.out+r.err)
	}
	if r := as("key", "create", "--owner", "pat"); r.code == 0 || !strings.Contains(r.err, "2") {
		t.Errorf("a key above the limit: %d %s", r.code, r.out+r.err)
	}
	if r := as("tenant", "list"); r.code != 4 {
		t.Errorf("all tenants, by one of them: exit code %d, want 4: %s", r.code, r.out+r.err)
	}

	q.ok("tenant", "hold", name, "--reason", "unpaid")
	if q.json(&shown, "tenant", "show", name); shown.State != "held" {
		t.Errorf("held: %+v", shown)
	}
	q.ok("tenant", "release", name, "--reason", "paid")
	var exported struct {
		Keys []json.RawMessage
	}
	if q.json(&exported, "tenant", "export", name); len(exported.Keys) != 2 {
		t.Errorf("exported %d keys, want 2", len(exported.Keys))
	}
	q.ok("tenant", "revoke", name, "--reason", "stolen")
	if r := as("key", "list"); r.code != 4 {
		t.Errorf("with a key of before: exit code %d, want 4: %s", r.code, r.out+r.err)
	}
	// For a minute its record is kept, in case that a request of before writes still.
	r := q.run("", "tenant", "delete", name, "--reason", "gone", "--wait", "1s")
	if r.code != 1 || !strings.Contains(r.out, "nothing left") || !strings.Contains(r.err, "something of the tenant is left") {
		t.Errorf("delete: %d %s", r.code, r.out+r.err)
	}
	if r := q.run("", "tenant", "create", name); r.code == 0 || !strings.Contains(r.err, "already") {
		t.Errorf("the name before everything is gone: %d %s", r.code, r.out+r.err)
	}
}
