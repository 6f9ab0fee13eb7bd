package ledger

import (
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/natsfeed"
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
