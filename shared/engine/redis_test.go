package engine_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/quash-project/quash/shared/engine"
)

// TestEmbeddedReaderReadsOnly: the reader's password gives a reader's rights, and
// trying the writer's name with a wrong one gives no more.
func TestEmbeddedReaderReadsOnly(t *testing.T) {
	r, err := engine.StartRedis(engine.RedisConfig{WriterPassword: "w-password", ReaderPassword: "r-password"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	ctx := context.Background()
	client := func(url string) *redis.Conn {
		o, err := redis.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		c := redis.NewClient(o)
		t.Cleanup(func() { _ = c.Close() })
		return c.Conn()
	}
	writer, reader := client(r.URL(engine.RedisWriter)), client(r.URL(engine.RedisReader))
	if err := writer.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatalf("writer's SET: %v", err)
	}
	if got, err := reader.MGet(ctx, "k").Result(); err != nil || got[0] != "v" {
		t.Fatalf("reader's MGET: %v, %v", got, err)
	}
	if err := reader.AuthACL(ctx, engine.RedisWriter, "guess").Err(); err == nil {
		t.Error("a wrong password was taken")
	}
	for _, args := range [][]any{{"SET", "k", "x"}, {"DEL", "k"}, {"FLUSHALL"}, {"KEYS", "*"}, {"CONFIG", "GET", "*"}, {"SUBSCRIBE", "x"}, {"EVAL", "return 1", "0"}} {
		if err := reader.Do(ctx, args...).Err(); err == nil || !strings.Contains(err.Error(), "NOPERM") {
			t.Errorf("reader's %v: %v, want NOPERM", args, err)
		}
	}
}

func TestEmbeddedForgetsWhatHasExpired(t *testing.T) {
	r, err := engine.StartRedis(engine.RedisConfig{WriterPassword: "w", ReaderPassword: "r", ExpireEvery: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	o, err := redis.ParseURL(r.URL(engine.RedisWriter))
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(o)
	t.Cleanup(func() { _ = c.Close() })
	for key, life := range map[string]time.Duration{"short": 50 * time.Millisecond, "long": time.Hour} {
		if err := c.Set(t.Context(), key, "v", life).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(time.Minute); c.Exists(t.Context(), "short").Val() == 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is still there")
		}
	}
	if c.Exists(t.Context(), "long").Val() != 1 {
		t.Error("what has not expired is gone")
	}
}
