package redisview

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

func TestRedisRestartedEmptyIsNotClean(t *testing.T) {
	t.Parallel()
	server := enginetest.Redis(t)
	w := newWorld(t, server.Addr, false)
	w.commit(200)
	w.writer("a", w.log.replica(), w.store())
	w.whole()
	stop := w.check()
	for range 3 {
		server.Restart(t)
		w.whole()
	}
	stop()
}

// The dump is older than entries that were there; so is its meta, with a beat of
// the series that is still written.
func TestRedisRestoredFromAnOldDumpIsNotClean(t *testing.T) {
	t.Parallel()
	server := enginetest.Redis(t)
	w := newWorld(t, server.Addr, false)
	w.commit(100)
	w.writer("a", w.log.replica(), w.store())
	w.whole()
	if err := w.client.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	stop := w.check()
	w.commit(100)
	for range 3 {
		server.Restart(t) // reads the dump
		w.whole()
	}
	stop()
}

// A reader that knows nothing meets the old dump, and nobody writes.
func TestOldDumpWithoutWriterIsNotClean(t *testing.T) {
	t.Parallel()
	server := enginetest.Redis(t)
	w := newWorld(t, server.Addr, false)
	w.commit(10)
	_, stopWriter := w.writer("a", w.log.replica(), w.store())
	w.whole()
	if err := w.client.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	stopWriter()
	server.Restart(t)
	w.reader = w.newReader(server.Addr)
	waitFor(t, "the reader has looked", func() error {
		if w.reader.Status().Position.IsZero() {
			return errTest
		}
		return nil
	})
	for deadline := time.Now().Add(2 * testLimit); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if res, _ := w.ask(cleanKeys); res.Outcome == denylist.Clean {
			t.Fatal("clean, and nobody keeps the view")
		}
	}
	if res, _ := w.ask(3); res.Outcome != denylist.Hit {
		t.Error("what is there is a hit all the same")
	}
}

func TestServerThatEvictsIsNotClean(t *testing.T) {
	t.Parallel()
	w := newWorld(t, enginetest.Redis(t).Addr, false)
	w.commit(300)
	wr, _ := w.writer("a", w.log.replica(), w.store())
	w.whole()
	set := func(name, value string) {
		t.Helper()
		if err := w.client.ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("maxmemory-policy", "allkeys-random")
	w.incomplete()
	waitFor(t, "the writer says why", func() error {
		if err := wr.Status().Reason; !errors.Is(err, errEvicting) {
			return fmt.Errorf("the reason is %v", err)
		}
		return nil
	})
	stop := w.check()
	set("maxmemory", "1mb") // evicts everything that it can
	waitFor(t, "keys are evicted", func() error {
		h, err := healthOf(t.Context(), w.client)
		if err == nil && h.Evicted == 0 {
			err = errTest
		}
		return err
	})
	set("maxmemory", "0")
	set("maxmemory-policy", "noeviction")
	w.whole()
	stop()
}

// Keys were evicted between two beats, and the policy is back already.
func TestEvictionThatIsOverIsNoticed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, enginetest.Redis(t).Addr, false)
	w.commit(300)
	wr, _ := w.writer("a", w.log.replica(), w.store(), func(c *Config) { c.Sweep = time.Hour })
	w.whole()
	generation := generationOf(t, wr)
	for _, kv := range [][2]string{{"maxmemory-policy", "volatile-random"}, {"maxmemory", "1mb"}} {
		if err := w.client.ConfigSet(t.Context(), kv[0], kv[1]).Err(); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.client.Set(t.Context(), "x", "y", 0).Err() // makes it evict; may be refused when all is gone
	for _, kv := range [][2]string{{"maxmemory", "0"}, {"maxmemory-policy", "noeviction"}} {
		if err := w.client.ConfigSet(t.Context(), kv[0], kv[1]).Err(); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "it is rebuilt", func() error {
		if g := generationOf(t, wr); g == generation || g == "none" {
			return errTest
		}
		return nil
	})
	w.whole()
}

