package natsapi_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/problem"
)

// newer is a frozen request with a member that this version does not know.
func newer(t *testing.T, sample string) string {
	t.Helper()
	text := strings.TrimSpace(string(schematest.Read(t, "samples/v1/"+sample+".json")))
	return strings.TrimSuffix(text, "}") + `,"later":{"a":[1]}}`
}

// TestRequestsOfNewerReadersAreRefusedInWordsThatTheyRead: what a member that a
// service does not know would have changed can't be left out in silence. The
// refusal has the form that every version reads, and names the member.
func TestRequestsOfNewerReadersAreRefusedInWordsThatTheyRead(t *testing.T) {
	w := newWorld(t)
	head := w.ledger.Head()
	for op, sample := range map[string]string{
		wire.OpSync: "request-sync", wire.OpProbe: "request-probe", wire.OpJoin: "request-join", wire.OpOut: "request-out",
		wire.OpPage + "." + w.ledger.Replica(): "request-page",
	} {
		t.Run(op, func(t *testing.T) {
			answer, err := wire.DecodeAnswer[struct {
				Error *wire.Refusal `json:"error"`
			}](w.ask("orders", wire.GuardSubject("orders", op), newer(t, sample)))
			if err != nil || answer.Error == nil || answer.Error.Code != "invalid" || !strings.Contains(answer.Error.Detail, `"later"`) {
				t.Errorf("%+v, %v: want it refused as invalid, with the member named", answer.Error, err)
			}
		})
	}
	// A report has no answer: one that can't be read confirms nothing.
	if err := w.nats.Conn(t, "orders").Publish(wire.GuardSubject("orders", wire.OpReport), []byte(newer(t, "request-report"))); err != nil {
		t.Fatal(err)
	}
	if at := w.ledger.Head(); at.Epoch != head.Epoch {
		t.Errorf("requests that were refused have begun an epoch: %v, then %v", head, at)
	}
}

// TestRequestsOfNewerServicesAreRefusedInWordsThatTheyRead: the same between
// services, whose client makes an error of it that is never taken for an outage or
// an unknown outcome.
func TestRequestsOfNewerServicesAreRefusedInWordsThatTheyRead(t *testing.T) {
	w := newWorld(t)
	before := w.ledger.Stamp()
	for sample, at := range map[string]struct{ user, subject string }{
		"commit-request":         {identity.Issuer, wire.CommitPrefix + identity.Issuer},
		"commit-key_request":     {identity.Rotator, commit.KeySubject(identity.Rotator)},
		"commit-lacking_request": {identity.Rotator, commit.LackingSubject(identity.Rotator)},
	} {
		t.Run(sample, func(t *testing.T) {
			w.ask(at.user, at.subject, "{") // until somebody serves it
			m, err := w.nats.Conn(t, at.user).Request(at.subject, []byte(newer(t, sample)), 15*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			var doc problem.Document
			if err := json.Unmarshal(m.Data, &doc); err != nil || !strings.Contains(doc.Detail, `"later"`) {
				t.Errorf("%s, %v: want the member named", m.Data, err)
			}
			if kind := problem.ByName(m.Header.Get(commit.ErrorHeader)); kind != problem.Invalid {
				t.Errorf("refused as %s, want invalid", kind.Name())
			}
		})
	}
	if after := w.ledger.Stamp(); after != before {
		t.Errorf("something was committed at %s", after)
	}
}

// answering answers as a newer service does: what a frozen sample says, and more.
func answering(t *testing.T, nc *nats.Conn, subject, sample string) {
	t.Helper()
	text := strings.TrimSpace(string(schematest.Read(t, "samples/v1/"+sample+".json")))
	text = strings.ReplaceAll(text, "{", `{"later":{"a":[1]},`)
	text = strings.ReplaceAll(text, `,}`, `}`)
	sub, err := nc.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond([]byte(text)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
}

// TestAnswersOfNewerServicesAreTaken: readers and services ignore what they don't
// know of an answer, at any depth.
func TestAnswersOfNewerServicesAreTaken(t *testing.T) {
	srv := newWorld(t)
	srv.end() // the newer one answers in its place
	nc := srv.nats.Conn(t, identity.Revocation)
	guards := wire.GuardPrefix + "*."
	for op, sample := range map[string]string{
		wire.OpSync: "request-sync_answer-whole", wire.OpProbe: "request-probe_answer-spread",
		wire.OpJoin: "request-join_answer", wire.OpOut: "request-join_answer", wire.OpPage + ".*": "request-join_answer-refusal",
	} {
		answering(t, nc, guards+op, sample)
	}
	answering(t, nc, wire.CommitPrefix+identity.Issuer, "commit-answer-repeated")
	answering(t, nc, commit.KeySubject(identity.Rotator), "commit-answer")
	answering(t, nc, commit.LackingSubject(identity.Rotator), "commit-lacking_answer")
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	link, err := natsfeed.New(srv.nats.Conn(t, "orders"), "orders")
	if err != nil {
		t.Fatal(err)
	}
	if a, err := link.Sync(ctx, wire.SyncRequest{Instance: "i"}); err != nil || a.Whole == nil || a.Whole.Pages != 4 || a.Head.Sequence != 17 {
		t.Errorf("sync: %+v, %v", a, err)
	}
	if a, err := link.Probe(ctx, wire.ProbeRequest{Instance: "i"}); err != nil || a.Error != nil || a.Tick.Sequence != 19 || a.SpreadMS != 2000 {
		t.Errorf("probe: %+v, %v", a, err)
	}
	if a, err := link.Join(ctx, wire.JoinRequest{Instance: "i", LimitMS: 1, Past: wire.PastDeny}); err != nil || a.Error != nil || a.Position.Sequence != 20 {
		t.Errorf("join: %+v, %v", a, err)
	}
	if a, err := link.Out(ctx, wire.OutRequest{Instance: "i"}); err != nil || a.Error != nil || a.Position.Sequence != 20 {
		t.Errorf("out: %+v, %v", a, err)
	}
	var refusal *wire.Refusal
	if _, err := link.Page(ctx, "r1", wire.PageRequest{Snapshot: one}); !errors.As(err, &refusal) || refusal.Code != "cap" {
		t.Errorf("page: %v, want the refusal", err)
	}
	if a, err := commit.NewClient(srv.nats.Conn(t, identity.Issuer), identity.Issuer).Commit(ctx, commit.Request{}); err != nil || a.Sequence != 17 || !a.Repeated {
		t.Errorf("commit: %+v, %v", a, err)
	}
	keys := commit.NewKeyClient(srv.nats.Conn(t, identity.Rotator))
	if a, err := keys.CommitKey(ctx, commit.KeyRequest{}); err != nil || a.Sequence != 17 {
		t.Errorf("key: %+v, %v", a, err)
	}
	if a, err := keys.Lacking(ctx, commit.LackingRequest{}); err != nil || len(a.Lacking) != 2 || !a.Lacking[1].Open {
		t.Errorf("lacking: %+v, %v", a, err)
	}
}
