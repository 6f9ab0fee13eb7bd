package app_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/httpapi"
	"github.com/quash-project/quash/services/revocation/incidents"
	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// post sends a responder's request, and decodes a success into v and the problem of a failure.
func (w *world) post(r *replica, path string, body map[string]any, want int, v any, header ...string) (p problem.Document) {
	w.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, r.url+path, bytes.NewReader(data))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+w.token(rights.Revoke))
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		w.t.Fatalf("%s %v: %d, %v: %s; want %d", path, body, resp.StatusCode, err, text, want)
	}
	if resp.StatusCode/100 == 2 {
		err = json.Unmarshal(text, v)
	} else {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		w.t.Fatalf("%s: %v: %s", path, err, text)
	}
	return p
}

func (w *world) open(r *replica) (x httpapi.Incident) {
	w.t.Helper()
	enginetest.Eventually(w.t, "notebooks can be kept", func() error {
		resp, text := w.fetch(r, w.token(rights.AuditRead), "/v1/incidents", "")
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%d: %s", resp.StatusCode, text)
		}
		return nil
	})
	w.post(r, "/v1/incidents", map[string]any{"title": "a test", "severity": "high"}, http.StatusCreated, &x)
	return x
}

// under asks for something under an incident.
func (w *world) under(r *replica, op, target, incident string, want int) (e httpapi.Entry, p problem.Document) {
	w.t.Helper()
	p = w.post(r, "/v1/revocations", map[string]any{"op": op, "targets": []string{target}, "reason": "a test", "incident": incident}, want, &e)
	return e, p
}

func (w *world) report(r *replica, id string) (x incidents.Report) {
	w.t.Helper()
	resp, text := w.fetch(r, w.token(rights.AuditRead), "/v1/incidents/"+id+"/report", "")
	if resp.StatusCode != http.StatusOK {
		w.t.Fatalf("report: %d %s", resp.StatusCode, text)
	}
	if err := json.Unmarshal([]byte(text), &x); err != nil {
		w.t.Fatal(err)
	}
	return x
}

func cutsOf(r incidents.Report) (ids []string) {
	for _, c := range r.Cuts {
		ids = append(ids, c.ID)
	}
	return ids
}

// TestNothingIsLostBetweenACommitAndItsReport: an entry names its incident by itself. Who
// committed it crashes before it has written anything else, and the report of another replica
// has it; and a report has all that was committed before it, by whichever replica.
func TestNothingIsLostBetweenACommitAndItsReport(t *testing.T) {
	w := newWorld(t)
	first := w.start("one")
	w.publish()
	w.ready(first)
	x := w.open(first)
	cut, _ := w.under(first, "revoke", "principal:alice", x.ID, http.StatusCreated)
	hold, _ := w.under(first, "hold", "principal:bob", x.ID, http.StatusCreated)
	other, _ := w.under(first, "hold", "principal:carol", "", http.StatusCreated)
	if cut.Incident != x.ID || cut.NotGathered != "" || other.Incident != "" {
		t.Errorf("%+v, %+v", cut, other)
	}
	first.end() // half a second at least before it looks at an entry first
	_, bucket := w.bucket()
	if _, err := bucket.Get(t.Context(), "r."+cut.ID); err == nil {
		t.Log("the first replica was so slow that it has written the receipt")
	}
	second := w.start("two")
	w.ready(second)
	enginetest.Eventually(t, "the report has what was cut before the crash", func() error {
		if r := w.report(second, x.ID); !slices.Equal(cutsOf(r), []string{cut.ID, hold.ID}) {
			return fmt.Errorf("%q, whole: %t", cutsOf(r), r.Whole)
		}
		return nil
	})
	third := w.start("three")
	w.ready(third)
	want := []string{cut.ID, hold.ID}
	for i := range 5 {
		by, from := second, third
		if i%2 == 1 {
			by, from = third, second
		}
		e, _ := w.under(by, "revoke", fmt.Sprintf("token:t%d", i), x.ID, http.StatusCreated)
		want = append(want, e.ID)
		enginetest.Eventually(t, "the report is whole", func() error {
			r := w.report(from, x.ID)
			if !r.Whole {
				return fmt.Errorf("%d cuts", len(r.Cuts))
			}
			if !slices.Equal(cutsOf(r), want) {
				t.Errorf("it says that it is whole, and has %q; want %q", cutsOf(r), want)
			}
			return nil
		})
	}
	r := w.report(second, x.ID)
	if len(r.Holds) != 1 || r.Holds[0].Target != "principal:bob" {
		t.Errorf("running holds: %+v", r.Holds)
	}
	for _, c := range r.Cuts {
		s, _, err := receipts.Verify(c.JWS, w.keySet(second))
		if err != nil || s.ID != c.ID || s.Incident != x.ID {
			t.Errorf("%+v, %v", s, err)
		}
	}
	w.under(third, "release", "principal:bob", "", http.StatusCreated)
	enginetest.Eventually(t, "the hold is not running any more", func() error {
		if r := w.report(third, x.ID); len(r.Holds) != 0 {
			return fmt.Errorf("%+v", r.Holds)
		}
		return nil
	})
}

