package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecordsAreListedShownAndDeleted by the command line, without their secrets,
// and what was deleted is dead.
func TestRecordsAreListedShownAndDeleted(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("alice", "--scope", "orders:read")
	other := q.newKey("bob", "--scope", "orders:read")
	tok := q.token(key)
	var client struct {
		ID     string `json:"client_id"`
		Secret string `json:"client_secret"`
	}
	q.json(&client, "client", "create", "reports", "--grant", "client_credentials", "--scope", "orders:read")
	var keys struct {
		Items []struct{ ID, Owner, State string }
	}
	q.json(&keys, "key", "list", "--owner", "alice")
	if len(keys.Items) != 1 || keys.Items[0].ID != key.ID || keys.Items[0].State != "active" {
		t.Errorf("keys of alice: %+v, want hers alone", keys.Items)
	}
	for _, out := range []string{
		q.ok("key", "list"), q.ok("key", "list", "-o", "json"), q.ok("key", "show", key.ID), q.ok("key", "show", key.ID, "-o", "json"),
		q.ok("client", "list"), q.ok("client", "show", client.ID), q.ok("client", "show", client.ID, "-o", "json"),
	} {
		if strings.Contains(out, key.Secret) || strings.Contains(out, client.Secret) || !strings.Contains(out, key.ID) && !strings.Contains(out, client.ID) {
			t.Errorf("want the id and no secret:\n%s", out)
		}
	}
	q.ok("key", "delete", key.ID, "--reason", "alice has left")
	q.ok("client", "delete", client.ID, "--reason", "not used")
	eventually(t, "a token of the deleted key is refused", func() error {
		if s := q.orders(tok); s != 401 {
			return &statusError{s}
		}
		return nil
	})
	for _, args := range [][]string{{"key", "show", key.ID}, {"client", "show", client.ID}, {"key", "delete", key.ID}} {
		if r := q.run("", args...); r.code != 1 {
			t.Errorf("quash %s: exit code %d, want 1: it is gone\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
		}
	}
	q.wantOrders(q.token(other), 200)
}

// TestPrincipalsAreMadeShownAndDeleted by the command line, whatever they are called, and
// what a deleted one had is dead.
func TestPrincipalsAreMadeShownAndDeleted(t *testing.T) {
	q := start(t, t.TempDir())
	const odd = "spiffe://example.com/a b?c#d%2Fü"
	key := q.newKey(odd, "--scope", "orders:read")
	tok := q.token(key)
	if r := q.run("", "principal", "delete", odd, "--reason", "left"); r.code != 1 || !strings.Contains(r.err, "quash revoke principal:spiffe:%2F%2Fexample.com%2Fa") {
		t.Errorf("without a record: exit code %d, %s: want what to do", r.code, r.err)
	}
	q.ok("principal", "create", odd, "--kind", "workload", "--name", "the odd one", "--label", "team=orders", "--reason", "a test")
	q.ok("principal", "create", "bob")
	q.ok("role", "bind", odd, "viewer")
	if r := q.run("", "principal", "create", odd); r.code != 1 || !strings.Contains(r.err, "already") {
		t.Errorf("again: exit code %d, %s", r.code, r.err)
	}
	if r := q.run("", "principal", "create", "carol", "--kind", "robot"); r.code != 2 || !strings.Contains(r.err, "kind") {
		t.Errorf("a robot: exit code %d, %s", r.code, r.err)
	}
	q.ok("hold", "principal:spiffe:%2F%2Fexample.com%2Fa b?c#d%252Fü", "--reason", "odd traffic")
	out := q.ok("principal", "show", odd)
	for _, want := range []string{odd, "workload", "the odd one", "team=orders", "1, 0 active", "viewer", "held", "a test"} {
		if !strings.Contains(out, want) {
			t.Errorf("%s: want %q", out, want)
		}
	}
	for args, want := range map[string]string{"--kind workload": odd, "--kind person": "bob", "--label team=orders": odd} {
		var list struct{ Items []struct{ ID string } }
		q.json(&list, append([]string{"principal", "list"}, strings.Fields(args)...)...)
		if len(list.Items) != 1 || list.Items[0].ID != want {
			t.Errorf("%s: %+v, want %s alone", args, list.Items, want)
		}
	}
	q.ok("release", "principal:spiffe:%2F%2Fexample.com%2Fa b?c#d%252Fü", "--reason", "a test")
	eventually(t, "what it has is good again", func() error {
		if s := q.orders(tok); s != 200 {
			return &statusError{s}
		}
		return nil
	})
	q.ok("principal", "delete", odd, "--reason", "left")
	eventually(t, "its token is refused", func() error {
		if s := q.orders(tok); s != 401 {
			return &statusError{s}
		}
		return nil
	})
	for _, args := range [][]string{{"principal", "show", odd}, {"key", "show", key.ID}} {
		if r := q.run("", args...); r.code != 1 {
			t.Errorf("quash %s: exit code %d, want 1: it is gone\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
		}
	}
	// The name comes again, and what it has then is good; the role is not.
	q.ok("principal", "create", odd)
	again := q.newKey(odd, "--scope", "orders:read", "--owner-roles")
	q.wantOrders(q.token(again), 200)
	if out := q.ok("role", "bindings", "--subject", odd); strings.Contains(out, "viewer") {
		t.Errorf("%s: want no role of before", out)
	}
}

// TestCompletionsKnowRealIDs of everything that has some.
func TestCompletionsKnowRealIDs(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("alice", "--scope", "orders:read")
	q.ok("principal", "create", "carol")
	var fleet struct{ Items []struct{ Instance string } }
	q.json(&fleet, "fleet")
	var rotated struct{ Kid string }
	q.json(&rotated, "rotate", "signing-key", "--reason", "test")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"revoke", "prin"}, "principal:"},
		{[]string{"revoke", "principal:al"}, "principal:alice"},
		{[]string{"revoke", "principal:ca"}, "principal:carol"},
		{[]string{"principal", "delete", ""}, "carol"},
		{[]string{"hold", "key:"}, "key:" + key.ID},
		{[]string{"revoke", "role:op"}, "role:operator"},
		{[]string{"revoke", "signing-key:"}, "signing-key:" + rotated.Kid},
		{[]string{"key", "delete", ""}, key.ID},
		{[]string{"fleet", "out", ""}, fleet.Items[0].Instance},
	} {
		if out := q.ok(append([]string{"__complete"}, c.args...)...); !strings.Contains(out, c.want) {
			t.Errorf("completion of %q: %q, want %s among them", c.args, out, c.want)
		}
	}
}

