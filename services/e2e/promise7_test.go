package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/signing"
)

// Promise 7: no token before its key. A signing key is known to every reader
// before it signs, and is published until its last token has expired. What takes
// days of it (a key's whole life) is tried in services/rotator, where the clock
// can be moved: here the broker's is real, and nobody works with another.

// rotated is the answer to a rotation.
type rotated struct {
	ID, KID, Previous, State string
	Lacking                  []string
}

// users fetch tokens and use each at once at every guard.
type users struct {
	q    *quash
	wg   sync.WaitGroup
	stop atomic.Bool
	used atomic.Int64
	dead sync.Map // kids of keys that were revoked
}

// users lets three work, each pausing so long after a token, until they are ended.
func (q *quash) users(secret string, second *resource, pause time.Duration) *users {
	u := &users{q: q}
	for range 3 {
		u.wg.Go(func() {
			for !u.stop.Load() && !q.t.Failed() {
				tok, status := q.tryExchange(secret)
				if status != http.StatusOK {
					q.t.Errorf("exchange: %d", status)
					return
				}
				u.accepted(tok, second)
				u.used.Add(1)
				time.Sleep(pause)
			}
		})
	}
	return u
}

// accepted wants a token accepted by both guards, unless its key is revoked.
func (u *users) accepted(tok string, second *resource) {
	key := kid(u.q.t, tok)
	here, there := second.decide(tok), u.q.orders(tok)
	if _, dead := u.dead.Load(key); dead {
		return
	}
	if here.Status != http.StatusOK {
		u.q.t.Errorf("a valid token by %s is refused by the second guard: %d: %s: %s", key, here.Status, here.Check, here.Reason)
	}
	if there != http.StatusOK {
		u.q.t.Errorf("a valid token by %s is refused by the demo: %d", key, there)
	}
}

func (u *users) end() {
	u.stop.Store(true)
	u.wg.Wait()
}

// While tokens are fetched and used without a pause, keys are rotated, and not
// one valid token is refused anywhere; in an emergency those of the stolen key
// are, and no other.
func TestPromise7RotationUnderLoadRefusesNoValidToken(t *testing.T) {
	q := start(t, t.TempDir())
	made, err := guard.New([]guard.Issuer{{URL: q.env["QUASH_URL"], Trust: []string{q.env["QUASH_TRUST"]}}},
		guard.WithNATS(q.env["QUASH_NATS_URL"], q.env["QUASH_NATS_CREDS"]))
	second := startGuard(t, made, err)
	second.ready()
	key := q.newKey("erin", "--scope", "orders:read")
	u := q.users(key.Secret, second, 0)
	defer u.end()
	some := func() {
		t.Helper()
		want := u.used.Load() + 20
		eventually(t, "tokens are used", func() error {
			if n := u.used.Load(); n < want && !t.Failed() {
				return fmt.Errorf("%d of %d", n, want)
			}
			return nil
		})
	}
	var old []string
	for i := range 3 {
		some()
		old = append(old, q.exchange(key.Secret))
		var r rotated
		q.json(&r, "rotate", "signing-key", "--reason", fmt.Sprint("routine ", i), "--wait", "60s")
		if r.Previous != kid(t, old[i]) {
			t.Errorf("rotation %d: %+v follows %s", i, r, kid(t, old[i]))
		}
		if got := kid(t, q.exchange(key.Secret)); got != r.KID {
			t.Errorf("after the answer a token is by %s, want %s", got, r.KID)
		}
	}
	some()
	for _, tok := range old {
		u.accepted(tok, second)
	}
	for i := range 2 {
		stolen := q.exchange(key.Secret)
		u.dead.Store(kid(t, stolen), true)
		q.ok("rotate", "signing-key", "--reason", fmt.Sprint("stolen ", i), "--emergency", "--wait", "60s")
		if got := kid(t, q.exchange(key.Secret)); got == kid(t, stolen) {
			t.Errorf("after the emergency a token is by the stolen key")
		}
		second.until(stolen, http.StatusUnauthorized)
		eventually(t, "the demo refuses what the stolen key signed", func() error {
			if status := q.orders(stolen); status != http.StatusUnauthorized {
				return &statusError{status}
			}
			return nil
		})
		some()
	}
	for _, tok := range old { // their keys retired, and were not stolen
		u.accepted(tok, second)
	}
}