// A replica has everything, some time ago: it is neither read nor written.
func TestReplicaIsNeitherReadNorWritten(t *testing.T) {
	t.Parallel()
	server := enginetest.Redis(t)
	w := newWorld(t, server.Addr, false)
	w.commit(10)
	w.writer("a", w.log.replica(), w.store())
	w.whole()
	replica := enginetest.Redis(t, "--replicaof", "127.0.0.1 "+server.Addr[len("127.0.0.1:"):])
	client := redis.NewClient(&redis.Options{Addr: replica.Addr, DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	waitFor(t, "the replica has the view", func() error { return client.Get(t.Context(), wire.RedisMetaKey(0)).Err() })
	w.reader = w.newReader(replica.Addr)
	waitFor(t, "the reader has looked", func() error {
		if _, err := w.ask(cleanKeys); err == nil || !errors.Is(err, denylist.ErrIncomplete) {
			return fmt.Errorf("%w: %w", errTest, err)
		}
		return nil
	})
	for deadline := time.Now().Add(testLimit); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if res, _ := w.ask(cleanKeys); res.Outcome == denylist.Clean {
			t.Fatal("clean, from a replica")
		}
	}
	c := Connect(redis.UniversalOptions{Addrs: []string{replica.Addr}})
	t.Cleanup(func() { _ = c.Close() })
	b, _ := w.writer("b", w.log.replica(), NewStore(c, false))
	waitFor(t, "the writer says why", func() error {
		if err := b.Status().Reason; !errors.Is(err, errReplica) {
			return fmt.Errorf("%w: %w", errTest, err)
		}
		return nil
	})
}

// Writer and reader need no more than the rights that are shipped for them.
func TestShippedRightsAreEnough(t *testing.T) {
	t.Parallel()
	w := newWorld(t, enginetest.ShippedRedis(t).Addr, false)
	own := w.client
	w.client = redis.NewClient(&redis.Options{Addr: w.opts.Addrs[0], Username: "quash-writer", Password: "pw", DisableIdentity: true})
	store := Connect(redis.UniversalOptions{Addrs: []string{w.opts.Addrs[0]}, Username: "quash-writer", Password: "pw"})
	t.Cleanup(func() { _ = own.Close(); _ = store.Close() })
	w.reader = w.newReader("quash-reader:pw@" + w.opts.Addrs[0])
	w.commit(10)
	w.writer("a", w.log.replica(), NewStore(store, false))
	w.whole()
	if err := w.client.Del(t.Context(), wire.RedisMetaKey(0)).Err(); err != nil {
		t.Fatal(err)
	}
	w.incomplete()
	w.commit(100)
	w.whole()
	c := redis.NewClient(&redis.Options{Addr: w.opts.Addrs[0], Username: "quash-reader", Password: "pw", DisableIdentity: true})
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Set(t.Context(), wire.RedisTargetKey(0, testKey(1)), "x", 0).Err(); err == nil {
		t.Error("a reader can write")
	}
}

func TestClusterWithManyShards(t *testing.T) {
	t.Parallel()
	server := enginetest.Redis(t, "--cluster-enabled", "yes")
	if err := server.Client.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the cluster is up", func() error {
		info, err := server.Client.ClusterInfo(t.Context()).Result()
		if err == nil && !strings.Contains(info, "cluster_state:ok") {
			err = errTest
		}
		return err
	})
	const shards = 3
	w := newWorld(t, server.Addr, false)
	c := Connect(redis.UniversalOptions{Addrs: []string{server.Addr}, IsClusterMode: true})
	t.Cleanup(func() { _ = c.Close() })
	w.commit(100)
	wr, _ := w.writer("a", w.log.replica(), NewStore(c, false), func(c *Config) { c.Shards = shards })
	r, err := denylist.OpenWith(redis.UniversalOptions{Addrs: []string{server.Addr}, IsClusterMode: true},
		denylist.Config{Shards: shards, Limit: testLimit, Poll: testBeat / 4, Conns: 2})
	if err != nil {
		t.Fatal(err)
	}
	w.goRun(r.Run)
	seen := map[int]bool{}
	for i := 0; len(seen) < shards; i++ {
		tenant := "tenant-" + strconv.Itoa(i)
		seen[wire.RedisShard(tenant, shards)] = true
		for n, want := range map[int]denylist.Outcome{5: denylist.Hit, cleanKeys: denylist.Clean} {
			waitFor(t, tenant, func() error {
				res, err := r.Check(t.Context(), denylist.Query{Tenant: tenant, Keys: []revoke.Key{testKey(n)}})
				if res.Outcome != want {
					return fmt.Errorf("key %d is %s: %w", n, res.Outcome, err)
				}
				return nil
			})
		}
	}
	n := map[revoke.Key]int{}
	if err := wr.States(t.Context(), func(k revoke.Key, _ revoke.State) bool { n[k]++; return true }); err != nil {
		t.Fatal(err)
	}
	if len(n) != 100 || n[testKey(7)] < shards {
		t.Errorf("States gave %d targets, one of them %d times", len(n), n[testKey(7)])
	}
}

// The log goes back below what Redis shows: that is proof, nothing is written
// before the new epoch, and then the view is rebuilt in it.
func TestLogThatWentBackIsProvedAndRebuiltInItsNewEpoch(t *testing.T) {
	engines(t, func(t *testing.T, w *world) {
		w.commit(50)
		_, stopFirst := w.writer("a", w.log.replica(), w.store())
		w.whole()
		stopFirst()
		w.log.goBack(20) // while nobody follows it
		proofs := make(chan wire.Position, 1000)
		w.writer("b", w.log.replica(), w.store(), func(c *Config) {
			c.Proof = func(p wire.Position, _ revoke.Epochs) bool {
				select {
				case proofs <- p:
				default:
				}
				return true
			}
		})
		var p wire.Position
		select {
		case p = <-proofs:
		case <-time.After(time.Minute):
			t.Fatal("no proof")
		}
		if p.Seq <= 50 {
			t.Errorf("the proof %s is not what Redis showed", p.Stamp)
		}
		w.incomplete()
		if res, _ := w.ask(40); res.Outcome != denylist.Hit {
			t.Error("what was revoked in the lost part is no hit any more")
		}
		w.log.cut(testKeys(50)...) // from Redis, as the ledger does
		w.log.begin(p.Epoch+1000, revoke.Stamp{Epoch: p.Epoch, Seq: 20})
		w.whole()
	})
}
