package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/services/revocation/audit/natstrail"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// Promise 8: everything is accounted for. Each change names actor, reason and
// time; the audit trail is hash-chained.

// change is something that was done, and how it must be accounted for: there is
// a record or an entry with this reason, by this actor.
type change struct{ name, reason string }

// changeEverything does each change there is once, each with a reason of its own.
func changeEverything(q *quash) []change {
	q.t.Helper()
	tok := q.operatorToken()
	var done []change
	type m = map[string]any
	do := func(name, method, path string, body m, into any) {
		q.t.Helper()
		c := change{name, "why: " + name}
		if body != nil {
			body["reason"] = c.reason
		} else {
			path += sep(path) + "reason=" + url.QueryEscape(c.reason)
		}
		status, answer := q.call(method, path, tok, body)
		if status/100 != 2 {
			q.t.Fatalf("%s: status %d: %s", name, status, answer)
		}
		if into != nil {
			if err := json.Unmarshal(answer, into); err != nil {
				q.t.Fatalf("%s: %v", name, err)
			}
		}
		done = append(done, c)
	}
	var key, kept apiKey
	var client struct {
		ID string `json:"client_id"`
	}
	do("key create", "POST", "/v1/keys", m{"owner": "alice", "scopes": []string{"orders:read"}}, &key)
	do("another key create", "POST", "/v1/keys", m{"owner": "carol", "scopes": []string{"orders:read"}}, &kept)
	do("client create", "POST", "/v1/clients", m{"name": "reports", "grants": []string{"client_credentials"}, "scopes": []string{"orders:read"}}, &client)
	do("secret create", "POST", "/v1/clients/"+client.ID+"/secrets", m{}, nil)
	do("role create", "POST", "/v1/roles", m{"name": "clerk", "scopes": []string{"orders:read", "orders:write"}}, nil)
	do("role narrowed", "PUT", "/v1/roles/clerk", m{"scopes": []string{"orders:read"}}, nil)
	do("binding create", "POST", "/v1/bindings", m{"subject": "alice", "role": "clerk"}, nil)
	do("key renew", "POST", "/v1/keys/"+kept.ID+"/renew", m{}, nil)
	do("key recipient", "PUT", "/v1/keys/"+kept.ID+"/recipient", m{"recipient": "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"}, nil)
	do("key rotate", "POST", "/v1/keys/"+kept.ID+"/rotate", m{}, nil)
	do("key rotation", "POST", "/v1/keys/"+kept.ID+"/rotation", m{"overlap": "1h"}, nil)
	do("key rollback", "POST", "/v1/keys/"+kept.ID+"/rollback", m{}, nil)
	do("revoke", "POST", "/v1/revocations", m{"op": "revoke", "targets": []string{"principal:bob", "session:s1"}}, nil)
	do("hold", "POST", "/v1/revocations", m{"op": "hold", "targets": []string{"principal:dave"}, "for": "1h"}, nil)
	do("release", "POST", "/v1/revocations", m{"op": "release", "targets": []string{"principal:dave"}}, nil)
	do("rotate", "POST", "/v1/rotations?wait=30s", m{"kind": "signing-key"}, nil)
	do("emergency", "POST", "/v1/rotations?wait=30s", m{"kind": "signing-key", "emergency": true}, nil)
	tok = q.operatorToken() // the former one is of the key that was revoked
	do("binding delete", "DELETE", "/v1/bindings?subject=alice&role=clerk", nil, nil)
	do("role delete", "DELETE", "/v1/roles/clerk", nil, nil)
	do("key delete", "DELETE", "/v1/keys/"+key.ID, nil, nil)
	do("client delete", "DELETE", "/v1/clients/"+client.ID, nil, nil)
	var fleet struct {
		Items []struct{ Name, Instance, State string }
	}
	status, answer := q.call("GET", "/v1/fleet", tok, nil)
	if err := json.Unmarshal(answer, &fleet); status != http.StatusOK || err != nil {
		q.t.Fatalf("fleet: status %d, %v", status, err)
	}
	for _, g := range fleet.Items {
		if g.Name == "demo" && g.State == "joined" {
			do("fleet out", "POST", "/v1/fleet/"+g.Instance+"/out", m{}, nil)
		}
	}
	if done[len(done)-1].name != "fleet out" {
		q.t.Fatalf("the demo's guard is not in the fleet: %+v", fleet.Items)
	}
	return done
}

// call calls an API; a body of nil is none.
func (q *quash) call(method, path, token string, body map[string]any) (int, []byte) {
	q.t.Helper()
	text := ""
	if body != nil {
		text = jsonOf(q.t, body)
	}
	req, err := http.NewRequest(method, q.env["QUASH_URL"]+path, strings.NewReader(text))
	if err != nil {
		q.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+token)
	s := services{t: q.t}
	r := s.do(req)
	return r.status, r.body
}

// admin connects with every right in an account of this Quash.
func (q *quash) admin(account string) *nats.Conn {
	q.t.Helper()
	set, err := identity.Load(filepath.Join(q.dir, "nats"))
	if err != nil {
		q.t.Fatal(err)
	}
	creds := filepath.Join(q.t.TempDir(), "admin.creds")
	if err := set.Admin(creds, account); err != nil {
		q.t.Fatal(err)
	}
	nc, _, err := natsfeed.Connect(q.env["QUASH_NATS_URL"], creds, "a test", nil)
	if err != nil {
		q.t.Fatal(err)
	}
	q.t.Cleanup(nc.Close)
	return nc
}

