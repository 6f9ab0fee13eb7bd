package ledger

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/problem"
)

// Ends are computed by this service's clock: one that is wrong by more than the
// slack allows commits nothing, and goes on once it was set right.
func TestWrongClockCommitsNothing(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead": 10 * time.Minute, "behind": -10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			var wrong atomic.Int64
			l := start(t, enginetest.NATS(t).Conn(t, "revocation"), func(c *Config) {
				c.Now = func() time.Time { return time.Now().Add(time.Duration(wrong.Load())) }
				c.OrdinaryGather = 10 * time.Millisecond
			})
			mustCommit(t, l.Ledger, request("k1", commit.Revoke, "key:K1"))
			wrong.Store(int64(off))
			enginetest.Eventually(t, "the clock is noticed", func() error {
				if _, err := l.Tick(t.Context(), true); err == nil {
					return errors.New("a tick is still committed")
				}
				return nil
			})
			_, err := l.Commit(t.Context(), request("k2", commit.Revoke, "key:K2"), "test")
			if problem.KindOf(err) != problem.Unavailable || !strings.Contains(err.Error(), "clock") {
				t.Errorf("commit with a wrong clock: %v", err)
			}
			wrong.Store(0)
			enginetest.Eventually(t, "ready again", l.Ready)
			mustCommit(t, l.Ledger, request("k2", commit.Revoke, "key:K2"))
		})
	}
}

func TestClockThatIsNearEnoughIsGood(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), func(c *Config) {
		c.Now = func() time.Time { return time.Now().Add(maxOff - 10*time.Second) }
	})
	mustCommit(t, l.Ledger, request("k1", commit.Revoke, "key:K1"))
}
