package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// slowStore stores as one synced node does: singly one after the other, batches at
// a fixed price.
type slowStore struct {
	turn chan struct{} // a mutex, on which virtual time may pass
	seq  uint64
	at   map[string]uint64
	fail func(batch int) error
	n    int
}

func (s *slowStore) lock() (unlock func()) {
	s.turn <- struct{}{}
	return func() { <-s.turn }
}

func (s *slowStore) put(ms ...*nats.Msg) uint64 {
	for _, m := range ms {
		if s.at[m.Subject] != 0 {
			panic(m.Subject + " is stored twice")
		}
		s.seq++
		s.at[m.Subject] = s.seq
	}
	return s.seq
}

func (s *slowStore) single(_ context.Context, m *nats.Msg) (uint64, error) {
	defer s.lock()()
	time.Sleep(1500 * time.Microsecond)
	if seq := s.at[m.Subject]; seq != 0 {
		return 0, errExists{seq}
	}
	return s.put(m), nil
}

func (s *slowStore) batch(_ context.Context, ms []*nats.Msg) (uint64, error) {
	defer s.lock()()
	time.Sleep(20 * time.Millisecond)
	s.n++
	if s.fail != nil {
		if err := s.fail(s.n); err != nil {
			return 0, err
		}
	}
	return s.put(ms...), nil
}

// callers publish so many messages each, one after the other, and tell how long
// that took.
func callers(t *testing.T, g *group, s *slowStore, n, each int) time.Duration {
	t.Helper()
	began := time.Now()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for j := range each {
				m := &nats.Msg{Subject: fmt.Sprint(i, ".", j)}
				seq, err := g.publish(t.Context(), m)
				if exists := (errExists{}); errors.As(err, &exists) {
					seq, err = exists.seq, nil // as its caller reads it back
				}
				unlock := s.lock()
				if err != nil || s.at[m.Subject] != seq {
					t.Errorf("%s: %d, %v; it stands at %d", m.Subject, seq, err, s.at[m.Subject])
				}
				unlock()
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	time.Sleep(time.Second) // until nothing gathers any more
	return took
}

func (g *group) stats() (batches, members, failed uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sent.batches, g.sent.members, g.sent.failed
}

func newSlow() (*group, *slowStore) {
	s := &slowStore{at: map[string]uint64{}, turn: make(chan struct{}, 1)}
	return newGroup(s.single, s.batch, zap.NewNop()), s
}

func TestFewGoAloneAndManyTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, s := newSlow()
		callers(t, g, s, 12, 20)
		if n, _, _ := g.stats(); n != 0 {
			t.Errorf("12 callers made %d batches", n)
		}
		g, s = newSlow()
		took := callers(t, g, s, 64, 20)
		if took > 20*30*time.Millisecond {
			batches, members, _ := g.stats()
			t.Errorf("64 callers took %s: want about one batch a round, %d batches of %d members", took, batches, members)
		}
	})
}

func TestBatchThatIsRefusedIsSentSingly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, s := newSlow()
		s.fail = func(n int) error {
			if n%2 == 1 {
				return errors.New("refused")
			}
			return nil
		}
		callers(t, g, s, 40, 10)
		if batches, _, failed := g.stats(); failed == 0 || failed == batches {
			t.Errorf("%d of %d batches failed", failed, batches)
		}
	})
}

// TestUnansweredBatchIsReadBack: it was stored, and nobody said so.
func TestUnansweredBatchIsReadBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, s := newSlow()
		stored := s.batch
		g.batch = func(ctx context.Context, ms []*nats.Msg) (uint64, error) {
			_, _ = stored(ctx, ms)
			return 0, context.DeadlineExceeded
		}
		callers(t, g, s, 40, 10)
		if _, _, failed := g.stats(); failed == 0 {
			t.Error("no batch was lost")
		}
	})
}

func TestWhoLeavesIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, s := newSlow()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				if _, err := g.publish(ctx, &nats.Msg{Subject: fmt.Sprint("gone", i)}); err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v", err)
				}
			})
		}
		all.Wait()
		callers(t, g, s, 20, 2)
		synctest.Wait()
		if len(g.waiting) != 0 || len(g.flying) != 0 || g.batching {
			t.Errorf("%d wait, %d fly, batching %t", len(g.waiting), len(g.flying), g.batching)
		}
	})
}

