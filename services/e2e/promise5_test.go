package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/identity"
)

// Promise 5: what a cut hits is decided by stamps, not by wall clocks. Our
// clocks may be wrong by minutes and open no hole.

// clock is one that a test sets.
type clock struct{ off atomic.Int64 }

func (c *clock) now() time.Time        { return time.Now().Add(time.Duration(c.off.Load())) }
func (c *clock) set(off time.Duration) { c.off.Store(int64(off)) }
func clockAt(off time.Duration) *clock { c := &clock{}; c.set(off); return c }
func clocks(m map[string]*clock) func(*setting) {
	return func(set *setting) {
		set.now = map[string]func() time.Time{}
		for name, c := range m {
			set.now[name] = c.now
		}
	}
}

// tryExchange exchanges a key, or says why not.
func (s *services) tryExchange(secret string) (token string, r reply) {
	s.t.Helper()
	r = s.form("/oauth/token", exchange(secret))
	if r.status == http.StatusOK {
		var tok struct {
			AccessToken string `json:"access_token"`
		}
		s.decode(r, http.StatusOK, &tok)
		token = tok.AccessToken
	}
	return token, r
}

// With clocks that differ from each other by minutes, what was made before a cut
// is dead, and what is made after it is clean.
func TestPromise5ClocksThatDifferByMinutes(t *testing.T) {
	t.Parallel()
	const minutes = 3 * time.Minute // each from the broker's: less than a third of the slack
	for _, off := range []map[string]time.Duration{
		{identity.Issuer: minutes, identity.Revocation: -minutes, "guard": minutes},
		{identity.Issuer: -minutes, identity.Revocation: minutes, "guard": -minutes},
		{identity.Issuer: minutes, identity.Revocation: minutes, "guard": -minutes, identity.Rotator: -minutes},
	} {
		t.Run(fmt.Sprint(off), func(t *testing.T) {
			t.Parallel()
			set := map[string]*clock{}
			for name, d := range off {
				set[name] = clockAt(d)
			}
			s := inProcess(t, clocks(set))
			admin := s.token(s.operator)
			g := s.guard(guard.WithNATS(s.nats.URL, s.nats.Creds(t, "orders")), guard.WithClock(set["guard"].now))
			g.ready()
			for i := range 10 {
				owner := fmt.Sprintf("alice%d", i)
				key, before := s.issue(admin, owner)
				g.until(before, http.StatusOK)
				s.commit(admin, "revoke", "principal:"+owner)
				g.until(before, http.StatusUnauthorized)
				if tok, again := s.tryExchange(key.Secret); again.status == http.StatusOK && g.decide(tok).Status == http.StatusOK {
					t.Errorf("a token by a key that was cut is accepted")
				}
				_, after := s.issue(admin, owner)
				g.until(after, http.StatusOK)
			}
		})
	}
}

// A clock that is wrong by more than the slack allows is noticed: whoever has it
// does nothing with it, says so, and goes on once it is set right. In no case
// is a revoked token let in.
func TestPromise5ClockTenMinutesOff(t *testing.T) {
	t.Parallel()
	set := map[string]*clock{identity.Issuer: {}, identity.Revocation: {}, "guard": {}}
	s := inProcess(t, clocks(set))
	admin := s.token(s.operator)
	g := s.guard(guard.WithNATS(s.nats.URL, s.nats.Creds(t, "orders")), guard.WithClock(set["guard"].now), guard.WithLimit(2*time.Second))
	g.ready()
	key, alive := s.issue(admin, "alice")
	_, dead := s.issue(admin, "bob")
	s.commit(admin, "revoke", "principal:bob")
	g.until(alive, http.StatusOK)
	g.until(dead, http.StatusUnauthorized)
	n := 0
	for _, off := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
		for name, refuses := range map[string]func() error{
			"guard": func() error {
				if d := g.decide(alive); d.Status == http.StatusOK {
					return errors.New("it still accepts")
				}
				return g.notReady()
			},
			identity.Issuer: func() error {
				if _, r := s.tryExchange(key.Secret); r.status != http.StatusServiceUnavailable {
					return fmt.Errorf("exchange: %d", r.status)
				}
				return nil
			},
			identity.Revocation: func() error {
				n++
				r := s.api(admin, http.MethodPost, "/v1/revocations", map[string]any{"op": "revoke", "targets": []string{fmt.Sprintf("token:x%d", n)}, "reason": "test"})
				if r.status == http.StatusCreated {
					return errors.New("it still commits")
				}
				return nil
			},
		} {
			set[name].set(off)
			eventually(t, fmt.Sprintf("%s with a clock %s off does nothing", name, off), func() error {
				if d := g.decide(dead); d.Status == http.StatusOK {
					t.Fatalf("a revoked token is accepted while the clock of %s is %s off", name, off)
				}
				return refuses()
			})
			set[name].set(0)
			eventually(t, name+" goes on with a clock that is right", func() error {
				if d := g.decide(dead); d.Status == http.StatusOK {
					t.Fatalf("a revoked token is accepted after the clock of %s was set", name)
				}
				if d := g.decide(alive); d.Status != http.StatusOK {
					return errors.New(d.Reason)
				}
				if _, r := s.tryExchange(key.Secret); r.status != http.StatusOK {
					return fmt.Errorf("exchange: %d: %s", r.status, r.body)
				}
				n++
				r := s.api(admin, http.MethodPost, "/v1/revocations", map[string]any{"op": "revoke", "targets": []string{fmt.Sprintf("token:x%d", n)}, "reason": "test"})
				if r.status != http.StatusCreated {
					return fmt.Errorf("revoke: %d: %s", r.status, r.body)
				}
				return nil
			})
		}
	}
}

