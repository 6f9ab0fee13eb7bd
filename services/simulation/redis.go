package simulation

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quash-project/quash/services/revocation/redisview"
	"github.com/quash-project/quash/shared/guard/denylist"
)

type value struct {
	text    string
	expires int64 // Unix seconds; 0: never
}

// redisServer is one server.
type redisServer struct {
	name    string
	values  map[string]value
	primary bool
	policy  string
	evicted uint64
}

// redisPair is a primary and one that takes over from it, some writes behind.
type redisPair struct {
	c      *chance
	faults *atomic.Bool

	mu    sync.Mutex
	now   *redisServer
	dumps []map[string]value // of before
	conns uint64
	n     int
}

func newRedis(b *broker) *redisPair {
	return &redisPair{c: b.c, faults: &b.faults, now: &redisServer{name: "r0", values: map[string]value{}, primary: true, policy: noEviction}}
}

func (r *redisPair) goes(n int) bool { return r.faults.Load() && r.c.one(n) }

// copy returns what a server holds, without what has expired.
func copyOf(m map[string]value) map[string]value { return maps.Clone(m) }

// keep remembers what is there, to fall back to.
func (r *redisPair) keep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dumps = append(r.dumps, copyOf(r.now.values))
	if len(r.dumps) > 4 {
		r.dumps = r.dumps[1:]
	}
}

// flush empties it.
func (r *redisPair) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.values = map[string]value{}
}

// fallBack restarts it with an older dump. Connections break.
func (r *redisPair) fallBack() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.dumps) > 0 {
		r.now.values = copyOf(r.dumps[r.c.below(len(r.dumps))])
	}
	r.conns++
}

// failOver makes another server the primary, with an older state; the former one
// goes on with who is connected to it.
func (r *redisPair) failOver() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	next := &redisServer{name: "r" + string(rune('0'+r.n%10)), values: copyOf(r.now.values), primary: true, policy: noEviction}
	if len(r.dumps) > 0 && r.c.one(2) {
		next.values = copyOf(r.dumps[len(r.dumps)-1])
	}
	r.now = next
}

const noEviction = "noeviction"

// letEvict has the primary evict keys from now on, unless it does already.
func (r *redisPair) letEvict() (s *redisServer, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now.policy != noEviction {
		return nil, false
	}
	r.now.policy = "allkeys-lru"
	return r.now, true
}

// keepAll has a server evict nothing any more.
func (r *redisPair) keepAll(s *redisServer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.policy = noEviction
}

// evict removes a key of a server, as one that is full and may does.
func (r *redisPair) evict(s *redisServer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range s.values {
		if strings.Contains(k, ":t:") {
			delete(s.values, k)
			s.evicted++
			return
		}
	}
}

var errRedis = errors.New("simulated: Redis does not answer")

// client is one connection to whoever is the primary, or was.
type client struct {
	r      *redisPair
	dead   *atomic.Bool
	mu     sync.Mutex
	server *redisServer
	conns  uint64
	number uint64
	sticky bool // it goes on with its server after a failover for a while
}

func (c *client) at(ctx context.Context) (*redisServer, error) {
	late := c.r.c.upTo(time.Millisecond)
	if c.r.goes(100) {
		late = c.r.c.upTo(3 * time.Second)
	}
	if !pause(ctx, late) {
		return nil, ctx.Err()
	}
	if c.dead != nil && c.dead.Load() || c.r.goes(100) {
		return nil, errRedis
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	stale := c.server != c.r.now && (!c.sticky || c.r.c.one(50) || !c.r.faults.Load())
	if c.server == nil || stale || c.conns != c.r.conns {
		c.server, c.conns = c.r.now, c.r.conns
		c.number++
		c.sticky = c.r.c.one(2)
	}
	return c.server, nil
}

// broken reports whether the connection has broken since it was chosen: a server
// that restarts takes its connections with it. It is called with r.mu held.
func (c *client) broken(s *redisServer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conns != c.r.conns || c.server != s
}

func get(s *redisServer, key string) (string, bool) {
	v, ok := s.values[key]
	if ok && v.expires != 0 && v.expires <= time.Now().Unix() {
		delete(s.values, key)
		return "", false
	}
	return v.text, ok
}

// Get, Swap, Health and Scan are a redisview.Store.
func (c *client) Get(ctx context.Context, key string) (string, error) {
	s, err := c.at(ctx)
	if err != nil {
		return "", err
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	text, _ := get(s, key)
	return text, nil
}

func (c *client) Swap(ctx context.Context, meta, old, next string, entries []redisview.Entry) (bool, error) {
	s, err := c.at(ctx)
	if err != nil {
		return false, err
	}
	won := c.swap(s, meta, old, next, entries)
	if c.r.goes(60) {
		return false, errRedis // done, and nobody said so
	}
	return won, nil
}

func (c *client) swap(s *redisServer, meta, old, next string, entries []redisview.Entry) bool {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if now, _ := get(s, meta); now != old {
		return false
	}
	for _, e := range entries {
		if e.Value == "" {
			delete(s.values, e.Key)
			continue
		}
		s.values[e.Key] = value{e.Value, e.ExpireAt}
	}
	if next != "" {
		s.values[meta] = value{text: next}
	}
	return true
}

func (c *client) Health(ctx context.Context) (redisview.Health, error) {
	s, err := c.at(ctx)
	if err != nil {
		return redisview.Health{}, err
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	return redisview.Health{Primary: s.primary, Policy: s.policy, Evicted: s.evicted, Keys: int64(len(s.values))}, nil
}

func (c *client) Scan(ctx context.Context, prefix string, yield func(key, value string) bool) error {
	s, err := c.at(ctx)
	if err != nil {
		return err
	}
	c.r.mu.Lock()
	all := copyOf(s.values)
	c.r.mu.Unlock()
	for k, v := range all {
		if strings.HasPrefix(k, prefix) && !yield(k, v.text) {
			return nil
		}
	}
	return nil
}

// MGet, Primary and Close are a denylist.Conn.
func (c *client) MGet(ctx context.Context, keys []string) ([]any, denylist.ConnID, error) {
	s, err := c.at(ctx)
	if err != nil {
		return nil, denylist.ConnID{}, err
	}
	c.r.mu.Lock()
	if c.broken(s) {
		c.r.mu.Unlock()
		return nil, denylist.ConnID{}, errRedis
	}
	out := make([]any, len(keys))
	for i, k := range keys {
		if text, ok := get(s, k); ok {
			out[i] = text
		}
	}
	c.r.mu.Unlock()
	c.mu.Lock()
	id := denylist.ConnID{Number: c.number, Addr: s.name}
	c.mu.Unlock()
	if !pause(ctx, c.r.c.upTo(time.Millisecond)) {
		return nil, denylist.ConnID{}, ctx.Err()
	}
	return out, id, nil
}

func (c *client) Primary(ctx context.Context, _ int) error {
	s, err := c.at(ctx)
	if err == nil && !s.primary {
		err = errRedis
	}
	return err
}

func (c *client) Close() error { return nil }
