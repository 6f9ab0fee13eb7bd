package denylist

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/quash-project/quash/shared/guard/wire"
)

// ParseURL reads where the view's Redis is. The forms are those of go-redis; with
// rediss:// instead of redis:// by TLS:
//
//	redis://USER:PASSWORD@HOST:PORT/DB                      one server
//	redis://USER:PASSWORD@HOST:PORT?addr=HOST:PORT&addr=…   a Cluster, by some of its nodes
//	redis://HOST:PORT?addr=HOST:PORT&master_name=NAME&username=USER&password=PASSWORD
//	                                                        a primary by its Sentinels, whose
//	                                                        own user, if any, stands before the @
//
// A certificate must be good for the address by which a node is reached, which
// Sentinels and Clusters tell. An error has nothing of the URL, which has a
// password.
func ParseURL(text string) (redis.UniversalOptions, error) {
	bad := errors.New("the Redis URL can't be read; want redis://USER:PASSWORD@HOST:PORT, with ?addr=HOST:PORT for each further node of a Cluster, or ?addr=…&master_name=NAME&username=USER&password=PASSWORD for Sentinels")
	u, err := url.Parse(text)
	if err != nil {
		return redis.UniversalOptions{}, bad
	}
	q := u.Query()
	switch {
	case q.Has("master_name"):
		o, err := redis.ParseFailoverURL(text)
		if err != nil || o.MasterName == "" {
			return redis.UniversalOptions{}, bad
		}
		return redis.UniversalOptions{
			Addrs: o.SentinelAddrs, MasterName: o.MasterName, SentinelUsername: o.SentinelUsername, SentinelPassword: o.SentinelPassword,
			DB: o.DB, Username: o.Username, Password: o.Password, TLSConfig: ofAnyName(o.TLSConfig), ClientName: o.ClientName,
		}, nil
	case q.Has("addr"):
		o, err := redis.ParseClusterURL(text)
		if err != nil {
			return redis.UniversalOptions{}, bad
		}
		return redis.UniversalOptions{
			Addrs: o.Addrs, IsClusterMode: true, Username: o.Username, Password: o.Password,
			TLSConfig: ofAnyName(o.TLSConfig), ClientName: o.ClientName,
		}, nil
	}
	o, err := redis.ParseURL(text)
	if err != nil {
		return redis.UniversalOptions{}, bad
	}
	return redis.UniversalOptions{
		Addrs: []string{o.Addr}, DB: o.DB, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig, ClientName: o.ClientName,
	}, nil
}

// ofAnyName drops the name of the first node, which go-redis would want of all:
// each is then held against the address that was dialled.
func ofAnyName(c *tls.Config) *tls.Config {
	if c != nil {
		c.ServerName = ""
	}
	return c
}

// Open returns a Reader of the Redis at a URL; see ParseURL. It dials nothing
// yet. The user needs no more rights than quash-reader has in deploy/redis/redis.conf.
func Open(url string, cfg Config) (*Reader, error) {
	o, err := ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("denylist: %w", err)
	}
	return OpenWith(o, cfg)
}

// OpenWith is Open with options. Pool sizes, retries and timeouts are set by the
// Reader.
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
