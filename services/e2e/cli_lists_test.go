package e2e

import (
	"context"
	"encoding/json"
	"os"
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

// TestCompletionsKnowRealIDs of everything that has some.
func TestCompletionsKnowRealIDs(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("alice", "--scope", "orders:read")
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
