package redisview

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/quash-project/quash/shared/guard/denylist"
)

// Entry is a target's key, its value and when it expires. An empty value
// removes the key.
type Entry struct {
	Key, Value string
	ExpireAt   int64 // Unix seconds
}

// Health is what the server says of itself.
type Health struct {
	Primary bool
	Policy  string // maxmemory_policy; "noeviction" is required
	Evicted uint64 // keys evicted since the server's start
	Keys    int64  // in the database, on all primaries together
}

// Store is the view's Redis. An error leaves open whether a write was done.
type Store interface {
	// Get returns the value of a key, "" if there is none.
	Get(ctx context.Context, key string) (string, error)
	// Swap writes the entries, and next as the meta, in one transaction, and only
	// if the meta is old ("": missing). won is false when it was not, or changed.
	// An empty next leaves the meta as it is.
	Swap(ctx context.Context, meta, old, next string, entries []Entry) (won bool, err error)
	Health(ctx context.Context) (Health, error)
	// Scan calls yield for the keys that begin with prefix, until it returns
	// false. A key may come twice; one that is there all the time comes.
	Scan(ctx context.Context, prefix string, yield func(key, value string) bool) error
}

// Connect returns a client with what the view needs changed from go-redis's
// defaults: no retries (a transaction that is sent again would have lost its
// WATCH), deadlines that reach the socket, primaries only, no connection that
// is handed over to another server.
func Connect(o redis.UniversalOptions) redis.UniversalClient {
	o.MaxRetries = -1
	o.ContextTimeoutEnabled = true
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = 2*time.Second, 5*time.Second, 5*time.Second
	o.DisableIdentity = true
	o.ReadOnly, o.RouteByLatency, o.RouteRandomly = false, false, false
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewUniversalClient(&o)
}

// ConnectURL is Connect by a URL; see denylist.ParseURL.
func ConnectURL(url string) (redis.UniversalClient, error) {
	o, err := denylist.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("redisview: %w", err)
	}
	return Connect(o), nil
}

type redisStore struct {
	client   redis.UniversalClient
	embedded bool
}

// NewStore returns the Store over a client that Connect made. embedded says
// that it is the in-process server, which knows no eviction and can't be asked.
func NewStore(client redis.UniversalClient, embedded bool) Store {
	return &redisStore{client: client, embedded: embedded}
}

func (s *redisStore) Get(ctx context.Context, key string) (string, error) {
	v, err := s.client.Get(ctx, key).Result()
	if errors.Is(err, redis.Nil) {
		return "", nil
	}
	return v, err
}

var errChanged = errors.New("the meta has changed")

func (s *redisStore) Swap(ctx context.Context, meta, old, next string, entries []Entry) (bool, error) {
	// The watch sees a flush; that of the in-process server does not. With this a
	// meta is never put back into a database that was emptied in between.
	only := "XX"
	if old == "" {
		only = "NX"
	}
	err := s.client.Watch(ctx, func(tx *redis.Tx) error {
		now, err := tx.Get(ctx, meta).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		if now != old {
			return errChanged
		}
		_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
			for i := range entries {
				e := &entries[i]
				if e.Value == "" {
					_ = p.Del(ctx, e.Key) // its error is that of the transaction
					continue
				}
				_ = p.Do(ctx, "SET", e.Key, e.Value, "EXAT", e.ExpireAt) // alike
			}
			if next != "" {
				_ = p.Do(ctx, "SET", meta, next, only) // alike
			}
			return nil
		})
		return err
	}, meta)
	if errors.Is(err, errChanged) || errors.Is(err, redis.TxFailedErr) || errors.Is(err, redis.Nil) {
		return false, nil
	}
	return err == nil, err
}

func (s *redisStore) Health(ctx context.Context) (Health, error) {
	if s.embedded {
		n, err := s.client.DBSize(ctx).Result()
		return Health{Primary: true, Policy: "noeviction", Keys: n}, err
	}
	cluster, ok := s.client.(*redis.ClusterClient)
	if !ok {
		return healthOf(ctx, s.client)
	}
	all := Health{Primary: true, Policy: "noeviction"}
	ch := make(chan Health, 1024)
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		h, err := healthOf(ctx, c)
		ch <- h
		return err
	})
	close(ch)
	for h := range ch {
		all.Primary = all.Primary && h.Primary
		if h.Policy != "noeviction" {
			all.Policy = h.Policy
		}
		all.Evicted += h.Evicted
		all.Keys += h.Keys
	}
	return all, err
}

func healthOf(ctx context.Context, c redis.Cmdable) (Health, error) {
	var h Health
	p := c.Pipeline()
	infos := []*redis.StringCmd{p.Info(ctx, "replication"), p.Info(ctx, "memory"), p.Info(ctx, "stats")}
	size := p.DBSize(ctx)
	if _, err := p.Exec(ctx); err != nil {
		return h, fmt.Errorf("ask the server for its health: %w", err)
	}
	f := map[string]string{}
	for _, info := range infos {
		for line := range strings.Lines(info.Val()) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
				f[name] = value
			}
		}
	}
	evicted, err := strconv.ParseUint(f["evicted_keys"], 10, 64)
	if err != nil || f["role"] == "" || f["maxmemory_policy"] == "" {
		return h, errors.New("the server's INFO names no role, maxmemory_policy or evicted_keys")
	}
	return Health{Primary: f["role"] == "master", Policy: f["maxmemory_policy"], Evicted: evicted, Keys: size.Val()}, nil
}

func (s *redisStore) Scan(ctx context.Context, prefix string, yield func(key, value string) bool) error {
	cluster, ok := s.client.(*redis.ClusterClient)
	if !ok {
		return scan(ctx, s.client, prefix, yield)
	}
	// All keys of one prefix are in one slot: one of the nodes has them all.
	node, err := cluster.MasterForKey(ctx, prefix)
	if err != nil {
		return err
	}
	return scan(ctx, node, prefix, yield)
}

// scan needs no escaping: a prefix is made of {q, digits and :t: only.
func scan(ctx context.Context, c redis.Cmdable, prefix string, yield func(key, value string) bool) error {
	var cursor uint64
	for {
		keys, next, err := c.Scan(ctx, cursor, prefix+"*", 1000).Result()
		if err != nil {
			return fmt.Errorf("scan %s*: %w", prefix, err)
		}
		if len(keys) > 0 {
			values, err := c.MGet(ctx, keys...).Result()
			if err != nil {
				return fmt.Errorf("read %s*: %w", prefix, err)
			}
			for i, v := range values {
				if text, ok := v.(string); ok && !yield(keys[i], text) {
					return nil
				}
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}
