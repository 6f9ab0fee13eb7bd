package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/quash-project/quash/shared/problem"
)

// TestOneLineARequestWithTheIDsThatItsCallerSees: at the level that is shipped, and
// its span is named by the route alone.
func TestOneLineARequestWithTheIDsThatItsCallerSees(t *testing.T) {
	core, lines := observer.New(zap.InfoLevel)
	spans := tracetest.NewInMemoryExporter()
	mux := http.NewServeMux()
	api := New(mux, "test", tokens{}, zap.NewNop())
	Register(api, huma.Operation{OperationID: "show", Method: "GET", Path: "/v1/things/{id}"}, Public,
		func(_ context.Context, in *struct {
			ID string `path:"id"`
			Q  string `query:"q"`
		},
		) (*struct{ Body string }, error) {
			switch in.ID {
			case "alice":
				return nil, problem.New(problem.NotFound, "alice is not there")
			case "away":
				return nil, problem.New(problem.Unavailable, "the log of alice is away")
			case "panic":
				panic("alice")
			}
			return &struct{ Body string }{"ok"}, nil
		})
	h := Handler(mux, zap.New(core), sdk.NewTracerProvider(sdk.WithSyncer(spans)))
	const trace = "0af7651916cd43dd8448eb211c80319c"
	for _, c := range []struct {
		method, path, span string
		status             int
	}{
		{"GET", "/v1/things/x", "GET /v1/things/{id}", 200},
		{"GET", "/v1/things/alice", "GET /v1/things/{id}", 404},
		{"GET", "/v1/things/away", "GET /v1/things/{id}", 503},
		{"GET", "/v1/things/panic", "GET /v1/things/{id}", 500},
		{"GET", "/alice", "GET", 404},
		{"POST", "/v1/things/alice", "POST", 405},
		{"GET", "/v1//alice", "GET", 404},
		{"ALICE", "/v1/things/alice", "_OTHER", 405},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			lines.TakeAll()
			spans.Reset()
			r := httptest.NewRequest(c.method, c.path+"?q=alice", nil)
			r.Header.Set("Traceparent", "00-"+trace+"-b7ad6b7169203331-01")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			var said []map[string]any
			for _, l := range lines.FilterMessage("request").All() {
				said = append(said, l.ContextMap())
			}
			id := w.Header().Get("X-Request-Id")
			if w.Code != c.status || len(said) != 1 || id == "" || said[0]["request_id"] != id || said[0]["trace_id"] != trace || said[0]["status"] != int64(c.status) {
				t.Errorf("status %d, request %q, lines %v", w.Code, id, said)
			}
			var doc problem.Document
			if c.status != 200 && (json.Unmarshal(w.Body.Bytes(), &doc) != nil || doc.RequestID != id) {
				t.Errorf("the error is of request %q: %s", doc.RequestID, w.Body)
			}
			got := spans.GetSpans()
			if len(got) != 1 || got[0].Name != c.span || got[0].SpanContext.TraceID().String() != trace || got[0].Parent.SpanID().String() != "b7ad6b7169203331" {
				t.Fatalf("spans %+v", got)
			}
			text, err := json.Marshal(got)
			if err != nil || strings.Contains(strings.ToLower(string(text)), "alice") || !strings.Contains(string(text), id) {
				t.Errorf("%v in the span %s", err, text)
			}
		})
	}
}

func TestWithoutTracesNoTraceIsNamed(t *testing.T) {
	core, lines := observer.New(zap.InfoLevel)
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	Handler(http.NewServeMux(), zap.New(core), nil).ServeHTTP(httptest.NewRecorder(), r)
	if l := lines.All(); len(l) != 1 || l[0].ContextMap()["trace_id"] != nil {
		t.Errorf("%v", l)
	}
}
