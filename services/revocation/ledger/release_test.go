package ledger

import (
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/problem"
)

// Whoever holds by one replica and releases by another is not held: also where the
// other has not heard of the newest hold yet, and knows an older one.
func TestReleaseEndsEveryHoldThatWasAnsweredBefore(t *testing.T) {
	n := enginetest.NATS(t)
	near := start(t, n.Conn(t, "revocation"), nil)
	way := enginetest.NewProxy(t, strings.TrimPrefix(n.URL, "nats://"))
	nc, _, err := natsfeed.Connect("nats://"+way.Addr, n.Creds(t, "revocation"), "far", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	far := start(t, nc, nil)
	mustCommit(t, near.Ledger, request("h1", commit.Hold, "principal:alice", "principal:bob"))
	enginetest.Eventually(t, "both know the first hold", func() error { return far.WaitApplied(t.Context(), near.Head().Stamp) })
	way.Delay(100 * time.Millisecond)
	mustCommit(t, near.Ledger, request("h2", commit.Hold, "principal:alice"))
	mustCommit(t, far.Ledger, request("r1", commit.Release, "principal:alice", "principal:bob"))
	way.Delay(0)
	for name, l := range map[string]*running{"near": near, "far": far} {
		if err := l.Fresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, target := range []string{"principal:alice", "principal:bob"} {
			if l.View().Blocked(keyOf(target)) {
				t.Errorf("%s: %s is held after its release", name, target)
			}
		}
	}
}

// A release of one hold leaves alone what others have held since, and holds of others.
func TestReleaseOfAHoldEndsNoNewerOne(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	first := mustCommit(t, l.Ledger, request("h1", commit.Hold, "principal:alice", "principal:bob"))
	second := mustCommit(t, l.Ledger, request("h2", commit.Hold, "principal:alice"))
	cut := mustCommit(t, l.Ledger, request("c1", commit.Revoke, "token:t"))
	of := func(key, id string, targets ...string) (commit.Answer, error) {
		r := request(key, commit.Release, targets...)
		r.Of = id
		return l.Commit(t.Context(), r, "test")
	}
	if _, err := of("r1", first.ID, "principal:alice", "principal:bob"); err != nil {
		t.Fatal(err)
	}
	if !l.View().Blocked(keyOf("principal:alice")) || l.View().Blocked(keyOf("principal:bob")) {
		t.Errorf("alice is held: %t, bob: %t; want alice alone, by the newer hold", l.View().Blocked(keyOf("principal:alice")), l.View().Blocked(keyOf("principal:bob")))
	}
	if a, err := of("r1", first.ID, "principal:alice", "principal:bob"); err != nil || !a.Repeated {
		t.Errorf("the same again: %+v, %v", a, err)
	}
	if _, err := of("r2", first.ID, "principal:alice"); problem.KindOf(err) != problem.Conflict {
		t.Errorf("of a hold that a newer one has replaced: %v", err)
	}
	for _, id := range []string{cut.ID, strings.Repeat("A", 43), "x", second.ID + "="} {
		if _, err := of("r3", id, "principal:alice"); problem.KindOf(err) != problem.Invalid {
			t.Errorf("of %q: %v", id, err)
		}
	}
	foreign := request("r4", commit.Release, "principal:alice")
	foreign.Tenant, foreign.Of = "other", second.ID
	if _, err := l.Commit(t.Context(), foreign, "test"); problem.KindOf(err) != problem.Invalid {
		t.Errorf("of another tenant's hold: %v", err)
	}
	if _, err := of("r5", second.ID, "principal:alice"); err != nil || l.View().Blocked(keyOf("principal:alice")) {
		t.Errorf("of the newer hold: %v, held %t", err, l.View().Blocked(keyOf("principal:alice")))
	}
}
