package guard_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"regexp"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/guardhttp"
	"github.com/quash-project/quash/shared/guard/wire"
)

// A resource server behind a guard that follows the log over NATS.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	g, err := guard.New(
		[]guard.Issuer{{URL: os.Getenv("QUASH_URL"), Trust: []string{os.Getenv("QUASH_TRUST")}}},
		guard.WithNATS(os.Getenv("QUASH_NATS_URL"), os.Getenv("QUASH_NATS_CREDS")),
	)
	if err != nil {
		fmt.Println("not configured")
		return
	}
	go func() { _ = g.Run(ctx) }()
	orders := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "orders of", guardhttp.TokenFrom(r.Context()).Subject)
	})
	mux := http.NewServeMux()
	mux.Handle("GET /orders", guardhttp.Require(g, guard.Requirement{Scopes: []string{"orders:read"}})(orders))
	_ = http.ListenAndServe("127.0.0.1:8421", mux)
	// Output: not configured
}

// With Redis alone: no NATS, and the issuer's keys come from its JWKS URL.
func ExampleWithRedis() {
	view, err := denylist.Open("redis://guard:secret@127.0.0.1:6379", denylist.Config{})
	if err != nil {
		panic(err)
	}
	g, err := guard.New([]guard.Issuer{{
		URL:     "https://quash.example",
		JWKSURL: "https://quash.example/oauth/jwks",
	}}, guard.WithRedis(view))
	fmt.Println(g != nil, err)
	// Output: true <nil>
}

// An API behind another provider gets real-time revocation, too: register the
// provider under a short name, and revoke targets with --issuer NAME.
func ExampleIssuer() {
	view, err := denylist.Open("redis://127.0.0.1:6379", denylist.Config{})
	if err != nil {
		panic(err)
	}
	g, err := guard.New([]guard.Issuer{
		{URL: "https://quash.example", JWKSURL: "https://quash.example/oauth/jwks"},
		{
			URL: "https://login.example/tenant", Name: "login", Audience: []string{"api://orders"},
			JWKSURL: "https://login.example/tenant/keys",
		},
	}, guard.WithRedis(view))
	fmt.Println(g != nil, err)
	// Output: true <nil>
}

// A request that nobody can decide now is answered 503, and says nothing about
// the token.
func ExampleGuard_Ready() {
	view, err := denylist.Open("redis://127.0.0.1:6379", denylist.Config{})
	if err != nil {
		panic(err)
	}
	g, err := guard.New([]guard.Issuer{{URL: "https://quash.example", JWKSURL: "https://quash.example/oauth/jwks"}},
		guard.WithRedis(view))
	if err != nil {
		panic(err)
	}
	readyz := func(w http.ResponseWriter, _ *http.Request) {
		if err := g.Ready(); err != nil { // says what it waits for
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	}
	w := httptest.NewRecorder()
	readyz(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	fmt.Println(w.Code)
	// Output: 503
}

// An API whose clients send API keys today: the guard exchanges them, and no client
// changes.
func ExampleWithExchange() {
	g, err := guard.New(
		[]guard.Issuer{{URL: "https://quash.example", Trust: []string{"ed25519:WGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmY"}}},
		guard.WithNATS("tls://nats.example:4222", "guard.creds"),
		guard.WithExchange(guard.Exchange{
			Imported:   regexp.MustCompile(`sk_live_[0-9a-f]{32}`), // of the system before, see quash key import
			OnKeyInURL: func(id string) { fmt.Println("key:" + id + " was in a URL") },
		}),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	orders := guardhttp.Require(g, guard.Require(guard.Scopes("orders:read")), guardhttp.WithKeyHeader("X-API-Key"))(http.NotFoundHandler())
	r := httptest.NewRequest(http.MethodGet, "/orders", nil)
	r.Header.Set("X-API-Key", "quash_key_mistyped")
	w := httptest.NewRecorder()
	orders.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	// Output: 401 Bearer error="invalid_token", error_description="the API key is mistyped: its checksum, or its form, is wrong"
}

// Everybody may see their own orders, and support those of others; a route's document
// says the same.
func ExampleRequire() {
	need := guard.Require(
		guard.Scopes("orders:read"),
		guard.Any(guard.SubjectIs(guard.Path("user")), guard.AnyRole("support")),
	)
	fmt.Println(need)
	for _, a := range need.Alternatives() {
		fmt.Println(a.Scopes, a.Roles, a.Conditions)
	}
	// Output:
	// scope orders:read and (subject is {user} of the path or role support)
	// [orders:read] [] [subject is {user} of the path]
	// [orders:read] [support] []
}

// Payments want a proof of freshness before each answer; the rest of the API can
// live with the guard's limit.
func ExampleRequirement() {
	payments := guard.Requirement{Scopes: []string{"payments:write"}, MaxStale: guard.Probe}
	orders := guard.Requirement{Scopes: []string{"orders:read"}}
	fmt.Println(payments.MaxStale == guard.Probe, orders.MaxStale, wire.DefaultLimit)
	// Output: true 0s 15s
}