// notReady returns nil if the guard says that it may not accept.
func (r *resource) notReady() error {
	if r.Ready() == nil {
		return errors.New("it says that it is ready")
	}
	return nil
}

// exchanges are many of one key at a time, until they are told to end.
type exchanges struct {
	s    *services
	mu   sync.Mutex
	got  []string
	odd  []string // answers that are neither a token, nor a no, nor "try again"
	stop atomic.Bool
	wg   sync.WaitGroup
}

func (s *services) exchanging(secret string, callers int) *exchanges {
	x := &exchanges{s: s}
	for range callers {
		x.wg.Go(func() {
			for !x.stop.Load() {
				tok, r := s.tryExchange(secret)
				x.mu.Lock()
				if tok != "" {
					x.got = append(x.got, tok)
				} else if r.status != http.StatusBadRequest && r.status != http.StatusServiceUnavailable {
					x.odd = append(x.odd, fmt.Sprintf("%d: %.200s", r.status, r.body))
				}
				x.mu.Unlock()
			}
		})
	}
	return x
}

func (x *exchanges) tokens() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.got[:len(x.got):len(x.got)]
}

// end lets those that are under way come back, and some that begin now.
func (x *exchanges) end() {
	time.Sleep(30 * time.Millisecond) // it is exchanged meanwhile
	x.stop.Store(true)
	x.wg.Wait()
	if len(x.odd) > 0 {
		x.s.t.Errorf("%d exchanges were answered otherwise: %q", len(x.odd), x.odd[:min(3, len(x.odd))])
	}
}

// dead wants every token refused by a guard that is as fresh as now.
func (x *exchanges) dead(g *resource, req guard.Requirement) {
	x.s.t.Helper()
	fresh := req
	fresh.MaxStale = guard.Probe
	tokens := x.tokens()
	for i, tok := range tokens {
		if i > 0 {
			fresh = req // the view knows by now
		}
		if d := g.Decide(x.s.t.Context(), tok, fresh); d.Status == http.StatusOK {
			x.s.t.Fatalf("one of %d tokens of what has ended is accepted: born at %s, in a view at %s", len(tokens), d.Token.Stamp, d.Watermark)
		}
	}
}

// The stamp comes first: however exchanges and a cut fall together, no token
// that comes of what was cut is alive once the cut was answered and is known.
func TestPromise5NoTokenSlipsThroughACut(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	admin := s.token(s.operator)
	g := s.guard(guard.WithNATS(s.nats.URL, s.nats.Creds(t, "orders")))
	g.ready()
	for round := range 18 {
		owner := fmt.Sprintf("alice%d", round)
		key, _ := s.issue(admin, owner)
		x := s.exchanging(key.Secret, 4)
		eventually(t, "tokens are made", func() error {
			if len(x.tokens()) < 8 {
				return errors.New("not enough")
			}
			return nil
		})
		switch round % 3 {
		case 0:
			s.commit(admin, "revoke", "principal:"+owner)
		case 1:
			s.commit(admin, "revoke", "key:"+key.ID)
		default: // mark, log, finish
			r := s.api(admin, http.MethodDelete, "/v1/keys/"+key.ID+"?reason=test", nil)
			if r.status/100 != 2 {
				t.Fatalf("delete: %d: %s", r.status, r.body)
			}
		}
		x.end()
		x.dead(g, guard.Requirement{})
		if _, r := s.tryExchange(key.Secret); r.status != http.StatusBadRequest {
			t.Errorf("round %d: exchange of a dead key: %d: %s", round, r.status, r.body)
		}
	}
}

// A binding that is taken away is in no token any more that is accepted, however
// the two fall together.
func TestPromise5NoRoleSlipsThroughItsEnd(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	admin := s.token(s.operator)
	g := s.guard(guard.WithNATS(s.nats.URL, s.nats.Creds(t, "orders")))
	g.ready()
	s.decode(s.api(admin, http.MethodPost, "/v1/roles", map[string]any{"name": "clerk", "scopes": []string{"orders:write"}, "reason": "test"}), http.StatusCreated, &struct{}{})
	for round := range 6 {
		owner := fmt.Sprintf("carol%d", round)
		bind := map[string]any{"subject": owner, "role": "clerk", "reason": "test"}
		if r := s.api(admin, http.MethodPost, "/v1/bindings", bind); r.status/100 != 2 {
			t.Fatalf("bind: %d: %s", r.status, r.body)
		}
		var key apiKey
		s.decode(s.api(admin, http.MethodPost, "/v1/keys", map[string]any{"owner": owner, "scopes": []string{"orders:read"}, "owner_roles": true, "reason": "test"}), http.StatusCreated, &key)
		x := s.exchanging(key.Secret, 4)
		with := guard.Requirement{AnyRole: []string{"clerk"}}
		eventually(t, "tokens have the role", func() error {
			if tokens := x.tokens(); len(tokens) == 0 || g.Decide(t.Context(), tokens[len(tokens)-1], with).Status != http.StatusOK {
				return errors.New("not yet")
			}
			return nil
		})
		if r := s.api(admin, http.MethodDelete, "/v1/bindings?"+url.Values{"subject": {owner}, "role": {"clerk"}, "reason": {"test"}}.Encode(), nil); r.status/100 != 2 {
			t.Fatalf("unbind: %d: %s", r.status, r.body)
		}
		x.end()
		x.dead(g, with)
		// The key itself goes on, without the role.
		eventually(t, "a token without the role", func() error {
			tok, r := s.tryExchange(key.Secret)
			if tok == "" {
				return fmt.Errorf("%d: %s", r.status, r.body)
			}
			if d := g.decide(tok); d.Status != http.StatusOK {
				return errors.New(d.Reason)
			}
			return nil
		})
	}
}
