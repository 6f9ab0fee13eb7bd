// Package demo is a resource server as somebody else's would be: it knows Quash
// only through the guard. GET /orders wants the scope orders:read; everything
// else but /healthz does not exist.
//
//	g, err := guard.New([]guard.Issuer{{URL: issuer, Trust: trust}}, guard.WithNATS(url, creds))
//	...
//	go g.Run(ctx)
//	http.Serve(l, demo.Handler(g, log, nil))
package demo

import (
	"encoding/json"
	"io"
	"net/http"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardhttp"
	"github.com/quash-project/quash/shared/httpapi"
)

// Scope is what GET /orders wants.
const Scope = "orders:read"

// KeyHeader is where a guard that takes API keys (guard.WithExchange) finds one, beside
// the header Authorization.
const KeyHeader = "X-API-Key"

type order struct {
	ID    string `json:"id"`
	Item  string `json:"item"`
	Cents int    `json:"cents"`
}

// Handler answers by the decisions of g. /healthz says whether the guard may
// accept: a load balancer that asks it sends nobody to one that answers 503. Requests
// are followed by traces, where that is not nil, and the decisions of a guard that
// has guard.WithObserver(tracing.Decisions).
func Handler(g interface {
	guardhttp.Decider
	Ready() error
}, log *zap.Logger, traces trace.TracerProvider,
) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /orders", guardhttp.Require(g, guard.Require(guard.Scopes(Scope)), guardhttp.WithKeyHeader(KeyHeader))(http.HandlerFunc(orders)))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if g.Ready() != nil {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	return httpapi.Handler(mux, log, traces, httpapi.Leaks{Told: func(_ *http.Request, _ string, secrets []string) {
		for _, s := range secrets {
			g.KeyInURL(s)
		}
	}})
}

func orders(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ // the caller has gone; nothing is left to do
		"for":   guardhttp.TokenFrom(r.Context()).Subject,
		"items": []order{{"o-1", "tea", 450}, {"o-2", "honey", 890}},
	})
}
