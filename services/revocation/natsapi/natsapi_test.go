package natsapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/services/revocation/natsapi"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/problem"
)

// world is the part of the revocation service that readers and services reach.
type world struct {
	t      *testing.T
	nats   *enginetest.NATSServer
	ledger *ledger.Ledger
	end    func() // of the server alone: what it accepted is answered first
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, nats: enginetest.NATS(t)}
	nc := w.nats.Conn(t, identity.Revocation)
	l, err := ledger.New(ledger.Config{NATS: nc, SyncAlways: true, OrdinaryGather: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	w.ledger = l
	f := fleet.New(fleet.Config{Log: l})
	l.Observe(f)
	run := func(run func(context.Context) error) func() {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		return sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(run(l.Run))
	w.end = run((&natsapi.Server{NATS: nc, Ledger: l, Fleet: f}).Run)
	t.Cleanup(w.end)
	enginetest.Eventually(t, "the ledger is ready", l.Ready)
	return w
}

// ask sends a request as a NATS user, and waits until somebody serves it.
func (w *world) ask(user, subject, body string) []byte {
	w.t.Helper()
	var answer *nats.Msg
	enginetest.Eventually(w.t, "somebody answers on "+subject, func() (err error) {
		answer, err = w.nats.Conn(w.t, user).Request(subject, []byte(body), 15*time.Second)
		if !errors.Is(err, nats.ErrNoResponders) && err != nil {
			w.t.Fatalf("%s: %v", subject, err)
		}
		return err
	})
	return answer.Data
}

func (w *world) join(user, instance string) {
	w.t.Helper()
	data := w.ask(user, wire.GuardSubject(user, wire.OpJoin), fmt.Sprintf(`{"instance":%q,"limit_ms":15000,"past":"deny"}`, instance))
	var a wire.JoinAnswer
	if err := json.Unmarshal(data, &a); err != nil || a.Error != nil {
		w.t.Fatalf("join: %s, %v", data, err)
	}
}

func (w *world) commit(key string) commit.Answer {
	w.t.Helper()
	a, err := w.ledger.Commit(w.t.Context(), commit.Request{
		Key: key, Tenant: "default", Op: commit.Revoke, Reason: "a test", Actor: "a test",
		Targets: []commit.Target{{Kind: revoke.KindToken, ID: key}},
	}, "test")
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

const (
	one = "AAAAAAAAAAAAAAAAAAAAAA"
	two = "BBBBBBBBBBBBBBBBBBBBBA"
)

func TestRotatorLearnsWhoLacksAMessage(t *testing.T) {
	w := newWorld(t)
	all := schematest.Load(t)
	w.join("orders", one)
	w.join("billing", two)
	a := w.commit("k")
	asked := func(name string, wait int64) commit.LackingAnswer {
		t.Helper()
		body, err := json.Marshal(commit.LackingRequest{Epoch: a.Epoch, Sequence: a.Sequence, CommittedAt: a.CommittedAt, WaitMS: wait, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		all.Valid(t, "commit.json#/$defs/lacking_request", body)
		data := w.ask(identity.Rotator, wire.CommitPrefix+identity.Rotator+commit.LackingSuffix, string(body))
		all.Valid(t, "commit.json#/$defs/lacking_answer", data)
		var out commit.LackingAnswer
		if err := json.Unmarshal(data, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if l := asked("", 0).Lacking; len(l) != 2 || l[0].Name != "billing" || l[0].FencedBy < a.CommittedAt+15_000 || l[0].FencedBy > a.CommittedAt+60_000 || l[0].Open {
		t.Errorf("lacking: %+v, want both, fenced 15 s after the commit was applied", l)
	}
	at, err := json.Marshal(wire.Report{Instance: two, Position: w.ledger.Head().JSON()})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.nats.Conn(t, "billing").Publish(wire.GuardSubject("billing", wire.OpReport), at); err != nil {
		t.Fatal(err)
	}
	if l := asked("billing", 10_000).Lacking; len(l) != 0 {
		t.Errorf("billing has said that it has it, and lacks it: %+v", l)
	}
	if l := asked("", 0).Lacking; len(l) != 1 || l[0].Instance != one {
		t.Errorf("lacking: %+v, want orders alone", l)
	}
}

// TestBadRequestsOfReadersAreRefused, and nothing else happens: the answer says what
// was wrong, the service goes on, and nobody has joined.
func TestBadRequestsOfReadersAreRefused(t *testing.T) {
	w := newWorld(t)
	head := w.ledger.Head()
	for _, op := range []string{wire.OpSync, wire.OpProbe, wire.OpJoin, wire.OpOut, wire.OpPage + "." + w.ledger.Replica()} {
		for _, body := range []string{"", "null", "[]", "{", `{"instance":1}`, `{"Instance":"x"}`, `{"unknown":true}`, `{"instance":"a","instance":"b"}`, strings.Repeat("[", 10_000), "\xff"} {
			data := w.ask("orders", wire.GuardSubject("orders", op), body)
			var a struct {
				Error *wire.Refusal `json:"error"`
			}
			if err := json.Unmarshal(data, &a); err != nil || a.Error == nil || a.Error.Code != "invalid" || a.Error.Detail == "" {
				t.Errorf("%s %.40q: %.200s, want a refusal as invalid that says why", op, body, data)
			}
		}
	}
	for _, x := range []struct{ user, subject string }{
		{identity.Issuer, wire.CommitPrefix + identity.Issuer},
		{identity.Rotator, wire.CommitPrefix + identity.Rotator + commit.KeySuffix},
		{identity.Rotator, wire.CommitPrefix + identity.Rotator + commit.LackingSuffix},
	} {
		for _, body := range []string{"", "{}", `{"unknown":1}`, `{"idempotency_key":"a","Tenant":"default"}`} {
			var doc problem.Document
			if data := w.ask(x.user, x.subject, body); json.Unmarshal(data, &doc) != nil || doc.Status/100 != 4 || doc.Detail == "" {
				t.Errorf("%s %.40q: %.200s, want a problem that says why", x.subject, body, data)
			}
		}
	}
	if err := w.ledger.Fresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for seq := head.Seq + 1; seq <= w.ledger.Head().Seq; seq++ {
		if e, err := w.ledger.EventOf(t.Context(), revoke.Stamp{Epoch: head.Epoch, Seq: seq}); err == nil && e.Data.Op != "" {
			t.Errorf("a bad request left a message in the log: %+v", e.Data)
		}
	}
}

// TestOnlyTheRotatorSendsKeys, whoever else may commit.
func TestOnlyTheRotatorSendsKeys(t *testing.T) {
	w := newWorld(t)
	admin := w.nats.Admin(t, identity.Log)
	for _, suffix := range []string{commit.KeySuffix, commit.LackingSuffix} {
		var answer *nats.Msg
		enginetest.Eventually(t, "somebody answers", func() (err error) {
			answer, err = admin.Request(wire.CommitPrefix+"issuer"+suffix, []byte(`{}`), 10*time.Second)
			return err
		})
		if got := answer.Header.Get(commit.ErrorHeader); got != problem.Forbidden.Name() {
			t.Errorf("the issuer on %s: %q %.200s, want forbidden", suffix, got, answer.Data)
		}
	}
}

// TestWhatCameBeforeTheEndIsAnswered: each of many requests that were sent while
// the server stops is answered, or nobody was there to take it.
func TestWhatCameBeforeTheEndIsAnswered(t *testing.T) {
	w := newWorld(t)
	client := commit.NewClient(w.nats.Conn(t, identity.Issuer), identity.Issuer)
	var all sync.WaitGroup
	results := make(chan error, 300)
	for i := range cap(results) {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := client.Commit(ctx, commit.Request{
				Key: fmt.Sprint("end ", i), Tenant: "default", Op: commit.Revoke, Reason: "a test", Actor: "a test",
				Targets: []commit.Target{{Kind: revoke.KindToken, ID: fmt.Sprint("t", i)}},
			})
			results <- err
			if i == 50 {
				w.end()
			}
		})
	}
	all.Wait()
	close(results)
	done := 0
	for err := range results {
		switch {
		case err == nil:
			done++
		case problem.KindOf(err) != problem.Unavailable:
			t.Errorf("%v: want an answer, or that nobody is there and nothing was done", err)
		}
	}
	if done == 0 {
		t.Error("nothing was committed")
	}
}
