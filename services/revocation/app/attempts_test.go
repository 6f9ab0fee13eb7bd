package app_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quash-project/quash/services/revocation/httpapi"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/rights"
)

// attempts are those that a replica tells of a receipt.
func (w *world) attempts(r *replica, id string) (items []httpapi.Attempt, status int) {
	w.t.Helper()
	resp, text := w.fetch(r, w.token(rights.AuditRead), "/v1/receipts/"+id+"/attempts", "")
	var l struct{ Items []httpapi.Attempt }
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			w.t.Fatal(err)
		}
	}
	return l.Items, resp.StatusCode
}

// watch counts the attempts that a replica's feed tells of, until the test ends.
func (w *world) watch(r *replica) (seen *atomic.Int64, last *atomic.Value) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/v1/feed", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.token(rights.AuditRead))
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		w.t.Fatalf("feed: %v", err)
	}
	seen, last = new(atomic.Int64), new(atomic.Value)
	done := make(chan struct{})
	begun := make(chan struct{})
	go func() {
		defer close(done)
		defer resp.Body.Close()
		for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
			if strings.HasPrefix(sc.Text(), ": watching") {
				close(begun)
			}
			var h httpapi.Happening
			data, ok := strings.CutPrefix(sc.Text(), "data: ")
			if ok && json.Unmarshal([]byte(data), &h) == nil && h.Kind == "attempt" {
				last.Store(h)
				seen.Add(1)
			}
		}
	}()
	<-begun
	w.t.Cleanup(func() { cancel(); <-done })
	return seen, last
}

// TestAttemptsAreToldByEveryReplica: reported late, twice and out of order; the first is an
// event, once with each replica; kept over a restart, to which a new process of the guard
// adds; of what a guard can't know nothing is kept.
func TestAttemptsAreToldByEveryReplica(t *testing.T) {
	w := newWorld(t)
	one, two := w.start("one"), w.start("two")
	w.publish()
	w.ready(one, two)
	seenOne, last := w.watch(one)
	seenTwo, _ := w.watch(two)
	cut := w.revoke(one, "principal:mallory")
	mallory, err := revoke.NewTarget("default", revoke.Own, revoke.KindPrincipal, "mallory")
	if err != nil {
		t.Fatal(err)
	}
	link, err := natsfeed.New(w.nats.Conn(t, "orders"), "orders")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UnixMilli()
	tell := func(instance string, key revoke.Key, began int64, count, from uint64) {
		t.Helper()
		err := link.Attempts(t.Context(), wire.AttemptsReport{Instance: instance, Attempts: []wire.Attempts{{
			At: revoke.Stamp{Epoch: cut.Epoch, Seq: cut.Sequence}, Target: key, Began: began, First: began, Last: began, Count: count,
			From: []wire.AttemptsFrom{{Network: "192.0.2.7", First: began, Last: began, Count: from}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if items, status := w.attempts(two, cut.ID); status != http.StatusOK || len(items) != 0 {
		t.Errorf("before the first: %d, %+v", status, items)
	}
	for _, count := range []uint64{3, 1, 5, 5, 2, 4} {
		tell("a", mallory.Key(), now, count, count-count/5)
	}
	tell("a", revoke.Key{7}, now, 9, 9) // of no target of that entry
	want := func(r *replica, want string) {
		t.Helper()
		enginetest.Eventually(t, "the attempts are "+want, func() error {
			items, _ := w.attempts(r, cut.ID)
			var got []string
			for _, x := range items {
				if x.Server != "orders" || x.Target != "principal:mallory" {
					t.Fatalf("%+v", x)
				}
				got = append(got, fmt.Sprint(x.Instance, " ", x.Network, " ", x.Count))
			}
			if text := strings.Join(got, ", "); text != want {
				return fmt.Errorf("%s", text)
			}
			return nil
		})
	}
	for _, r := range []*replica{one, two} {
		want(r, "a 192.0.2.7 4, a others 1")
	}
	enginetest.Eventually(t, "both feeds tell", func() error {
		if seenOne.Load() == 0 || seenTwo.Load() == 0 {
			return fmt.Errorf("%d and %d", seenOne.Load(), seenTwo.Load())
		}
		return nil
	})
	if h := last.Load().(httpapi.Happening); h.Receipt != cut.ID || h.Sequence != cut.Sequence || h.Name != "orders" || h.Network != "192.0.2.7" || fmt.Sprint(h.Targets) != "[principal:mallory]" {
		t.Errorf("the event is %+v", h)
	}
	if _, status := w.attempts(one, strings.Repeat("A", 43)); status != http.StatusNotFound {
		t.Errorf("of no receipt: %d", status)
	}

	tell("b", mallory.Key(), now+1, 2, 2)
	want(two, "a 192.0.2.7 4, a others 1, b 192.0.2.7 2")
	if seenOne.Load() != 1 || seenTwo.Load() != 1 {
		t.Errorf("the feeds tell of %d and %d first attempts", seenOne.Load(), seenTwo.Load())
	}
	one.end()
	two.end()
	three := w.start("three")
	w.ready(three)
	want(three, "a 192.0.2.7 4, a others 1, b 192.0.2.7 2")
	tell("a", mallory.Key(), now, 5, 4) // once more, of before
	tell("a", mallory.Key(), now+2, 1, 1)
	want(three, "a 192.0.2.7 4, a others 1, b 192.0.2.7 2, a 192.0.2.7 1")
}