// TestCommitsThatWaitTogetherAreCommittedTogether on the real engine: each has its
// own position, repetitions the same one, and another request a conflict.
func TestCommitsThatWaitTogetherAreCommittedTogether(t *testing.T) {
	n := enginetest.NATS(t)
	l := start(t, n.Conn(t, "revocation"), nil)
	const many = 300
	commitAll := func(round int) map[uint64]string {
		var mu sync.Mutex
		at := map[uint64]string{}
		var all sync.WaitGroup
		gate := make(chan struct{})
		for i := range many {
			all.Go(func() {
				key := fmt.Sprint("k", round, "-", i/2) // each twice
				<-gate
				a, err := l.Commit(t.Context(), request(key, commit.Revoke, "token:"+key), "test")
				mu.Lock()
				defer mu.Unlock()
				if err != nil || at[a.Sequence] != "" && at[a.Sequence] != key {
					t.Errorf("%s: %+v, %v, where %q stands", key, a, err, at[a.Sequence])
				}
				at[a.Sequence] = key
			})
		}
		close(gate)
		all.Wait()
		return at
	}
	var first map[uint64]string
	round := 0
	for ; round < 50; round++ { // a fast disk may leave nobody waiting
		if first = commitAll(round); len(first) != many/2 {
			t.Fatalf("%d entries, want %d", len(first), many/2)
		}
		if batches, _, _ := l.group.stats(); batches > 0 {
			break
		}
	}
	if batches, members, failed := l.group.stats(); batches == 0 || failed > 0 {
		t.Errorf("%d batches of %d members together, %d failed", batches, members, failed)
	}
	for seq, key := range first {
		r, err := l.getBySeq(t.Context(), seq)
		if err != nil || len(r.stored.Message.End) != 1 || r.stored.Message.End[0] != keyOf("token:"+key) {
			t.Errorf("at %d there is %+v, %v, want %s", seq, r.stored.Message, err, key)
		}
	}
	if again := commitAll(round); len(again) != len(first) {
		t.Errorf("the same again is %d entries", len(again))
	}
	if _, err := l.Commit(t.Context(), request(fmt.Sprint("k", round, "-1"), commit.Revoke, "token:other"), "test"); problem.KindOf(err) != problem.Conflict {
		t.Errorf("another request with a key of before: %v, want a conflict", err)
	}
	if err := l.Fresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, key := range first {
		if !l.View().Hit(keyOf("token:"+key), revoke.Stamp{}) {
			t.Errorf("token:%s is not revoked", key)
		}
	}
}

func TestKnownRequestsAreOfOneEpochAndEnd(t *testing.T) {
	p := plan{id: "a", digest: "d"}
	var k known
	k.keep("a", knownEntry{"d", commit.Answer{ID: "a", Epoch: 5, Sequence: 7}, 100})
	for name, c := range map[string]struct {
		p     plan
		epoch uint64
		now   int64
		ok    bool
		kind  problem.Kind
	}{
		"the same":        {p, 5, 100, true, 0},
		"another digest":  {plan{id: "a", digest: "x"}, 5, 100, true, problem.Conflict},
		"another request": {plan{id: "b", digest: "d"}, 5, 100, false, 0},
		"a later epoch":   {p, 6, 100, false, 0},
		"after its end":   {p, 5, 101, false, 0},
	} {
		a, ok, err := k.answer(&c.p, c.epoch, c.now)
		if ok != c.ok || (err != nil) != (c.kind != 0) || ok && err == nil && (a.Sequence != 7 || !a.Repeated) {
			t.Errorf("%s: %+v, %t, %v", name, a, ok, err)
		}
	}
	for i := range maxKnown * 2 {
		k.keep(fmt.Sprint(i), knownEntry{})
	}
	if n := len(k.now) + len(k.was); n > maxKnown {
		t.Errorf("%d are kept", n)
	}
}