// account is what says of a change who made it, why and when.
type account struct {
	Actor, Reason string
	At            time.Time
	where         string
}

// accounts reads every event of the log and every version of every record.
func (q *quash) accounts() []account {
	q.t.Helper()
	var out []account
	each(q.t, q.admin(identity.Log), wire.Stream, func(m *jetstream.RawStreamMsg) {
		if m.Subject == wire.LogTick {
			return // a tick changes nothing, and has no body
		}
		var e struct {
			Time time.Time
			Data struct{ Actor, Reason string }
		}
		if err := json.Unmarshal(m.Data, &e); err != nil {
			q.t.Errorf("%s: %v", m.Subject, err)
		}
		out = append(out, account{e.Data.Actor, e.Data.Reason, e.Time, m.Subject})
	})
	control := q.admin(identity.Control)
	for _, buckets := range identity.Buckets {
		for _, bucket := range buckets {
			each(q.t, control, "KV_"+bucket, func(m *jetstream.RawStreamMsg) {
				for _, a := range accountsIn(m.Data) {
					a.where = m.Subject
					out = append(out, a)
				}
			})
		}
	}
	return out
}

// accountsIn finds what every record has under meta, and its mark where it has
// one, however deep: some records hold many things.
func accountsIn(data []byte) (out []account) {
	var v any
	if json.Unmarshal(data, &v) != nil {
		return nil // a delete marker
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			actor, _ := v["actor"].(string)
			reason, _ := v["reason"].(string)
			if reason != "" {
				out = append(out, account{Actor: actor, Reason: reason, At: instantOf(v)})
			}
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(v)
	return out
}

func instantOf(v map[string]any) time.Time {
	for _, name := range []string{"at", "created_at"} {
		switch x := v[name].(type) {
		case string:
			if t, err := time.Parse(time.RFC3339, x); err == nil {
				return t
			}
		case float64:
			return time.UnixMilli(int64(x))
		}
	}
	return time.Time{}
}

// each calls f with every message of a stream.
func each(t testing.TB, nc *nats.Conn, stream string, f func(*jetstream.RawStreamMsg)) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return // a bucket that is not made yet
	}
	if err != nil {
		t.Fatal(err)
	}
	for seq, last := s.CachedInfo().State.FirstSeq, s.CachedInfo().State.LastSeq; seq <= last; seq++ {
		if m, err := s.GetMsg(t.Context(), seq); err == nil { // others have left by their time to live
			f(m)
		}
	}
}

// chained reads the audit trail, whose chain must hold.
func (q *quash) chained() (out []account, err error) {
	q.t.Helper()
	_, err = natstrail.Verify(q.t.Context(), q.admin(identity.Log), func(it audit.Item) error {
		out = append(out, account{it.Actor, it.Reason, it.At, it.Source + " " + it.Key + " " + it.Type})
		return nil
	})
	return out, err
}

// TestPromise8EveryChangeIsInTheAuditTrail also kills it in the middle.
func TestPromise8EveryChangeIsInTheAuditTrail(t *testing.T) {
	q := start(t, t.TempDir())
	changes := changeEverything(q)
	q.kill()
	q.start()
	eventually(t, "every change is in the chain, once it has been read to its end", func() error {
		found, err := q.chained()
		if err != nil {
			return err
		}
		for _, c := range changes {
			if !slices.ContainsFunc(found, func(a account) bool { return a.Reason == c.reason && a.Actor == "operator" && !a.At.IsZero() }) {
				return fmt.Errorf("%s is not in the chain of %d", c.name, len(found))
			}
		}
		return nil
	})
	found, err := q.chained()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range found {
		if a.Actor == "" || a.Reason == "" || a.At.IsZero() {
			t.Errorf("%+v does not say who, why and when", a)
		}
	}
}

// TestPromise8EveryChangeNamesActorReasonAndTime does each change there is, and
// looks for who, why and when in what was stored.
func TestPromise8EveryChangeNamesActorReasonAndTime(t *testing.T) {
	q := start(t, t.TempDir())
	before := time.Now()
	changes := changeEverything(q)
	after := time.Now()
	found := q.accounts()
	for _, c := range changes {
		var seen []string
		ok := false
		for _, a := range found {
			if a.Reason != c.reason {
				continue
			}
			seen = append(seen, fmt.Sprintf("%s by %q at %s", a.where, a.Actor, a.At.Format(time.RFC3339Nano)))
			// Stored times have milliseconds.
			in := !a.At.Before(before.Add(-time.Millisecond)) && !a.At.After(after.Add(time.Millisecond))
			ok = ok || a.Actor == "operator" && in
		}
		if !ok {
			t.Errorf("%s: found %q, want the operator, and a time between %s and %s", c.name, seen, before.Format(time.RFC3339Nano), after.Format(time.RFC3339Nano))
		}
	}
	for _, a := range found {
		if a.Actor == "" || a.At.IsZero() {
			t.Errorf("%s has a reason (%s) and not both actor (%q) and time (%s)", a.where, a.Reason, a.Actor, a.At)
		}
	}
}
