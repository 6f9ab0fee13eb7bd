package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisPair is a primary and the server that follows it. Everybody reaches the
// primary under one address, as behind a name or an address that moves.
type redisPair struct {
	mu      sync.Mutex // who wants a primary that stays
	primary atomic.Int32
	admin   [2]*redis.Client // with every right
	addr    [2]string
	dump    []byte // of the primary, from some time ago
}

func redisName(n int) string { return fmt.Sprintf("redis-%d", n+1) }

func (p *redisPair) client() *redis.Client { return p.admin[p.primary.Load()] }

func (w *world) connectRedis(password string) error {
	for n := range w.redis.admin {
		p, err := w.process(redisName(n))
		if err != nil {
			return err
		}
		u, err := url.Parse(p.Addresses[0])
		if err != nil {
			return err
		}
		w.redis.addr[n] = u.Host
		w.redis.admin[n] = redis.NewClient(&redis.Options{
			Addr: u.Host, Username: "chaos", Password: password, TLSConfig: w.tls(),
			DisableIdentity: true, MaxRetries: -1, DialTimeout: time.Second, ReadTimeout: 2 * time.Second,
		})
	}
	return nil
}

func (p *redisPair) close() (err error) {
	for _, c := range p.admin {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	return err
}

func (r *round) flushRedis(ctx context.Context, _ *rand.Rand) error {
	r.did("flush Redis")
	_ = r.w.redis.client().FlushAll(ctx).Err() // another fault may have stopped it
	return nil
}

// killRedis kills the primary, half the time with the other.
func (r *round) killRedis(ctx context.Context, rng *rand.Rand) error {
	names := []string{redisName(int(r.w.redis.primary.Load()))}
	if rng.IntN(2) == 0 {
		names = r.w.names("redis")
	}
	return r.crash(ctx, r.lasts(rng, 50*time.Millisecond, 3*time.Second), names...)
}

// oldRedis puts an older dump of Redis in its place: one of a moment ago, or of
// some rounds ago.
func (r *round) oldRedis(ctx context.Context, rng *rand.Rand) error {
	p := &r.w.redis
	p.mu.Lock()
	defer p.mu.Unlock()
	name := redisName(int(p.primary.Load()))
	file, dump := filepath.Join(r.w.dir, name, "dump.rdb"), p.dump
	if dump == nil || rng.IntN(2) == 0 {
		if err := p.client().Save(ctx).Err(); err != nil {
			return nil //nolint:nilerr // another fault has stopped it: then there is nothing to restore
		}
		var err error
		if dump, err = os.ReadFile(file); err != nil {
			return err
		}
		p.dump = dump
		sleep(ctx, r.lasts(rng, 500*time.Millisecond, 2*time.Second))
	}
	r.did("put an old dump of Redis (%d bytes) in its place", len(dump))
	if err := r.w.kill(name); err != nil {
		return err
	}
	if err := os.WriteFile(file, dump, 0o600); err != nil {
		return err
	}
	if err := r.w.restart(name); err != nil {
		return err
	}
	// It is read at the start; at the next one it shall be as shipped, and empty.
	_ = until(ctx, time.Now().Add(3*time.Second), func() error { return p.client().Ping(ctx).Err() })
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// evictRedis gives Redis the policy that is forbidden, and too little memory.
func (r *round) evictRedis(ctx context.Context, rng *rand.Rand) error {
	c := r.w.redis.client()
	info, err := c.Info(ctx, "memory").Result()
	if err != nil {
		return nil //nolint:nilerr // another fault has stopped it
	}
	used := 0
	for line := range strings.Lines(info) {
		if text, ok := strings.CutPrefix(line, "used_memory:"); ok {
			used, _ = strconv.Atoi(strings.TrimSpace(text))
		}
	}
	least := used - rng.IntN(20_000)
	r.did("let Redis evict above %d of %d bytes", least, used)
	for _, set := range [][2]string{{"maxmemory-policy", "allkeys-random"}, {"maxmemory", strconv.Itoa(least)}} {
		_ = c.ConfigSet(ctx, set[0], set[1]).Err() // it may be stopped meanwhile
	}
	sleep(ctx, r.lasts(rng, 500*time.Millisecond, 2*time.Second))
	r.w.keepAll(ctx)
	return nil
}

// keepAll gives both their settings back, if they are there; a new process has them.
func (w *world) keepAll(ctx context.Context) {
	for _, c := range w.redis.admin {
		_ = c.ConfigSet(ctx, "maxmemory", "0").Err()
		_ = c.ConfigSet(ctx, "maxmemory-policy", "noeviction").Err()
	}
}

// failOver puts the follower in the primary's place, which may lack what the
// primary wrote last. The primary was killed; or it is alive, and readers go on to
// ask it for a while after writers have gone.
func (r *round) failOver(ctx context.Context, rng *rand.Rand) error {
	p := &r.w.redis
	p.mu.Lock()
	defer p.mu.Unlock()
	old, apart := int(p.primary.Load()), r.lasts(rng, 200*time.Millisecond, 4*time.Second)
	next, killed := 1-old, rng.IntN(2) == 0
	r.did("fail over from %s to %s, within %s, killed %t", redisName(old), redisName(next), apart.Round(time.Millisecond), killed)
	if killed {
		if err := r.w.kill(redisName(old)); err != nil {
			return err
		}
		sleep(ctx, apart)
	}
	if err := p.admin[next].Do(ctx, "REPLICAOF", "NO", "ONE").Err(); err != nil {
		return r.w.restart(redisName(old)) // the other is away too
	}
	p.primary.Store(int32(next))
	for n := range p.admin {
		if err := r.w.writeRole(n); err != nil {
			return err
		}
	}
	toRedis := func(x *link) bool { return strings.HasPrefix(x.to, "redis-") }
	if !killed {
		r.w.links.retarget(p.addr[next], func(x *link) bool { return toRedis(x) && strings.HasPrefix(x.from, "revocation-") })
		sleep(ctx, apart)
	}
	r.w.links.retarget(p.addr[next], toRedis)
	if killed {
		return r.w.restart(redisName(old))
	}
	r.w.follow(ctx, old)
	return nil
}

// follow makes a server that is no primary any more follow the one that is.
func (w *world) follow(ctx context.Context, n int) {
	host, port, _ := net.SplitHostPort(w.redis.addr[w.redis.primary.Load()]) // we made it
	_ = w.redis.admin[n].Do(ctx, "REPLICAOF", host, port).Err()              // it may be away: it reads its file when it starts
}

// writeRole writes into the file of a server what it is when it starts.
func (w *world) writeRole(n int) error {
	file := filepath.Join(w.dir, redisName(n)+".conf")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var b strings.Builder
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(line, "replicaof ") {
			b.WriteString(line)
		}
	}
	if n != int(w.redis.primary.Load()) {
		host, port, _ := net.SplitHostPort(w.redis.addr[w.redis.primary.Load()]) // we made it
		fmt.Fprintf(&b, "replicaof %s %s\n", host, port)
	}
	return os.WriteFile(file, []byte(b.String()), 0o600)
}
