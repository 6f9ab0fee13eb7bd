package fsck

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// redisBatch is how many keys are asked for at once.
const redisBatch = 1000

// redisTries is how often the view is read anew that was rebuilt meanwhile.
const redisTries = 3

// shardView is one shard as it was read.
type shardView struct {
	n      int
	meta   wire.RedisMeta
	behind bool
	low    map[revoke.Key]revoke.State // what must be there
	seen   map[revoke.Key]bool
	more   map[revoke.Key]revoke.State // what says more than low: judged by the newest log
}

// checkRedis holds the Redis view against the fold of the log: at least what the log
// had at its head, at most what it has after Redis was read.
func (c *checker) checkRedis(ctx context.Context) error {
	if c.cfg.Redis == nil {
		c.notLookedAt("the Redis view: no URL was given")
		return c.readOn(ctx)
	}
	shards, strangers, err := c.readRedis(ctx)
	if err != nil && ctx.Err() == nil {
		c.differ(Redis, "unreachable", "the view", "%s (name no Redis to leave it out)", err)
		return c.readOn(ctx)
	}
	if err != nil {
		return fmt.Errorf("the Redis view: %w", err)
	}
	if err := c.readOn(ctx); err != nil {
		return err
	}
	for _, key := range strangers {
		c.differ(Redis, "stranger", fmt.Sprintf("%.100s", key), "no key of the view is called so")
	}
	high := c.log.fold(c.log.head, 0)
	for _, s := range shards {
		c.judgeMeta(s)
		for k, state := range s.more {
			if why := c.unexplained(state, high[k]); len(why) > 0 {
				c.differ(Redis, "says-more", wire.RedisTargetKey(s.n, k), "%s (it says %s; the log %s)", strings.Join(why, "; "), text(state), text(high[k]))
			}
		}
	}
	return nil
}

// readRedis reads every shard, and then what else there is.
func (c *checker) readRedis(ctx context.Context) (shards []*shardView, strangers []string, err error) {
	of, err := c.shards(ctx)
	if err != nil {
		return nil, nil, err
	}
	for n := 0; n < max(of, 1); n++ {
		s, err := c.readWhole(ctx, n)
		if err != nil {
			return nil, nil, err
		}
		if s != nil {
			shards = append(shards, s)
			of = max(of, s.meta.Shards) // the first one may just have been made
		}
	}
	if of == 0 {
		c.notLookedAt("keys of Redis that are not the view's: no shard says how many there are")
		return shards, nil, nil
	}
	strangers, err = c.scan(ctx, shards, of)
	return shards, strangers, err
}

// mostShards is how many metas are tried for one that says how many there are.
const mostShards = 64

// shards is how many there are, as the first meta says that can be read; 0: none can.
func (c *checker) shards(ctx context.Context) (int, error) {
	for n := range mostShards {
		m, err := c.meta(ctx, n)
		switch {
		case err == nil:
			return m.Shards, nil
		case !errors.Is(err, errNoMeta) && !errors.Is(err, errBadMeta):
			return 0, err
		}
	}
	return 0, nil
}

// readWhole reads one shard, anew if it is rebuilt meanwhile. nil: there is nothing to
// compare, which has been said.
func (c *checker) readWhole(ctx context.Context, n int) (*shardView, error) {
	before := c.report
	before.Left = maps.Clone(c.report.Left)
	listed := maps.Clone(c.listed)
	for range redisTries {
		s, err := c.waitMeta(ctx, n)
		if err != nil || s == nil {
			return nil, err
		}
		if err := c.readShard(ctx, s); err != nil {
			return nil, err
		}
		rebuilt, err := c.rebuilt(ctx, s)
		if err != nil || !rebuilt {
			return s, err
		}
		c.report, c.listed = before, maps.Clone(listed)
		c.report.Left = maps.Clone(before.Left)
	}
	c.differ(Redis, "rebuilding", wire.RedisMetaKey(n), "it was rebuilt each of %d times that it was read", redisTries)
	return nil, nil
}

