package app_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
)

func segment(t testing.TB, token string, into any) {
	t.Helper()
	head, _, _ := strings.Cut(token, ".")
	data, err := base64.RawURLEncoding.DecodeString(head)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

type listed struct {
	Items []struct {
		KID, State, Alg string
		JWK             map[string]string
	}
}

func (w *world) keysIn(state string) (kids []string) {
	w.t.Helper()
	var l listed
	if status := w.call(w.rotator, "GET", "/v1/signing-keys", "", nil, &l); status != http.StatusOK {
		w.t.Fatalf("signing keys: status %d", status)
	}
	for _, k := range l.Items {
		if k.State == state {
			kids = append(kids, k.KID)
		}
	}
	return kids
}

func TestServicesStartInAnyOrderWithOneKeySigningAndOnePublished(t *testing.T) {
	w := start(t)
	if s, p := w.keysIn("signing"), w.keysIn("published"); len(s) != 1 || len(p) != 1 {
		t.Fatalf("signing %v, published %v: want one each", s, p)
	}
	g := w.guard("api")
	if d := g.Decide(t.Context(), w.mustToken(), guard.Requirement{}); !d.Allowed() {
		t.Errorf("a fresh token is refused: %s", d.Reason)
	}
}

// load exchanges and decides without a pause, at several guards, until it is
// stopped. It calls refused for every token that a guard does not take.
func (w *world) load(guards []*guard.Guard, refused func(kid string, d guard.Decision)) (stop func() int64) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	var n atomic.Int64
	for range 3 {
		tasks.Go(func() {
			for ctx.Err() == nil {
				token, err := w.token()
				if err != nil {
					w.t.Error(err)
					return
				}
				for _, g := range guards {
					if d := g.Decide(ctx, token, guard.Requirement{}); !d.Allowed() && ctx.Err() == nil {
						refused(kid(w.t, token), d)
					}
					n.Add(1)
				}
			}
		})
	}
	stop = func() int64 { cancel(); tasks.Wait(); return n.Load() }
	w.t.Cleanup(func() { stop() }) // before the services stop
	return stop
}

func TestRotationUnderLoadRefusesNoToken(t *testing.T) {
	w := start(t)
	guards := []*guard.Guard{w.guard("api"), w.guard("web"), w.guard("batch")}
	stop := w.load(guards, func(kid string, d guard.Decision) {
		t.Errorf("a token by %s is refused: %s: %s", kid, d.Check, d.Reason)
	})
	var old []string
	signs := w.keysIn("signing")[0]
	for i := range 5 {
		token := w.mustToken()
		r := w.rotate(fmt.Sprint("k", i), false)
		if r.Previous != signs || r.KID == "" || r.SignsAt.IsZero() {
			t.Fatalf("got %+v, want %s to be followed", r, signs)
		}
		if got := kid(t, w.mustToken()); got != r.KID {
			t.Errorf("after the answer a token is by %s, want %s", got, r.KID)
		}
		signs = r.KID
		old = append(old, token)
	}
	if n := stop(); n < 100 {
		t.Errorf("only %d decisions under load", n)
	}
	for i, token := range old {
		for _, g := range guards {
			if d := g.Decide(t.Context(), token, guard.Requirement{}); !d.Allowed() {
				t.Errorf("a token by the key %d rotations ago is refused: %s", len(old)-i, d.Reason)
			}
		}
	}
}

func TestEmergencyRefusesTheOldKeyAndNoTokenByTheNew(t *testing.T) {
	w := start(t)
	guards := []*guard.Guard{w.guard("api"), w.guard("web")}
	var dead sync.Map // kids that were revoked
	stop := w.load(guards, func(kid string, d guard.Decision) {
		if _, ok := dead.Load(kid); !ok {
			t.Errorf("a token by %s is refused: %s: %s", kid, d.Check, d.Reason)
		}
	})
	for i := range 4 {
		old := w.mustToken()
		dead.Store(kid(t, old), true)
		r := w.rotate(fmt.Sprint("e", i), true)
		if r.Previous != kid(t, old) || len(r.Lacking) > 0 {
			t.Fatalf("got %+v, want %s revoked and nobody lacking the new key", r, kid(t, old))
		}
		if got := kid(t, w.mustToken()); got != r.KID {
			t.Errorf("after the answer a token is by %s, want %s", got, r.KID)
		}
		for j, g := range guards {
			enginetest.Eventually(t, fmt.Sprintf("guard %d refuses the old key", j), func() error {
				if d := g.Decide(t.Context(), old, guard.Requirement{}); d.Allowed() {
					return errors.New("it is taken")
				}
				return nil
			})
		}
	}
	stop()
	if n := len(w.keysIn("revoked")); n != 4 {
		t.Errorf("revoked keys: got %d, want 4", n)
	}
}

