package doctor

import (
	"net"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/engine"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

func well(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{keys: twoKeys, fleet: wellOff}
	start(t, i, httptest.NewServer)
	return i
}

// broker makes the log's stream as the revocation service does.
func broker(t *testing.T, nc *nats.Conn) {
	t.Helper()
	b, err := ledger.NewBroker(nc, ledger.Config{NATS: nc, Replicas: 1, SyncAlways: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.SetUp(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestNATSIsLookedAt(t *testing.T) {
	n := enginetest.NATS(t)
	i := well(t)
	guard, monitor, revocation := n.Creds(t, "orders"), n.Creds(t, identity.Monitor), n.Creds(t, identity.Revocation)
	look := func(change func(*Config)) []Finding {
		return examine(t, i, func(c *Config) {
			c.NATSURL, c.Creds = n.URL, guard
			if change != nil {
				change(c)
			}
		})
	}
	found := look(func(c *Config) { c.MonitorCreds = monitor })
	want(t, found, "wrong", "log", "revocation service") // nobody listens: no service runs here
	want(t, found, "wrong", "stream", "start the revocation service")

	broker(t, n.Conn(t, identity.Revocation))
	service(t, n)
	for _, c := range []struct {
		name               string
		change             func(*Config)
		state, check, text string
	}{
		{"server", nil, "good", "NATS 127", "answers"},
		{"rights", nil, "good", "NATS rights", "orders hears the feed"},
		{"commits", nil, "good", "log", "at 7.9"},
		{"sync mode, not seen", nil, "unseen", "NATS sync mode", "monitor.creds"},
		{"stream, not seen", nil, "unseen", "stream", "QUASH_NATS_MONITOR_CREDS"},
		{"sync mode", func(c *Config) { c.MonitorCreds = monitor }, "good", "sync mode", "before it acknowledges"},
		{"clock of the server", func(c *Config) { c.MonitorCreds = monitor }, "good", "clock of NATS", "less than"},
		{"another clock", func(c *Config) {
			c.MonitorCreds = monitor
			c.Now = func() time.Time { return time.Now().Add(5 * time.Minute) }
		}, "wrong", "clock of NATS", "NTP"},
		{"all servers", func(c *Config) { c.MonitorCreds = monitor }, "good", "NATS servers", "1 of 1"},
		{"stream by the monitor", func(c *Config) { c.MonitorCreds = monitor }, "good", "stream", "1 replicas"},
		{"stream by the service", func(c *Config) { c.RevocationCreds = revocation }, "good", "stream", "1 replicas"},
		{"not the monitor", func(c *Config) { c.MonitorCreds = guard }, "unseen", "NATS sync mode", "those of orders"},
		{"not the service", func(c *Config) { c.RevocationCreds = guard }, "unseen", "stream", "those of orders"},
		{"not a guard", func(c *Config) { c.Creds = monitor }, "unseen", "NATS rights", "those of monitor"},
		{"nobody", func(c *Config) { c.Creds = "" }, "unseen", "NATS servers", "credentials"},
		{"no such file", func(c *Config) { c.Creds = "/nonexistent" }, "wrong", "NATS 127", "quash nats init"},
		{"one is away", func(c *Config) { c.NATSURL += ",nats://127.0.0.1:1" }, "wrong", "NATS 127.0.0.1:1", "start that nats-server"},
	} {
		t.Run(c.name, func(t *testing.T) { want(t, look(c.change), c.state, c.check, c.text) })
	}

	t.Run("too many rights", func(t *testing.T) {
		all := filepath.Join(t.TempDir(), "all.creds")
		if err := n.Identities.Admin(all, identity.Log); err != nil {
			t.Fatal(err)
		}
		found := look(func(c *Config) { c.Creds = all })
		want(t, found, "wrong", "NATS rights", "can ask JetStream")
		want(t, found, "wrong", "NATS rights", "can listen to quash.log.>")
	})
	t.Run("of another Quash", func(t *testing.T) {
		other, err := identity.Create(filepath.Join(t.TempDir(), "other"))
		if err != nil {
			t.Fatal(err)
		}
		creds, err := other.AddGuard("orders")
		if err != nil {
			t.Fatal(err)
		}
		want(t, look(func(c *Config) { c.Creds = creds }), "wrong", "NATS 127", "accounts.conf")
	})
}

// service answers probes as the revocation service does.
func service(t *testing.T, n *enginetest.NATSServer) {
	t.Helper()
	nc := n.Conn(t, identity.Revocation)
	if _, err := nc.Subscribe(wire.GuardPrefix+"*."+wire.OpProbe, func(m *nats.Msg) {
		if _, err := wire.DecodeRequest[wire.ProbeRequest](m.Data); err != nil {
			_ = m.Respond([]byte(`{"error":{"code":"invalid","detail":"` + strings.ReplaceAll(err.Error(), `"`, "'") + `"}}`))
			return
		}
		_ = m.Respond([]byte(`{"tick":{"epoch":7,"sequence":9,"id":"x"}}`))
	}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestStreamAndSyncModeThatLose: a server that syncs now and then, and a stream from
// which entries leave early.
func TestStreamAndSyncModeThatLose(t *testing.T) {
	dir := t.TempDir()
	set, err := identity.Create(filepath.Join(dir, "nats"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := engine.StartNATS(engine.NATSConfig{Dir: dir, Port: -1, Identities: set})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	// No service may make such streams.
	as := func(account string) jetstream.JetStream {
		t.Helper()
		creds := filepath.Join(dir, account+".creds")
		if err := set.Admin(creds, account); err != nil {
			t.Fatal(err)
		}
		nc, _, err := natsfeed.Connect(s.URL(), creds, "a test", nil, nats.RetryOnFailedConnect(false))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		return js
	}
	js, buckets := as(identity.Log), as(identity.Control)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: wire.Stream, Subjects: []string{wire.LogAll}, MaxAge: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: audit.Stream, Subjects: []string{audit.Subjects}, MaxMsgs: 1000}); err != nil {
		t.Fatal(err)
	}
	for name, discard := range map[string]jetstream.DiscardPolicy{"keys": jetstream.DiscardNew, "roles": jetstream.DiscardOld} {
		cfg := jetstream.StreamConfig{Name: bucketPrefix + name, Subjects: []string{"$KV." + name + ".>"}, MaxBytes: 1 << 20, Discard: discard}
		if _, err := buckets.CreateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	found := examine(t, well(t), func(c *Config) { c.NATSURL, c.MonitorCreds = s.URL(), set.Creds(identity.Monitor) })
	want(t, found, "wrong", "stream QUASH_AUDIT", "a limit of age")
	want(t, found, "wrong", "stream QUASH_AUDIT", "purged by hand")
	want(t, found, "wrong", "stream KV_roles", "what is old is removed")
	if !slices.ContainsFunc(found, func(f Finding) bool { return f.OK && strings.HasPrefix(f.Detail, "KV_keys:") }) {
		t.Errorf("nothing good is said of the one bucket that is as it should be: %+v", found)
	}
	want(t, found, "wrong", "sync mode", "sync_interval: always")
	want(t, found, "wrong", "stream", "a limit of age")
	found = examine(t, well(t), func(c *Config) { c.NATSURL, c.RevocationCreds = s.URL(), set.Creds(identity.Revocation) })
	want(t, found, "wrong", "stream", "the feed is not")
}

func TestRedisIsLookedAt(t *testing.T) {
	r := enginetest.Redis(t)
	for _, rule := range []string{
		"quash-reader on >r resetkeys %R~{q* resetchannels -@all +mget +get +ping +hello +auth +client|setname",
		"quash-writer on >w resetkeys ~{q* resetchannels -@all +get +mget +set +del +scan +watch +unwatch +multi +exec +info +dbsize +ping +hello +auth +client|setname",
	} {
		args := []any{"ACL", "SETUSER"}
		for _, word := range strings.Fields(rule) {
			args = append(args, word)
		}
		if err := r.Client.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	as := func(user string) string { return "redis://" + user + "@" + r.Addr + "/0" }
	reader, writer := as("quash-reader:r"), as("quash-writer:w")
	for _, c := range []struct {
		name, reader, writer, state, check, text string
	}{
		{"role", reader, "", "good", "Redis role of " + r.Addr, "primary"},
		{"acl", reader, "", "good", "Redis ACL of " + r.Addr, "can't write"},
		{"in the clear, here", reader, "", "good", "TLS of " + r.Addr, "none"},
		{"policy, not seen", reader, "", "unseen", "Redis policy", "QUASH_REDIS_WRITER_URL"},
		{"policy", reader, writer, "good", "Redis policy", "noeviction"},
		{"a writer for a reader", writer, "", "wrong", "Redis ACL", "can write and remove"},
		{"everybody", "redis://" + r.Addr, "", "wrong", "Redis ACL", "quash-reader"},
		{"a wrong password", as("quash-reader:no"), "", "wrong", "Redis", "QUASH_REDIS_URL"},
		{"a reader for a writer", reader, reader, "wrong", "Redis policy", "quash-writer"},
		{"no URL", "nonsense", "", "wrong", "Redis", "QUASH_REDIS_URL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := examine(t, well(t), func(cfg *Config) { cfg.RedisURL, cfg.RedisWriterURL = c.reader, c.writer })
			want(t, found, c.state, c.check, c.text)
			for _, f := range found {
				if strings.Contains(f.Detail+f.Mend, ":r@") || strings.Contains(f.Detail+f.Mend, ":w@") {
					t.Errorf("%s shows a password: %s", f.Check, f.Detail)
				}
			}
		})
	}
	if err := r.Client.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err(); err != nil {
		t.Fatal(err)
	}
	found := examine(t, well(t), func(c *Config) { c.RedisURL, c.RedisWriterURL = reader, writer })
	want(t, found, "wrong", "Redis policy", "allkeys-lru")

	host, port, err := net.SplitHostPort(r.Addr)
	if err != nil {
		t.Fatal(err)
	}
	replica := enginetest.Redis(t, "--replicaof", host, port)
	found = examine(t, well(t), func(c *Config) { c.RedisURL = "redis://" + replica.Addr })
	want(t, found, "wrong", "Redis role", "Sentinels")
}