// TestWatchShowsWhatHappens as it does, each line readable by itself.
func TestWatchShowsWhatHappens(t *testing.T) {
	q := start(t, t.TempDir())
	out := &logBuffer{}
	ctx, cancel := context.WithCancel(t.Context())
	watch := command(ctx, t, "watch")
	watch.Env = os.Environ()
	for k, v := range q.env {
		watch.Env = append(watch.Env, k+"="+v)
	}
	watch.Stdout, watch.Stderr = out, out
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = watch.Wait() }()
	wait := func(what string) {
		t.Helper()
		eventually(t, "watch shows "+what, func() error {
			if !strings.Contains(out.String(), what) {
				return os.ErrNotExist
			}
			return nil
		})
	}
	wait("watching the feed of")
	q.ok("hold", "principal:winnie", "--reason", "odd traffic")
	wait("hold principal:winnie  by operator  (odd traffic)")
	q.ok("revoke", "token:j1", "--issuer", "corp", "--reason", "leaked")
	wait("revoke token:j1 of issuer corp  by operator  (leaked)")
	var rotated struct{ Kid string }
	q.json(&rotated, "rotate", "signing-key", "--reason", "monthly")
	wait("signing signing-key:" + rotated.Kid + "  by operator  (monthly)")
}

// TestDevSaysWhereThingsAreToPrograms too.
func TestDevSaysWhereThingsAreToPrograms(t *testing.T) {
	q := start(t, t.TempDir(), "-o", "json")
	var places struct {
		URL     string `json:"url"`
		DemoURL string `json:"demo_url"`
	}
	eventually(t, "quash dev says where things are", func() error {
		return json.Unmarshal([]byte(q.out.String()), &places)
	})
	if places.URL != q.env["QUASH_URL"] || places.DemoURL != q.env["QUASH_DEMO_URL"] {
		t.Errorf("%+v, want what stands in the environment file: %s and %s", places, q.env["QUASH_URL"], q.env["QUASH_DEMO_URL"])
	}
}

