package guardhttp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
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

// TestKeysAreTakenFromTheHeadersThatAreNamed, over real connections.
func TestKeysAreTakenFromTheHeadersThatAreNamed(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithExchange(q.Exchange()))
	need := guard.Requirement{Scopes: []string{"orders:read"}}
	srv := httptest.NewServer(guardhttp.Require(g, need, guardhttp.WithKeyHeader("X-API-Key", "Api-Token"))(http.HandlerFunc(echo)))
	defer srv.Close()
	bearer := httptest.NewServer(guardhttp.Require(g, need)(http.HandlerFunc(echo)))
	defer bearer.Close()
	key := q.APIKey(guardtest.Token{Subject: "bob", Scopes: []string{"orders:read"}})
	poor := q.APIKey(guardtest.Token{Subject: "bob"})
	token := q.Token(guardtest.Token{Subject: "bob", Scopes: []string{"orders:read"}})
	for name, c := range map[string]struct {
		url     string
		headers []string
		status  int
		error   string
	}{
		"as bearer":               {bearer.URL, []string{"Authorization", "Bearer " + key}, 200, ""},
		"as bearer too":           {srv.URL, []string{"Authorization", "bearer " + key}, 200, ""},
		"in a header":             {srv.URL, []string{"x-api-key", key}, 200, ""},
		"in another":              {srv.URL, []string{"Api-Token", key}, 200, ""},
		"a token":                 {srv.URL, []string{"Authorization", "Bearer " + token}, 200, ""},
		"without its scope":       {srv.URL, []string{"X-API-Key", poor}, 403, "insufficient_scope"},
		"mistyped":                {srv.URL, []string{"X-API-Key", key[:len(key)-1]}, 401, "invalid_token"},
		"in a header of no key":   {bearer.URL, []string{"X-API-Key", key}, 401, ""},
		"none":                    {srv.URL, nil, 401, ""},
		"empty":                   {srv.URL, []string{"X-API-Key", ""}, 400, "invalid_request"},
		"two":                     {srv.URL, []string{"X-API-Key", key, "Api-Token", key}, 400, "invalid_request"},
		"twice":                   {srv.URL, []string{"X-API-Key", key, "X-API-Key", key}, 400, "invalid_request"},
		"a list":                  {srv.URL, []string{"X-API-Key", key + ", " + key}, 400, "invalid_request"},
		"beside a token":          {srv.URL, []string{"X-API-Key", key, "Authorization", "Bearer " + token}, 400, "invalid_request"},
		"a token where keys go":   {srv.URL, []string{"X-API-Key", token}, 400, "invalid_request"},
		"in the path":             {srv.URL + "/orders/" + key, nil, 400, "invalid_request"},
		"in the query":            {srv.URL + "/orders?api_key=" + key, nil, 400, "invalid_request"},
		"there and in the header": {srv.URL + "/orders?api_key=" + key, []string{"X-API-Key", key}, 400, "invalid_request"},
		"escaped":                 {srv.URL + "/orders?k=quash%5Fkey%5f" + key[10:], []string{"Authorization", "Bearer " + token}, 400, "invalid_request"},
		"a token in both":         {srv.URL + "/orders?access_token=" + token, []string{"Authorization", "Bearer " + token}, 400, "invalid_request"},
		"a token in the query":    {srv.URL + "/orders?access_token=" + token, nil, 401, ""},
	} {
		r, err := http.NewRequest(http.MethodGet, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(c.headers); i += 2 {
			r.Header.Add(c.headers[i], c.headers[i+1])
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		var doc struct{ Error string }
		if res.StatusCode == 200 {
			doc.Error = strings.TrimPrefix(string(body), "bob")
		} else if err := json.Unmarshal(body, &doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if res.StatusCode != c.status || doc.Error != c.error || strings.Contains(string(body), key[10:]) {
			t.Errorf("%s: %d %s, want %d %s", name, res.StatusCode, body, c.status, c.error)
		}
	}
	q.Wait("the key in the URL to be told", func() error {
		if l := q.Leaked(); len(l) != 1 || l[0] != q.KeyTarget(key) {
			return errors.New(strings.Join(l, " "))
		}
		return nil
	})
}

// TestKeyInURLIsRefusedByEveryGuard: also by one that takes no keys.
func TestKeyInURLIsRefusedByEveryGuard(t *testing.T) {
	q := guardtest.New(t)
	h := guardhttp.Require(q.Guard(), guard.Requirement{})(http.HandlerFunc(echo))
	r := httptest.NewRequest(http.MethodGet, "/orders?key="+q.APIKey(guardtest.Token{}), nil)
	r.Header.Set("Authorization", "Bearer "+q.Token(guardtest.Token{}))
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusBadRequest {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestImportedKeyInURL: nobody knows one by its form, so that only one that was exchanged is
// refused, and the issuer is asked about what looks like one where nothing else is brought.
func TestImportedKeyInURL(t *testing.T) {
	q := guardtest.New(t)
	x := q.Exchange()
	x.Imported = regexp.MustCompile("live-[a-z+/]{8,}")
	g := q.Guard(guard.WithExchange(x))
	h := guardhttp.Require(g, guard.Require(guard.Scopes("orders:read")), guardhttp.WithKeyHeader("X-API-Key"))(http.HandlerFunc(echo))
	get := func(path string, headers ...string) int {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	const used, unused, other = "live-used+/key", "live-unusedkey", "live-otherkey"
	for _, key := range []string{used, unused, other} {
		q.ImportKey(key, guardtest.Token{Scopes: []string{"orders:read"}})
	}
	token := "Bearer " + q.Token(guardtest.Token{Scopes: []string{"orders:read"}})
	if got := get("/orders", "X-API-Key", used); got != 200 {
		t.Fatalf("in its header: %d", got)
	}
	for path, want := range map[string]int{
		"/orders?key=" + url.QueryEscape(used): 400, "/orders?" + used: 400, "/orders/" + url.PathEscape(used): 400, "/orders?key=" + used: 400,
		"/orders?key=" + other: 200, "/orders/" + other: 200, "/orders?key=" + used[:10]: 200,
	} {
		if got := get(path, "Authorization", token); got != want {
			t.Errorf("%s beside a token: %d, want %d", path, got, want)
		}
	}
	if got := get("/orders?api_key=" + unused); got != 401 {
		t.Errorf("alone in the URL: %d, want 401", got)
	}
	q.Wait("the keys to be told", func() error {
		l := slices.Sorted(slices.Values(q.Leaked()))
		if want := slices.Sorted(slices.Values([]string{q.KeyTarget(used), q.KeyTarget(unused)})); !slices.Equal(l, want) {
			return fmt.Errorf("%q, want %q", l, want)
		}
		return nil
	})
}

func TestConditionsSeeThePathOfTheRoute(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	need := guard.Require(guard.Scopes("orders:read"), guard.Any(guard.SubjectIs(guard.Path("user")), guard.AnyRole("support")))
	mux := http.NewServeMux()
	mux.Handle("GET /users/{user}/orders", guardhttp.Require(g, need)(http.HandlerFunc(echo)))
	mux.Handle("GET /orders", guardhttp.Require(g, need)(http.HandlerFunc(echo)))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	alice := q.Token(guardtest.Token{Scopes: []string{"orders:read"}})
	odd := q.Token(guardtest.Token{Subject: "a/b", Scopes: []string{"orders:read"}})
	support := q.Token(guardtest.Token{Subject: "sue", Roles: []string{"support"}, Scopes: []string{"orders:read"}})
	const lacks = `Bearer error="insufficient_scope", error_description="the token's subject is not {user} of the path; and the token has none of the roles support"`
	for _, c := range []struct {
		name, path, token string
		status            int
		challenge         string
	}{
		{"own", "/users/alice/orders", alice, 200, ""},
		{"own, escaped", "/users/a%2Fb/orders", odd, 200, ""},
		{"of another", "/users/bob/orders", alice, 403, lacks},
		{"in another case", "/users/Alice/orders", alice, 403, lacks},
		{"by role", "/users/bob/orders", support, 200, ""},
		{"without a wildcard", "/orders", alice, 403, lacks},
		{"without the scope", "/users/alice/orders", q.Token(guardtest.Token{}), 403, `Bearer error="insufficient_scope", error_description="the token lacks the scope orders:read", scope="orders:read"`},
	} {
		r, err := http.NewRequest(http.MethodGet, srv.URL+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+c.token)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if got := res.Header.Get("WWW-Authenticate"); res.StatusCode != c.status || got != c.challenge {
			t.Errorf("%s: %d %s\nwant %d %s", c.name, res.StatusCode, got, c.status, c.challenge)
		}
	}
}

// TestChallengeNamesScopesWhereScopesLack, and those of the first way.
func TestChallengeNamesScopesWhereScopesLack(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	for want, need := range map[string]guard.Requirement{
		"a":   guard.Require(guard.AnyScope("a", "b")),
		"a b": guard.Require(guard.Any(guard.AnyRole("r"), guard.Scopes("a", "b"))),
		"":    {Scopes: []string{"x"}, AnyRole: []string{"r"}},
	} {
		d := g.Decide(t.Context(), q.Token(guardtest.Token{Scopes: []string{"x"}}), need)
		got := guardhttp.Challenge(d, need, "")
		if has := strings.Contains(got, `scope="`+want+`"`); d.Status != 403 || has != (want != "") || want == "" && strings.Contains(got, ", scope=") {
			t.Errorf("%s: %d %s, want the scope %q", need, d.Status, got, want)
		}
	}
}
