package app_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/services/revocation/app"
	"github.com/quash-project/quash/services/revocation/httpapi"
	"github.com/quash-project/quash/shared/approvers"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/hits"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// people stands for the issuer: who may make cuts, and what would be hit.
type people struct {
	mu   sync.Mutex
	may  []string
	hits hits.Answer
	away bool
}

func (p *people) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *people) serve(t *testing.T, nc *nats.Conn) {
	t.Helper()
	gone := problem.New(problem.Unavailable, "the records can't be seen")
	server, err := natsapi.Serve(nc, wire.RecordsIssuer, natsapi.Config{Queue: "quash-issuer"},
		natsapi.On(approvers.Operation, frame.Public, func(_ context.Context, r approvers.Request) (approvers.Answer, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.away {
				return approvers.Answer{}, gone
			}
			a := approvers.Answer{Count: min(len(p.may), approvers.Enough)}
			for _, s := range r.Subjects {
				for _, m := range p.may {
					if s == m {
						a.May, a.People = append(a.May, s), append(a.People, s)
					}
				}
			}
			return a, nil
		}),
		natsapi.On(hits.Operation, frame.Public, func(context.Context, hits.Request) (hits.Answer, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.away {
				return hits.Answer{}, gone
			}
			return p.hits, nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		server.Stop(ctx)
	})
}

// two is a world in which two people may make cuts.
type two struct {
	*world
	people people
	a, b   *replica
}

func newTwo(t *testing.T, second app.SecondPerson) *two {
	t.Helper()
	w := &two{world: newWorld(t)}
	w.second = second
	w.people.may = []string{"alice", "bob"}
	w.people.serve(t, w.nats.Conn(t, identity.Issuer))
	w.a, w.b = w.start("a"), w.start("b")
	w.publish()
	w.ready(w.a, w.b)
	return w
}

// answer is what came back, of whatever kind.
type answer struct {
	httpapi.Entry
	Pending httpapi.Pending `json:"pending"`
	State   string          `json:"state"`
	Detail  string          `json:"detail"`

	status   int
	location string
	request  string // its id
	body     []byte
}

func (w *two) ask(r *replica, token, method, path, key string, body any) answer {
	w.t.Helper()
	var in io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, r.url+path, in)
	if err != nil {
		w.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	out := answer{status: resp.StatusCode, location: resp.Header.Get("Location"), request: resp.Header.Get("X-Request-Id")}
	if out.body, err = io.ReadAll(resp.Body); err != nil {
		w.t.Fatal(err)
	}
	if err := json.Unmarshal(out.body, &out); err != nil {
		w.t.Fatalf("%v in %.300s", err, out.body)
	}
	return out
}

// cut asks as a person for a cut; more are members of the body.
func (w *two) cut(who, key string, targets []string, more ...any) answer {
	w.t.Helper()
	body := map[string]any{"op": "revoke", "targets": targets, "reason": "a test"}
	for i := 0; i+1 < len(more); i += 2 {
		body[more[i].(string)] = more[i+1]
	}
	return w.ask(w.a, w.tokenOf(who, rights.Revoke), "POST", "/v1/revocations", key, body)
}

func (w *two) approve(r *replica, who, id string) answer {
	w.t.Helper()
	return w.ask(r, w.tokenOf(who, rights.Revoke), "POST", "/v1/pending/"+id+"/approve", "", map[string]any{"reason": "seen"})
}

func (w *two) want(a answer, status int, text string) {
	w.t.Helper()
	if a.status != status || !strings.Contains(a.Detail, text) {
		w.t.Errorf("status %d, want %d and %q: %.400s", a.status, status, text, a.body)
	}
}

// waits asks for a cut that has to wait, of a signing key of its own.
func (w *two) waits(who string) answer {
	w.t.Helper()
	a := w.cut(who, rand.Text(), []string{"signing-key:" + rand.Text()})
	w.want(a, http.StatusAccepted, "")
	return a
}

// inLog counts the entries that the log has under an id.
func (w *two) inLog(id string) uint64 {
	w.t.Helper()
	js, err := jetstream.New(w.nats.Admin(w.t, identity.Log))
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := js.Stream(w.t.Context(), wire.Stream)
	if err != nil {
		w.t.Fatal(err)
	}
	info, err := s.Info(w.t.Context(), jetstream.WithSubjectFilter(wire.LogEntry+id))
	if err != nil {
		w.t.Fatal(err)
	}
	return info.State.Subjects[wire.LogEntry+id]
}

func (w *two) records() jetstream.KeyValue {
	w.t.Helper()
	js, err := jetstream.New(w.nats.Admin(w.t, identity.Log))
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := js.KeyValue(w.t.Context(), identity.Pending)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// change rewrites a record, as a crash may have left it.
func (w *two) change(id string, how func(*revocation.Pending)) {
	w.t.Helper()
	b := w.records()
	e, err := b.Get(w.t.Context(), "default."+id)
	if err != nil {
		w.t.Fatal(err)
	}
	var p revocation.Pending
	if err := json.Unmarshal(e.Value(), &p); err != nil {
		w.t.Fatal(err)
	}
	how(&p)
	text, err := json.Marshal(p)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := b.Update(w.t.Context(), "default."+id, text, e.Revision()); err != nil {
		w.t.Fatal(err)
	}
}

// counter sums a metric of the replicas over the series with a label's value.
func (w *two) counter(name, label string) (n float64) {
	w.t.Helper()
	for _, r := range []*replica{w.a, w.b} {
		reg := prometheus.NewPedanticRegistry()
		reg.MustRegister(r.Metrics()...)
		families, err := reg.Gather()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == name && len(m.GetLabel()) > 0 && m.GetLabel()[0].GetValue() == label {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

func TestAWideCutWaitsForAnotherPerson(t *testing.T) {
	w := newTwo(t, app.SecondPerson{})
	key := rand.Text()
	asked := w.cut("alice", key, []string{"tenant:default"}, "op", "hold", "for", "2h", "code", "keyCompromise")
	w.want(asked, http.StatusAccepted, "")
	id := asked.Pending.ID
	p := asked.Pending
	if asked.location != "/v1/pending/"+id || p.State != "pending" || p.Actor != "alice" || p.Reason != "a test" || p.For != "2h0m0s" ||
		p.Code != "keyCompromise" || len(p.Targets) != 1 || p.Targets[0] != "tenant:default" || !time.Time(p.ExpiresAt).After(time.Time(p.AskedAt)) {
		t.Errorf("%s: %+v", asked.location, p)
	}
	if n := w.inLog(id); n != 0 {
		t.Fatalf("%d entries before anybody has agreed", n)
	}
	if again := w.cut("alice", key, []string{"tenant:default"}, "op", "hold", "for", "2h", "code", "keyCompromise"); again.status != http.StatusAccepted || again.Pending.ID != id {
		t.Errorf("asked for again: status %d, %q; want %q", again.status, again.Pending.ID, id)
	}
	w.want(w.cut("alice", key, []string{"tenant:default"}), http.StatusConflict, "another request")

	// Who is not another person.
	w.want(w.approve(w.a, "alice", id), http.StatusForbidden, "another person")
	w.want(w.approve(w.a, "carol", id), http.StatusForbidden, "second person")
	w.want(w.approve(w.a, "client_x", id), http.StatusForbidden, "second person")
	w.want(w.ask(w.a, w.tokenOf("bob", rights.AuditRead), "POST", "/v1/pending/"+id+"/approve", "", map[string]any{}), http.StatusForbidden, "scope")
	for _, bad := range []string{"x", strings.Repeat("A", 43), id + "x"} {
		w.want(w.approve(w.a, "bob", bad), http.StatusNotFound, "pending")
	}
	// The body of an approval says nothing of what is cut.
	w.want(w.ask(w.a, w.tokenOf("bob", rights.Revoke), "POST", "/v1/pending/"+id+"/approve", "", map[string]any{"targets": []string{"tenant:x"}}), http.StatusUnprocessableEntity, "")
	if n := w.inLog(id); n != 0 {
		t.Fatalf("%d entries by those who may not approve", n)
	}
	// All replicas at once: one entry, and everybody is told of it.
	id = w.waits("alice").Pending.ID
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if a := w.approve([]*replica{w.a, w.b}[i%2], "bob", id); a.status != http.StatusOK || a.ID != id || a.ApprovedBy != "bob" || a.Actor != "alice" {
				t.Errorf("status %d: %.300s", a.status, a.body)
			}
		})
	}
	wg.Wait()
	if n := w.inLog(id); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
	one := w.ask(w.b, w.tokenOf("alice", rights.Revoke), "GET", "/v1/pending/"+id, "", nil)
	if one.State != "approved" || one.Sequence == 0 {
		t.Errorf("%.300s", one.body)
	}
	if n := w.counter("quash_second_person_total", "approved"); n != 1 {
		t.Errorf("%v approvals are counted, want 1", n)
	}
	w.want(w.ask(w.a, w.tokenOf("bob", rights.Revoke), "POST", "/v1/pending/"+id+"/deny", "", map[string]any{"reason": "no"}), http.StatusConflict, "approved by bob")
	// Approved again by another key of the same person, it is the same.
	w.change(id, func(p *revocation.Pending) { p.DecidedBy = "bob by another key" })
	w.want(w.approve(w.b, "bob", id), http.StatusOK, "")

	// What another tenant has asked for is not there.
	id = strings.Repeat("B", 43)
	text, err := json.Marshal(revocation.Pending{ID: id, Tenant: "acme", State: revocation.PendingWaits, Expires: time.Now().Add(time.Hour).UnixMilli()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.records().Create(t.Context(), "acme."+id, text); err != nil {
		t.Fatal(err)
	}
	w.want(w.approve(w.a, "bob", id), http.StatusNotFound, "no such")
	w.want(w.ask(w.a, w.tokenOf("bob", rights.Revoke), "POST", "/v1/pending/"+id+"/deny", "", map[string]any{"reason": "no"}), http.StatusNotFound, "no such")
	w.want(w.ask(w.a, w.tokenOf("bob", rights.Revoke), "GET", "/v1/pending/"+id, "", nil), http.StatusNotFound, "no such")

	id = w.waits("alice").Pending.ID
	if a := w.ask(w.b, w.tokenOf("bob", rights.Revoke), "POST", "/v1/pending/"+id+"/deny", "", map[string]any{"reason": "not today"}); a.status != http.StatusOK || a.State != "denied" {
		t.Errorf("%.300s", a.body)
	}
	w.want(w.approve(w.a, "bob", id), http.StatusConflict, "not today")
	if n := w.inLog(id); n != 0 {
		t.Error("what was denied is in the log")
	}
	var eleven []string
	for range 11 {
		eleven = append(eleven, "signing-key:"+rand.Text())
	}
	many := w.cut("alice", "", eleven).Pending
	if len(many.Targets) != 11 || many.Count != 11 {
		t.Errorf("%d targets of %d, want 11", len(many.Targets), many.Count)
	}
	few := w.ask(w.a, w.tokenOf("bob", rights.Revoke), "GET", "/v1/pending", "", nil)
	if !bytes.Contains(few.body, []byte(`"targets_count":11`)) || bytes.Contains(few.body, []byte(eleven[10])) || !bytes.Contains(few.body, []byte(eleven[9])) {
		t.Errorf("a list has not the first 10 targets: %.2000s", few.body)
	}
	w.want(w.ask(w.a, w.tokenOf("alice", rights.Revoke), "POST", "/v1/pending/"+many.ID+"/deny", "", map[string]any{"reason": "no"}), http.StatusOK, "")
	list := w.ask(w.a, w.tokenOf("bob", rights.Revoke), "GET", "/v1/pending?state=all&limit=2", "", nil)
	var page frame.List[httpapi.Pending]
	if err := json.Unmarshal(list.body, &page); err != nil || len(page.Items) != 2 || page.NextPage == "" {
		t.Fatalf("%v: %.300s", err, list.body)
	}
	list = w.ask(w.a, w.tokenOf("bob", rights.Revoke), "GET", "/v1/pending?state=all&limit=2&page="+page.NextPage, "", nil)
	if err := json.Unmarshal(list.body, &page); err != nil || len(page.Items) != 2 || page.NextPage != "" {
		t.Errorf("%v: %.300s", err, list.body)
	}
}

func TestWhichCutsNeedASecondPerson(t *testing.T) {
	w := newTwo(t, app.SecondPerson{Hits: 5})
	keys := func(n int) (out []string) {
		for range n {
			out = append(out, "key:"+rand.Text())
		}
		return out
	}
	w.want(w.cut("alice", "", keys(1)), http.StatusCreated, "")
	w.people.set(func() { w.people.hits = hits.Answer{Keys: 6} })
	w.want(w.cut("alice", "", []string{"principal:carol"}), http.StatusAccepted, "")
	w.people.set(func() { w.people.hits = hits.Answer{} })
	w.want(w.cut("bob", "", []string{"principal:carol"}), http.StatusCreated, "")
	w.want(w.cut("alice", "", keys(1), "whole", map[string]any{"id": "w", "targets": 6}), http.StatusAccepted, "")
	w.want(w.cut("alice", "", []string{"issuer:okta"}, "issuer", "okta"), http.StatusAccepted, "")

	// In parts it does not get narrower, and a repetition is no part.
	for i := range 4 {
		key := fmt.Sprint("part", i)
		part := keys(1)
		w.want(w.cut("alice", key, part), http.StatusCreated, "")
		w.want(w.cut("alice", key, part), http.StatusOK, "")
	}
	over := w.cut("alice", "", keys(1))
	if w.want(over, http.StatusAccepted, ""); !strings.Contains(over.Pending.Why, "with what alice has cut") {
		t.Errorf("%q", over.Pending.Why)
	}
	w.want(w.cut("bob", "", keys(1)), http.StatusCreated, "")

	// A release is never one, and the issuer is not asked about what is narrow.
	w.people.set(func() { w.people.away = true })
	w.want(w.cut("bob", "", keys(1)), http.StatusCreated, "")
	held := w.cut("bob", "", keys(1), "op", "hold")
	w.want(held, http.StatusCreated, "")
	w.want(w.cut("alice", "", held.Targets, "op", "release"), http.StatusCreated, "")
	w.want(w.cut("alice", "", []string{"tenant:default"}), http.StatusServiceUnavailable, "who may approve")
	w.want(w.cut("bob", "", []string{"principal:carol"}), http.StatusServiceUnavailable, "what it would hit")
	w.want(w.cut("alice", "", []string{"signing-key:x"}, "break_glass", true), http.StatusCreated, "")
	// One who may approve is not enough to need another.
	w.people.set(func() { w.people.away, w.people.may = false, []string{"alice"} })
	w.want(w.cut("alice", "", []string{"signing-key:y"}), http.StatusCreated, "")
}

func TestAnApprovalIsRefusedWhenThingsHaveChanged(t *testing.T) {
	w := newTwo(t, app.SecondPerson{Expires: time.Hour})
	// Whoever asked may not any more.
	id := w.waits("alice").Pending.ID
	w.people.set(func() { w.people.may = []string{"bob", "carol"} })
	w.want(w.approve(w.a, "bob", id), http.StatusConflict, "may make no cuts any more")
	w.people.set(func() { w.people.may = []string{"alice", "bob"} })

	// What it would hit has grown since it was shown.
	var one, more hits.Boxes
	one.Add("key:1")
	more = one
	more.Add("key:2")
	w.people.set(func() { w.people.hits = hits.Answer{Keys: 2000, Boxes: one} })
	var preview struct{ Plan string }
	shown := w.ask(w.a, w.tokenOf("alice", rights.Revoke), "POST", "/v1/previews", "", map[string]any{"op": "revoke", "targets": []string{"principal:dave"}})
	if err := json.Unmarshal(shown.body, &preview); err != nil || preview.Plan == "" {
		t.Fatalf("%v: %.300s", err, shown.body)
	}
	planned := w.cut("alice", "", []string{"principal:dave"}, "plan", preview.Plan)
	w.want(planned, http.StatusAccepted, "")
	w.people.set(func() { w.people.hits.Boxes = more })
	w.want(w.approve(w.b, "bob", planned.Pending.ID), http.StatusConflict, "has grown")
	w.people.set(func() { w.people.hits.Boxes = one })
	w.want(w.approve(w.b, "bob", planned.Pending.ID), http.StatusOK, "")

	// Its time is over, whether or not anybody has written that down.
	late := w.waits("alice").Pending.ID
	w.change(late, func(p *revocation.Pending) { p.Expires = time.Now().Add(-time.Second).UnixMilli() })
	w.want(w.approve(w.a, "bob", late), http.StatusConflict, "expired")

	// Who approved it was cut off in the middle: it is decided, and not yet in the log.
	crash := func(p *revocation.Pending) {
		p.State, p.DecidedBy, p.DecidedAt = revocation.PendingApproved, "bob", time.Now().Add(-time.Minute).UnixMilli()
	}
	again, alone := w.waits("alice").Pending.ID, w.waits("alice").Pending.ID
	w.change(again, crash)
	w.want(w.approve(w.b, "bob", again), http.StatusOK, "")
	w.change(alone, crash)
	w.start("c") // looks at what was left as it starts
	enginetest.Eventually(t, "what was approved is committed, and what is late is marked", func() error {
		a := w.ask(w.b, w.tokenOf("bob", rights.Revoke), "GET", "/v1/pending/"+alone, "", nil)
		e, err := w.records().Get(t.Context(), "default."+late)
		if err != nil || a.Sequence == 0 || !bytes.Contains(e.Value(), []byte(`"state":"expired"`)) {
			return fmt.Errorf("%v: %.300s %.300s", err, a.body, e.Value())
		}
		return nil
	})
	for _, id := range []string{again, alone} {
		w.want(w.approve(w.a, "bob", id), http.StatusOK, "")
		if n := w.inLog(id); n != 1 {
			t.Errorf("%d entries, want 1", n)
		}
	}

	// With what whoever asked has asked, they were cut.
	stolen := w.waits("alice").Pending.ID
	w.people.set(func() { w.people.hits = hits.Answer{} })
	w.want(w.cut("bob", "", []string{"principal:alice"}), http.StatusCreated, "")
	w.want(w.approve(w.a, "bob", stolen), http.StatusConflict, "was cut or is held")
}

func TestBreakGlassIsLoud(t *testing.T) {
	w := newTwo(t, app.SecondPerson{})
	key := rand.Text()
	target := []string{"signing-key:" + rand.Text()}
	asked := w.cut("alice", key, target)
	w.want(asked, http.StatusAccepted, "")
	w.want(w.cut("alice", key, target, "op", "release", "break_glass", true), http.StatusUnprocessableEntity, "only a revocation or a hold")
	cut := w.cut("alice", key, target, "break_glass", true)
	if w.want(cut, http.StatusCreated, ""); !cut.BreakGlass || cut.ApprovedBy != "" || cut.ID != asked.Pending.ID {
		t.Errorf("%.300s", cut.body)
	}
	if n := w.counter("quash_break_glass_total", "revoke"); n != 1 {
		t.Errorf("%v uses are counted, want 1", n)
	}
	// What waited under the same key is over, and its approval is none.
	w.want(w.approve(w.b, "bob", cut.ID), http.StatusConflict, "break-glass")
	if n := w.inLog(cut.ID); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
	if again := w.cut("alice", key, target); again.status != http.StatusOK || !again.BreakGlass {
		t.Errorf("repeated without the word it was by break-glass all the same: %d %.300s", again.status, again.body)
	}
	for _, form := range []string{"json", "html"} {
		enginetest.Eventually(t, "the receipt tells", func() error {
			req, err := http.NewRequestWithContext(t.Context(), "GET", w.a.url+"/v1/receipts/"+cut.ID+"?format="+form, nil)
			if err != nil {
				return err
			}
			req.Header.Set("Authorization", "Bearer "+w.token(rights.Revoke))
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if want := map[string]string{"json": `"break_glass":true`, "html": "Break-glass"}[form]; err != nil || !bytes.Contains(text, []byte(want)) {
				return fmt.Errorf("%v, no %s in %.300s", err, want, text)
			}
			return nil
		})
	}
	// What was asked for and what became of it is in the audit as soon as it is answered.
	denied := w.waits("alice").Pending.ID
	if a := w.ask(w.b, w.tokenOf("bob", rights.Revoke), "POST", "/v1/pending/"+denied+"/deny", "", map[string]any{"reason": "not today"}); a.status != http.StatusOK {
		t.Errorf("%.300s", a.body)
	}
	found := w.ask(w.a, w.tokenOf("eve", rights.AuditRead), "GET", "/v1/audit?limit=50", "", nil)
	for _, want := range []string{
		`"break_glass":true`, `"reason":"asks for a second person: a test"`, `"reason":"break-glass: a test"`,
		`"reason":"denied: not today","tenant":"default","bucket":"pending","key":"default.` + denied + `"`,
	} {
		if !bytes.Contains(found.body, []byte(want)) {
			t.Errorf("no %s in %.3000s", want, found.body)
		}
	}
}

// Whoever approves sees the incident, and the audit finds by it and by the request what was
// asked for and what was decided.
func TestWhatWaitsIsFoundByItsIncidentAndRequests(t *testing.T) {
	w := newTwo(t, app.SecondPerson{})
	incident := w.open(w.a).ID
	asked := w.cut("alice", "", []string{"tenant:default"}, "op", "hold", "incident", incident)
	if w.want(asked, http.StatusAccepted, ""); asked.Pending.Incident != incident {
		t.Errorf("it is under %q, want %q", asked.Pending.Incident, incident)
	}
	denied := w.ask(w.b, w.tokenOf("bob", rights.Revoke), "POST", "/v1/pending/"+asked.Pending.ID+"/deny", "", map[string]any{"reason": "no"})
	w.want(denied, http.StatusOK, "")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	byNATS, err := natsapi.Call[httpapi.PutOff](ctx, w.nats.Conn(t, "orders"), wire.APIRevocation+"revocations", w.tokenOf("alice", rights.Revoke),
		map[string]any{"op": "hold", "targets": []string{"tenant:default"}, "reason": "a test"})
	if err != nil {
		t.Fatal(err)
	}
	record := func(id string) string { return `"key":"default.` + id + `"` }
	for query, want := range map[string][]string{
		"request=" + asked.request:                    {record(asked.Pending.ID), "asks for"},
		"request=" + denied.request:                   {record(asked.Pending.ID), "denied: no"},
		"incident=" + incident:                        {record(asked.Pending.ID), "asks for", "denied: no"},
		"record=pending/default." + byNATS.Pending.ID: {`"request":"`},
	} {
		found := w.ask(w.a, w.tokenOf("eve", rights.AuditRead), "GET", "/v1/audit?"+query, "", nil)
		for _, text := range want {
			if !bytes.Contains(found.body, []byte(text)) {
				t.Errorf("%s: no %s in %.2000s", query, text, found.body)
			}
		}
	}
}
