package guardhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardhttp"
	"github.com/quash-project/quash/shared/guard/guardtest"
)

var req = guard.Requirement{Scopes: []string{"orders:read", "orders:list"}}

func echo(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, guardhttp.TokenFrom(r.Context()).Subject)
}

func TestAnswersAreThoseOfRFC6750(t *testing.T) {
	q := guardtest.New(t)
	h := guardhttp.Require(q.Guard(), req, guardhttp.WithRealm(`or"ders`))(http.HandlerFunc(echo))
	good := q.Token(guardtest.Token{Scopes: []string{"orders:read", "orders:list"}})
	poor := q.Token(guardtest.Token{Scopes: []string{"orders:read"}})
	dead := q.Token(guardtest.Token{Subject: "mallory"})
	q.Revoke("principal:mallory")
	for name, c := range map[string]struct {
		headers   []string
		query     string
		status    int
		challenge string
	}{
		"good":            {[]string{"Bearer " + good}, "", 200, ""},
		"scheme in lower": {[]string{"bearer " + good}, "", 200, ""},
		"none":            {nil, "", 401, `Bearer realm="or'ders", scope="orders:read orders:list"`},
		"in the query":    {nil, "?access_token=" + good, 401, `Bearer realm="or'ders", scope="orders:read orders:list"`},
		"another scheme":  {[]string{"Basic YTpi"}, "", 401, `Bearer realm="or'ders", scope="orders:read orders:list"`},
		"two headers":     {[]string{"Bearer " + good, "Bearer " + good}, "", 400, `Bearer realm="or'ders", error="invalid_request", error_description="more than one header Authorization"`},
		"two tokens":      {[]string{"Bearer " + good + ", Bearer " + good}, "", 400, `Bearer realm="or'ders", error="invalid_request", error_description="the header Authorization is not Bearer and one token"`},
		"no token":        {[]string{"Bearer"}, "", 400, `Bearer realm="or'ders", error="invalid_request", error_description="the header Authorization is not Bearer and one token"`},
		"malformed":       {[]string{"Bearer x"}, "", 401, `Bearer realm="or'ders", error="invalid_token", error_description="the token does not have exactly three segments"`},
		"revoked":         {[]string{"Bearer " + dead}, "", 401, `Bearer realm="or'ders", error="invalid_token", error_description="the token was revoked, or is held"`},
		"lacks a scope":   {[]string{"Bearer " + poor}, "", 403, `Bearer realm="or'ders", error="insufficient_scope", error_description="the token lacks the scope orders:list", scope="orders:read orders:list"`},
	} {
		r := httptest.NewRequest(http.MethodGet, "/orders"+c.query, nil)
		r.Header["Authorization"] = c.headers
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status || w.Header().Get("WWW-Authenticate") != c.challenge {
			t.Errorf("%s: %d %s\nwant %d %s", name, w.Code, w.Header().Get("WWW-Authenticate"), c.status, c.challenge)
		}
		if c.status == 200 {
			if w.Body.String() != "alice" {
				t.Errorf("%s: body %q", name, w.Body)
			}
			continue
		}
		var doc struct {
			Type   string
			Status int
		}
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || doc.Status != c.status || !strings.HasPrefix(doc.Type, "https://") ||
			w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v %v %s", name, err, w.Header(), w.Body)
		}
		if strings.Contains(w.Body.String(), "mallory") || strings.Contains(w.Body.String(), good[:40]) {
			t.Errorf("%s: the answer tells too much: %s", name, w.Body)
		}
	}
}

func TestGuardThatCantTellAnswers503(t *testing.T) {
	q := guardtest.New(t)
	h := guardhttp.Require(q.Guard(), guard.Requirement{})(http.HandlerFunc(echo))
	token := q.Token(guardtest.Token{Life: time.Hour})
	q.Disconnect()
	q.Advance(20 * time.Second)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 503 || w.Header().Get("Retry-After") != "1" || w.Header().Get("WWW-Authenticate") != "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// TestForgottenDecisionRefuses: whoever writes the zero Decision, or an Allow,
// has not let anything through.
func TestForgottenDecisionRefuses(t *testing.T) {
	for _, d := range []guard.Decision{{}, {Outcome: guard.Allow, Status: 200}} {
		w := httptest.NewRecorder()
		guardhttp.Write(w, d, req, "")
		if w.Code != 503 {
			t.Errorf("%+v: %d", d, w.Code)
		}
	}
	if guardhttp.TokenFrom(context.Background()) != nil || guardhttp.DecisionFrom(context.Background()).Allowed() {
		t.Error("a request that nobody let through has a token")
	}
}

func TestWatchedRequestEndsWhenItsTokenIsHit(t *testing.T) {
	q := guardtest.New(t)
	started, cause := make(chan struct{}), make(chan error, 1)
	h := guardhttp.Require(q.Guard(), guard.Requirement{}, guardhttp.WithWatch())(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
		cause <- context.Cause(r.Context())
	}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+q.Token(guardtest.Token{}))
	go h.ServeHTTP(httptest.NewRecorder(), r)
	<-started
	q.Revoke("principal:bob")
	select {
	case err := <-cause:
		t.Fatalf("ended by somebody else's revocation: %v", err)
	default:
	}
	q.Revoke("principal:alice")
	if err := <-cause; !errors.Is(err, guard.ErrHit) {
		t.Errorf("ended by %v", err)
	}
}
