package bench

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// BenchmarkDeploymentRedis: a decision of a guard that has nothing but Redis, in
// turns with the bare MGET of the same keys over a connection of its own; and the
// greatest staleness that it claims, beside the beat of the view as it was.
func BenchmarkDeploymentRedis(b *testing.B) {
	const rounds = 20_000
	d := deploy(b)
	token := d.exchange(b, d.key(b, "reader"))
	keys := d.keysOf(b, token)
	g := d.redisGuard(b, token, func(o redis.UniversalOptions) (guard.Denylist, error) {
		return denylist.OpenWith(o, denylist.Config{})
	})
	enginetest.Eventually(b, "the guard is ready", g.Ready)
	o := d.redisOptions(b)
	o.PoolSize = 1
	bare := redis.NewUniversalClient(&o)
	b.Cleanup(func() { _ = bare.Close() })
	req := guard.Requirement{Scopes: []string{"orders:read"}}
	var ours, theirs []time.Duration
	var stalest time.Duration
	first, began := d.beat(b, bare, keys[0]), time.Now()
	for b.Loop() {
		for range rounds {
			t0 := time.Now()
			decision := g.Decide(b.Context(), token, req)
			ours = append(ours, time.Since(t0))
			if !decision.Allowed() || decision.Source != guard.SourceRedis {
				b.Fatalf("%s: %s, by %q", decision.Outcome, decision.Reason, decision.Source)
			}
			stalest = max(stalest, decision.Staleness)
			t0 = time.Now()
			if err := bare.MGet(b.Context(), keys...).Err(); err != nil {
				b.Fatal(err)
			}
			theirs = append(theirs, time.Since(t0))
		}
		// The beat is slow beside a decision.
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			decision := g.Decide(b.Context(), token, req)
			if !decision.Allowed() {
				b.Fatalf("%s: %s", decision.Outcome, decision.Reason)
			}
			stalest = max(stalest, decision.Staleness)
		}
	}
	beat := time.Since(began) / time.Duration(d.beat(b, bare, keys[0])-first)
	b.ReportMetric(micros(quantile(ours, 0.5)), "decide-us")
	b.ReportMetric(micros(quantile(theirs, 0.5)), "mget-us")
	b.ReportMetric(micros(quantile(ours, 0.99)), "decide-p99-us")
	b.ReportMetric(micros(quantile(theirs, 0.99)), "mget-p99-us")
	b.ReportMetric(stalest.Seconds(), "stalest-s")
	b.ReportMetric(beat.Seconds(), "beat-s")
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func (d *deployed) redisOptions(b *testing.B) redis.UniversalOptions {
	b.Helper()
	o, err := denylist.ParseURL(d.env["QUASH_REDIS_URL"])
	if err != nil {
		b.Fatal(err)
	}
	o.TLSConfig = d.tls()
	o.TLSConfig.ServerName, _, _ = strings.Cut(o.Addrs[0], ":")
	o.DisableIdentity = true // the user quash-reader may not
	return o
}

// redisGuard is a guard that asks Redis before each answer.
func (d *deployed) redisGuard(b *testing.B, token string, open func(redis.UniversalOptions) (guard.Denylist, error)) *guard.Guard {
	b.Helper()
	list, err := open(d.redisOptions(b))
	if err != nil {
		b.Fatal(err)
	}
	at := d.env["QUASH_URL"]
	g, err := guard.New([]guard.Issuer{{URL: at, JWKSURL: at + "/oauth/jwks"}}, guard.WithRedis(list), guard.WithHTTPClient(d.http))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	// It knows the token's signature afterwards, whatever it answers.
	enginetest.Eventually(b, "the guard has the keys", func() error {
		if d := g.Decide(b.Context(), token, guard.Requirement{}); d.Token == nil {
			return errors.New(d.Reason)
		}
		return nil
	})
	return g
}

// keysOf are the keys that a guard reads for a token, the meta first.
func (d *deployed) keysOf(b *testing.B, token string) []string {
	b.Helper()
	seen := &recorder{}
	d.redisGuard(b, token, func(redis.UniversalOptions) (guard.Denylist, error) { return seen, nil })
	keys := []string{wire.RedisMetaKey(0)}
	for _, k := range seen.query.Keys {
		keys = append(keys, wire.RedisTargetKey(0, k))
	}
	if len(keys) < 5 {
		b.Fatalf("a token has more targets than %q", keys)
	}
	return keys
}

// recorder is a view that answers nothing and keeps what it was asked.
type recorder struct{ query denylist.Query }

func (r *recorder) Check(_ context.Context, q denylist.Query) (denylist.Result, error) {
	r.query = q
	return denylist.Result{}, denylist.ErrIncomplete
}
func (r *recorder) Know(revoke.Stamp)             {}
func (r *recorder) Status() denylist.Status       { return denylist.Status{} }
func (r *recorder) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// beat is how often the view was proved to follow.
func (d *deployed) beat(b *testing.B, c redis.UniversalClient, key string) uint64 {
	b.Helper()
	text, err := c.Get(b.Context(), key).Result()
	if err != nil {
		b.Fatal(err)
	}
	m, err := wire.ParseRedisMeta(text)
	if err != nil {
		b.Fatal(err)
	}
	return m.Beat
}
