package demo

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardtest"
)

// TestKeysAreTakenWhereTheGuardDoes, and by no other.
func TestKeysAreTakenWhereTheGuardDoes(t *testing.T) {
	q := guardtest.New(t)
	key := q.APIKey(guardtest.Token{Subject: "alice", Scopes: []string{Scope}})
	for _, c := range []struct {
		name string
		h    http.Handler
		want int
	}{
		{"a guard that takes keys", Handler(q.Guard(guard.WithExchange(q.Exchange())), nil, nil), 200},
		{"one that does not", Handler(q.Guard(), nil, nil), 401},
	} {
		for name, value := range map[string]string{"Authorization": "Bearer " + key, KeyHeader: key} {
			r := httptest.NewRequest("GET", "/orders", nil)
			r.Header.Set(name, value)
			w := httptest.NewRecorder()
			if c.h.ServeHTTP(w, r); w.Code != c.want {
				t.Errorf("%s, in %s: %d, want %d: %s", c.name, name, w.Code, c.want, w.Body)
			}
		}
	}
}

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

// TestKeyInAURLIsTold: the guard hears of it, though the request comes no further.
func TestKeyInAURLIsTold(t *testing.T) {
	q := guardtest.New(t)
	key := q.APIKey(guardtest.Token{Subject: "alice", Scopes: []string{Scope}})
	var told []string
	x := q.Exchange()
	x.OnKeyInURL = func(id string) { told = append(told, id) }
	h := Handler(q.Guard(guard.WithExchange(x)), nil, nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/orders?key="+key, nil))
	if w.Code != http.StatusUnprocessableEntity || len(told) != 1 || strings.Contains(w.Body.String(), key) {
		t.Errorf("status %d, told %q", w.Code, told)
	}
}