// TestKeysAreFoundDisabledAndEnabled by the command line.
func TestKeysAreFoundDisabledAndEnabled(t *testing.T) {
	q := start(t, t.TempDir())
	var key struct{ ID, State string }
	q.json(&key, "key", "create", "--owner", "alice", "--label", "env=prod", "--label", "team=orders")
	q.ok("key", "create", "--owner", "alice", "--label", "env=test")
	found := func(want bool, args ...string) {
		t.Helper()
		var list struct{ Items []struct{ ID string } }
		q.json(&list, append([]string{"key", "list"}, args...)...)
		if got := len(list.Items) == 1 && list.Items[0].ID == key.ID; got != want {
			t.Errorf("%q: %+v, want that key alone: %t", args, list.Items, want)
		}
	}
	found(true, "--label", "env=prod", "--label", "team=orders")
	found(false, "--label", "env=test")
	q.ok("key", "disable", key.ID, "--reason", "holiday")
	found(true, "--owner", "alice", "--state", "held")
	if out := q.ok("key", "show", key.ID); !strings.Contains(out, "env=prod team=orders") || !strings.Contains(out, "held") {
		t.Errorf("%s: want its labels and state", out)
	}
	q.ok("key", "enable", key.ID, "--reason", "back")
	found(false, "--owner", "alice", "--state", "held")
	found(true, "--expires-within", "2161h", "--label", "env=prod")

	var next, old struct {
		ID, Secret, Previous string
		Rotation             *struct{ Next string }
	}
	q.json(&next, "key", "rotate", key.ID, "--overlap", "1h", "--expires", "12h", "--reason", "yearly")
	q.json(&old, "key", "show", key.ID)
	if next.Secret == "" || next.Previous != key.ID || old.Rotation == nil || old.Rotation.Next != next.ID {
		t.Errorf("rotated: %+v takes the place of %+v", next.ID, old)
	}
	if out := q.ok("key", "rotation", key.ID, "--overlap", "2h", "--reason", "they are slow"); !strings.Contains(out, next.ID) || !strings.Contains(out, "not used since") {
		t.Errorf("%s: want the new key, and that the old one is not used", out)
	}
	if out := q.ok("key", "rollback", key.ID, "--reason", "it did not work"); !strings.Contains(out, "key:"+next.ID) {
		t.Errorf("%s: want what has ended", out)
	}
	if out := q.ok("key", "rotate", key.ID, "--emergency", "--reason", "stolen"); !strings.Contains(out, "ended, at ") || !strings.Contains(out, "quash_") {
		t.Errorf("%s: want where the end stands in the log, and the secret", out)
	}
	for _, args := range [][]string{{}, {key.ID, "--self"}, {key.ID}, {key.ID, "--emergency", "--overlap", "1h", "--reason", "r"}} {
		if r := q.run("", append([]string{"key", "rotate"}, args...)...); r.code != 2 {
			t.Errorf("key rotate %q: exit code %d, want 2: %s", args, r.code, r.err)
		}
	}
	q.json(&next, "key", "rotate", "--self", "--reason", "my own")
	if q.json(&old, "key", "show", next.Previous); next.Secret == "" || old.Rotation == nil || old.Rotation.Next != next.ID {
		t.Errorf("%s takes the place of %+v", next.ID, old)
	}
	if out := q.ok("key", "delete", next.Previous, "--reason", "done"); !strings.Contains(out, next.ID) {
		t.Errorf("%s: want what lives on", out)
	}
}

// TestKeysHaveNetworksRatesAndLastUses by the command line.
func TestKeysHaveNetworksRatesAndLastUses(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("alice", "--scope", "orders:read", "--network", "127.0.0.0/8", "--rate-limit", "2", "--expires", "30d")
	q.wantOrders(q.token(key), 200)
	out := q.ok("key", "show", key.ID)
	for _, want := range []string{"127.0.0.0/8", "2 a minute", "last used", "from 127.0.0.1"} {
		if !strings.Contains(out, want) {
			t.Errorf("%s: want %q", out, want)
		}
	}
	q.token(key)
	if r := q.run(key.Secret, "token", "--key-file", "-"); r.code != 1 || !strings.Contains(r.err, "rate limit") {
		t.Errorf("the third exchange: exit code %d, %s%s; want 1 and why", r.code, r.out, r.err)
	}
	elsewhere := q.newKey("bob", "--network", "192.0.2.0/24")
	if r := q.run(elsewhere.Secret, "token", "--key-file", "-"); r.code != 4 {
		t.Errorf("from elsewhere: exit code %d, %s; want 4", r.code, r.err)
	}
	if out := q.ok("key", "list", "--owner", "alice", "--unused-since", "90d"); strings.Contains(out, key.ID) {
		t.Errorf("%s: it was not there 90 days ago", out)
	}
	if out := q.ok("key", "list", "--owner", "alice", "--unused-since", "2099-01-01T00:00:00Z"); !strings.Contains(out, key.ID) {
		t.Errorf("%s: want %s", out, key.ID)
	}
	if r := q.run("", "key", "list", "--unused-since", "long"); r.code != 2 || !strings.Contains(r.err, "90d") {
		t.Errorf("exit code %d, %s: want 2 and how it is written", r.code, r.err)
	}
}