func (c *checker) meta(ctx context.Context, shard int) (wire.RedisMeta, error) {
	value, err := c.cfg.Redis.Get(ctx, wire.RedisMetaKey(shard)).Result()
	if errors.Is(err, redis.Nil) {
		return wire.RedisMeta{}, errNoMeta
	}
	if err != nil {
		return wire.RedisMeta{}, err
	}
	m, err := wire.ParseRedisMeta(value)
	if err != nil {
		return m, fmt.Errorf("%w: %w", errBadMeta, err)
	}
	if m.Shard != shard {
		return m, fmt.Errorf("%w: it is that of shard %d", errBadMeta, m.Shard)
	}
	return m, nil
}

var (
	errNoMeta  = errors.New("it is missing: there is no view")
	errBadMeta = errors.New("it can't be read")
)

// waitMeta waits until a shard has reached the log's head, for some beats. nil: there is
// nothing to compare.
func (c *checker) waitMeta(ctx context.Context, shard int) (*shardView, error) {
	s := &shardView{n: shard}
	deadline := time.Now().Add(c.cfg.Wait)
	for {
		m, err := c.meta(ctx, shard)
		ours := errors.Is(err, errNoMeta) || errors.Is(err, errBadMeta)
		if err != nil && !ours {
			return nil, err
		}
		if err == nil && m.Complete && !m.Position.Less(c.log.headStamp()) {
			s.meta = m
			return s, nil
		}
		if time.Now().After(deadline) {
			s.meta, s.behind = m, true
			switch at := wire.RedisMetaKey(shard); {
			case err != nil:
				c.differ(Redis, "meta", at, "%s", err)
				return nil, nil
			case !m.Complete:
				c.differ(Redis, "incomplete", at, "its generation %s is not complete", m.Generation)
				return nil, nil
			default:
				c.differ(Redis, "behind", at, "it stands at %s for %s, and the log is at %s", m.Position.Stamp, c.cfg.Wait, c.log.headStamp())
			}
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(wire.RedisBeat / 5):
		}
	}
}

// rebuilt reports whether the shard is not the same any more that was read.
func (c *checker) rebuilt(ctx context.Context, s *shardView) (bool, error) {
	m, err := c.meta(ctx, s.n)
	if errors.Is(err, errNoMeta) || errors.Is(err, errBadMeta) {
		return true, nil
	}
	return m.Generation != s.meta.Generation || !m.Complete, err
}

// readShard reads what the log says must be there.
func (c *checker) readShard(ctx context.Context, s *shardView) error {
	upTo := c.log.head
	if s.behind {
		upTo = min(upTo, s.meta.Position.Seq) // at least what it claims
		for _, e := range c.log.epochs {
			if e.Number > s.meta.Position.Epoch {
				upTo = min(upTo, e.seq-1)
			}
		}
	}
	// What is about to end may be gone already, by another clock.
	s.low = c.log.fold(upTo, c.cfg.Now().Add(wire.Slack/2).Unix())
	s.seen, s.more = map[revoke.Key]bool{}, map[revoke.Key]revoke.State{}
	var batch []revoke.Key
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		names := make([]string, len(batch))
		for i, k := range batch {
			names[i] = wire.RedisTargetKey(s.n, k)
		}
		values, err := c.cfg.Redis.MGet(ctx, names...).Result()
		if err != nil {
			return err
		}
		for i, k := range batch {
			value, ok := values[i].(string)
			if !ok {
				c.differ(Redis, "missing", names[i], "the log says %s", text(s.low[k]))
			} else {
				c.hold(s, k, names[i], value)
			}
			s.seen[k] = true
		}
		batch = batch[:0]
		return nil
	}
	for k := range s.low {
		if batch = append(batch, k); len(batch) == redisBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// hold compares one value with what must be there at least.
func (c *checker) hold(s *shardView, k revoke.Key, name, value string) {
	c.report.RedisKeys++
	state, err := wire.ParseRedisState(value)
	if err != nil {
		c.differ(Redis, "unreadable", name, "%s", err)
		return
	}
	low := s.low[k]
	if state.Merge(low) != state {
		c.differ(Redis, "says-less", name, "it says %s; the log %s", text(state), text(low))
	}
	if low.Merge(state) != low {
		s.more[k] = state
	}
}

// scan looks at every key that there is: those of which the log says nothing, their
// ends, and strangers.
func (c *checker) scan(ctx context.Context, shards []*shardView, of int) (strangers []string, err error) {
	nodes, err := c.nodes(ctx)
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		var cursor uint64
		for {
			names, next, err := node.Scan(ctx, cursor, "*", redisBatch).Result()
			if refused(err) {
				c.notLookedAt("keys in Redis of which the log says nothing: this user may not list keys")
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			odd, err := c.takeKeys(ctx, node, shards, of, names)
			if err != nil {
				return nil, err
			}
			strangers = append(strangers, odd...)
			if cursor = next; cursor == 0 {
				break
			}
		}
	}
	slices.Sort(strangers)
	return slices.Compact(strangers), nil // a scan may name a key twice
}

// nodes are the servers that have keys.
func (c *checker) nodes(ctx context.Context) ([]redis.Cmdable, error) {
	cluster, ok := c.cfg.Redis.(*redis.ClusterClient)
	if !ok {
		return []redis.Cmdable{c.cfg.Redis}, nil
	}
	var mu sync.Mutex
	var nodes []redis.Cmdable
	err := cluster.ForEachMaster(ctx, func(_ context.Context, one *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, one)
		return nil
	})
	return nodes, err
}

