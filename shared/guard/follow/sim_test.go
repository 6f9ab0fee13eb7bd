package follow_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/follow/followtest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// sim is a log, its readers, and a memory of what was committed when.
type sim struct {
	t   testing.TB
	log *followtest.Log

	mu      sync.Mutex
	next    uint64
	entries []committed
}

type committed struct {
	key revoke.Key
	at  time.Time
	seq uint64
}

func newSim(t testing.TB, cfg followtest.Config) *sim {
	return &sim{t: t, log: followtest.NewLog(cfg)}
}

func keyOf(n uint64) revoke.Key {
	// Keys are hashes, and a view may count on that.
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
	return revoke.Key(sum[:16])
}

// end commits an entry with a target of its own.
func (s *sim) end() committed {
	s.mu.Lock()
	s.next++
	k := keyOf(s.next)
	s.mu.Unlock()
	e := committed{key: k, at: time.Now()} // before the commit: the harder promise
	e.seq = s.log.End(k).Sequence
	s.mu.Lock()
	s.entries = append(s.entries, e)
	s.mu.Unlock()
	return e
}

// rollBack loses what is above a sequence; nobody has to know that any more.
func (s *sim) rollBack(to uint64) {
	s.log.RollBack(to)
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.entries[:0]
	for _, e := range s.entries {
		if e.seq <= to {
			kept = append(kept, e)
		}
	}
	s.entries = kept
}

// member is a reader in the simulation.
type member struct {
	*follow.Reader
	link *followtest.Link
	stop func()

	mu   sync.Mutex
	keys []string
	seen []wire.Stored
}

func (s *sim) member(change func(*follow.Config)) *member {
	s.t.Helper()
	m := &member{link: s.log.Link()}
	cfg := follow.Config{
		Source: m.link, Feed: m.link, Log: zap.NewNop(),
		OnKey: func(k wire.Message) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.keys = append(m.keys, k.KeyID)
		},
		OnEntry: func(e wire.Stored) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.seen = append(m.seen, e)
		},
	}
	if change != nil {
		change(&cfg)
	}
	r, err := follow.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	m.Reader = r
	return m
}

// run starts the reader; it is stopped at the end of the test, or before.
func (m *member) run(t testing.TB) *member {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	return m
}

// accepts is what a guard that denies past its limit does.
func (m *member) accepts() bool {
	staleness, err := m.Check()
	return err == nil && staleness <= m.Status().Limit
}

// truthful fails if the reader claims to be fresher than it is.
func (s *sim) truthful(m *member) {
	s.t.Helper()
	staleness, err := m.Check()
	if err != nil {
		return
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if age := now.Sub(e.at); age > staleness && !m.View().State(e.key).Ended {
			s.t.Fatalf("entry %d of %s ago is not in the view at %s, which claims to be %s old at most", e.seq, age, m.Position().Stamp, staleness)
		}
	}
}

// whole fails if the view lacks anything that the log's service knows.
func (s *sim) whole(m *member) {
	s.t.Helper()
	for k, want := range s.log.Fold() {
		if got := m.View().State(k); got.Merge(want) != got {
			s.t.Fatalf("target %s: view has %+v, the log %+v", k, got, want)
		}
	}
}

// eventually waits within the bubble.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(time.Millisecond) {
		if synctest.Wait(); ok() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

func (s *sim) ready(m *member) {
	s.t.Helper()
	eventually(s.t, 30*time.Second, "reader accepts", m.accepts)
}