// rotate asks for a rotation, and waits for it so long.
func (s *services) rotate(admin, wait string, emergency bool) (rotated, int) {
	s.t.Helper()
	body := map[string]any{"kind": "signing-key", "reason": "test"}
	if emergency {
		body["emergency"] = true
	}
	r := s.api(admin, http.MethodPost, "/v1/rotations?wait="+wait, body)
	var out rotated
	s.decode(r, r.status, &out)
	return out, r.status
}

func (s *services) rotation(admin, id string) (r rotated) {
	s.t.Helper()
	s.decode(s.api(admin, http.MethodGet, "/v1/rotations/"+id, nil), http.StatusOK, &r)
	return r
}

// confirmedBy waits until a guard has confirmed something that is committed now,
// and so all that was committed before.
func (s *services) confirmedBy(admin, name string) {
	s.t.Helper()
	r := s.commit(admin, "revoke", "token:something")
	eventually(s.t, name+" confirms", func() error {
		var now receipt
		s.decode(s.api(admin, http.MethodGet, "/v1/revocations/"+r.ID, nil), http.StatusOK, &now)
		for _, c := range now.Confirmed {
			if c.Name == name {
				return nil
			}
		}
		return fmt.Errorf("confirmed by %+v", now.Confirmed)
	})
}