// refused reports whether the server does not let this user do that, or can't.
func refused(err error) bool {
	return err != nil && (strings.HasPrefix(err.Error(), "NOPERM") || strings.HasPrefix(err.Error(), "ERR unknown command"))
}

// takeKeys looks at some keys of a node, and returns those that are none of the view.
func (c *checker) takeKeys(ctx context.Context, node redis.Cmdable, shards []*shardView, of int, names []string) (strangers []string, err error) {
	type asked struct {
		s     *shardView
		k     revoke.Key
		name  string
		value *redis.StringCmd
		left  *redis.DurationCmd
	}
	var all []asked
	p := node.Pipeline()
	for _, name := range names {
		n, k, kind := place(name, of)
		if kind == keyStranger {
			strangers = append(strangers, name)
		}
		i := slices.IndexFunc(shards, func(s *shardView) bool { return s.n == n })
		if kind != keyTarget || i < 0 {
			continue
		}
		all = append(all, asked{shards[i], k, name, p.Get(ctx, name), p.PTTL(ctx, name)})
	}
	_, _ = p.Exec(ctx) // each answer has its own error
	for _, a := range all {
		value, err := a.value.Result()
		switch {
		case errors.Is(err, redis.Nil):
			continue // it has ended just now
		case err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE"):
			c.differ(Redis, "unreadable", a.name, "it is no string")
			continue
		case err != nil:
			return nil, err
		}
		if !a.s.seen[a.k] {
			a.s.seen[a.k] = true
			c.hold(a.s, a.k, a.name, value)
		}
		if err := c.checkEnd(a.name, value, a.left); err != nil {
			return nil, err
		}
	}
	return strangers, nil
}

// The kinds of keys in Redis.
const (
	keyStranger = iota
	keyMeta
	keyTarget
)

// place returns what key it is, and of which of so many shards.
func place(name string, of int) (shard int, k revoke.Key, kind int) {
	for n := range of {
		if name == wire.RedisMetaKey(n) {
			return n, k, keyMeta
		}
		if strings.HasPrefix(name, wire.RedisTargetPrefix(n)) {
			if k, err := wire.ParseRedisTargetKey(n, name); err == nil {
				return n, k, keyTarget
			}
		}
	}
	return 0, k, keyStranger
}

// checkEnd wants a key to go when nothing lives any more that it can hit, within what
// clocks may be wrong by.
func (c *checker) checkEnd(name, value string, answer *redis.DurationCmd) error {
	state, err := wire.ParseRedisState(value)
	if err != nil {
		return nil //nolint:nilerr // that was said
	}
	left, err := answer.Result()
	switch {
	case refused(err):
		c.notLookedAt("when the keys in Redis end: this user may not ask")
		return nil
	case err != nil:
		return err
	case left == -1: // as Redis says that it never does
		c.differ(Redis, "end", name, "it never ends")
		return nil
	case left < 0: // it has ended just now
		return nil
	}
	end, want := c.cfg.Now().Add(left), time.Unix(state.Until, 0).Add(wire.Slack)
	if off := end.Sub(want); off.Abs() > wire.Slack/2 {
		c.differ(Redis, "end", name, "it ends %s, and should at %s", end.UTC().Format(time.RFC3339), want.UTC().Format(time.RFC3339))
	}
	return nil
}
