package tracing

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/quash-project/quash/shared/problem"
)

const (
	theTrace  = "0af7651916cd43dd8448eb211c80319c"
	theParent = "00-" + theTrace + "-b7ad6b7169203331-01"
)

func recorded() (trace.TracerProvider, *tracetest.InMemoryExporter) {
	e := tracetest.NewInMemoryExporter()
	return sdk.NewTracerProvider(sdk.WithSyncer(e)), e
}

// TestHeaderIsReadInAnyCaseAndWrittenInLower: NATS leaves headers as they are
// written, and other clients write Traceparent.
func TestHeaderIsReadInAnyCaseAndWrittenInLower(t *testing.T) {
	p, _ := recorded()
	for _, name := range []string{"traceparent", "Traceparent", "TRACEPARENT", "TraceParent"} {
		ctx, span := Begin(t.Context(), p, "x", http.Header(nats.Header{name: {theParent}, "tracestate": {"a=secret"}}))
		span.End()
		if ID(ctx) != theTrace {
			t.Errorf("%s: trace %q, want %s", name, ID(ctx), theTrace)
		}
		out := nats.Header{"TraceParent": {"of before"}}
		Inject(ctx, out)
		if len(out) != 1 || len(out["traceparent"]) != 1 || !strings.HasPrefix(out["traceparent"][0], "00-"+theTrace) {
			t.Errorf("%s: sent on as %v: want traceparent alone, of this trace", name, out)
		}
	}
	ctx, span := Begin(t.Context(), p, "x", http.Header{"Traceparent": {"00-nonsense"}})
	span.End()
	if id := ID(ctx); len(id) != 32 {
		t.Errorf("below nonsense: trace %q, want a new one", id)
	}
}

func TestNothingHappensWithoutAProvider(t *testing.T) {
	ctx, span := Begin(t.Context(), nil, "x", http.Header{"Traceparent": {theParent}})
	defer span.End()
	ctx, child := Start(ctx, "y", trace.SpanKindInternal)
	defer child.End()
	out := nats.Header{}
	if Inject(ctx, out); ID(ctx) != "" || child.IsRecording() || len(out) > 0 {
		t.Errorf("trace %q, header %v", ID(ctx), out)
	}
}

// TestErrorsAreToldByTheirKind: their text may have anything in it.
func TestErrorsAreToldByTheirKind(t *testing.T) {
	p, e := recorded()
	ctx, root := Begin(t.Context(), p, "root", nil)
	for _, c := range []struct {
		err  error
		kind string
		code codes.Code
	}{
		{errors.New("secret"), "internal", codes.Error},
		{problem.New(problem.UnknownOutcome, "secret"), "unknown-outcome", codes.Error},
		{problem.New(problem.Conflict, "secret"), "conflict", codes.Unset},
	} {
		e.Reset()
		_, span := Start(ctx, "x", trace.SpanKindInternal)
		End(span, c.err)
		got := e.GetSpans()
		if len(got) != 1 || got[0].Status.Code != c.code || got[0].Status.Description != "" || len(got[0].Events) > 0 ||
			len(got[0].Attributes) != 1 || got[0].Attributes[0].Value.AsString() != c.kind {
			t.Errorf("%v: %+v", c.err, got)
		}
	}
	root.End()
}

func TestOffWithoutAnEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		endpoint string
		env      map[string]string
		on       bool
		wrong    string
	}{
		"nothing":         {},
		"configured":      {endpoint: "http://127.0.0.1:1", on: true},
		"environment":     {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, on: true},
		"of traces alone": {env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/x"}, on: true},
		"disabled":        {endpoint: "http://127.0.0.1:1", env: map[string]string{"OTEL_SDK_DISABLED": "true"}},
		"http":            {endpoint: "http://127.0.0.1:1", env: map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, on: true},
		"grpc":            {endpoint: "http://127.0.0.1:1", env: map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, wrong: "4318"},
	} {
		t.Run(name, func(t *testing.T) {
			p, stop, err := Open(Config{Endpoint: c.endpoint}, "x", func(k string) string { return c.env[k] }, zap.NewNop())
			stop()
			if (p != nil) != c.on || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("provider %v, error %v", p != nil, err)
			}
		})
	}
	for _, bad := range []string{"collector:4318", "ftp://x", "https://", "https://x/?a=b", "https://user:hunter2@x:4318"} {
		if err := (Config{Endpoint: bad}).Validate(); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("endpoint %q: %v", bad, err)
		}
	}
}

// TestSpansAreSentAndACollectorThatIsAwayIsSaid: below the configured base URL,
// with the service's name; and its refusal is a line in the log.
func TestSpansAreSentAndACollectorThatIsAwayIsSaid(t *testing.T) {
	got := make(chan string, 1)
	status := http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.URL.Path + " " + string(body)
		w.WriteHeader(status)
	}))
	defer srv.Close()
	core, lines := observer.New(zap.WarnLevel)
	send := func() {
		p, stop, err := Open(Config{Endpoint: srv.URL + "/base"}, "quash-x", func(string) string { return "" }, zap.New(core))
		if err != nil {
			t.Fatal(err)
		}
		_, span := Begin(context.Background(), p, "the span", nil)
		span.End()
		stop()
	}
	send()
	if s := <-got; !strings.HasPrefix(s, "/base/v1/traces ") || !strings.Contains(s, "quash-x") || !strings.Contains(s, "the span") {
		t.Errorf("the collector got %q", s)
	}
	if lines.Len() > 0 {
		t.Errorf("all went well, and the log says %v", lines.All())
	}
	status = http.StatusForbidden
	send()
	<-got
	if lines.Len() == 0 {
		t.Error("the collector refuses, and the log does not say so")
	}
}
