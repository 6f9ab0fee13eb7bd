package ledger

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// running is a Ledger on a real server, and what stops it.
type running struct {
	*Ledger
	stop func()
}

func start(t testing.TB, nc *nats.Conn, change func(*Config)) *running {
	t.Helper()
	cfg := Config{NATS: nc, Log: testLog(t), SyncAlways: true, OrdinaryGather: 200 * time.Millisecond, EpochGap: time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	enginetest.Eventually(t, "the ledger is ready", l.Ready)
	return &running{Ledger: l, stop: stop}
}

// testLog writes to the test's log while the test runs.
func testLog(t testing.TB) *zap.Logger { return zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)) }

func request(key string, op commit.Op, targets ...string) commit.Request {
	r := commit.Request{Key: key, Tenant: "default", Op: op, Reason: "a test", Actor: "alice"}
	for _, text := range targets {
		t, err := revoke.ParseTarget("default", "", text)
		if err != nil {
			panic(err)
		}
		r.Targets = append(r.Targets, commit.Target{Kind: t.Kind, ID: t.ID})
	}
	return r
}

func keyOf(text string) revoke.Key {
	t, err := revoke.ParseTarget("default", "", text)
	if err != nil {
		panic(err)
	}
	return t.Key()
}

func mustCommit(t testing.TB, l *Ledger, r commit.Request) commit.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, err := l.Commit(ctx, r, "test")
	if err != nil {
		t.Fatalf("commit %s: %v", r.Key, err)
	}
	return a
}

func TestEntryIsInTheLogAndTheViewWhenCommitAnswers(t *testing.T) {
	n := enginetest.NATS(t)
	nc := n.Conn(t, "revocation")
	l := start(t, nc, nil)
	if h := l.Hazards(); len(h) != 0 {
		t.Fatalf("hazards of a synced stream: %q", h)
	}
	a := mustCommit(t, l.Ledger, request("k1", commit.Revoke, "principal:alice", "key:K1"))

	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), wire.Stream)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetMsg(t.Context(), a.Sequence)
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.Decode([]byte(m.Header.Get(wire.Header)))
	if err != nil {
		t.Fatal(err)
	}
	if m.Subject != wire.LogEntry+a.ID || got.Epoch != a.Epoch || len(got.Cut) != 1 || got.Cut[0] != keyOf("principal:alice") ||
		len(got.End) != 1 || got.End[0] != keyOf("key:K1") {
		t.Fatalf("stored on %s: %+v", m.Subject, got)
	}
	if ttl, err := time.ParseDuration(m.Header.Get("Nats-TTL") + "s"); err != nil || ttl < wire.MaxCredentialLife || ttl > wire.MaxCredentialLife+3*time.Hour {
		t.Fatalf("TTL %q: want that of the longest credential", m.Header.Get("Nats-TTL"))
	}
	before := revoke.Stamp{Epoch: a.Epoch, Seq: a.Sequence - 1}
	if !l.View().Hit(keyOf("principal:alice"), before) || !l.View().Hit(keyOf("key:K1"), a.Stamp()) {
		t.Fatal("the service's own view does not have it")
	}
	if l.View().Hit(keyOf("principal:alice"), a.Stamp()) {
		t.Fatal("a cut hits what was made after it")
	}
}

func TestSameRequestAgainHasTheSameAnswer(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	first := mustCommit(t, l.Ledger, request("k1", commit.Revoke, "principal:alice", "client:c"))
	again := mustCommit(t, l.Ledger, request("k1", commit.Revoke, "client:c", "principal:alice"))
	if !again.Repeated || first.Repeated {
		t.Fatalf("repeated: first %t, again %t", first.Repeated, again.Repeated)
	}
	again.Repeated = false
	if again != first {
		t.Fatalf("again %+v, first %+v", again, first)
	}
	if _, err := l.Commit(t.Context(), request("k1", commit.Revoke, "principal:bob"), "test"); problem.KindOf(err) != problem.Conflict {
		t.Fatalf("the key for another request: %v, want a conflict", err)
	}
	other, err := l.Commit(t.Context(), request("k1", commit.Revoke, "principal:bob"), "issuer")
	if err != nil || other.ID == first.ID {
		t.Fatalf("the same key of another service: %+v, %v", other, err)
	}
}

