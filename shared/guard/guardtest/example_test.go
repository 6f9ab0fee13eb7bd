package guardtest_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardhttp"
	"github.com/quash-project/quash/shared/guard/guardtest"
)

// TestOrders is how a test of a guarded handler reads.
func TestOrders(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	orders := guardhttp.Require(g, guard.Requirement{Scopes: []string{"orders:read"}})(http.NotFoundHandler())
	get := func(token string) int {
		r := httptest.NewRequest(http.MethodGet, "/orders", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		orders.ServeHTTP(w, r)
		return w.Code
	}
	token := q.Token(guardtest.Token{Subject: "alice", Scopes: []string{"orders:read"}})
	steps := []struct {
		name string
		do   func()
		want int
	}{
		{"good", func() {}, http.StatusNotFound},
		{"held", func() { q.Hold("client:client_test") }, http.StatusUnauthorized},
		{"released", func() { q.Release("client:client_test") }, http.StatusNotFound},
		{"nobody can tell", func() { q.Disconnect(); q.Advance(time.Minute) }, http.StatusServiceUnavailable},
		{"back again", func() { q.Reconnect(); q.WaitReady(g) }, http.StatusNotFound},
		{"revoked", func() { q.Revoke("principal:alice") }, http.StatusUnauthorized},
	}
	for _, s := range steps {
		if s.do(); get(token) != s.want {
			t.Errorf("%s: %d, want %d", s.name, get(token), s.want)
		}
	}
}
