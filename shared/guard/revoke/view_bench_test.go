package revoke

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

const benchEpoch = 1764000000000

func benchKeys(n int, seed uint64) []Key {
	r := rand.New(rand.NewPCG(seed, seed))
	ks := make([]Key, n)
	for i := range ks {
		binary.LittleEndian.PutUint64(ks[i][:8], r.Uint64())
		binary.LittleEndian.PutUint64(ks[i][8:], r.Uint64())
	}
	return ks
}

func benchCut(i int) State {
	at := int64(benchEpoch + i)
	return State{Cut: Stamp{Epoch: benchEpoch, Seq: uint64(i + 1)}, CutAt: at, Until: at/1000 + 4800}
}

// BenchmarkTargets looks up what one token has, nine targets, in a view and in
// a Go map of the same states. With hit=true each target has an entry, but an
// older one than the token, so that all nine are looked at; what refuses ends
// the look-ups and costs less.
func BenchmarkTargets(b *testing.B) {
	const perToken, tokens = 9, 1 << 13
	for _, n := range []int{1e3, 1e6} {
		known := benchKeys(n, 1)
		v, m := NewView(), map[Key]State{}
		v.MergeEpoch(Epoch{Number: benchEpoch})
		for i, k := range known {
			v.Merge(k, benchCut(i))
			m[k] = benchCut(i)
		}
		epochs := v.Epochs()
		for _, hit := range []bool{false, true} {
			asked := benchKeys(perToken*tokens, 2)
			if hit {
				r := rand.New(rand.NewPCG(3, 3))
				for i := range asked {
					asked[i] = known[r.IntN(n)]
				}
			}
			name := fmt.Sprintf("set=1e%d/hit=%t", len(fmt.Sprint(n))-1, hit)
			stamp := Stamp{Epoch: benchEpoch, Seq: 1 << 40}
			b.Run(name+"/impl=view", func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					at := i % tokens * perToken
					if _, refused := v.HitAny(asked[at:at+perToken], stamp); refused {
						b.Fatal("refused")
					}
				}
			})
			b.Run(name+"/impl=single", func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					at := i % tokens * perToken
					for _, k := range asked[at : at+perToken] {
						if v.Hit(k, stamp) {
							b.Fatal("refused")
						}
					}
				}
			})
			b.Run(name+"/impl=map", func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					at := i % tokens * perToken
					for _, k := range asked[at : at+perToken] {
						if s, ok := m[k]; ok && s.Hits(stamp, epochs) {
							b.Fatal("refused")
						}
					}
				}
			})
		}
	}
}

// BenchmarkMerge fills a view with a million cuts and says what they cost.
func BenchmarkMerge(b *testing.B) {
	for _, n := range []int{1e6} {
		ks := benchKeys(n, 1)
		b.Run(fmt.Sprintf("set=1e%d/impl=view", len(fmt.Sprint(n))-1), func(b *testing.B) {
			var before, after runtime.MemStats
			for b.Loop() {
				runtime.GC()
				runtime.ReadMemStats(&before)
				v := NewView()
				for i, k := range ks {
					v.Merge(k, benchCut(i))
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				runtime.KeepAlive(v)
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "heap-bytes/cut")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/cut")
		})
		b.Run(fmt.Sprintf("set=1e%d/impl=map", len(fmt.Sprint(n))-1), func(b *testing.B) {
			for b.Loop() {
				m := map[Key]State{}
				for i, k := range ks {
					m[k] = m[k].Merge(benchCut(i))
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/cut")
		})
	}
}

// BenchmarkTargetsBesideAWriter looks up while nobody writes, and while somebody
// merges cuts as fast as it can: readers never wait for writers, and share only
// the memory with them.
func BenchmarkTargetsBesideAWriter(b *testing.B) {
	const n, perToken = int(1e6), 9
	known, asked := benchKeys(n, 1), benchKeys(perToken<<10, 2)
	stamp := Stamp{Epoch: benchEpoch, Seq: 1 << 40}
	for _, writes := range []bool{false, true} {
		b.Run(fmt.Sprintf("writer=%t", writes), func(b *testing.B) {
			v := NewView()
			v.MergeEpoch(Epoch{Number: benchEpoch})
			for i, k := range known {
				v.Merge(k, benchCut(i))
			}
			stop, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for i := n; writes; i++ {
					select {
					case <-stop:
						return
					default:
						v.Merge(known[i%n], benchCut(i))
					}
				}
			}()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				at := i % (1 << 10) * perToken
				if _, refused := v.HitAny(asked[at:at+perToken], stamp); refused {
					b.Fatal("refused")
				}
			}
			close(stop)
			<-done
		})
	}
}
