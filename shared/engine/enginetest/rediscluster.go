package enginetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// ClusterSlots is how many slots a Redis Cluster has.
const ClusterSlots = 16384

// RedisCluster is a Redis Cluster of three primaries.
type RedisCluster struct {
	Nodes []*RedisServer
	Addrs []string
	ids   []string
}

// StartRedisCluster starts one, with a third of the slots on each node.
func StartRedisCluster(t testing.TB) *RedisCluster {
	t.Helper()
	c := &RedisCluster{}
	var bus []string
	for range 3 {
		port := strconv.Itoa(freePort(t))
		bus = append(bus, port)
		n := Redis(t, "--cluster-enabled", "yes", "--cluster-port", port, "--cluster-node-timeout", "2000")
		c.Nodes, c.Addrs = append(c.Nodes, n), append(c.Addrs, n.Addr)
		id, err := n.Client.ClusterMyID(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		c.ids = append(c.ids, id)
	}
	for i, n := range c.Nodes {
		host, port, _ := net.SplitHostPort(c.Addrs[(i+1)%3])
		must(t, n.Client.Do(t.Context(), "CLUSTER", "MEET", host, port, bus[(i+1)%3]).Err())
		must(t, n.Client.ClusterAddSlotsRange(t.Context(), i*ClusterSlots/3, (i+1)*ClusterSlots/3-1).Err())
	}
	for _, n := range c.Nodes {
		Eventually(t, "the cluster on "+n.Addr, func() error {
			info, err := n.Client.ClusterInfo(t.Context()).Result()
			if err == nil && (!strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3")) {
				err = errors.New("not whole")
			}
			return err
		})
	}
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Owner returns which node has a slot.
func (c *RedisCluster) Owner(ctx context.Context, slot int) (int, error) {
	shards, err := c.Nodes[0].Client.ClusterShards(ctx).Result()
	if err != nil {
		return 0, err
	}
	for _, shard := range shards {
		for _, s := range shard.Slots {
			if int(s.Start) <= slot && slot <= int(s.End) {
				return slices.Index(c.ids, shard.Nodes[0].ID), nil
			}
		}
	}
	return 0, fmt.Errorf("nobody has slot %d", slot)
}

// MoveSlot moves a slot and its keys to another node, some keys at a time, as
// redis-cli --cluster reshard does.
func (c *RedisCluster) MoveSlot(ctx context.Context, slot, to int) error {
	from, err := c.Owner(ctx, slot)
	if err != nil || from == to {
		return err
	}
	src, dst := c.Nodes[from].Client, c.Nodes[to].Client
	if err := dst.Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", c.ids[from]).Err(); err != nil {
		return err
	}
	if err := src.Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", c.ids[to]).Err(); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(c.Addrs[to])
	if err != nil {
		return err
	}
	for {
		keys, err := src.ClusterGetKeysInSlot(ctx, slot, 10).Result()
		if err != nil {
			return err
		}
		if len(keys) == 0 {
			break
		}
		args := []any{"MIGRATE", host, port, "", 0, 5000, "REPLACE", "KEYS"}
		for _, k := range keys {
			args = append(args, k)
		}
		if err := src.Do(ctx, args...).Err(); err != nil {
			return err
		}
	}
	for _, i := range []int{to, from, 3 - to - from} { // the new owner first
		if err := c.Nodes[i].Client.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", c.ids[to]).Err(); err != nil {
			return err
		}
	}
	return nil
}

// RedisSentinel is a primary, two replicas and three Sentinels.
type RedisSentinel struct {
	Nodes []*RedisServer
	Addrs []string // of the Sentinels
	ask   *redis.SentinelClient
}

// SentinelName is under which name the Sentinels know the primary.
const SentinelName = "quash"

// StartRedisSentinel starts them, and returns when the Sentinels know each other
// and the replicas.
func StartRedisSentinel(t testing.TB) *RedisSentinel {
	t.Helper()
	s := &RedisSentinel{}
	primary := Redis(t, "--repl-diskless-sync-delay", "0", "--repl-timeout", "5")
	s.Nodes = append(s.Nodes, primary)
	host, port, _ := net.SplitHostPort(primary.Addr)
	for range 2 {
		s.Nodes = append(s.Nodes, Redis(t, "--repl-diskless-sync-delay", "0", "--repl-timeout", "5", "--replicaof", host+" "+port))
	}
	for range 3 {
		s.Addrs = append(s.Addrs, startSentinel(t, host, port))
	}
	s.ask = redis.NewSentinelClient(&redis.Options{Addr: s.Addrs[0], DisableIdentity: true})
	t.Cleanup(func() { _ = s.ask.Close() })
	for _, addr := range s.Addrs {
		c := redis.NewSentinelClient(&redis.Options{Addr: addr, DisableIdentity: true})
		Eventually(t, "the Sentinel on "+addr, func() error {
			m, err := c.Master(t.Context(), SentinelName).Result()
			if err == nil && (m["num-slaves"] != "2" || m["num-other-sentinels"] != "2" || m["flags"] != "master") {
				err = fmt.Errorf("it knows %s replicas and %s Sentinels", m["num-slaves"], m["num-other-sentinels"])
			}
			return err
		})
		_ = c.Close()
	}
	return s
}

func startSentinel(t testing.TB, host, port string) string {
	t.Helper()
	dir, own := t.TempDir(), freePort(t)
	conf := filepath.Join(dir, "sentinel.conf")
	text := fmt.Sprintf("bind 127.0.0.1\nport %d\ndir %q\nsentinel monitor %[3]s %s %s 2\nsentinel down-after-milliseconds %[3]s 1000\nsentinel failover-timeout %[3]s 3000\nsentinel parallel-syncs %[3]s 2\n",
		own, dir, SentinelName, host, port)
	must(t, os.WriteFile(conf, []byte(text), 0o600))
	cmd := exec.Command("redis-server", conf, "--sentinel")
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(own))
}

// Primary returns the node that the Sentinels call the primary.
func (s *RedisSentinel) Primary(ctx context.Context) (*RedisServer, error) {
	a, err := s.ask.GetMasterAddrByName(ctx, SentinelName).Result()
	if err != nil {
		return nil, err
	}
	for _, n := range s.Nodes {
		if n.Addr == net.JoinHostPort(a[0], a[1]) {
			return n, nil
		}
	}
	return nil, fmt.Errorf("no node is at %s", a)
}

// Failover asks for an orderly failover, and returns when another node is the
// primary.
func (s *RedisSentinel) Failover(t testing.TB) {
	t.Helper()
	was, err := s.Primary(t.Context())
	must(t, err)
	Eventually(t, "a failover begins", func() error { return s.ask.Failover(t.Context(), SentinelName).Err() })
	s.Replaced(t, was)
}

// Replaced waits until another node than was is the primary, and says so itself.
func (s *RedisSentinel) Replaced(t testing.TB, was *RedisServer) {
	t.Helper()
	Eventually(t, "another primary than "+was.Addr, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		now, err := s.Primary(ctx)
		if err != nil {
			return err
		}
		role, err := now.Client.Do(ctx, "ROLE").Slice()
		if err == nil && (now == was || role[0] != "master") {
			err = fmt.Errorf("%s is %s", now.Addr, role[0])
		}
		return err
	})
}