// TestACutNeedsNoNotebook: what names an incident that is not there, or closed, is refused
// before anything is cut; where the notebooks can't be read it is cut, and the answer says so.
func TestACutNeedsNoNotebook(t *testing.T) {
	w := newWorld(t)
	r := w.start("one")
	w.publish()
	w.ready(r)
	x := w.open(r)
	send := func(key, incident string, want int) (e httpapi.Entry, p problem.Document) {
		t.Helper()
		p = w.post(r, "/v1/revocations", map[string]any{"op": "revoke", "targets": []string{"token:" + key}, "reason": "a test", "incident": incident}, want, &e, "Idempotency-Key", key)
		return e, p
	}
	var preview httpapi.Preview
	w.post(r, "/v1/previews", map[string]any{"op": "revoke", "targets": []string{"token:once"}, "incident": "inc_20260131120000_aaaaaaaa"}, http.StatusUnprocessableEntity, &preview)
	for _, id := range []string{"inc_20260131120000_aaaaaaaa", "inc_1", "*", "default." + x.ID} {
		if _, p := send("refused", id, http.StatusUnprocessableEntity); p.Field != "incident" {
			t.Errorf("%s: %+v", id, p)
		}
	}
	once, _ := send("once", x.ID, http.StatusCreated)
	var closed httpapi.Incident
	w.post(r, "/v1/incidents/"+x.ID+"/close", map[string]any{"reason": "over"}, http.StatusOK, &closed)
	if _, p := send("refused", x.ID, http.StatusConflict); p.Field != "incident" || !strings.Contains(p.Detail, "was closed at") {
		t.Errorf("closed: %+v", p)
	}
	// What was committed before is answered as then, whatever has become of its incident.
	if e, _ := send("once", x.ID, http.StatusOK); e.ID != once.ID || e.Incident != x.ID {
		t.Errorf("again: %+v", e)
	}
	if e, _ := send("once", "", http.StatusOK); e.ID != once.ID || e.Incident != x.ID || !strings.Contains(e.NotGathered, x.ID) {
		t.Errorf("again under none: %+v", e)
	}
	// The key of what was refused is free: nothing was committed under it.
	free, _ := send("refused", "", http.StatusCreated)
	if free.Incident != "" {
		t.Errorf("%+v", free)
	}
	y := w.open(r)
	js, err := jetstream.New(w.nats.Admin(t, identity.Log))
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), "KV_"+identity.Incidents); err != nil {
		t.Fatal(err)
	}
	e, _ := send("emergency", y.ID, http.StatusCreated)
	if e.Incident != y.ID || !strings.Contains(e.NotGathered, "could not be asked") {
		t.Errorf("without the store: %+v", e)
	}
	if got, err := w.find(r, e.ID); err != nil || got.Incident != y.ID || !got.Complete {
		t.Errorf("without the store: %+v, %v", got, err)
	}
	w.post(r, "/v1/incidents", map[string]any{"title": "t"}, http.StatusServiceUnavailable, nil)
}
