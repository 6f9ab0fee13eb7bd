package redisview

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

func TestRevokedIsHitAndTheRestIsClean(t *testing.T) {
	engines(t, func(t *testing.T, w *world) {
		w.commit(120)
		wr, _ := w.writer("a", w.log.replica(), w.store())
		stop := w.check()
		w.whole()
		p := w.log.cut(testKey(5000))
		at, err := wr.WaitApplied(t.Context(), p.Stamp)
		if err != nil || at.IsZero() {
			t.Fatalf("WaitApplied = %v, %v", at, err)
		}
		if res, _ := w.ask(5000); res.Outcome != denylist.Hit {
			t.Errorf("applied at %s, and %s for a reader", at, res.Outcome)
		}
		if _, ok := wr.AppliedAt(revoke.Stamp{Epoch: p.Epoch, Seq: p.Seq + 1000}); ok {
			t.Error("applied what is not committed yet")
		}
		stop()
	})
}

func TestFlushedRedisIsNotClean(t *testing.T) {
	engines(t, func(t *testing.T, w *world) {
		w.commit(200)
		w.writer("a", w.log.replica(), w.store())
		w.whole()
		stop := w.check()
		for range 5 {
			if err := w.client.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			w.whole()
		}
		stop()
	})
}

// Only the meta is lost, then only it comes back, old: never a complete view.
func TestMetaRemovedReplacedOrOldIsNotClean(t *testing.T) {
	engines(t, func(t *testing.T, w *world) {
		w.commit(20)
		wr, _ := w.writer("a", w.log.replica(), w.store())
		w.whole()
		old, err := w.client.Get(t.Context(), wire.RedisMetaKey(0)).Result()
		if err != nil {
			t.Fatal(err)
		}
		stop := w.check()
		for _, meta := range []string{"", old, "garbage", "q1 0/1", old + " more"} {
			generation := generationOf(t, wr)
			if meta == "" {
				err = w.client.Del(t.Context(), wire.RedisMetaKey(0)).Err()
			} else {
				err = w.client.Set(t.Context(), wire.RedisMetaKey(0), meta, 0).Err()
			}
			if err != nil {
				t.Fatal(err)
			}
			waitFor(t, fmt.Sprintf("a new generation after the meta became %.20q", meta), func() error {
				if generationOf(t, wr) == generation {
					return errors.New("still the old one")
				}
				return nil
			})
			w.whole()
		}
		stop()
	})
}

func generationOf(t testing.TB, wr *Writer) string {
	ms, err := wr.Metas(context.Background())
	if err != nil || len(ms) != 1 || !ms[0].Complete {
		return "none"
	}
	return ms[0].Generation
}

// A stranger removes entries: their count shows it, and the view is rebuilt.
func TestEntriesRemovedByAStrangerComeBack(t *testing.T) {
	engines(t, func(t *testing.T, w *world) {
		w.commit(100)
		w.writer("a", w.log.replica(), w.store(), func(c *Config) { c.Sweep = time.Hour })
		w.whole()
		waitFor(t, "a beat after the rebuild", func() error { return nil })
		for i := range 50 {
			if err := w.client.Del(t.Context(), wire.RedisTargetKey(0, testKey(i))).Err(); err != nil {
				t.Fatal(err)
			}
		}
		waitFor(t, "the removed entries are back", func() error {
			for i := range 50 {
				if res, err := w.reader.Check(t.Context(), denylist.Query{Tenant: "default", Keys: []revoke.Key{testKey(i)}}); res.Outcome != denylist.Hit {
					return fmt.Errorf("key %d is %s: %w", i, res.Outcome, err)
				}
			}
			return nil
		})
	})
}

