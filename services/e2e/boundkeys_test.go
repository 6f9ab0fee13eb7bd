package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardhttp"
	"github.com/quash-project/quash/shared/guard/peer"
)

// boundKey makes a key of alice's that is good from these networks alone.
func (s *services) boundKey(admin string, networks ...string) (key apiKey) {
	s.t.Helper()
	s.decode(s.api(admin, http.MethodPost, "/v1/keys", map[string]any{
		"owner": "alice", "scopes": []string{"orders:read"}, "networks": networks, "reason": "test",
	}), http.StatusCreated, &key)
	return key
}

// behindBalancer is an API whose clients send API keys by a balancer at 10.0.0.1; ask
// says what it answers to who comes there from an address, with a header of their own.
func (s *services) behindBalancer(name string) (g *resource, ask func(key, from, said string) int) {
	s.t.Helper()
	g = s.guard(guard.WithNATS(s.nats.URL, s.nats.Creds(s.t, name)), guard.WithExchange(guard.Exchange{}))
	g.ready()
	proxies, err := peer.ParseProxies([]string{"10.0.0.1"})
	if err != nil {
		s.t.Fatal(err)
	}
	h := guardhttp.Require(g, guard.Require(guard.Scopes("orders:read")), guardhttp.WithCaller(proxies.Caller))(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	return g, func(key, from, said string) int {
		r := httptest.NewRequest(http.MethodGet, "/orders", http.NoBody)
		r.RemoteAddr = "10.0.0.1:4711"
		r.Header.Set("Authorization", "Bearer "+key)
		if said != "" {
			r.Header.Add("X-Forwarded-For", said)
		}
		r.Header.Add("X-Forwarded-For", from)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
}

// TestBoundKeyWorksThroughServersThatTakeKeys: from its networks, and from nowhere else.
func TestBoundKeyWorksThroughServersThatTakeKeys(t *testing.T) {
	t.Parallel()
	s := inProcess(t, func(set *setting) { set.proxies = []string{"127.0.0.1"} })
	admin := s.token(s.operator)
	g, ask := s.behindBalancer("orders")
	key := s.boundKey(admin, "192.0.2.0/24")
	want := func(key, from, said string, status int, exchanges uint64) {
		t.Helper()
		if got := ask(key, from, said); got != status {
			t.Errorf("from %s, who says %q: %d, want %d", from, said, got, status)
		}
		if got := g.Stats().Exchanges; got != exchanges {
			t.Errorf("from %s: %d exchanges until now, want %d", from, got, exchanges)
		}
	}
	want(key.Secret, "192.0.2.7", "", 204, 1)
	want(key.Secret, "192.0.2.7", "198.51.100.1", 204, 1)
	want(key.Secret, "198.51.100.1", "", 401, 2) // not by the token that is kept
	want(key.Secret, "198.51.100.1", "192.0.2.7", 401, 2)
	want(key.Secret, "192.0.2.8", "", 204, 3)
	free, _ := s.issue(admin, "alice")
	for i := range 20 {
		want(free.Secret, fmt.Sprintf("198.51.100.%d", i), "", 204, 4)
	}
	// One that is bound to the guard's own network is bound all the same.
	local := s.boundKey(admin, "127.0.0.0/8")
	want(local.Secret, "198.51.100.1", "", 401, 5)
	want(local.Secret, "127.0.0.1", "", 204, 6)
	s.commit(admin, "revoke", "key:"+key.ID)
	eventually(t, "the revoked key is refused", func() error {
		if got := ask(key.Secret, "192.0.2.7", ""); got != http.StatusUnauthorized {
			return fmt.Errorf("status %d", got)
		}
		return nil
	})
}

// TestIssuerThatDoesNotBelieveTheServerGivesItNoBoundKey: neither one of its clients'
// networks, nor one of its own.
func TestIssuerThatDoesNotBelieveTheServerGivesItNoBoundKey(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	admin := s.token(s.operator)
	_, ask := s.behindBalancer("orders")
	for network, want := range map[string]int{"192.0.2.0/24": http.StatusUnauthorized, "127.0.0.0/8": http.StatusServiceUnavailable} {
		key := s.boundKey(admin, network)
		if got := ask(key.Secret, "192.0.2.7", ""); got != want {
			t.Errorf("a key for %s: %d, want %d", network, got, want)
		}
	}
	free, _ := s.issue(admin, "alice")
	if got := ask(free.Secret, "192.0.2.7", ""); got != http.StatusNoContent {
		t.Errorf("a key for everywhere: %d", got)
	}
}
