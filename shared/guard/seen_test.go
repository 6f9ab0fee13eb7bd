package guard_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardtest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// asked is what the only guard of a Quash says.
func asked(q *guardtest.Quash, targets ...string) (a wire.Seen) {
	id := q.Ask(targets...)
	q.Wait("the guard's answer", func() error {
		answers := q.Seen(id)
		if len(answers) == 0 {
			return errors.New("none")
		}
		a = answers[0]
		return nil
	})
	return a
}

// answering returns a guard that answers questions by now.
func answering(q *guardtest.Quash, opts ...guard.Option) *guard.Guard {
	g := q.Guard(opts...)
	q.Wait("the guard to answer", func() error {
		if len(q.Seen(q.Ask("key:none"))) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	return g
}

// TestWhoseTokensWereAcceptedIsRemembered: by every target of theirs, those of a key that
// was exchanged and of roles too; for a day, each hour anew; and nothing of what was
// refused, or only asked about.
func TestWhoseTokensWereAcceptedIsRemembered(t *testing.T) {
	q := guardtest.New(t)
	g := answering(q, guard.WithExchange(q.Exchange()))
	role, err := revoke.NewTarget(guardtest.Tenant, revoke.Own, revoke.KindRole, "clerk")
	if err != nil {
		t.Fatal(err)
	}
	alice := q.Token(guardtest.Token{Subject: "alice", ClientID: "shop", Scopes: []string{"orders:read"}, Via: []revoke.Target{role}})
	mallory := q.Token(guardtest.Token{Subject: "mallory", Scopes: []string{"orders:read"}})
	key := q.APIKey(guardtest.Token{Subject: "carol", Scopes: []string{"orders:read"}})
	q.Revoke("principal:mallory")
	if a := asked(q, "principal:alice", "client:shop"); a.Seen {
		t.Fatal("seen before anything was accepted")
	}
	wantAllow(t, decide(g, alice, read))
	wantAllow(t, decide(g, key, read))
	wantDeny(t, decide(g, mallory, probing), http.StatusUnauthorized, guard.CheckTargets)
	bob := func() string { return q.Token(guardtest.Token{Subject: "bob", Scopes: []string{"orders:read"}}) }
	decide(g, bob(), guard.Requirement{Scopes: []string{"orders:write"}})
	wantAllow(t, decide(g, bob(), guard.Requirement{AnyAudience: true}))
	if e := g.Explain(t.Context(), bob(), read); !e.Decision.Allowed() {
		t.Fatalf("%+v", e)
	}
	for target, want := range map[string]bool{
		"principal:alice": true, "client:shop": true, "role:clerk": true, "tenant:default": true, "signing-key:" + q.KeyID(): true,
		"principal:carol": true, q.KeyTarget(key): true,
		"principal:mallory": false, "principal:bob": false, "principal:nobody": false, "client:bank": false,
	} {
		if a := asked(q, target); a.Seen != want {
			t.Errorf("%s: seen %t", target, a.Seen)
		}
	}
	if a := asked(q, "key:x", "principal:alice"); !a.Seen || a.WrongPPM > 1 {
		t.Errorf("one of two: %+v", a)
	}
	if a := asked(q, "principal:bob"); a.ForMS > time.Minute.Milliseconds() {
		t.Errorf("it has remembered for %d ms", a.ForMS)
	}
	q.Advance(24 * time.Hour)
	if a := asked(q, "principal:alice"); !a.Seen || a.ForMS != wire.RememberedFor.Milliseconds() {
		t.Errorf("a day later: %+v", a)
	}
	q.Advance(time.Hour)
	if a := asked(q, "principal:alice"); a.Seen {
		t.Error("25 hours later it is still remembered")
	}
}

// TestACachedTokenIsSeenAnewEachHour: what is in the cache is not noted at each decision,
// and must not be forgotten while it goes on being used.
func TestACachedTokenIsSeenAnewEachHour(t *testing.T) {
	q := guardtest.New(t)
	g := answering(q)
	later := func(d time.Duration) {
		q.Advance(d)
		q.WaitReady(g)
	}
	later(30 * time.Minute)
	long := q.Token(guardtest.Token{Subject: "alice", Scopes: []string{"orders:read"}, Life: time.Hour})
	wantAllow(t, decide(g, long, read))
	later(45 * time.Minute)
	hits := g.Stats().CacheHits
	if wantAllow(t, decide(g, long, read)); g.Stats().CacheHits != hits+1 {
		t.Fatal("it is not in the cache")
	}
	q.Advance(23*time.Hour + 55*time.Minute)
	if !asked(q, "principal:alice").Seen {
		t.Error("within a day of its last use it is forgotten")
	}
}
