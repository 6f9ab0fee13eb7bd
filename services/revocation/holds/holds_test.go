package holds

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// world is a real log, and replicas whose keepers have a clock that the test moves.
type world struct {
	t    *testing.T
	nats *enginetest.NATSServer
	off  atomic.Int64
	log  *ledger.Ledger // of the newest replica
	from func(tenant string) (revoke.Stamp, error)
}

type replica struct {
	*ledger.Ledger
	stop func()
}

func newWorld(t *testing.T) *world { return &world{t: t, nats: enginetest.NATS(t)} }

func (w *world) pass(d time.Duration) { w.off.Add(int64(d)) }

func (w *world) replica() *replica {
	w.t.Helper()
	log := zaptest.NewLogger(w.t, zaptest.Level(zap.WarnLevel))
	l, err := ledger.New(ledger.Config{NATS: w.nats.Conn(w.t, "revocation"), Log: log, SyncAlways: true})
	if err != nil {
		w.t.Fatal(err)
	}
	from := func(_ context.Context, tenant string) (revoke.Stamp, error) {
		if w.from == nil {
			return revoke.Stamp{}, nil
		}
		return w.from(tenant)
	}
	k := New(l, Config{Log: log, From: from, Now: func() time.Time { return time.Now().Add(time.Duration(w.off.Load())) }})
	l.Observe(k)
	l.AskHolders(k)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- l.Run(ctx) }()
	go func() { done <- k.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			w.t.Error(err)
		}
	}
	w.t.Cleanup(stop)
	enginetest.Eventually(w.t, "ready", l.Ready)
	w.log = l
	return &replica{l, stop}
}

