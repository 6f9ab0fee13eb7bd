package guard_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardtest"
)

func newServer(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// eventually waits until ok, for ten seconds at most.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
		time.Sleep(time.Millisecond) // between two looks at the condition
	}
}

func TestExchangeGoesOverTLSWithTheGivenRoots(t *testing.T) {
	q := guardtest.New(t)
	srv := httptest.NewUnstartedServer(q.Endpoints())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // one guard refuses its certificate
	srv.StartTLS()
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	key := q.APIKey(orders)
	good := q.Guard(guard.WithExchange(guard.Exchange{TokenURL: srv.URL + "/oauth/token", RootCAs: roots}))
	wantAllow(t, decide(good, key, read))
	bad := q.Guard(guard.WithExchange(guard.Exchange{TokenURL: srv.URL + "/oauth/token"}))
	wantDeny(t, decide(bad, key, read), http.StatusServiceUnavailable, guard.CheckExchange)
	wantExchanges(t, q, 1)
	good.KeyInURL(key)
	eventually(t, func() bool { return len(q.Leaked()) == 1 })
}

// TestOneExchangeAtATime: however many wait for it, also when the one that asked
// first has gone.
func TestOneExchangeAtATime(t *testing.T) {
	q := guardtest.New(t)
	gate := make(chan struct{})
	srv := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-gate
		q.Endpoints().ServeHTTP(w, r)
	}))
	g := q.Guard(guard.WithExchange(guard.Exchange{TokenURL: srv.URL + "/oauth/token"}))
	key := q.APIKey(orders)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan guard.Decision, 1)
	go func() { gone <- g.Decide(ctx, key, read) }()
	eventually(t, func() bool { return g.Stats().Exchanges == 1 })
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() { wantAllow(t, decide(g, key, read)) })
	}
	cancel()
	wantDeny(t, <-gone, http.StatusServiceUnavailable, guard.CheckExchange)
	close(gate)
	callers.Wait()
	wantExchanges(t, q, 1)
}

// TestExchangesAreBounded: who sends many made-up keys gets 503 for them, and keys
// that were exchanged go on.
func TestExchangesAreBounded(t *testing.T) {
	q := guardtest.New(t)
	gate := make(chan struct{})
	var closed atomic.Bool
	srv := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if closed.Load() {
			<-gate
		}
		q.Endpoints().ServeHTTP(w, r)
	}))
	x := guard.Exchange{TokenURL: srv.URL + "/oauth/token", Imported: regexp.MustCompile("k.*")}
	g := q.Guard(guard.WithExchange(x))
	key := q.APIKey(orders)
	wantAllow(t, decide(g, key, read))
	closed.Store(true)
	const many = 300
	answers := make(chan guard.Decision, many)
	for i := range many {
		go func() { answers <- decide(g, "k"+strings.Repeat("x", i), read) }()
	}
	for range many - 256 {
		d := <-answers
		wantDeny(t, d, http.StatusServiceUnavailable, guard.CheckExchange)
	}
	wantAllow(t, decide(g, key, read))
	close(gate)
	for range 256 {
		wantDeny(t, <-answers, http.StatusUnauthorized, guard.CheckExchange)
	}
}

