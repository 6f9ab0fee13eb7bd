package app_test

import (
	"crypto/rand"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/services/revocation/app"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/identity"
)

func someKeys(n int) (out []string) {
	for range n {
		out = append(out, "key:"+rand.Text())
	}
	return out
}

// What is refused makes no room for more, and takes none away.
func TestARefusedCutIsNotAddedUp(t *testing.T) {
	w := newTwo(t, app.SecondPerson{Hits: 5})
	const noIncident = "inc_20260131120000_k3v7xq2m"
	for i := range 3 {
		key := rand.Text()
		w.want(w.cut("alice", key, someKeys(1), "incident", noIncident), http.StatusUnprocessableEntity, "there is no incident")
		want := http.StatusCreated
		if i > 0 {
			want = http.StatusAccepted
		}
		w.want(w.cut("alice", key, someKeys(5)), want, "")
	}
	// A key that was used for a narrow cut primes no wider one, of other targets.
	key := rand.Text()
	w.want(w.cut("dave", key, someKeys(1)), http.StatusCreated, "")
	w.want(w.cut("dave", key, someKeys(4)), http.StatusConflict, "another request")
	w.want(w.cut("dave", "", someKeys(1)), http.StatusAccepted, "")

	for range 3 {
		w.want(w.cut("bob", "", someKeys(5), "plan", rand.Text()[:22]), http.StatusConflict, "no such plan")
		w.want(w.cut("bob", "", someKeys(5), "incident", noIncident), http.StatusUnprocessableEntity, "there is no incident")
	}
	w.want(w.cut("bob", "", someKeys(5)), http.StatusCreated, "")
}

// What is in the log already needs nobody.
func TestARepetitionNeedsNoIssuerAndNoBucket(t *testing.T) {
	w := newTwo(t, app.SecondPerson{})
	first := w.cut("alice", "once", []string{"principal:carol"})
	w.want(first, http.StatusCreated, "")
	same := func() {
		t.Helper()
		again := w.cut("alice", "once", []string{"principal:carol"})
		if w.want(again, http.StatusOK, ""); again.ID != first.ID {
			t.Errorf("%.300s", again.body)
		}
		w.want(w.cut("alice", "once", []string{"principal:dave"}), http.StatusConflict, "another request")
	}
	w.people.set(func() { w.people.away = true })
	same()
	w.want(w.cut("alice", "twice", []string{"principal:carol"}), http.StatusServiceUnavailable, "what it would hit")
	w.remove(identity.Pending)
	same()
}

// remove takes a bucket away.
func (w *two) remove(bucket string) {
	w.t.Helper()
	js, err := jetstream.New(w.nats.Admin(w.t, identity.Log))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := js.DeleteStream(w.t.Context(), "KV_"+bucket); err != nil {
		w.t.Fatal(err)
	}
}

// What is under attack goes first, whichever bucket is away; what is wide does not go.
func TestANarrowCutWaitsForNoBucket(t *testing.T) {
	w := newTwo(t, app.SecondPerson{Hits: 15})
	w.want(w.cut("carol", "", someKeys(12)), http.StatusCreated, "")
	wide := func(why string) {
		t.Helper()
		w.want(w.cut("alice", rand.Text(), []string{"signing-key:x"}), http.StatusServiceUnavailable, "")
		w.want(w.cut("alice", rand.Text(), someKeys(11)), http.StatusServiceUnavailable, why)
		w.want(w.cut("alice", rand.Text(), []string{"principal:dave"}), http.StatusServiceUnavailable, why)
		w.want(w.cut("alice", rand.Text(), someKeys(1), "whole", map[string]any{"id": "w", "targets": 2}), http.StatusServiceUnavailable, why)
	}
	w.remove(identity.Pending)
	key, leaked := rand.Text(), someKeys(1)
	w.want(w.cut("alice", key, leaked), http.StatusCreated, "")
	w.want(w.cut("alice", key, leaked), http.StatusOK, "")
	wide("what has become of it")
	w.remove(identity.Requests)
	w.want(w.cut("alice", rand.Text(), someKeys(10)), http.StatusCreated, "")
	w.want(w.cut("alice", "", someKeys(1), "op", "hold"), http.StatusCreated, "")
	if n := w.counter("quash_second_person_total", "unasked"); n != 4 {
		t.Errorf("%v cuts are counted, want 4", n)
	}
	wide("what has become of it")
	w.want(w.cut("alice", "", someKeys(11)), http.StatusServiceUnavailable, "")
	// Many narrow ones are wide all the same, by what this replica knows.
	w.want(w.cut("carol", "", someKeys(3)), http.StatusCreated, "")
	w.want(w.cut("carol", "", someKeys(1)), http.StatusServiceUnavailable, "")
	w.want(w.cut("carol", "", someKeys(1), "break_glass", true), http.StatusCreated, "")
}

// With every cut to be seen by two, there is none that goes first.
func TestNothingGoesFirstWhereEverythingWaits(t *testing.T) {
	w := newTwo(t, app.SecondPerson{Mode: revocation.SecondAlways})
	w.want(w.cut("alice", "", someKeys(1)), http.StatusAccepted, "")
	w.remove(identity.Pending)
	w.want(w.cut("alice", rand.Text(), someKeys(1)), http.StatusServiceUnavailable, "")
	w.want(w.cut("alice", "", someKeys(1)), http.StatusServiceUnavailable, "")
}

// An entry ends with what it could hit: it is not made again.
func TestWhatWasApprovedIsCommittedOnce(t *testing.T) {
	w := newTwo(t, app.SecondPerson{})
	other := w.cut("alice", "", someKeys(1))
	w.want(other, http.StatusCreated, "")
	key, target := rand.Text(), []string{"issuer:okta"}
	asked := w.cut("alice", key, target, "issuer", "okta", "op", "hold", "for", "2h")
	w.want(asked, http.StatusAccepted, "")
	id := asked.Pending.ID
	w.change(id, func(p *revocation.Pending) { // as if its entry had left the log
		p.State, p.DecidedBy, p.DecidedAt = revocation.PendingApproved, "bob", time.Now().UnixMilli()
		p.Committed = &commit.Answer{ID: id, Epoch: other.Epoch, Sequence: other.Sequence, CommittedAt: time.Now().UnixMilli()}
	})
	for _, a := range []answer{w.cut("alice", key, target, "issuer", "okta", "op", "hold", "for", "2h"), w.approve(w.b, "bob", id)} {
		if w.want(a, http.StatusOK, ""); a.ID != id || a.Sequence != other.Sequence || a.ApprovedBy != "bob" || a.Op != "hold" {
			t.Errorf("%.400s", a.body)
		}
	}
	if n := w.inLog(id); n != 0 {
		t.Errorf("%d entries were made anew", n)
	}
}