func (w *world) commit(op commit.Op, target string, change ...func(*commit.Request)) commit.Answer {
	w.t.Helper()
	id, err := wire.NewID(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	target2 := parse(w.t, target)
	r := commit.Request{
		Key: id, Tenant: "default", Op: op, Reason: "a test", Actor: "alice",
		Targets: []commit.Target{{Kind: target2.Kind, ID: target2.ID}},
	}
	for _, fn := range change {
		fn(&r)
	}
	a, err := w.log.Commit(w.t.Context(), r, "test")
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func lasting(d time.Duration, then string) func(*commit.Request) {
	return func(r *commit.Request) { r.ForMS, r.Then = d.Milliseconds(), then }
}

func parse(t *testing.T, text string) revoke.Target {
	t.Helper()
	target, err := revoke.ParseTarget("default", "", text)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func (w *world) state(target string) revoke.State {
	return w.log.View().State(parse(w.t, target).Key())
}

func (w *world) held(target string) bool {
	s := w.state(target)
	return s.Released.Less(s.Held)
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	enginetest.Eventually(w.t, what, func() error {
		if !ok() {
			return errors.New("not yet")
		}
		return nil
	})
}

// entries returns what the service itself has committed with an op, and holds it
// against the schemas.
func (w *world) entries(op string) (out []ledger.Event) {
	w.t.Helper()
	js, err := jetstream.New(w.nats.Conn(w.t, "revocation"))
	if err != nil {
		w.t.Fatal(err)
	}
	all := schematest.Load(w.t)
	for seq := uint64(1); seq <= w.log.Head().Seq; seq++ {
		m, err := js.Stream(w.t.Context(), wire.Stream)
		if err != nil {
			w.t.Fatal(err)
		}
		raw, err := m.GetMsg(w.t.Context(), seq)
		if err != nil {
			w.t.Fatal(err)
		}
		all.Valid(w.t, "message.json", []byte(raw.Header.Get(wire.Header)))
		msg, err := wire.Decode([]byte(raw.Header.Get(wire.Header)))
		if err != nil {
			w.t.Fatal(err)
		}
		if msg.Kind != wire.KindEntry {
			continue
		}
		all.Valid(w.t, "event.json", raw.Data)
		ev, err := w.log.EventAt(w.t.Context(), wire.Stored{Sequence: seq, Message: msg})
		if err != nil {
			w.t.Fatal(err)
		}
		if ev.Data.Actor == "revocation" && ev.Data.Op == op {
			out = append(out, ev)
		}
	}
	return out
}

// settled waits until the keepers have had their chance to do what they must not.
func (w *world) settled() {
	w.t.Helper()
	// One that is due now comes after all that the round before had to do.
	probe := fmt.Sprintf("principal:probe%d", time.Now().UnixNano())
	w.commit(commit.Hold, probe, lasting(time.Millisecond, ""))
	w.until("the probe is released", func() bool { return !w.held(probe) })
}

func TestHoldWithAnEndIsReleasedAtItsEndByOneEntry(t *testing.T) {
	w := newWorld(t)
	w.replica()
	w.replica()
	w.commit(commit.Hold, "principal:alice", lasting(time.Hour, ""))
	w.pass(59 * time.Minute)
	w.settled()
	if !w.held("principal:alice") {
		t.Fatal("released before its end")
	}
	w.pass(2 * time.Minute)
	w.until("released", func() bool { return !w.held("principal:alice") })
	w.settled()
	n := 0
	for _, e := range w.entries("release") {
		if len(e.Data.Targets) == 1 && e.Data.Targets[0].ID == "alice" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("two replicas released it %d times", n)
	}
}

// A hold that outlives its tenant ends all the same, and tells nothing to the next tenant of
// that name.
func TestTheEndOfAHoldIsToldToItsOwnTenant(t *testing.T) {
	w := newWorld(t)
	var born atomic.Uint64
	w.from = func(tenant string) (revoke.Stamp, error) {
		switch tenant {
		case "gone":
			return revoke.Stamp{}, problem.New(problem.NotFound, "there is none")
		case "unknown":
			return revoke.Stamp{}, problem.New(problem.Unavailable, "not now")
		}
		return revoke.Stamp{Epoch: 1 << 60 * born.Load()}, nil
	}
	w.replica()
	of := func(tenant string) func(*commit.Request) {
		return func(r *commit.Request) { r.Tenant, r.ForMS = tenant, time.Hour.Milliseconds() }
	}
	for _, tenant := range []string{"default", "gone", "unknown"} {
		w.commit(commit.Hold, "principal:alice", of(tenant))
	}
	told := map[string]int{}
	ended := func(n int) {
		w.pass(2 * time.Hour)
		w.until("the holds have ended", func() bool {
			clear(told)
			seen := 0
			for _, e := range w.entries("release") {
				told[e.Data.Tenant+" "+e.Data.Targets[0].ID]++
				seen++
			}
			return seen == n
		})
	}
	ended(3)
	born.Store(1)
	w.commit(commit.Hold, "principal:bob", of("default"))
	ended(4)
	if want := map[string]int{"default alice": 1, " alice": 1, "unknown alice": 1, " bob": 1}; !maps.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

func TestHoldIsReleasedWhenAllNewerThanTheLastReleaseHaveEnded(t *testing.T) {
	w := newWorld(t)
	w.replica()
	w.commit(commit.Hold, "principal:alice", lasting(time.Hour, ""))
	w.commit(commit.Hold, "principal:alice", lasting(3*time.Hour, ""))
	w.commit(commit.Hold, "principal:bob", lasting(time.Hour, ""))
	w.commit(commit.Hold, "principal:bob")
	w.commit(commit.Hold, "principal:carol")
	w.commit(commit.Release, "principal:carol")
	w.commit(commit.Hold, "principal:carol", lasting(time.Hour, ""))
	w.pass(2 * time.Hour)
	w.until("the only one that counts has ended", func() bool { return !w.held("principal:carol") })
	w.settled()
	if !w.held("principal:alice") || !w.held("principal:bob") {
		t.Fatal("released while a newer hold goes on")
	}
	w.pass(2 * time.Hour)
	w.until("the last one has ended", func() bool { return !w.held("principal:alice") })
	w.settled()
	if !w.held("principal:bob") {
		t.Error("a hold without an end was released")
	}
}

func TestHoldThatRevokesAtItsEnd(t *testing.T) {
	w := newWorld(t)
	w.replica()
	before := w.log.Stamp()
	w.commit(commit.Hold, "principal:alice", lasting(time.Hour, wire.ThenRevoke))
	w.commit(commit.Hold, "key:K1", lasting(time.Hour, wire.ThenRevoke))
	during := w.log.Head().Stamp
	w.pass(2 * time.Hour)
	w.until("ended and released", func() bool { return !w.held("principal:alice") && w.state("key:K1").Ended })
	s, es := w.state("principal:alice"), w.log.View().Epochs()
	if !s.Hits(before, es) || !s.Hits(during, es) {
		t.Error("what was made before the end lives")
	}
	if s.Ended || s.Hits(w.log.Head().Stamp, es) {
		t.Error("what is made afterwards is refused")
	}
}

// What ends while nobody is there is done at the next start.
func TestHoldThatEndsWhileTheServiceIsDown(t *testing.T) {
	w := newWorld(t)
	r := w.replica()
	w.commit(commit.Hold, "principal:alice", lasting(time.Hour, ""))
	r.stop()
	w.pass(2 * time.Hour)
	w.replica()
	w.until("released", func() bool { return !w.held("principal:alice") })
}

func TestHoldWithoutAnEndIsCommittedAgainAtHalfItsLife(t *testing.T) {
	w := newWorld(t)
	w.replica()
	w.replica()
	first := w.commit(commit.Hold, "principal:alice")
	w.commit(commit.Hold, "key:K1") // dead before its entry is
	w.commit(commit.Hold, "principal:bob")
	w.commit(commit.Release, "principal:bob")
	w.pass(wire.MaxCredentialLife/2 - time.Hour)
	w.settled()
	if n := len(w.entries("hold")); n != 0 {
		t.Fatalf("%d before half the life", n)
	}
	w.pass(2 * time.Hour)
	w.until("committed again", func() bool { return len(w.entries("hold")) > 0 })
	w.settled()
	// The broker's clock stands where it was, so the copy is at half its life as
	// well; of each copy there is one more.
	again := slices.DeleteFunc(w.entries("hold"), func(e ledger.Event) bool { return !strings.Contains(e.Data.Reason, first.Stamp().String()) })
	if len(again) != 1 || len(again[0].Data.Targets) != 1 || again[0].Data.Targets[0].ID != "alice" || again[0].Data.Tenant != "default" {
		t.Fatalf("committed again: %+v", again)
	}
	if s := w.state("principal:alice"); s.Held != first.Stamp() || s.Until < time.Now().Add(wire.MaxCredentialLife).Unix() {
		t.Errorf("it stands at %s until %d, not at its first position %s", s.Held, s.Until, first.Stamp())
	}
	if w.held("principal:bob") {
		t.Error("a released hold is back")
	}
	// A release after it names the first position, and ends every copy.
	w.commit(commit.Release, "principal:alice")
	if w.held("principal:alice") {
		t.Error("a release does not end the copy")
	}
}
