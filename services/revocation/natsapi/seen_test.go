package natsapi_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/services/revocation/natsapi"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// asker is another replica, of which the test sees what it is told.
func (w *world) asker() (*natsapi.Server, func() []fleet.Guard) {
	w.t.Helper()
	nc := w.nats.Conn(w.t, identity.Revocation)
	l, err := ledger.New(ledger.Config{NATS: nc, SyncAlways: true})
	if err != nil {
		w.t.Fatal(err)
	}
	f := fleet.New(fleet.Config{Log: l})
	l.Observe(f)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	s := &natsapi.Server{NATS: nc, Ledger: l, Fleet: f}
	enginetest.Eventually(w.t, "the ledger is ready", l.Ready)
	end := start(w.t, s)
	w.t.Cleanup(func() {
		end()
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	return s, f.List
}

func seenKeys(n int) []revoke.Key {
	out := make([]revoke.Key, n)
	for i := range out {
		out[i] = revoke.Key{1, byte(i), byte(i >> 8)}
	}
	return out
}

// said publishes what a guard with this NATS user answers to whatever is asked.
func (w *world) said(user string, answer func(q wire.Question) (as, body string)) {
	w.t.Helper()
	nc := w.nats.Conn(w.t, user)
	sub, err := nc.Subscribe(wire.FeedAsk, func(m *nats.Msg) {
		q, err := wire.DecodeRequest[wire.Question](m.Data)
		if err != nil {
			w.t.Errorf("%s, %v", m.Data, err)
			return
		}
		as, body := answer(q)
		if err := nc.Publish(wire.GuardSubject(as, wire.OpSeen+"."+q.Replica), []byte(body)); err != nil {
			w.t.Error(err)
		}
	})
	if err != nil || nc.Flush() != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = sub.Unsubscribe() })
}

func seenBody(instance, question string, seen bool) string {
	return fmt.Sprintf(`{"instance":%q,"question":%q,"seen":%t,"for_ms":60000}`, instance, question, seen)
}

// ask asks until the server hears answers, which its first subscriptions may be too late for.
func ask(t *testing.T, s *natsapi.Server, of []fleet.Guard, targets []revoke.Key, want func(map[string]revocation.Remembered) error) {
	t.Helper()
	enginetest.Eventually(t, "the fleet's answers", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		said, err := s.Seen(ctx, targets, of)
		if err != nil {
			return err
		}
		return want(said)
	})
}

// TestAGuardSpeaksForItselfAlone: not under another's name, nor for an instance of
// another's, nor for one that has not joined; what is no answer is none; and who does not
// answer has not said.
func TestAGuardSpeaksForItselfAlone(t *testing.T) {
	w := newWorld(t)
	w.join("orders", one)
	w.join("billing", two)
	w.join("shipping", "silent")
	s, list := w.asker()
	of := list()
	if len(of) != 3 {
		t.Fatalf("%+v", of)
	}
	w.said("orders", func(q wire.Question) (string, string) { return "orders", seenBody(one, q.ID, true) })
	w.said("orders", func(q wire.Question) (string, string) { return "orders", seenBody(one, q.ID, false) }) // takes it back
	w.said("billing", func(q wire.Question) (string, string) { return "billing", seenBody(two, q.ID, false) })
	w.said("billing", func(q wire.Question) (string, string) { return "billing", seenBody(one, q.ID, false) }) // orders' instance
	w.said("billing", func(q wire.Question) (string, string) { return "orders", seenBody(one, q.ID, false) })  // its name: the broker refuses
	w.said("billing", func(q wire.Question) (string, string) { return "billing", seenBody("silent", q.ID, true) })
	w.said("billing", func(q wire.Question) (string, string) { return "billing", seenBody("stranger", q.ID, true) })
	w.said("billing", func(wire.Question) (string, string) { return "billing", seenBody(two, one, true) }) // of no question
	for _, body := range []string{"", "null", `{"instance":"` + two + `"}`, `{"seen":true}`, "\xff"} {
		w.said("billing", func(wire.Question) (string, string) { return "billing", body })
	}
	w.said("billing", func(q wire.Question) (string, string) {
		return "billing", fmt.Sprintf(`{"instance":%q,"question":%q,"seen":true,"for_ms":-5}`, two, q.ID)
	})
	before := time.Now()
	ask(t, s, of, seenKeys(wire.MaxAsked), func(said map[string]revocation.Remembered) error {
		if len(said) != 2 {
			return fmt.Errorf("%+v, want what orders and billing say", said)
		}
		if !said[one].Seen {
			return fmt.Errorf("%+v: what orders says first has not come", said)
		}
		if o, b := said[one], said[two]; b.Seen || o.Since.After(time.Now().Add(-time.Minute)) || o.Since.Before(before.Add(-61*time.Second)) {
			t.Errorf("orders %+v, billing %+v", o, b)
		}
		return nil
	})
	for _, n := range []int{0, wire.MaxAsked + 1} {
		if said, err := s.Seen(t.Context(), seenKeys(n), of); err == nil {
			t.Errorf("%d targets: %+v, want an error", n, said)
		}
	}
}