// TestOddAnswersAreTheIssuersFault: never the key's, and nothing is taken from them.
func TestOddAnswersAreTheIssuersFault(t *testing.T) {
	q := guardtest.New(t)
	token := func(change guardtest.Token) string {
		return answer(t, map[string]any{
			"access_token": q.Token(change), "token_type": "Bearer", "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
		})
	}
	var elsewhere atomic.Int32
	thief := newServer(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	good := token(orders)
	for name, c := range map[string]struct {
		status int
		body   string
	}{
		"good":                {200, ""},
		"nothing":             {200, " "},
		"a page":              {200, "<html>"},
		"too much":            {200, `{"x":"` + strings.Repeat("x", 65<<10) + `"}`},
		"a member twice":      {200, strings.Replace(good, `{`, `{"token_type":"Bearer",`, 1)},
		"no token":            {200, `{"token_type":"Bearer","issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}`},
		"another token type":  {200, strings.Replace(good, `"Bearer"`, `"DPoP"`, 1)},
		"another issued type": {200, strings.Replace(good, "access_token\"", "refresh_token\"", 2)},
		"of another issuer":   {200, token(guardtest.Token{Claims: map[string]any{"iss": "https://evil.test"}})},
		"expired":             {200, token(guardtest.Token{Claims: map[string]any{"exp": q.Now().Unix(), "iat": q.Now().Unix() - 600}})},
		"without an end":      {200, token(guardtest.Token{Claims: map[string]any{"exp": nil}})},
		"an odd refusal":      {400, `{"error":"unsupported_grant_type"}`},
		"a refusal in HTML":   {400, "<html>"},
		"client wanted":       {401, `{"error":"invalid_client"}`},
		"broken":              {500, ""},
		"away":                {503, ""},
		"too many":            {429, `{"error":"slow_down"}`},
		"moved":               {307, ""},
	} {
		t.Run(name, func(t *testing.T) {
			srv := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if name == "good" {
					q.Endpoints().ServeHTTP(w, r)
					return
				}
				w.Header().Set("Location", thief.URL)
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			g := q.Guard(guard.WithExchange(guard.Exchange{TokenURL: srv.URL + "/oauth/token"}))
			d := decide(g, q.APIKey(orders), read)
			if name == "good" {
				wantAllow(t, d)
				return
			}
			wantDeny(t, d, http.StatusServiceUnavailable, guard.CheckExchange)
		})
	}
	if elsewhere.Load() != 0 {
		t.Error("a key was sent to where the issuer redirected")
	}
}

func answer(t *testing.T, doc any) string {
	t.Helper()
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestTokenOfAnExchangeIsVerified: whoever answers in the issuer's place gives
// nothing away.
func TestTokenOfAnExchangeIsVerified(t *testing.T) {
	q, evil := guardtest.New(t), guardtest.New(t)
	srv := newServer(t, evil.Endpoints())
	g := q.Guard(guard.WithExchange(guard.Exchange{TokenURL: srv.URL + "/oauth/token"}))
	d := decide(g, evil.APIKey(guardtest.Token{Subject: "root", Scopes: []string{"orders:read"}}), read)
	wantDeny(t, d, http.StatusUnauthorized, guard.CheckKey)
}

func TestMisconfiguredExchangeIsRefused(t *testing.T) {
	q := guardtest.New(t)
	own := q.Issuer()
	second := own
	second.URL, second.Tenant = "https://second.test", "second"
	foreign := guard.Issuer{URL: "https://login.test", Name: "login", JWKSURL: "https://login.test/keys", Audience: []string{"x"}}
	family := own
	family.Tenants = true
	for name, c := range map[string]struct {
		issuers []guard.Issuer
		x       guard.Exchange
		want    string // "" if it is right
	}{
		"one":              {[]guard.Issuer{own, foreign}, guard.Exchange{}, ""},
		"named":            {[]guard.Issuer{own, second}, guard.Exchange{Issuer: second.URL}, ""},
		"a tenant":         {[]guard.Issuer{family}, guard.Exchange{Issuer: own.URL + "/t/acme"}, ""},
		"not its tenant":   {[]guard.Issuer{own}, guard.Exchange{Issuer: own.URL + "/t/acme"}, "none of the guard's own"},
		"two":              {[]guard.Issuer{own, second}, guard.Exchange{}, "say whose keys"},
		"unknown":          {[]guard.Issuer{own}, guard.Exchange{Issuer: "https://x.test"}, "none of the guard's own"},
		"foreign":          {[]guard.Issuer{own, foreign}, guard.Exchange{Issuer: foreign.URL}, "none of the guard's own"},
		"in the clear":     {[]guard.Issuer{own}, guard.Exchange{TokenURL: "http://quash.test/oauth/token"}, "want https"},
		"no URL":           {[]guard.Issuer{own}, guard.Exchange{TokenURL: "quash.test"}, "want an absolute URL"},
		"roots and client": {[]guard.Issuer{own}, guard.Exchange{Client: &http.Client{}, RootCAs: x509.NewCertPool()}, "RootCAs beside Client"},
		"takes everything": {[]guard.Issuer{own}, guard.Exchange{Imported: regexp.MustCompile(".*")}, "matches the empty text"},
	} {
		_, err := guard.New(c.issuers, guard.WithFollow(q.Follow()), guard.WithExchange(c.x))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestKeyInURLIsToldOnce(t *testing.T) {
	q := guardtest.New(t)
	var mu sync.Mutex
	var heard []string
	x := q.Exchange()
	x.OnKeyInURL = func(id string) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, "key:"+id)
	}
	g := q.Guard(guard.WithExchange(x))
	quiet := q.Exchange()
	quiet.NoReport, quiet.OnKeyInURL = true, x.OnKeyInURL
	silent := q.Guard(guard.WithExchange(quiet))
	key, other := q.APIKey(orders), q.APIKey(orders)
	for range 10 {
		g.KeyInURL(key)
	}
	g.KeyInURL("quash_key_mistyped")
	eventually(t, func() bool { return len(q.Leaked()) == 1 })
	silent.KeyInURL(other)
	q.Advance(61 * time.Second)
	g.KeyInURL(key)
	eventually(t, func() bool { return len(q.Leaked()) == 2 })
	mu.Lock()
	defer mu.Unlock()
	want := q.KeyTarget(key) + " " + q.KeyTarget(other) + " " + q.KeyTarget(key)
	if got := strings.Join(heard, " "); got != want {
		t.Errorf("heard of %s, want %s", got, want)
	}
	for _, l := range q.Leaked() {
		if l != q.KeyTarget(key) {
			t.Errorf("told of %s", l)
		}
	}
}
