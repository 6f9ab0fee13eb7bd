package doctor

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/quash-project/quash/services/revocation/redisview"
	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/wire"
)

// redis looks at the view as a reader does, and at its servers as the writer does.
func (d *doctor) redis(ctx context.Context) []Finding {
	var found []Finding
	if d.RedisURL == "" {
		found = append(found, unseen("Redis", "set QUASH_REDIS_URL to what a reader here would use"))
	} else {
		found = append(found, d.reader(ctx)...)
	}
	found = append(found, d.policy(ctx))
	switch {
	case d.view == nil:
		return append(found, unseen("Redis view", "the revocation service says whether it is complete: see fleet; or it keeps no view"))
	case !d.view.Complete:
		return append(found, wrong("Redis view", "look at the revocation service's log: it makes the view whole again by itself", fmt.Errorf("not complete: %s", d.view.Reason)))
	}
	return append(found, good("Redis view", "complete"))
}

// open returns a client for one look, and has tell hear of each connection by TLS.
func open(url string, tell func(addr string, s *tls.ConnectionState)) (redis.UniversalClient, error) {
	o, err := denylist.ParseURL(url)
	if err != nil {
		return nil, err
	}
	o.DisableIdentity, o.ContextTimeoutEnabled, o.MaxRetries = true, true, -1
	o.DialTimeout, o.DialerRetries = natsTime, 1
	cfg := o.TLSConfig
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if cfg == nil {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err == nil {
				tell(addr, nil)
			}
			return conn, err
		}
		conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		s := conn.(*tls.Conn).ConnectionState()
		tell(addr, &s)
		return conn, nil
	}
	return redis.NewUniversalClient(&o), nil
}

// reader looks at each server of the view with a reader's rights.
func (d *doctor) reader(ctx context.Context) []Finding {
	const check, mend = "Redis", "set QUASH_REDIS_URL to what a reader here would use, and start that redis-server"
	seen := newSeen(d.Now)
	c, err := open(d.RedisURL, seen.add)
	if err != nil {
		return []Finding{wrong(check, mend, fmt.Errorf("QUASH_REDIS_URL: %w", err))}
	}
	defer c.Close()
	began := time.Now()
	if err := c.Ping(ctx).Err(); err != nil {
		if f, is := untrusted("Redis", err); is {
			return []Finding{f}
		}
		return []Finding{wrong(check, mend, err)}
	}
	found := []Finding{good(check, "answers in %s", time.Since(began).Round(10*time.Microsecond))}
	nodes := make(chan Finding, 2048)
	look := func(ctx context.Context, one *redis.Client) error {
		nodes <- role(ctx, one)
		nodes <- acl(ctx, one)
		return nil
	}
	switch c := c.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, look)
	case *redis.Client:
		err = look(ctx, c)
	}
	close(nodes)
	if err != nil {
		found = append(found, wrong(check, mend, err))
	}
	for f := range nodes {
		found = append(found, f)
	}
	return append(found, seen.list()...)
}

// nodeName names a server, as far as it can be: behind Sentinels it has no fixed one.
func nodeName(c *redis.Client) string {
	if addr := c.Options().Addr; strings.Contains(addr, ":") {
		return addr
	}
	return "the primary"
}

func role(ctx context.Context, c *redis.Client) Finding {
	check := "Redis role of " + nodeName(c)
	const mend = "name the primary in QUASH_REDIS_URL and in what readers are given, or its Sentinels"
	hello, err := c.Do(ctx, "HELLO", "3").Result()
	if err != nil {
		return wrong(check, "give the reader the rights of quash-reader in deploy/redis/redis.conf", fmt.Errorf("the server was not asked for its role: %w", err))
	}
	m, _ := hello.(map[any]any)
	if r, _ := m["role"].(string); r != "master" {
		return wrong(check, mend, fmt.Errorf("%.40q: the view is read from primaries only, since a replica may be any time behind", r))
	}
	return good(check, "primary")
}

// acl tries to remove what is not there: who may do that may remove revocations.
func acl(ctx context.Context, c *redis.Client) Finding {
	check := "Redis ACL of " + nodeName(c)
	const mend = "give readers the user quash-reader as in deploy/redis/redis.conf, and no other"
	id, err := wire.NewID(rand.Reader)
	if err != nil {
		return wrong(check, mend, err)
	}
	// Of the same hash tag as the meta, so that a node of a Cluster knows the key; on
	// the others it answers MOVED only to those who may write.
	err = c.Del(ctx, wire.RedisMetaKey(0)+":doctor:"+id).Err()
	switch {
	case err == nil || strings.HasPrefix(err.Error(), "MOVED"):
		return wrong(check, mend, errors.New("a reader can write and remove: whoever has its password can undo revocations for all who ask Redis"))
	case strings.HasPrefix(err.Error(), "NOPERM"):
		return good(check, "a reader can't write")
	}
	return wrong(check, mend, fmt.Errorf("whether a reader can write was not seen: %w", err))
}

// policy looks at eviction, as the writer can and the revocation service does with
// each beat.
func (d *doctor) policy(ctx context.Context) Finding {
	const check, mend = "Redis policy", "set maxmemory-policy noeviction as in deploy/redis/redis.conf: an evicted key looks like one that was never revoked"
	if d.RedisWriterURL == "" {
		return unseen(check, "set QUASH_REDIS_WRITER_URL to the URL that the revocation service has; it checks the policy itself with each beat: see Redis view")
	}
	c, err := redisview.ConnectURL(d.RedisWriterURL)
	if err != nil {
		return wrong(check, "mend QUASH_REDIS_WRITER_URL", err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, natsTime)
	defer cancel()
	h, err := redisview.NewStore(c, false).Health(ctx)
	switch {
	case err != nil:
		return wrong(check, "use the user quash-writer as in deploy/redis/redis.conf", err)
	case h.Policy != "noeviction":
		return wrong(check, mend, fmt.Errorf("%.40q", h.Policy))
	case !h.Primary:
		return wrong(check, "name the primary in the revocation service's redis.url_file, or its Sentinels", errors.New("the writer is on a replica"))
	}
	return good(check, "noeviction; %d keys were evicted since the start", h.Evicted)
}
