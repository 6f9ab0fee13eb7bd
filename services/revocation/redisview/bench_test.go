package redisview

import (
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// BenchmarkRebuild sets the rebuild of a whole view beside a pipelined SET PX of
// as many values of the same length.
func BenchmarkRebuild(b *testing.B) {
	const states = 1_000_000
	log := newFakeLog()
	l := log.replica()
	for i := range states {
		l.view.Merge(testKey(i), revoke.State{Cut: revoke.Stamp{Epoch: log.epoch, Seq: uint64(i)}, CutAt: time.Now().UnixMilli(), Until: time.Now().Add(time.Hour).Unix()})
	}
	server := enginetest.Redis(b)
	client := Connect(redis.UniversalOptions{Addrs: []string{server.Addr}})
	b.Cleanup(func() { _ = client.Close() })

	b.Run("what=pipelined-set-px/states=1e6", func(b *testing.B) {
		for b.Loop() {
			server.FlushAll(b)
			value := wire.RedisState(l.view.State(testKey(states - 1)))
			for done := 0; done < states; {
				p := client.Pipeline()
				for range 2000 {
					_ = p.Set(b.Context(), "{q0}:t:"+testKey(done).String(), value, time.Hour)
					done++
				}
				if _, err := p.Exec(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/rebuild")
	})
	b.Run("what=rebuild/states=1e6", func(b *testing.B) {
		for b.Loop() {
			server.FlushAll(b)
			w, err := New(NewStore(client, false), l, Config{})
			if err != nil {
				b.Fatal(err)
			}
			l.observe(w)
			if err := w.shards[0].round(b.Context()); err != nil {
				b.Fatal(err)
			}
			if n := server.Client.DBSize(b.Context()).Val(); n != states+1 {
				b.Fatal("only " + strconv.FormatInt(n, 10) + " keys")
			}
		}
		b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/rebuild")
	})
}
