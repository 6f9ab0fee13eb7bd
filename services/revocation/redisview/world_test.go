package redisview

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap/zaptest"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/revoke"
)

const (
	testBeat  = 40 * time.Millisecond
	testLimit = time.Second
)

// world is a log, writers of its view and a reader, and a checker that holds
// every answer against what was committed.
type world struct {
	t      testing.TB
	log    *fakeLog
	opts   redis.UniversalOptions // of the view's Redis
	shards int
	client redis.UniversalClient // a stranger with every right
	reader *denylist.Reader
	mini   bool

	mu        sync.Mutex
	next      int
	committed map[int]time.Time // key number -> when its commit was answered
	wrong     atomic.Pointer[string]
	asks      atomic.Int64
	cleans    atomic.Int64
	hits      atomic.Int64
}

func newWorld(t testing.TB, addr string, mini bool) *world {
	return newWorldOn(t, redis.UniversalOptions{Addrs: []string{addr}}, 1, mini)
}

// newWorldOn is newWorld on a Cluster or by Sentinels, with so many shards.
func newWorldOn(t testing.TB, o redis.UniversalOptions, shards int, mini bool) *world {
	w := &world{t: t, log: newFakeLog(), opts: o, shards: shards, mini: mini, committed: map[int]time.Time{}}
	w.client = w.connect()
	w.reader = w.readerOf(o)
	return w
}

func (w *world) connect() redis.UniversalClient {
	c := Connect(w.opts)
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (w *world) newReader(addr string) *denylist.Reader {
	o, err := denylist.ParseURL("redis://" + addr)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.readerOf(o)
}

func (w *world) readerOf(o redis.UniversalOptions) *denylist.Reader {
	r, err := denylist.OpenWith(o, denylist.Config{
		Shards: w.shards, Limit: testLimit, Poll: testBeat / 4, Conns: 2, Timeout: 300 * time.Millisecond, Log: zaptest.NewLogger(w.t).Named("reader"),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.goRun(r.Run)
	return r
}

// goRun runs until the test ends, and returns what ends it before.
func (w *world) goRun(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = run(ctx) }()
	stop = func() { cancel(); <-done }
	w.t.Cleanup(stop)
	return stop
}

func (w *world) store() Store {
	return NewStore(w.connect(), w.mini)
}

func (w *world) writer(name string, l *ledger, store Store, change ...func(*Config)) (wr *Writer, stop func()) {
	cfg := Config{
		Shards: w.shards,
		Beat:   testBeat, Takeover: 4 * testBeat, Timeout: 2 * time.Second, Batch: 50,
		Sweep: 300 * time.Millisecond, Log: zaptest.NewLogger(w.t).Named(name),
	}
	for _, fn := range change {
		fn(&cfg)
	}
	wr, err := New(store, l, cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	l.observe(wr)
	return wr, w.goRun(wr.Run)
}

// commit cuts that many more keys, numbered on, and notes when each was answered.
func (w *world) commit(n int) {
	for range n {
		w.mu.Lock()
		i := w.next
		w.next++
		w.mu.Unlock()
		w.log.cut(testKey(i))
		w.mu.Lock()
		w.committed[i] = time.Now()
		w.mu.Unlock()
	}
}

const cleanKeys = 1 << 30 // numbers from here on are never committed

func (w *world) ask(n int) (denylist.Result, error) {
	w.asks.Add(1)
	before := time.Now()
	w.mu.Lock()
	at, revoked := w.committed[n]
	w.mu.Unlock()
	res, err := w.reader.Check(context.Background(), denylist.Query{Tenant: "default", Keys: []revoke.Key{testKey(n)}, Stamp: revoke.Stamp{Epoch: 1, Seq: 1}})
	switch {
	case res.Outcome == denylist.Clean && revoked && at.Before(before.Add(-res.Staleness)):
		s := fmt.Sprintf("key %d, committed %s before the question, was clean in a view that claims to be %s old", n, before.Sub(at), res.Staleness)
		w.wrong.CompareAndSwap(nil, &s)
	case res.Outcome == denylist.Clean:
		w.cleans.Add(1)
	case res.Outcome == denylist.Hit:
		w.hits.Add(1)
		if n >= cleanKeys {
			s := "a key that nobody revoked was a hit"
			w.wrong.CompareAndSwap(nil, &s)
		}
	}
	if (err == nil) != (res.Outcome != denylist.Incomplete) {
		s := fmt.Sprintf("outcome %s with error %v", res.Outcome, err)
		w.wrong.CompareAndSwap(nil, &s)
	}
	return res, err
}

// check asks without a pause, while more is committed, until the test stops it;
// a single wrong answer fails the test.
func (w *world) check() (stop func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				w.mu.Lock()
				n := len(w.committed)
				w.mu.Unlock()
				if n > 0 && rand.IntN(4) > 0 {
					_, _ = w.ask(rand.IntN(n))
				} else {
					_, _ = w.ask(cleanKeys + rand.IntN(100))
				}
				time.Sleep(time.Millisecond) // leaves most of the processor to the others
			}
		})
	}
	wg.Go(func() {
		for {
			w.commit(1)
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	return func() {
		w.t.Helper()
		close(done)
		wg.Wait()
		if s := w.wrong.Load(); s != nil {
			w.t.Errorf("wrong answer: %s", *s)
		}
		w.t.Logf("%d hits, %d clean", w.hits.Load(), w.cleans.Load())
	}
}

// whole waits until the reader tells right for a clean key and every one that is
// committed by now.
func (w *world) whole() {
	w.t.Helper()
	w.mu.Lock()
	n := len(w.committed)
	w.mu.Unlock()
	told := 0 // so many were told right: hits stay hits, so a busy machine goes on from there
	waitFor(w.t, "the view is whole", func() error {
		if res, err := w.ask(cleanKeys); res.Outcome != denylist.Clean {
			return fmt.Errorf("a key that nobody revoked is %s: %w", res.Outcome, err)
		}
		for ; told < n; told++ {
			if res, err := w.ask(told); res.Outcome != denylist.Hit {
				return fmt.Errorf("revoked key %d is %s: %w", told, res.Outcome, err)
			}
		}
		return nil
	})
}

// incomplete waits until a clean key is not clean any more.
func (w *world) incomplete() {
	w.t.Helper()
	waitFor(w.t, "the view is incomplete", func() error {
		if res, _ := w.ask(cleanKeys); res.Outcome != denylist.Incomplete {
			return fmt.Errorf("it is %s", res.Outcome)
		}
		return nil
	})
}

// engines runs a test on a real redis-server and on the embedded one.
func engines(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Run("redis-server", func(t *testing.T) {
		t.Parallel()
		fn(t, newWorld(t, enginetest.Redis(t).Addr, false))
	})
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		m := miniredis.RunT(t)
		fn(t, newWorld(t, m.Addr(), true))
	})
}