// TestKeysOfAnotherSystemAreImported by the command line, line by line.
func TestKeysOfAnotherSystemAreImported(t *testing.T) {
	q := start(t, t.TempDir())
	const secret = "legacy-9f8e7d6c5b4a39281706f5e4"
	line := func(secret, rest string) string {
		return fmt.Sprintf(`{"sha256":"%x","owner":"alice"%s}`, sha256.Sum256([]byte(secret)), rest)
	}
	lines := []string{line(secret, `,"scopes":["orders:read"],"name":"shop"`), `{"owner":`, "", line("", ""), `{"sha":"x"}`}
	for i := range 150 {
		lines = append(lines, line(fmt.Sprintf("another-legacy-secret-%d", i), ""))
	}
	r := q.run(strings.Join(lines, "\n"), "key", "import", "-", "--reason", "moved")
	if r.code != 1 || !strings.Contains(r.err, "151 imported, 0 were there already, 3 refused") {
		t.Errorf("exit code %d, %s%s", r.code, r.out, r.err)
	}
	q.wantOrders(strings.TrimSpace(q.run(secret, "token", "--key-file", "-").out), 200)
	var again struct {
		Items []struct {
			Line        int
			ID, Outcome string
		}
	}
	file := filepath.Join(t.TempDir(), "keys.jsonl")
	if err := os.WriteFile(file, []byte(lines[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	q.json(&again, "key", "import", file)
	if len(again.Items) != 1 || again.Items[0].Outcome != "exists" || again.Items[0].Line != 1 {
		t.Fatalf("again: %+v", again)
	}
	if r := q.run(secret, "revoke", "-", "--reason", "leaked", "--wait", "5s"); r.code != 0 {
		t.Errorf("revoke: exit code %d, %s", r.code, r.err)
	}
	if r := q.run(secret, "token", "--key-file", "-"); r.code != 4 {
		t.Errorf("a revoked one: exit code %d, %s; want 4", r.code, r.err)
	}
	if r := q.run("", "key", "import", "-"); r.code != 2 {
		t.Errorf("nothing: exit code %d, want 2", r.code)
	}
}

func TestRolesAreMadeGivenAndTakenAway(t *testing.T) {
	q := start(t, t.TempDir())
	q.ok("role", "create", "clerk", "--scope", "orders:read", "--reason", "a test")
	key := q.newKey("alice", "--owner-roles")
	if s := q.orders(q.token(key)); s != http.StatusForbidden {
		t.Errorf("without the role: %d, want 403", s)
	}
	if out := q.ok("role", "bind", "alice", "clerk", "--expires", "8h", "--reason", "on duty"); !strings.Contains(out, "expires") || strings.Contains(out, "never") {
		t.Errorf("%s: want when it ends", out)
	}
	with := q.token(key)
	if s := q.orders(with); s != http.StatusOK {
		t.Errorf("with the role: %d, want 200", s)
	}
	if out := q.ok("can", "alice", "orders:read"); !strings.Contains(out, "yes") || !strings.Contains(out, "role clerk") {
		t.Errorf("%s: want yes, and why", out)
	}
	if r := q.run("", "can", "alice", "orders:write"); r.code != 1 || !strings.Contains(r.out, "no") {
		t.Errorf("can alice orders:write: exit code %d, %s", r.code, r.out)
	}
	if r := q.run("", "role", "bind", "alice", "clerk", "--expires", "1h"); r.code != 1 || !strings.Contains(r.err, "unbind") {
		t.Errorf("a nearer end: exit code %d, %s: want what to do", r.code, r.err)
	}
	if r := q.run("", "role", "bind", "alice", "clerk", "--expires", "1s"); r.code != 2 && r.code != 1 || !strings.Contains(r.err, "expires_in") {
		t.Errorf("a second: exit code %d, %s", r.code, r.err)
	}
	if out := q.ok("role", "bindings", "--subject", "alice"); !strings.Contains(out, "clerk") || !strings.Contains(out, "on duty") {
		t.Errorf("%s: want who has what, and why", out)
	}
	q.ok("role", "unbind", "alice", "clerk", "--reason", "off duty")
	eventually(t, "what carries the role is refused", func() error {
		if s := q.orders(with); s != http.StatusUnauthorized {
			return &statusError{s}
		}
		return nil
	})
	q.ok("role", "set", "clerk", "--scope", "orders:write")
	if out := q.ok("role", "show", "clerk"); !strings.Contains(out, "orders:write") || strings.Contains(out, "orders:read") {
		t.Errorf("%s: want its new scope alone", out)
	}
	q.ok("role", "delete", "clerk", "--reason", "a test")
	if out := q.ok("role", "list"); strings.Contains(out, "clerk") || !strings.Contains(out, "operator") {
		t.Errorf("%s", out)
	}
}