func TestThousandTargetsAreOneEntry(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	for _, op := range []commit.Op{commit.Revoke, commit.Hold, commit.Release} {
		r := request("many-"+string(op), op)
		for i := range wire.MaxTargets {
			r.Targets = append(r.Targets, commit.Target{Kind: revoke.KindPrincipal, ID: fmt.Sprintf("user-%04d", i)})
		}
		before := l.Head().Seq
		a := mustCommit(t, l.Ledger, r)
		if err := l.WaitApplied(t.Context(), a.Stamp()); err != nil {
			t.Fatal(err)
		}
		if a.Sequence <= before {
			t.Fatalf("%s: at %d, head was %d", op, a.Sequence, before)
		}
		blocked := l.View().Blocked(revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: revoke.KindPrincipal, ID: "user-0999"}.Key())
		if blocked != (op == commit.Hold) {
			t.Fatalf("after %s: blocked %t", op, blocked)
		}
	}
	r := request("too-many", commit.Revoke)
	for i := range wire.MaxTargets + 1 {
		r.Targets = append(r.Targets, commit.Target{Kind: revoke.KindPrincipal, ID: fmt.Sprint(i)})
	}
	if _, err := l.Commit(t.Context(), r, "test"); problem.KindOf(err) != problem.Invalid {
		t.Fatalf("1,001 targets: %v", err)
	}
}

func TestReleaseOfWhatIsNotHeldIsAConflict(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	if _, err := l.Commit(t.Context(), request("r0", commit.Release, "principal:alice"), "test"); problem.KindOf(err) != problem.Conflict {
		t.Fatalf("release of nothing: %v", err)
	}
	mustCommit(t, l.Ledger, request("h1", commit.Hold, "principal:alice"))
	first := mustCommit(t, l.Ledger, request("r1", commit.Release, "principal:alice", "principal:bob"))
	if l.View().Blocked(keyOf("principal:alice")) {
		t.Fatal("held after its release")
	}
	again := mustCommit(t, l.Ledger, request("r1", commit.Release, "principal:alice", "principal:bob"))
	if again.Sequence != first.Sequence || !again.Repeated {
		t.Fatalf("the same release again: %+v, first %+v", again, first)
	}
}

func TestReplayAfterRestartHasEverything(t *testing.T) {
	n := enginetest.NATS(t)
	nc := n.Conn(t, "revocation")
	l := start(t, nc, nil)
	var last commit.Answer
	for i := range 20 {
		last = mustCommit(t, l.Ledger, request(fmt.Sprint("k", i), commit.Revoke, fmt.Sprintf("token:t%d", i)))
	}
	epoch := l.Epoch()
	l.stop()
	n.Restart(t)
	l = start(t, nc, nil)
	if l.Epoch() != epoch {
		t.Fatalf("epoch %d after a restart, was %d", l.Epoch(), epoch)
	}
	if l.View().Len() != 20 || l.Head().Less(last.Stamp()) {
		t.Fatalf("%d targets at %s after a restart", l.View().Len(), l.Head().Stamp)
	}
	again := mustCommit(t, l.Ledger, request("k3", commit.Revoke, "token:t3"))
	if !again.Repeated {
		t.Fatal("an idempotency key was forgotten over a restart")
	}
}

func TestOneTickServesAllWhoAskedBeforeIt(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var mu sync.Mutex
	seqs := map[uint64]int{}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			a := l.Probe(ctx, "g", wire.ProbeRequest{Instance: "i", Urgent: false})
			if a.Error != nil {
				t.Errorf("probe: %v", a.Error)
			}
			mu.Lock()
			defer mu.Unlock()
			seqs[a.Tick.Sequence]++
		})
	}
	wg.Wait()
	if len(seqs) > 2 {
		t.Fatalf("50 probes at once got %d ticks", len(seqs))
	}
	began := time.Now()
	head := l.Head()
	at, err := l.Tick(ctx, true)
	if err != nil || !head.Less(at.Stamp) {
		t.Fatalf("urgent tick at %s, head was %s: %v", at.Stamp, head.Stamp, err)
	}
	if took := time.Since(began); took > 150*time.Millisecond {
		t.Fatalf("an urgent tick took %s", took)
	}
}
