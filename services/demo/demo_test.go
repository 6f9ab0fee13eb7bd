package demo

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/guard/guardtest"
)

func TestOrdersWantTheScopeAndNothingElseExists(t *testing.T) {
	q := guardtest.New(t)
	h := Handler(q.Guard(), nil, nil)
	good := q.Token(guardtest.Token{Subject: "alice", Scopes: []string{Scope}})
	poor := q.Token(guardtest.Token{Subject: "alice", Scopes: []string{"orders:write"}})
	for _, c := range []struct {
		name, method, path, token string
		want                      int
	}{
		{"good", "GET", "/orders", good, 200},
		{"no token", "GET", "/orders", "", 401},
		{"not a token", "GET", "/orders", "x", 401},
		{"no scope", "GET", "/orders", poor, 403},
		{"wrong method", "POST", "/orders", good, 405},
		{"health", "GET", "/healthz", "", 200},
		{"elsewhere", "GET", "/", good, 404},
		{"below", "GET", "/orders/o-1", good, 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, c.path, nil)
			if c.token != "" {
				r.Header.Set("Authorization", "Bearer "+c.token)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.want {
				t.Errorf("status %d, want %d: %s", w.Code, c.want, w.Body)
			}
			if c.want == 200 && c.path == "/orders" && !strings.Contains(w.Body.String(), `"for":"alice"`) {
				t.Errorf("answer does not say for whom: %s", w.Body)
			}
		})
	}
	q.Revoke("principal:alice")
	r := httptest.NewRequest("GET", "/orders", nil)
	r.Header.Set("Authorization", "Bearer "+good)
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
		t.Errorf("after the revocation: %d, want 401", w.Code)
	}
}
