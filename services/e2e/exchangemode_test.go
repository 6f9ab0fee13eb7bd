package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardhttp"
)

// keyServer is an API whose clients send API keys, as they did before there was
// Quash.
type keyServer struct {
	*resource
	url string
}

func (s *services) keyServer(name string) *keyServer {
	s.t.Helper()
	g := s.guard(guard.WithNATS(s.nats.URL, s.nats.Creds(s.t, name)), guard.WithExchange(guard.Exchange{}))
	g.ready()
	need := guard.Require(guard.Scopes("orders:read"), guard.SubjectIs(guard.Path("user")))
	mux := http.NewServeMux()
	mux.Handle("GET /users/{user}/orders", guardhttp.Require(g, need, guardhttp.WithKeyHeader("X-API-Key"))(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })))
	srv := httptest.NewServer(mux)
	s.t.Cleanup(srv.Close)
	return &keyServer{g, srv.URL}
}

// get asks for somebody's orders by a key.
func (k *keyServer) get(path, header, value string) int {
	k.t.Helper()
	r, err := http.NewRequest(http.MethodGet, k.url+path, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	r.Header.Set(header, value)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		k.t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// TestRevokedKeyIsRefusedByServersThatTakeKeys: within milliseconds, though each of
// them has a token of it that would live for ten minutes.
func TestRevokedKeyIsRefusedByServersThatTakeKeys(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	admin := s.token(s.operator)
	servers := []*keyServer{s.keyServer("orders-1"), s.keyServer("orders-2")}
	var slowest time.Duration
	const rounds = 20
	for i := range rounds {
		owner := fmt.Sprintf("alice%d", i)
		path := "/users/" + owner + "/orders"
		key, _ := s.issue(admin, owner)
		other, _ := s.issue(admin, owner)
		for _, srv := range servers {
			for header, value := range map[string]string{"X-API-Key": key.Secret, "Authorization": "Bearer " + key.Secret} {
				if got := srv.get(path, header, value); got != http.StatusNoContent {
					t.Fatalf("a live key in %s: %d", header, got)
				}
			}
			if got := srv.get(path, "X-API-Key", other.Secret); got != http.StatusNoContent {
				t.Fatalf("another live key: %d", got)
			}
			if got := srv.get("/users/bob/orders", "X-API-Key", key.Secret); got != http.StatusForbidden {
				t.Errorf("somebody else's orders: %d", got)
			}
		}
		s.commit(admin, "revoke", "key:"+key.ID)
		committed := time.Now()
		for _, srv := range servers {
			eventually(t, "the server refuses the key", func() error {
				if got := srv.get(path, "X-API-Key", key.Secret); got != http.StatusUnauthorized {
					return fmt.Errorf("status %d", got)
				}
				return nil
			})
		}
		slowest = max(slowest, time.Since(committed))
		for _, srv := range servers {
			if got := srv.get(path, "X-API-Key", other.Secret); got != http.StatusNoContent {
				t.Errorf("the owner's other key: %d", got)
			}
		}
	}
	t.Logf("refused by both servers at most %s after the commit was answered", slowest)
	if slowest > 2*time.Second { // a machine under load; alone it is a few milliseconds
		t.Errorf("refused after %s", slowest)
	}
	for _, srv := range servers {
		if st := srv.Stats(); st.Exchanges != 2*rounds || st.ExchangeFailures != 0 {
			t.Errorf("%d exchanges, %d failures, want %d and none: one for each key", st.Exchanges, st.ExchangeFailures, 2*rounds)
		}
	}
}

// TestHeldKeyComesBackToServersThatTakeKeys when it is released.
func TestHeldKeyComesBackToServersThatTakeKeys(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	admin := s.token(s.operator)
	srv := s.keyServer("orders")
	key, _ := s.issue(admin, "alice")
	until := func(what string, want int) {
		t.Helper()
		eventually(t, what, func() error {
			if got := srv.get("/users/alice/orders", "X-API-Key", key.Secret); got != want {
				return errors.New(http.StatusText(got))
			}
			return nil
		})
	}
	until("the key works", http.StatusNoContent)
	s.commit(admin, "hold", "key:"+key.ID)
	until("the held key is refused", http.StatusUnauthorized)
	s.commit(admin, "release", "key:"+key.ID)
	until("the released key works", http.StatusNoContent)
	s.commit(admin, "hold", "principal:alice")
	until("the key of a held user is refused", http.StatusUnauthorized)
	if got := srv.get("/users/alice/orders?key="+key.Secret, "X-API-Key", key.Secret); got != http.StatusBadRequest {
		t.Errorf("a key in the URL: %d", got)
	}
}
