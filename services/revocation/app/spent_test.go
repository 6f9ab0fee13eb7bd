package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/idempotency"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/problem"
)

// gated counts the writes to a bucket, and holds its questions while the gate is shut.
type gated struct {
	*idempotency.Bucket
	gate   sync.RWMutex
	writes atomic.Int64
	away   atomic.Bool
}

func (g *gated) Find(ctx context.Context, name string) (idempotency.Note, uint64, error) {
	g.gate.RLock()
	defer g.gate.RUnlock()
	if g.away.Load() {
		return idempotency.Note{}, 0, problem.New(problem.Unavailable, "away")
	}
	return g.Bucket.Find(ctx, name)
}

func (g *gated) Begin(ctx context.Context, name string, n idempotency.Note) (idempotency.Note, uint64, error) {
	g.writes.Add(1)
	return g.Bucket.Begin(ctx, name, n)
}

func (g *gated) Write(ctx context.Context, name string, n idempotency.Note, rev uint64) (uint64, error) {
	g.writes.Add(1)
	return g.Bucket.Write(ctx, name, n, rev)
}

func TestSums(t *testing.T) {
	b, err := idempotency.NewBucket(enginetest.NATS(t).Dial(t, identity.Revocation), 1, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	replica := func() (*spent, *gated) {
		g := &gated{Bucket: b}
		return newSpent(g, func() time.Time { return now }), g
	}
	add := func(s *spent, who, id string, n int) bool {
		t.Helper()
		over, err := s.Add(t.Context(), "default", who, id, n, 100, time.Hour)
		if err != nil {
			t.Errorf("%s %s: %v", who, id, err)
		}
		return over
	}

	t.Run("many at once are written together, and none is over the limit", func(t *testing.T) {
		s, g := replica()
		const all = 200
		var over atomic.Int64
		var wg sync.WaitGroup
		g.gate.Lock()
		for i := range all {
			wg.Go(func() {
				if add(s, "alice", fmt.Sprint(i), 1) {
					over.Add(1)
				}
			})
		}
		enginetest.Eventually(t, "all wait", func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, t := range s.tallies {
				if len(t.owed) == all {
					return nil
				}
			}
			return errors.New("not yet")
		})
		g.gate.Unlock()
		wg.Wait()
		if n := g.writes.Load(); n > 2 || over.Load() != all-100 {
			t.Errorf("%d writes, want 2; %d are over, want %d", n, over.Load(), all-100)
		}
	})
	t.Run("replicas add to one sum", func(t *testing.T) {
		one, _ := replica()
		two, _ := replica()
		var over atomic.Int64
		var wg sync.WaitGroup
		for i := range 60 {
			for _, s := range []*spent{one, two} {
				wg.Go(func() {
					if add(s, "bob", fmt.Sprintf("%p%d", s, i), 1) {
						over.Add(1)
					}
				})
			}
		}
		wg.Wait()
		if over.Load() != 20 {
			t.Errorf("%d are over, want 20", over.Load())
		}
	})
	t.Run("a request counts once, as the most that it hits, from when it was sent last", func(t *testing.T) {
		s, _ := replica()
		first, again := add(s, "carol", "a", 60), add(s, "carol", "a", 60)
		if first || again || add(s, "carol", "b", 40) {
			t.Error("what is within the limit is over")
		}
		if !add(s, "carol", "a", 61) || !add(s, "carol", "c", 1) || add(s, "carol", "b", 1) {
			t.Error("what is added to a request is not counted, or what is taken from it is")
		}
		now = now.Add(59 * time.Minute)
		add(s, "carol", "a", 60)
		now = now.Add(2 * time.Minute)
		if !add(s, "carol", "d", 41) || add(s, "carol", "d", 40) {
			t.Error("want the hour to begin when it was sent last, and what is older to be forgotten")
		}
	})
	t.Run("while the bucket is away what is known here still tells, and is made up", func(t *testing.T) {
		s, g := replica()
		add(s, "dave", "a", 50)
		g.away.Store(true)
		for _, id := range []string{"b", "c"} {
			if over, err := s.Add(t.Context(), "default", "dave", id, 25, 100, time.Hour); over || problem.KindOf(err) != problem.Unavailable {
				t.Errorf("%s: over %v, %v", id, over, err)
			}
		}
		for range 2 {
			if over, err := s.Add(t.Context(), "default", "dave", "d", 1, 100, time.Hour); !over || err != nil {
				t.Errorf("over %v, %v", over, err)
			}
		}
		// One that does not answer at all holds nobody longer than they wait.
		g.gate.Lock()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if over, err := s.Add(ctx, "default", "dave", "e", 1, 100, time.Hour); !over || err != nil {
			t.Errorf("over %v, %v", over, err)
		}
		g.away.Store(false)
		g.gate.Unlock()
		if !add(s, "dave", "f", 1) {
			t.Error("what was not written then is not made up")
		}
		other, _ := replica()
		if add(s, "eve", "x", 1) || add(other, "dave", "b", 25) || !add(other, "dave", "g", 1) {
			t.Error("another replica does not know it")
		}
		now = now.Add(2 * time.Hour)
		add(s, "frank", "x", 1)
		if len(s.tallies) != 1 {
			t.Errorf("%d persons are remembered, want 1", len(s.tallies))
		}
	})
}
