package denylist

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/quash-project/quash/shared/guard/wire"
)

// Open returns a Reader of the Redis at a URL as go-redis reads it:
// redis://user:password@host:port/db, or rediss:// with TLS. It dials nothing
// yet. The user needs no more rights than quash-reader has in deploy/redis/redis.conf.
func Open(url string, cfg Config) (*Reader, error) {
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, errors.New("denylist: the Redis URL can't be read; want redis://user:password@host:port") // its text has a password
	}
	return OpenWith(redis.UniversalOptions{
		Addrs: []string{o.Addr}, DB: o.DB, Username: o.Username, Password: o.Password,
		TLSConfig: o.TLSConfig, ClientName: o.ClientName,
	}, cfg)
}

// OpenWith is Open for a Sentinel (MasterName) or a Cluster (IsClusterMode, or
// several addresses). Pool sizes, retries and timeouts are set by the Reader.
func OpenWith(o redis.UniversalOptions, cfg Config) (*Reader, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	conns := make([]Conn, cfg.Conns)
	for i := range conns {
		conns[i] = newRedisConn(o, cfg)
	}
	return New(conns, cfg)
}

// redisConn is a client that is held to one connection a server, so that the
// count of dials names the connection.
type redisConn struct {
	client redis.UniversalClient
	dials  atomic.Uint64
}

// newRedisConn changes those defaults of go-redis that would hide which
// connection answered, or make a read outlive its context: retries (3), a pool
// of many, a deadline that does not reach the socket, a connection handed over
// to another server in the middle (maintenance notifications), and CLIENT
// SETINFO, which a guard's ACL can't grant before Redis 7.2.
func newRedisConn(o redis.UniversalOptions, cfg Config) *redisConn {
	c := &redisConn{}
	o.MaxRetries = -1
	o.ContextTimeoutEnabled = true
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = cfg.Timeout, cfg.Timeout, cfg.Timeout
	o.DialerRetries = 1
	o.PoolSize, o.MaxActiveConns, o.MinIdleConns = 1, 1, 0
	o.PipelinePoolSize = -1
	o.ConnMaxIdleTime, o.ConnMaxLifetime = -1, 0
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	// A replica may be any time behind its primary, and its beats with it.
	o.ReadOnly, o.RouteByLatency, o.RouteRandomly = false, false, false
	o.OnConnect = func(context.Context, *redis.Conn) error {
		c.dials.Add(1)
		return nil
	}
	c.client = redis.NewUniversalClient(&o)
	return c
}

// node returns the client of the server that has key, with its address.
func (c *redisConn) node(ctx context.Context, key string) (*redis.Client, error) {
	switch client := c.client.(type) {
	case *redis.Client:
		return client, nil
	case *redis.ClusterClient:
		return client.MasterForKey(ctx, key)
	}
	return nil, fmt.Errorf("denylist: a %T is neither a server nor a cluster", c.client)
}

// MGet implements Conn. A dial while the question is on its way leaves open
// which connection answered: then it counts as a new one.
func (c *redisConn) MGet(ctx context.Context, keys []string) ([]any, ConnID, error) {
	client, err := c.node(ctx, keys[0])
	if err != nil {
		return nil, ConnID{}, err
	}
	values, err := client.MGet(ctx, keys...).Result()
	if err != nil {
		c.moved(ctx, err)
		return nil, ConnID{}, err
	}
	return values, ConnID{Number: c.dials.Load(), Addr: client.Options().Addr}, nil
}

// moved makes a cluster's client learn the slots anew: it was asked past its own
// redirections, since those would hide who answered.
func (c *redisConn) moved(ctx context.Context, err error) {
	if client, ok := c.client.(*redis.ClusterClient); ok {
		if _, redirected := redis.IsMovedError(err); redirected {
			client.ReloadState(ctx)
		}
	}
}

// Primary implements Conn by HELLO, which every user may call.
func (c *redisConn) Primary(ctx context.Context, shard int) error {
	client, err := c.node(ctx, wire.RedisMetaKey(shard))
	if err != nil {
		return err
	}
	hello, err := client.Do(ctx, "HELLO", "3").Result()
	if err != nil {
		return fmt.Errorf("the server was not asked for its role: %w", err)
	}
	role := ""
	if m, ok := hello.(map[any]any); ok {
		role, _ = m["role"].(string)
	}
	if role != "master" {
		return fmt.Errorf("the server's role is %.40q: the view is read from primaries only", role)
	}
	return nil
}

// Close implements Conn.
func (c *redisConn) Close() error { return c.client.Close() }
