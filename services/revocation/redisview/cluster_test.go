package redisview

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/wire"
)

// TestClusterWhoseSlotsMoveIsNeverWrong moves the slots of the view's shards from
// node to node while entries are committed and readers ask.
func TestClusterWhoseSlotsMoveIsNeverWrong(t *testing.T) {
	t.Parallel()
	c := enginetest.StartRedisCluster(t)
	const shards = 4
	w := newWorldOn(t, redis.UniversalOptions{Addrs: c.Addrs, IsClusterMode: true}, shards, false)
	w.commit(200)
	w.writer("a", w.log.replica(), w.store())
	w.writer("b", w.log.replica(), w.store())
	w.whole()
	stop := w.check()
	moved := 0
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); moved++ {
		slot := slotOf(t, c, wire.RedisMetaKey(rand.IntN(shards)))
		if err := c.MoveSlot(t.Context(), slot, rand.IntN(3)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // some beats in peace
	}
	t.Logf("moved slots %d times", moved)
	w.whole()
	stop()
	w.compare()
}

func slotOf(t *testing.T, c *enginetest.RedisCluster, key string) int {
	t.Helper()
	n, err := c.Nodes[0].Client.ClusterKeySlot(t.Context(), key).Result()
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// compare wants every committed target in every shard: whole asks for one tenant's.
func (w *world) compare() {
	w.t.Helper()
	w.mu.Lock()
	n := w.next
	w.mu.Unlock()
	for shard := range w.shards {
		waitFor(w.t, fmt.Sprintf("shard %d has everything", shard), func() error {
			for i := range n {
				if v, err := w.client.Get(context.Background(), wire.RedisTargetKey(shard, testKey(i))).Result(); err != nil || v == "" {
					return fmt.Errorf("target %d: %q, %w", i, v, err)
				}
			}
			return nil
		})
	}
}

// TestSentinelFailoverIsNeverWrong replaces the primary, in order and by killing
// it, while entries are committed and readers ask.
func TestSentinelFailoverIsNeverWrong(t *testing.T) {
	t.Parallel()
	s := enginetest.StartRedisSentinel(t)
	w := newWorldOn(t, redis.UniversalOptions{Addrs: s.Addrs, MasterName: enginetest.SentinelName}, 1, false)
	w.commit(200)
	w.writer("a", w.log.replica(), w.store())
	w.writer("b", w.log.replica(), w.store())
	w.whole()
	stop := w.check()
	s.Failover(t)
	w.whole()
	was, err := s.Primary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	was.Kill()
	s.Replaced(t, was)
	w.whole()
	was.Start(t) // empty: the Sentinels make it a replica
	w.whole()
	stop()
	w.compare()
}

// TestOldPrimaryIsNotCleanForEver: a reader that is held to a primary that the
// others have left is incomplete once its beat stands still.
func TestOldPrimaryIsNotCleanForEver(t *testing.T) {
	t.Parallel()
	s := enginetest.StartRedisSentinel(t)
	w := newWorldOn(t, redis.UniversalOptions{Addrs: s.Addrs, MasterName: enginetest.SentinelName}, 1, false)
	was, err := s.Primary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.commit(10)
	w.writer("a", w.log.replica(), w.store())
	w.reader = w.newReader(was.Addr) // it asks no Sentinel
	w.whole()
	stop := w.check()
	s.Failover(t)
	w.incomplete()
	if res, _ := w.ask(3); res.Outcome != denylist.Hit {
		t.Errorf("what was known as revoked is %s", res.Outcome)
	}
	stop()
}
