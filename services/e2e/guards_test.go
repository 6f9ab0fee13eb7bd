package e2e

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/denylist"
)

// resource is a resource server of a test: a guard with ways of its own.
type resource struct {
	*guard.Guard
	t    testing.TB
	stop func()
}

// guard starts a guard for the tokens of these services. It does not wait for
// it to be ready.
func (s *services) guard(opts ...guard.Option) *resource {
	s.t.Helper()
	g, err := guard.New([]guard.Issuer{{URL: s.url, Trust: s.trust}}, opts...)
	return startGuard(s.t, g, err)
}

func startGuard(t testing.TB, g *guard.Guard, err error) *resource {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	stopped := false
	r := &resource{Guard: g, t: t, stop: func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Errorf("guard: %v", err)
			}
		}
	}}
	t.Cleanup(r.stop)
	return r
}

// ready waits until it may accept.
func (r *resource) ready() {
	r.t.Helper()
	eventually(r.t, "the guard is ready", r.Ready)
}

// decide asks for one token.
func (r *resource) decide(token string) guard.Decision {
	return r.Decide(context.Background(), token, guard.Requirement{})
}

// denylist opens a reader of a Redis view, which runs as long as the test does.
func (s *services) denylist(addr string) *denylist.Reader {
	s.t.Helper()
	d, err := denylist.Open("redis://"+addr, denylist.Config{})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	s.t.Cleanup(func() { cancel(); <-done })
	return d
}

// redisGuard is a guard that has nothing but Redis, and fetches the keys.
func (s *services) redisGuard(addr string) *resource {
	s.t.Helper()
	g, err := guard.New([]guard.Issuer{{URL: s.url, JWKSURL: s.url + "/oauth/jwks"}}, guard.WithRedis(s.denylist(addr)))
	return startGuard(s.t, g, err)
}

// issue makes a key for a principal and exchanges it.
func (s *services) issue(admin, owner string) (key apiKey, token string) {
	s.t.Helper()
	s.decode(s.api(admin, http.MethodPost, "/v1/keys", map[string]any{"owner": owner, "scopes": []string{"orders:read"}, "reason": "test"}), http.StatusCreated, &key)
	return key, s.token(key.Secret)
}

// commit commits an op about targets.
func (s *services) commit(admin, op string, targets ...string) receipt {
	s.t.Helper()
	var r receipt
	s.decode(s.api(admin, http.MethodPost, "/v1/revocations", map[string]any{"op": op, "targets": targets, "reason": "test"}), http.StatusCreated, &r)
	return r
}

// until waits until a guard decides so about a token.
func (r *resource) until(token string, status int) {
	r.t.Helper()
	eventually(r.t, "the guard decides so", func() error {
		if d := r.decide(token); d.Status != status {
			return errors.New(http.StatusText(d.Status) + ": " + d.Reason)
		}
		return nil
	})
}
