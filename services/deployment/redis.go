package deployment

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/quash-project/quash/shared/authority"
)

// Redis is how the view's Redis runs.
type Redis string

// The ways.
const (
	Single   Redis = "single"
	Sentinel Redis = "sentinel" // a primary, two replicas, three Sentinels
	Cluster  Redis = "cluster"  // three primaries
)

// ParseRedis reads a way.
func ParseRedis(text string) (Redis, error) {
	switch r := Redis(text); r {
	case Single, Sentinel, Cluster:
		return r, nil
	}
	return "", fmt.Errorf("redis %q: want single, sentinel or cluster", text)
}

// redisNodes is how many servers there are with Sentinel or a Cluster.
const redisNodes = 3

func (d *deployment) redisCount() int {
	switch {
	case d.redis != Single:
		return redisNodes
	case d.options.Spare:
		return 2
	}
	return 1
}

func redisNode(n int) string { return fmt.Sprintf("redis-%d", n) }
func sentinel(n int) string  { return fmt.Sprintf("sentinel-%d", n) }

// redisPorts names the ports that are needed.
func (d *deployment) redisPorts() (names []string) {
	for n := range d.redisCount() {
		names = append(names, redisNode(n+1)+" clients")
		if d.redis == Cluster {
			names = append(names, redisNode(n+1)+" bus")
		}
		if d.redis == Sentinel {
			names = append(names, sentinel(n+1)+" clients")
		}
	}
	return names
}

