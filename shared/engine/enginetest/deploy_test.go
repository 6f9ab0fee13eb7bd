package enginetest

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/redis/go-redis/v9"

	"github.com/quash-project/quash/shared/engine"
)

// What is shipped for operators is what the embedded server runs with.
func TestShippedNATSConfigurationIsWhatTheCodeNeeds(t *testing.T) {
	o, err := server.ProcessConfigFile(deployFile(t, "nats", "jetstream.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if !o.JetStream || !o.SyncAlways || o.MaxPayload != engine.MaxPayload || !o.NoFastProducerStall || o.AuthTimeout != 10 {
		t.Errorf("JetStream %t, SyncAlways %t, MaxPayload %d, NoFastProducerStall %t, AuthTimeout %v",
			o.JetStream, o.SyncAlways, o.MaxPayload, o.NoFastProducerStall, o.AuthTimeout)
	}
}

func TestShippedRedisUsersHaveTheirRightsAndNoMore(t *testing.T) {
	addr := ShippedRedis(t).Addr
	as := func(user string) *redis.Client {
		c := redis.NewClient(&redis.Options{Addr: addr, Username: user, Password: "pw", DisableIdentity: true})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	for _, tc := range []struct {
		user, command string
		ok            bool
	}{
		{"quash-writer", "SET {q0}:m x", true},
		{"quash-writer", "GET {q0}:m", true},
		{"quash-writer", "DBSIZE", true},
		{"quash-writer", "INFO memory", true},
		{"quash-writer", "SCAN 0 MATCH {q0}:t:*", true},
		{"quash-writer", "DEL {q0}:t:x", true},
		{"quash-writer", "SET other x", false},
		{"quash-writer", "FLUSHALL", false},
		{"quash-writer", "CONFIG SET maxmemory-policy allkeys-lru", false},
		{"quash-writer", "EVAL return 0", false},
		{"quash-reader", "MGET {q0}:m {q0}:t:x", true},
		{"quash-reader", "HELLO 3", true},
		{"quash-reader", "SET {q0}:m x", false},
		{"quash-reader", "DEL {q0}:m", false},
		{"quash-reader", "GET other", false},
		{"quash-reader", "SCAN 0", false},
		{"quash-reader", "INFO", false},
		{"quash-reader", "ACL WHOAMI", false},
		{"quash-reader", "SUBSCRIBE x", false},
	} {
		var args []any
		for _, f := range strings.Fields(tc.command) {
			args = append(args, f)
		}
		err := as(tc.user).Do(t.Context(), args...).Err()
		if denied := err != nil && strings.Contains(err.Error(), "NOPERM"); denied == tc.ok {
			t.Errorf("%s: %s: %v", tc.user, tc.command, err)
		}
	}
}