// A guard that stands still since before a key was published holds its promotion
// up until it has the key, or is past its limit and accepts nothing. One that
// goes on past its limit holds nothing up.
func TestPromise7AFrozenGuardHoldsAKeyUp(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	admin := s.token(s.operator)
	slow, p1 := s.farGuard("slow", guard.WithLimit(wire.MaxLimit))
	brief, p2 := s.farGuard("brief", guard.WithLimit(2*time.Second))
	open, p3 := s.farGuard("open", guard.WithLimit(2*time.Second), guard.WithPast(wire.PastAllow))
	for _, g := range []*resource{slow, brief, open} {
		g.ready()
	}
	user, first := s.issue(admin, "alice")
	for _, g := range []*resource{slow, brief, open} {
		g.until(first, http.StatusOK)
	}
	waits := func(id, name string) {
		t.Helper()
		eventually(t, "the rotation names who lacks its key", func() error {
			r := s.rotation(admin, id)
			if r.State != "waiting" {
				t.Fatalf("%s lacks the next key, and it signs: %+v", name, r)
			}
			if !slices.ContainsFunc(r.Lacking, func(who string) bool { return strings.HasPrefix(who, name+"/") }) {
				return fmt.Errorf("%v", r.Lacking)
			}
			return nil
		})
	}
	signs := func(id string) (r rotated) {
		t.Helper()
		eventually(t, "the next key signs", func() error {
			if r = s.rotation(admin, id); r.State != "signing" {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		if got := kid(t, s.token(user.Secret)); got != r.KID {
			t.Errorf("a token is by %s, want %s", got, r.KID)
		}
		return r
	}

	// The key that is promoted first was published before: they have it. The one
	// after it is published now.
	p1.Freeze()
	if r, status := s.rotate(admin, "30s", false); status != http.StatusOK || r.State != "signing" {
		t.Fatalf("everyone has the key: %d, %+v", status, r)
	}
	r, status := s.rotate(admin, "0s", false)
	if status != http.StatusAccepted {
		t.Fatalf("%d, %+v", status, r)
	}
	waits(r.ID, "slow")
	for range 20 { // while it waits, every token is one that the frozen guard could take
		if tok := s.token(user.Secret); kid(t, tok) == r.KID {
			t.Fatal("a token by a key that a guard lacks")
		}
	}
	p1.Thaw()
	signs(r.ID)
	slow.until(s.token(user.Secret), http.StatusOK)

	// Past its limit it accepts nothing, and is not waited for any more.
	p2.Freeze()
	r, _ = s.rotate(admin, "30s", false)
	if r.State != "signing" {
		t.Fatalf("everyone has the key: %+v", r)
	}
	r, _ = s.rotate(admin, "0s", false)
	signs(r.ID)
	if d := brief.decide(s.token(user.Secret)); d.Status != http.StatusServiceUnavailable {
		t.Errorf("a guard that the key has gone by: %d: %s", d.Status, d.Reason)
	}
	p2.Thaw()
	brief.until(s.token(user.Secret), http.StatusOK)

	// An open one is asked nothing.
	p3.Freeze()
	eventually(t, "it goes on past its limit", func() error {
		if d := open.decide(first); d.Status != http.StatusOK || d.Staleness < 2*time.Second {
			return fmt.Errorf("%d, %s old", d.Status, d.Staleness)
		}
		return nil
	})
	for range 2 {
		if r, status := s.rotate(admin, "30s", false); status != http.StatusOK || len(r.Lacking) > 0 {
			t.Errorf("an open guard is waited for: %d, %+v", status, r)
		}
	}
	p3.Thaw()

	// An emergency waits for nobody, and names who lacks the key.
	s.confirmedBy(admin, "slow") // it has the key after the one that signs
	p1.Freeze()
	r, _ = s.rotate(admin, "30s", false)
	stolen := s.token(user.Secret)
	hurried, status := s.rotate(admin, "30s", true)
	if status != http.StatusOK || hurried.Previous != r.KID || !slices.ContainsFunc(hurried.Lacking, func(who string) bool { return strings.HasPrefix(who, "slow/") }) {
		t.Errorf("emergency after %s: %d, %+v", r.KID, status, hurried)
	}
	for _, g := range []*resource{brief, open} {
		g.until(stolen, http.StatusUnauthorized)
		g.until(s.token(user.Secret), http.StatusOK)
	}
	p1.Thaw()
	slow.until(stolen, http.StatusUnauthorized)
	slow.until(s.token(user.Secret), http.StatusOK)
}

// jwks are the kids that the issuer's JWKS URL has.
func (s *services) jwks() (kids []string) {
	s.t.Helper()
	var set struct{ Keys []map[string]string }
	s.decode(s.send(http.MethodGet, "/oauth/jwks", ""), http.StatusOK, &set)
	for _, k := range set.Keys {
		kids = append(kids, k["kid"])
		if k["d"] != "" || k["kty"] == "oct" {
			s.t.Errorf("the JWKS has a private key: %s", k["kid"])
		}
	}
	return kids
}

// states are those of all keys by kid.
func (s *services) states(admin string) map[string]string {
	s.t.Helper()
	var l struct{ Items []struct{ KID, State string } }
	s.decode(s.api(admin, http.MethodGet, "/v1/signing-keys", nil), http.StatusOK, &l)
	out := map[string]string{}
	for _, k := range l.Items {
		out[k.KID] = k.State
	}
	return out
}

// The JWKS has a key from before it signs until its last token has expired, and
// not a moment longer than it may be trusted.
func TestPromise7TheJWKSHasEveryKeyThatCounts(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	admin := s.token(s.operator)
	wanted := map[string]bool{signing.Published: true, signing.Signing: true, signing.Retiring: true}
	inJWKS := func(when string, want map[string]int) {
		t.Helper()
		eventually(t, when, func() error {
			have, n := s.jwks(), map[string]int{}
			for kid, state := range s.states(admin) {
				n[state]++
				if wanted[state] != slices.Contains(have, kid) {
					return fmt.Errorf("%s is %s, and in the JWKS is %v", kid, state, have)
				}
			}
			for state, count := range want {
				if n[state] != count {
					return fmt.Errorf("%d are %s, want %d", n[state], state, count)
				}
			}
			return nil
		})
	}
	inJWKS("at first", map[string]int{"signing": 1, "published": 1})
	for i := range 2 {
		before := s.jwks()
		first, _ := s.rotate(admin, "30s", false)
		if !slices.Contains(before, first.KID) {
			t.Errorf("key %s signs, and was not in the JWKS before: %v", first.KID, before)
		}
		if !slices.Contains(s.jwks(), first.Previous) {
			t.Errorf("key %s has living tokens, and is not in the JWKS any more", first.Previous)
		}
		inJWKS("after a rotation", map[string]int{"signing": 1, "published": 1, "retiring": i + 1})
	}
	r, _ := s.rotate(admin, "30s", true)
	inJWKS("after an emergency", map[string]int{"signing": 1, "published": 1, "retiring": 2, "revoked": 1})
	if slices.Contains(s.jwks(), r.Previous) {
		t.Error("the stolen key is in the JWKS")
	}
	s.commit(s.token(s.operator), "hold", "signing-key:"+r.KID)
	eventually(t, "a key that is held is not in the JWKS", func() error {
		if slices.Contains(s.jwks(), r.KID) {
			return errors.New("it is")
		}
		return nil
	})
}
