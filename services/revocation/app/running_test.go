package app_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/services/revocation/httpapi"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/rights"
)

// receiptOf is a receipt as a replica tells it.
func (w *world) receiptOf(r *replica, id string) (out httpapi.Receipt, text string) {
	w.t.Helper()
	resp, text := w.fetch(r, w.token(rights.AuditRead), "/v1/receipts/"+id+"?wait=10s", "")
	if resp.StatusCode != http.StatusOK || json.Unmarshal([]byte(text), &out) != nil {
		w.t.Fatalf("%d %s", resp.StatusCode, text)
	}
	return out, text
}

// wantRunning waits until a receipt tells that of what runs, and is complete all the same.
func (w *world) wantRunning(r *replica, id, want string) {
	w.t.Helper()
	enginetest.Eventually(w.t, "what runs is "+want, func() error {
		doc, _ := w.receiptOf(r, id)
		var got []string
		for _, x := range doc.Running {
			got = append(got, fmt.Sprint(x.Name, " ", x.Instance, " ", x.Count))
		}
		if text := strings.Join(got, ", "); text != want {
			return fmt.Errorf("%s", text)
		}
		if !doc.Complete {
			return fmt.Errorf("not complete, for what runs: %+v", doc.Document)
		}
		return nil
	})
}

// TestAGuardsRunningRequestsStandInTheReceipt, from the request to the signed form.
func TestAGuardsRunningRequestsStandInTheReceipt(t *testing.T) {
	w := newWorld(t)
	one := w.start("one")
	w.publish()
	w.ready(one)
	link, err := natsfeed.New(w.nats.Conn(t, "orders"), "orders")
	if err != nil {
		t.Fatal(err)
	}
	g, err := guard.New([]guard.Issuer{{URL: issuer, Tenant: "default", Trust: []string{w.trust}}}, guard.WithFollow(follow.Config{Source: link, Feed: link}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	enginetest.Eventually(t, "the guard is ready", g.Ready)
	var ends []context.CancelFunc
	for range 2 {
		d := g.Decide(t.Context(), w.tokenOf("mallory", "orders:read"), guard.Requirement{})
		if !d.Allowed() {
			t.Fatalf("%+v", d)
		}
		_, end := g.Watch(t.Context(), d.Token)
		ends = append(ends, end)
	}
	defer ends[1]()
	cut := w.revoke(one, "principal:mallory")
	instance := g.Reader().(*follow.Reader).Instance()
	w.wantRunning(one, cut.ID, "orders "+instance+" 2")
	ends[0]()
	w.wantRunning(one, cut.ID, "orders "+instance+" 1")
	ends[1]()
	w.wantRunning(one, cut.ID, "orders "+instance+" 0")
	doc, _ := w.receiptOf(one, cut.ID)
	parts := strings.Split(doc.JWS, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || !strings.Contains(string(payload), `"running":[{"name":"orders","instance":"`+instance+`","count":0,"at":`) {
		t.Errorf("what is signed is %s, %v", payload, err)
	}
}

// TestReceiptsTellWhatStillRuns: as it was told last, by whichever replica, late, twice and
// out of order; kept over a restart; of what a guard can't know nothing; and a receipt is
// complete whatever still runs.
func TestReceiptsTellWhatStillRuns(t *testing.T) {
	w := newWorld(t)
	one, two := w.start("one"), w.start("two")
	w.publish()
	w.ready(one, two)
	cut := w.revoke(one, "principal:mallory")
	mallory, err := revoke.NewTarget("default", revoke.Own, revoke.KindPrincipal, "mallory")
	if err != nil {
		t.Fatal(err)
	}
	link, err := natsfeed.New(w.nats.Conn(t, "orders"), "orders")
	if err != nil {
		t.Fatal(err)
	}
	told := time.Now().UnixMilli()
	tell := func(instance string, key revoke.Key, after int64, count uint64) {
		t.Helper()
		err := link.Running(t.Context(), wire.RunningReport{Instance: instance, Running: []wire.Running{{
			At: revoke.Stamp{Epoch: cut.Epoch, Seq: cut.Sequence}, Target: key, Told: told + after, Count: count,
		}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(r *replica, want string) {
		t.Helper()
		w.wantRunning(r, cut.ID, want)
	}
	if _, text := w.receiptOf(two, cut.ID); strings.Contains(text, `"running"`) {
		t.Errorf("before anybody has told: %s", text)
	}
	for after, count := range map[int64]uint64{1: 5, 3: 4, 2: 9} {
		tell("a", mallory.Key(), after, count)
		tell("a", mallory.Key(), after, count)
	}
	tell("b", mallory.Key(), 1, 2)
	tell("b", revoke.Key{7}, 1, 9) // of no target of that entry
	want(one, "orders a 4, orders b 2")
	want(two, "orders a 4, orders b 2")
	resp, page := w.fetch(two, w.token(rights.AuditRead), "/v1/receipts/"+cut.ID+"?format=html", "")
	if resp.StatusCode != http.StatusOK || !strings.Contains(page, "Requests that go on") || !strings.Contains(page, "<td>orders</td><td>a</td><td>4</td>") {
		t.Errorf("%d, the page does not tell: %s", resp.StatusCode, page)
	}
	tell("a", mallory.Key(), 4, 0)
	want(two, "orders a 0, orders b 2")
	one.end()
	two.end()
	three := w.start("three")
	w.ready(three)
	tell("a", mallory.Key(), 2, 9) // late: of before
	tell("b", mallory.Key(), 5, 1)
	want(three, "orders a 0, orders b 1")
}