// TestNobodyWaitsForThoseWhoHaveAnswered, nor for those past their limit; and what comes
// late counts for nothing, neither then nor for the next question.
func TestNobodyWaitsForThoseWhoHaveAnswered(t *testing.T) {
	w := newWorld(t)
	w.join("orders", one)
	w.join("billing", two)
	s, list := w.asker()
	of := list()
	for i := range of {
		if of[i].Instance == two {
			of[i].State = fleet.StateFenced
		}
	}
	var last atomic.Value
	w.said("orders", func(q wire.Question) (string, string) {
		last.Store(q)
		return "orders", seenBody(one, q.ID, false)
	})
	ask(t, s, of, seenKeys(1), func(said map[string]revocation.Remembered) error {
		if _, ok := said[one]; !ok {
			return errors.New("not heard yet")
		}
		return nil
	})
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if said, err := s.Seen(ctx, seenKeys(1), of); err != nil || len(said) != 1 || time.Since(began) > 30*time.Second {
		t.Errorf("%+v, %v after %s", said, err, time.Since(began))
	}
	q := last.Load().(wire.Question)
	late := w.nats.Conn(t, "billing")
	if err := late.Publish(wire.GuardSubject("billing", wire.OpSeen+"."+q.Replica), []byte(seenBody(two, q.ID, true))); err != nil || late.Flush() != nil {
		t.Fatal(err)
	}
	if said, err := s.Seen(ctx, seenKeys(1), of); err != nil || len(said) != 1 || said[one].Seen {
		t.Errorf("after a late answer: %+v, %v", said, err)
	}
}

// TestReplicasAskAtOnce, each hears the answers to its own questions alone: the first
// server's are answered yes, the other's no.
func TestReplicasAskAtOnce(t *testing.T) {
	w := newWorld(t)
	w.join("orders", one)
	first, list := w.asker()
	second, _ := w.asker()
	of := list()
	yes := first.Ledger.Replica()
	w.said("orders", func(q wire.Question) (string, string) { return "orders", seenBody(one, q.ID, q.Replica == yes) })
	done := make(chan struct{})
	check := func(s *natsapi.Server, want bool) {
		defer func() { done <- struct{}{} }()
		for range 20 {
			ask(t, s, of, seenKeys(3), func(said map[string]revocation.Remembered) error {
				a, ok := said[one]
				if !ok {
					return errors.New("no answer")
				}
				if a.Seen != want {
					t.Errorf("an answer to the other's question counts: %+v", a)
				}
				return nil
			})
		}
	}
	go check(first, true)
	go check(second, false)
	<-done
	<-done
}

// older is the feed as a reader of an older version has it: whatever comes below
// quash.feed is taken for a message of the log.
type older struct {
	nc    *nats.Conn
	asked *atomic.Int64
}

func (o older) Subscribe(deliver func(wire.Stored, error), _ func()) (func(), error) {
	sub, err := o.nc.Subscribe(wire.FeedAll, func(m *nats.Msg) {
		if m.Subject == wire.FeedAsk {
			o.asked.Add(1)
		}
		deliver(wire.FromHeader(m.Header))
	})
	return func() { _ = sub.Unsubscribe() }, err
}