// configureRedis writes the shipped files with the users' passwords, as they say
// that one does, with TLS, and with what the servers have to know of each other.
// What they had written into their files before goes: the view is made anew.
func (d *deployment) configureRedis(context.Context) error {
	for n := range d.redisCount() {
		name := redisNode(n + 1)
		more := "masteruser quash-replica\nmasterauth " + d.settings.RedisReplica + "\n"
		switch {
		case d.redis == Cluster:
			// Who makes the cluster of the nodes; it has no business with keys.
			more = fmt.Sprintf("cluster-enabled yes\ntls-cluster yes\ncluster-port %d\ncluster-node-timeout 5000\nuser quash-setup on resetkeys resetchannels -@all +cluster +hello +auth +ping +client|setname #%s\n",
				d.settings.Ports[name+" bus"], sha(d.settings.RedisSetup))
		case d.redis != Cluster && n > 0:
			more += fmt.Sprintf("replicaof 127.0.0.1 %d\n", d.settings.Ports[redisNode(1)+" clients"])
		}
		if err := d.configureServer("redis.conf", name, more, nil); err != nil {
			return err
		}
		if err := os.Remove(d.path(name, "nodes.conf")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if d.redis != Sentinel {
			continue
		}
		more = fmt.Sprintf("sentinel auth-pass quash %s\nsentinel sentinel-pass %s\n", d.settings.RedisSentinel, d.settings.RedisSentinel)
		err := d.configureServer("sentinel.conf", sentinel(n+1), more, map[string]string{
			"sentinel monitor": fmt.Sprintf("sentinel monitor quash 127.0.0.1 %d 2", d.settings.Ports[redisNode(1)+" clients"]),
		})
		if err != nil {
			return err
		}
	}
	for n := range replicas {
		url := d.redisURL(fmt.Sprintf("revocation-%d", n+1), "quash-writer", d.settings.RedisWriter)
		if err := writeFile(d.writerFile(n+1), []byte(url+"\n")); err != nil {
			return err
		}
	}
	return nil
}

// writerFile has the URL of the view for one who writes it.
func (d *deployment) writerFile(n int) string {
	return d.path("secrets", fmt.Sprintf("redis-writer-%d.url", n))
}

func sha(password string) string {
	sum := sha256.Sum256([]byte(password))
	return hex.EncodeToString(sum[:])
}

// configureServer writes the file of one server: the shipped one, with lines that
// begin so replaced, and more after it.
func (d *deployment) configureServer(file, name, more string, replace map[string]string) error {
	shipped, err := os.ReadFile(filepath.Join(d.source, "deploy", "redis", file))
	if err != nil {
		return err
	}
	passwords := map[string]string{
		"quash-writer": d.settings.RedisWriter, "quash-reader": d.settings.RedisReader, "quash-sentinel": d.settings.RedisSentinel,
		"quash-replica": d.settings.RedisReplica, "quash-client": d.settings.RedisClient,
	}
	var b strings.Builder
	for line := range strings.Lines(string(shipped)) {
		f := strings.Fields(line)
		switch {
		case len(f) > 1 && replace[f[0]+" "+f[1]] != "":
			fmt.Fprintln(&b, replace[f[0]+" "+f[1]])
		case len(f) > 1 && f[0] == "user" && passwords[f[1]] != "":
			fmt.Fprintf(&b, "%s #%s\n", strings.TrimSpace(line), sha(passwords[f[1]]))
		case len(f) > 0 && (f[0] == "bind" || f[0] == "port"):
		default:
			b.WriteString(line)
		}
	}
	dir := d.path(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	fmt.Fprintf(&b, "bind 127.0.0.1\nport 0\ntls-port %d\ntls-cert-file %q\ntls-key-file %q\ntls-ca-cert-file %q\ntls-auth-clients no\ntls-replication yes\ndir %q\n%s",
		d.settings.Ports[name+" clients"], d.path("tls", authority.CertFile), d.path("tls", authority.KeyFile), d.path("tls", authority.CAFile), dir, more)
	for _, line := range d.options.RedisLines {
		fmt.Fprintln(&b, line)
	}
	return writeFile(d.path(name+".conf"), []byte(b.String()))
}

// redisURL is where a process finds the view as a user, whoever is none ("")
// directly; see denylist.ParseURL.
func (d *deployment) redisURL(from, user, password string) string {
	u := url.URL{Scheme: "rediss", User: url.UserPassword(user, password), Host: d.reach(from, redisNode(1)+" clients"), Path: "/0"}
	q := url.Values{}
	switch d.redis {
	case Sentinel:
		u.User, u.Host, u.Path = url.UserPassword("quash-client", d.settings.RedisClient), d.addr(sentinel(1)+" clients"), ""
		q.Set("master_name", "quash")
		q.Set("username", user)
		q.Set("password", password)
		q["addr"] = []string{d.addr(sentinel(2) + " clients"), d.addr(sentinel(3) + " clients")}
	case Cluster:
		u.Path = ""
		q["addr"] = []string{d.addr(redisNode(2) + " clients"), d.addr(redisNode(3) + " clients")}
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// startRedis starts the servers, and makes a cluster of them if they are to be one.
func (d *deployment) startRedis(ctx context.Context) error {
	for n := range d.redisCount() {
		name := redisNode(n + 1)
		if err := d.run(name, []string{"rediss://" + d.addr(name+" clients")}, nil, "redis-server", d.path(name+".conf")); err != nil {
			return err
		}
	}
	switch d.redis {
	case Sentinel:
		for n := range redisNodes {
			name := sentinel(n + 1)
			if err := d.run(name, []string{"rediss://" + d.addr(name+" clients")}, nil, "redis-server", d.path(name+".conf"), "--sentinel"); err != nil {
				return err
			}
		}
	case Cluster:
		return d.makeCluster(ctx)
	}
	return nil
}

// makeCluster lets the nodes meet and gives each a third of the slots.
func (d *deployment) makeCluster(ctx context.Context) error {
	const slots = 16384
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	secure, err := trusted(d.path("tls", authority.CAFile))
	if err != nil {
		return err
	}
	for n := range redisNodes {
		c := redis.NewClient(&redis.Options{
			Addr: d.addr(redisNode(n+1) + " clients"), Username: "quash-setup", Password: d.settings.RedisSetup,
			TLSConfig: secure, DisableIdentity: true,
		})
		defer c.Close()
		next := redisNode((n+1)%redisNodes + 1)
		host, port, err := net.SplitHostPort(d.addr(next + " clients"))
		if err != nil {
			return err
		}
		for _, step := range []func() error{
			func() error { return c.Ping(ctx).Err() },
			func() error {
				return c.Do(ctx, "CLUSTER", "MEET", host, port, strconv.Itoa(d.settings.Ports[next+" bus"])).Err()
			},
			func() error {
				return c.ClusterAddSlotsRange(ctx, n*slots/redisNodes, (n+1)*slots/redisNodes-1).Err()
			},
		} {
			if err := until(ctx, step); err != nil {
				return fmt.Errorf("%s: %w", redisNode(n+1), err)
			}
		}
	}
	return nil
}

// waitSentinels waits until each Sentinel has heard of all others and of both replicas:
// one that has not can promote nobody. They learn of replicas every ten seconds.
func (d *deployment) waitSentinels(ctx context.Context) error {
	if d.redis != Sentinel {
		return nil
	}
	secure, err := trusted(d.path("tls", authority.CAFile))
	if err != nil {
		return err
	}
	for n := range redisNodes {
		c := redis.NewSentinelClient(&redis.Options{
			Addr: d.addr(sentinel(n+1) + " clients"), Username: "quash-client", Password: d.settings.RedisClient,
			TLSConfig: secure, DisableIdentity: true,
		})
		defer c.Close()
		err := until(ctx, func() error {
			is, err := c.Master(ctx, "quash").Result()
			if err != nil {
				return err
			}
			replicas, err1 := strconv.Atoi(is["num-slaves"])
			others, err2 := strconv.Atoi(is["num-other-sentinels"])
			if err1 != nil || err2 != nil || replicas < redisNodes-1 || others < redisNodes-1 {
				return fmt.Errorf("it knows %d replicas and %d other Sentinels", replicas, others)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", sentinel(n+1), err)
		}
	}
	return nil
}

// until tries until it succeeds or ctx ends.
func until(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
