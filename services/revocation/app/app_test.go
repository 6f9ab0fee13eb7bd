package app_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/httpapi"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// TestTwoReplicasAreOneService: the same request at both at once is one entry,
// and each knows who has joined and confirmed through the other.
func TestTwoReplicasAreOneService(t *testing.T) {
	w := newWorld(t)
	a, b := w.start("a"), w.start("b")
	w.publish()
	w.ready(a, b)
	token := w.token(rights.Revoke)
	var ids []string
	for i := range 20 {
		var entries [2]httpapi.Entry
		var statuses [2]int
		var errs [2]error
		var both sync.WaitGroup
		for j, r := range []*replica{a, b} {
			both.Go(func() {
				entries[j], statuses[j], errs[j] = w.try(r, token, fmt.Sprint("same ", i), fmt.Sprint("principal:p", i))
			})
		}
		both.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		if entries[0].ID != entries[1].ID || entries[0].Sequence != entries[1].Sequence || statuses[0]+statuses[1] != http.StatusCreated+http.StatusOK {
			t.Fatalf("the same request at both: statuses %v, %+v and %+v; want one entry, made once", statuses, entries[0], entries[1])
		}
		ids = append(ids, entries[0].ID)
	}
	for _, r := range []*replica{a, b} {
		enginetest.Eventually(t, "both guards have confirmed", func() error {
			e, err := w.find(r, ids[len(ids)-1])
			if err == nil && (len(e.Confirmed) != 2 || !e.Complete) {
				err = fmt.Errorf("%+v", e)
			}
			return err
		})
	}
	a.end()
	e := w.revoke(b, "principal:after")
	enginetest.Eventually(t, "the guard that has said that it is out is not waited for", func() error {
		e, err := w.find(b, e.ID)
		if err == nil && (len(e.Confirmed) != 1 || len(e.Unconfirmed) != 0 || !e.Complete) {
			err = fmt.Errorf("%+v", e)
		}
		return err
	})
}

// counted is a replica whose requests are counted as they come in.
type counted struct {
	*replica
	entered atomic.Int64
}

func (c *counted) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c.entered.Add(1)
		next.ServeHTTP(rw, r)
	})
}

// TestTheEndLosesNothingAccepted: at SIGTERM every request that came in is
// answered, over HTTP and over NATS, and what was answered is in the log.
func TestTheEndLosesNothingAccepted(t *testing.T) {
	w := newWorld(t)
	c := &counted{}
	c.replica = w.startWith("r", c.handler)
	w.publish()
	w.ready(c.replica)
	token := w.token(rights.Revoke)
	nc := w.nats.Conn(t, "orders")
	var answered, committed atomic.Int64
	var mu sync.Mutex
	var done []string
	note := func(id string) {
		mu.Lock()
		done = append(done, id)
		mu.Unlock()
		if committed.Add(1) == 100 {
			go c.end()
		}
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() { // until nobody listens any more
			for n := 0; ; n++ {
				e, status, err := w.try(c.replica, token, fmt.Sprintf("http %d %d", i, n), fmt.Sprintf("token:h%d-%d", i, n))
				if err != nil {
					return
				}
				answered.Add(1)
				if status == http.StatusCreated {
					note(e.ID)
				}
			}
		})
		all.Go(func() {
			for n := 0; ; n++ {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				e, err := natsapi.Call[httpapi.Entry](ctx, nc, wire.APIRevocation+"revocations", token, map[string]any{
					"op": "revoke", "targets": []string{fmt.Sprintf("token:n%d-%d", i, n)}, "reason": "a test", "idempotency_key": fmt.Sprintf("nats %d %d", i, n),
				})
				cancel()
				switch {
				case err == nil:
					note(e.ID)
				case problem.KindOf(err) == problem.Unavailable:
					return
				default:
					t.Errorf("a request over NATS at the end: %v, want an answer, or that nobody is there", err)
					return
				}
			}
		})
	}
	all.Wait()
	c.end()
	if got, want := answered.Load(), c.entered.Load(); got != want {
		t.Errorf("%d requests came in over HTTP, and %d were answered", want, got)
	}
	again := w.start("again")
	w.ready(again)
	for _, id := range done {
		if _, err := w.find(again, id); err != nil {
			t.Errorf("%s was answered and is not in the log: %v", id, err)
		}
	}
}

// deleteLog makes away with the log's stream, as no service may.
func (w *world) deleteLog() {
	w.t.Helper()
	js, err := jetstream.New(w.nats.Admin(w.t, identity.Log))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := js.DeleteStream(w.t.Context(), wire.Stream); err != nil {
		w.t.Fatal(err)
	}
}

// wantRefused wants the API of r to refuse a token of the subject because of
// what was revoked, and one of somebody else not.
func (w *world) wantRefused(r *replica, subject string) {
	w.t.Helper()
	for _, c := range []struct {
		subject string
		want    int
	}{{subject, http.StatusUnauthorized}, {"somebody", http.StatusCreated}} {
		_, status, err := w.try(r, w.tokenOf(c.subject, rights.Revoke), "of "+c.subject+" at "+r.url, "principal:nobody")
		if err != nil || status != c.want {
			w.t.Errorf("a token of %s: status %d, %v; want %d", c.subject, status, err, c.want)
		}
	}
}

// TestLogThatVanishedWhileNobodyRanComesBackFromRedis: what Redis shows that the
// log lacks is committed again before anything is accepted.
func TestLogThatVanishedWhileNobodyRanComesBackFromRedis(t *testing.T) {
	w := newWorld(t)
	w.redis = enginetest.Redis(t)
	first := w.start("first")
	w.publish()
	w.ready(first)
	e := w.revoke(first, "principal:eve")
	enginetest.Eventually(t, "Redis has it", func() error {
		e, err := w.find(first, e.ID)
		if err == nil && !e.Complete {
			err = fmt.Errorf("%+v", e)
		}
		return err
	})
	first.end()
	w.deleteLog()
	second := w.start("second")
	w.publish()
	w.ready(second)
	w.wantRefused(second, "eve")
	if got := w.revoke(second, "principal:mallory"); got.Epoch <= e.Epoch {
		t.Errorf("the new log is in epoch %d, want one after %d", got.Epoch, e.Epoch)
	}
}

// TestLogThatVanishesUnderTheServiceComesBackFromMemory, and a service that
// starts later reads it from there.
func TestLogThatVanishesUnderTheServiceComesBackFromMemory(t *testing.T) {
	w := newWorld(t)
	first := w.start("first")
	w.publish()
	w.ready(first)
	before := w.revoke(first, "principal:eve")
	w.deleteLog()
	w.publish() // as the rotator does when it finds its keys gone
	enginetest.Eventually(t, "a new epoch stands", func() error {
		if err := first.Ready(); err != nil {
			return err
		}
		e, status, err := w.try(first, w.token(rights.Revoke), "k", "principal:mallory")
		if err == nil && (status/100 != 2 || e.Epoch <= before.Epoch) {
			err = fmt.Errorf("status %d, epoch %d", status, e.Epoch)
		}
		return err
	})
	w.wantRefused(first, "eve")
	first.end()
	second := w.start("second")
	w.ready(second)
	w.wantRefused(second, "eve")
}