// syncs counts the syncs of a reader.
type syncs struct {
	follow.Source
	n *atomic.Int64
}

func (s syncs) Sync(ctx context.Context, r wire.SyncRequest) (wire.SyncAnswer, error) {
	s.n.Add(1)
	return s.Source.Sync(ctx, r)
}

// TestQuestionsDisturbNoOlderReader: it goes on accepting, without another sync, also
// through a new epoch; and a replica of an older version is a reader like any other.
func TestQuestionsDisturbNoOlderReader(t *testing.T) {
	w := newWorld(t)
	s, _ := w.asker()
	nc := w.nats.Conn(t, "orders")
	link, err := natsfeed.New(nc, "orders")
	if err != nil {
		t.Fatal(err)
	}
	var asked, synced atomic.Int64
	r, err := follow.New(follow.Config{Source: syncs{link, &synced}, Feed: older{nc, &asked}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	accepts := func() {
		t.Helper()
		enginetest.Eventually(t, "the reader accepts", func() error { _, err := r.Check(); return err })
	}
	for range 2 {
		accepts()
		before, heard := synced.Load(), asked.Load()
		for i := range 20 {
			if i%5 == 0 {
				w.commit(fmt.Sprint(before, "-", i))
			}
			if _, err := s.Seen(t.Context(), seenKeys(10), nil); err != nil { // nobody is waited for
				t.Fatal(err)
			}
			if _, err := r.Check(); err != nil {
				t.Fatalf("after %d questions: %v", i+1, err)
			}
		}
		enginetest.Eventually(t, "the reader has heard every question", func() error {
			if n := asked.Load() - heard; n < 20 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		// One sync may be that of a slow tick.
		if n := synced.Load() - before; n > 1 {
			t.Errorf("20 questions made it sync %d times", n)
		}
		if err := w.ledger.Fresh(t.Context()); err != nil {
			t.Errorf("the service: %v", err)
		}
		if _, err := w.ledger.BeginEpoch(t.Context(), ledger.EpochOrder{Actor: "test", Reason: "a test"}); err != nil {
			t.Fatal(err)
		}
		enginetest.Eventually(t, "the other replica knows the new epoch", func() error {
			if s.Ledger.Epoch() != w.ledger.Epoch() {
				return errors.New("not yet")
			}
			return s.Ledger.Ready()
		})
	}
}

// TestAQuestionIsARepeatOfTheEpoch that the log has, and its body what the schema says.
func TestAQuestionIsARepeatOfTheEpoch(t *testing.T) {
	w := newWorld(t)
	s, list := w.asker()
	sub, err := w.nats.Conn(t, "orders").SubscribeSync(wire.FeedAsk)
	if err != nil || w.nats.Conn(t, "orders").Flush() != nil {
		t.Fatal(err)
	}
	if _, err := s.Seen(t.Context(), seenKeys(2), list()); err != nil {
		t.Fatal(err)
	}
	m, err := sub.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := wire.FromHeader(m.Header)
	if has, known := w.ledger.Holds(stored.Position()); err != nil || stored.Message.Kind != wire.KindEpoch || !has || !known {
		t.Errorf("%+v, %v: the log has it %t (known: %t)", stored, err, has, known)
	}
	schematest.Load(t).Valid(t, "requests.json#/$defs/question", m.Data)
}

// TestQuestionsAreBounded: each goes to everybody, so that few are open at once; what has
// ended makes room.
func TestQuestionsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.join("orders", one) // and says nothing
	s, list := w.asker()
	of := list()
	sub, err := w.nats.Conn(t, "orders").SubscribeSync(wire.FeedAsk)
	if err != nil || w.nats.Conn(t, "orders").Flush() != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	const most = 8
	done := make(chan error, most)
	for range most {
		go func() {
			_, err := s.Seen(ctx, seenKeys(1), of)
			done <- err
		}()
	}
	for range most {
		if _, err := sub.NextMsg(10 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if said, err := s.Seen(ctx, seenKeys(1), of); err == nil {
		t.Errorf("one too many is asked: %+v", said)
	}
	cancel()
	for range most {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Seen(t.Context(), seenKeys(1), nil); err != nil {
		t.Errorf("after they have ended: %v", err)
	}
}