func TestSameIdempotencyKeyIsTheSameRotation(t *testing.T) {
	w := start(t)
	a, b := w.rotate("same", true), w.rotate("same", true)
	if a.ID != b.ID || a.KID != b.KID {
		t.Errorf("got %+v and %+v", a, b)
	}
	body := map[string]any{"kind": "signing-key", "reason": "another"}
	if status := w.call(w.rotator, "POST", "/v1/rotations", "same", body, nil); status != http.StatusConflict {
		t.Errorf("another request under the key: status %d, want 409", status)
	}
	var got shown
	if status := w.call(w.rotator, "GET", "/v1/rotations/"+a.ID, "", nil, &got); status != http.StatusOK || got.KID != a.KID {
		t.Errorf("GET: status %d, %+v", status, got)
	}
	if status := w.call(w.rotator, "GET", "/v1/rotations/none", "", nil, nil); status != http.StatusNotFound {
		t.Errorf("GET of none: status %d, want 404", status)
	}
}

func TestBadRotationRequestsChangeNothing(t *testing.T) {
	w := start(t)
	before := w.keysIn("signing")
	for name, body := range map[string]map[string]any{
		"no reason":      {"kind": "signing-key"},
		"empty reason":   {"kind": "signing-key", "reason": ""},
		"unknown kind":   {"kind": "api-key", "reason": "x"},
		"unknown alg":    {"kind": "signing-key", "reason": "x", "alg": "RS256"},
		"unknown member": {"kind": "signing-key", "reason": "x", "force": true},
		"cased member":   {"kind": "signing-key", "Reason": "x"},
	} {
		t.Run(name, func(t *testing.T) {
			if status := w.call(w.rotator, "POST", "/v1/rotations", "", body, nil); status < 400 || status >= 500 {
				t.Errorf("got %d, want 4xx", status)
			}
		})
	}
	if after := w.keysIn("signing"); !slices.Equal(before, after) {
		t.Errorf("the key that signs was %v and is %v", before, after)
	}
}

func TestOutsiderRotatesOverNATS(t *testing.T) {
	w := start(t)
	nc := w.nats.Conn(t, "scheduler")
	req := map[string]any{"kind": "signing-key", "reason": "weekly", "alg": "EdDSA", "idempotency_key": "week-1", "wait": "20s"}
	r, err := natsapi.Call[shown](t.Context(), nc, "quash.api.rotation.rotations", w.mustToken(), req)
	if err != nil || r.State != "signing" {
		t.Fatalf("got %+v, %v", r, err)
	}
	var h struct{ Alg string }
	if segment(t, w.mustToken(), &h); h.Alg != "EdDSA" {
		t.Errorf("tokens are signed with %s, want EdDSA", h.Alg)
	}
	if _, err := natsapi.Call[shown](t.Context(), nc, "quash.api.rotation.rotations", "", req); problem.KindOf(err) != problem.Unauthorized {
		t.Errorf("without a token: got %v", err)
	}
}

func TestTwoRotatorsDoItOnceAndOneGoesOnAlone(t *testing.T) {
	w := start(t)
	second := w.startRotator("second")
	w.ready("second", second)
	for i := range 3 {
		w.rotate(fmt.Sprint("k", i), i%2 == 0)
	}
	if n := len(w.keysIn("signing")) + len(w.keysIn("published")) + len(w.keysIn("retiring")) + len(w.keysIn("revoked")); n != 5 {
		t.Errorf("keys: got %d, want 5: the first, its next, and one for each rotation", n)
	}
	w.stop["second"]()
	w.rotate("alone", false)
	w.stop["rotator"]()
	w.startRotator("rotator")
	w.ready("rotator", w.rotating)
	if s := w.keysIn("signing"); len(s) != 1 {
		t.Errorf("after a restart %v sign, want one", s)
	}
	w.rotate("restarted", false)
}

func TestFrozenGuardHoldsARotationUpOnlyToItsLimit(t *testing.T) {
	w := start(t)
	w.guard("api")
	frozen := w.nats.Creds(t, "frozen")
	_ = frozen
	// A guard that joins and then says nothing any more.
	nc := w.nats.Dial(t, "frozen")
	joinAndFreeze(t, nc)
	began := time.Now()
	r := w.rotate("k", false)
	// The key that signs now was published before the guard joined: it has it.
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("a guard that joined after the key was published held it up for %s", took)
	}
	body := map[string]any{"kind": "signing-key", "reason": "again"}
	var again shown
	if status := w.call(w.rotator, "POST", "/v1/rotations?wait=500ms", "k2", body, &again); status != http.StatusAccepted || again.State != "waiting" {
		t.Fatalf("a guard lacks the next key: status %d, %+v", status, again)
	}
	enginetest.Eventually(t, "the guard is past its limit", func() error {
		w.call(w.rotator, "GET", "/v1/rotations/"+again.ID, "", nil, &again)
		if again.State != "signing" {
			return fmt.Errorf("%+v", again)
		}
		return nil
	})
	if again.Previous != r.KID {
		t.Errorf("got %+v, want %s to be followed", again, r.KID)
	}
}