// A stranger writes garbage over entries and under a target that nobody revoked.
func TestEntriesWrittenByAStrangerAreNeverCleanAndAreMended(t *testing.T) {
	engines(t, func(t *testing.T, w *world) {
		w.commit(60)
		w.writer("a", w.log.replica(), w.store())
		w.whole()
		stop := w.check()
		for i, v := range []string{"", "1", "q2 0.0 0 0 0.0 0.0 0", "q1 0.0 0 0 0.0 0.0", "q1 0.0 0 0 0.0 0.0 0 ", "null"} {
			for _, n := range []int{i, cleanKeys + 1000 + i} {
				if err := w.client.Set(t.Context(), wire.RedisTargetKey(0, testKey(n)), v, 0).Err(); err != nil {
					t.Fatal(err)
				}
				if res, _ := w.ask(n); res.Outcome == denylist.Clean {
					t.Errorf("a target with the value %q was clean", v)
				}
			}
		}
		for i := range 6 {
			waitFor(t, "garbage under a target that nobody revoked is removed", func() error {
				_, err := w.ask(cleanKeys + 1000 + i)
				return err
			})
		}
		w.whole()
		stop()
	})
}

func TestTwoWritersAtOnceAndOneGoesOn(t *testing.T) {
	engines(t, func(t *testing.T, w *world) {
		w.commit(100)
		a, stopA := w.writer("a", w.log.replica(), w.store())
		b, stopB := w.writer("b", w.log.replica(), w.store())
		stop := w.check()
		w.whole()
		if a.Status().Writing && b.Status().Writing {
			t.Error("both write")
		}
		p := w.log.cut(testKey(7000))
		for name, wr := range map[string]*Writer{"a": a, "b": b} {
			if _, err := wr.WaitApplied(t.Context(), p.Stamp); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		first, second, stopFirst := a, b, stopA
		if b.Status().Writing {
			first, second, stopFirst = b, a, stopB
		}
		generation := generationOf(t, first)
		stopFirst()
		waitFor(t, "the other takes over", func() error {
			if !second.Status().Writing {
				return second.Status().Reason
			}
			return nil
		})
		w.whole()
		if g := generationOf(t, second); g != generation {
			t.Error("it rebuilt, though it remembers all that came since")
		}
		stop()
	})
}

// A writer freezes between its tick and its write, another takes over, and the
// first one comes back with what it was about to write.
func TestFrozenWriterComesBackAndWritesNothing(t *testing.T) {
	engines(t, func(t *testing.T, w *world) {
		w.commit(50)
		la := w.log.replica()
		gate := &gatedStore{Store: w.store()}
		a, _ := w.writer("a", la, gate)
		w.whole()
		b, _ := w.writer("b", w.log.replica(), w.store())
		stop := w.check()
		waitFor(t, "a writes", func() error {
			if !a.Status().Writing {
				return errTest
			}
			return nil
		})
		thaw := gate.freeze()
		waitFor(t, "b takes over", func() error {
			if !b.Status().Writing {
				return errors.Join(errTest, b.Status().Reason)
			}
			return nil
		})
		before, _ := b.Metas(t.Context())
		thaw()
		waitFor(t, "a has seen that b writes", func() error {
			if a.Status().Writing {
				return errTest
			}
			return nil
		})
		after, _ := b.Metas(t.Context())
		if gate.wrote.Load() || len(before) != 1 || len(after) != 1 || before[0].Series != after[0].Series {
			t.Error("the writer that came back wrote its meta")
		}
		w.whole()
		stop()
	})
}

// gatedStore holds every write up while it is frozen, after all that was decided.
type gatedStore struct {
	Store
	mu    sync.Mutex
	gate  chan struct{}
	wrote atomic.Bool // what was held up was done afterwards
}

func (g *gatedStore) freeze() (thaw func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ch := make(chan struct{})
	g.gate = ch
	return func() {
		g.mu.Lock()
		g.gate = nil
		g.mu.Unlock()
		close(ch)
	}
}

func (g *gatedStore) Swap(ctx context.Context, meta, old, next string, entries []Entry) (bool, error) {
	g.mu.Lock()
	gate := g.gate
	g.mu.Unlock()
	if gate != nil {
		<-gate
		ctx = context.WithoutCancel(ctx) // it was asleep, and its deadline with it
	}
	won, err := g.Store.Swap(ctx, meta, old, next, entries)
	if won && gate != nil {
		g.wrote.Store(true)
	}
	return won, err
}

// The answer to a write is lost, though it was done; and the write itself is.
func TestLostAnswerAndLostWrite(t *testing.T) {
	engines(t, func(t *testing.T, w *world) {
		w.commit(50)
		l := &lossyStore{Store: w.store()}
		w.writer("a", w.log.replica(), l)
		w.whole()
		stop := w.check()
		l.on.Store(true)
		waitFor(t, "many losses", func() error {
			if l.lost.Load() < 30 {
				return errTest
			}
			return nil
		})
		l.on.Store(false)
		w.whole()
		stop()
	})
}

type lossyStore struct {
	Store
	on   atomic.Bool
	lost atomic.Int64
}

func (l *lossyStore) Swap(ctx context.Context, meta, old, next string, entries []Entry) (bool, error) {
	if !l.on.Load() {
		return l.Store.Swap(ctx, meta, old, next, entries)
	}
	switch rand.IntN(3) {
	case 0:
		l.lost.Add(1)
		return false, errors.New("the write was lost")
	case 1:
		_, _ = l.Store.Swap(ctx, meta, old, next, entries)
		l.lost.Add(1)
		return false, errors.New("the answer was lost")
	}
	return l.Store.Swap(ctx, meta, old, next, entries)
}

// The service is cut off from the log: beats stop, and readers stop soon after.
func TestWriterThatCannotTickStopsTheBeat(t *testing.T) {
	engines(t, func(t *testing.T, w *world) {
		w.commit(50)
		la := w.log.replica()
		w.writer("a", la, w.store(), func(c *Config) { c.Timeout = 100 * time.Millisecond })
		w.whole()
		stop := w.check()
		ch := make(chan struct{})
		la.freeze(ch)
		w.incomplete()
		la.freeze(nil)
		close(ch)
		w.whole()
		stop()
	})
}

// A slow connection of the reader makes answers late, and never staleness less
// than it is.
func TestSlowReaderNeverClaimsLess(t *testing.T) {
	addr := enginetest.Redis(t).Addr
	w := newWorld(t, addr, false)
	w.commit(50)
	w.writer("a", w.log.replica(), w.store())
	w.whole()
	p := enginetest.NewProxy(t, addr)
	w.reader = w.newReader(p.Addr)
	w.whole()
	stop := w.check()
	for _, d := range []time.Duration{30 * time.Millisecond, 120 * time.Millisecond, 0} {
		p.Delay(d)
		n := w.asks.Load()
		waitFor(t, fmt.Sprintf("answers over a connection that is %s late", d), func() error {
			if w.asks.Load() < n+30 {
				return errTest
			}
			return nil
		})
	}
	w.whole()
	stop()
}

// TestReplicaThatDoesNotWriteLooksWhenAsked: who waits for a revocation there
// does not wait for the next beat.
func TestReplicaThatDoesNotWriteLooksWhenAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, enginetest.Redis(t).Addr, false)
	rare := func(c *Config) { c.Beat, c.Takeover = time.Hour, 2*time.Hour } // after the first round
	a, _ := w.writer("a", w.log.replica(), w.store(), rare)
	waitFor(t, "a writes", func() error {
		if !a.Status().Writing {
			return errTest
		}
		return nil
	})
	b, _ := w.writer("b", w.log.replica(), w.store(), rare)
	waitFor(t, "b knows the view", func() error {
		if !b.Status().Complete {
			return errTest
		}
		return nil
	})
	p := w.log.cut(testKey(1))
	waitFor(t, "b tells that the view has it", func() error {
		if _, ok := b.AppliedAt(p.Stamp); !ok {
			return errTest
		}
		return nil
	})
}
