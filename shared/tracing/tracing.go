package tracing

import (
	"context"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/quash-project/quash/shared/problem"
)

// scope names what makes the spans.
const scope = "github.com/quash-project/quash/shared/tracing"

// parentKey is the header of W3C Trace Context, in the case in which it is sent.
const parentKey = "traceparent"

var format propagation.TraceContext

// headers carries the id of a trace in a header. NATS knows headers by their exact
// name, and who sends one may write it in any case: keys are written in lower case
// and looked for in every one.
type headers map[string][]string

// Get returns traceparent alone: what callers write into tracestate goes nowhere.
func (h headers) Get(key string) string {
	if key != parentKey {
		return ""
	}
	if v := h[key]; len(v) > 0 {
		return v[0]
	}
	for name, v := range h {
		if strings.EqualFold(name, key) && len(v) > 0 {
			return v[0]
		}
	}
	return ""
}

// Set sets traceparent alone, in the place of one that was written otherwise.
func (h headers) Set(key, value string) {
	if key != parentKey {
		return
	}
	for name := range h {
		if strings.EqualFold(name, key) {
			delete(h, name)
		}
	}
	h[key] = []string{value}
}

func (h headers) Keys() []string {
	if h.Get(parentKey) == "" {
		return nil
	}
	return []string{parentKey}
}

// Begin begins a span where a request comes in, below that which its header names.
// Without a provider it does nothing. A nats.Header is an http.Header for it.
func Begin(ctx context.Context, p trace.TracerProvider, name string, h http.Header, attrs ...attribute.KeyValue) (context.Context, trace.Span) {
	if p == nil {
		return ctx, noop.Span{}
	}
	ctx = format.Extract(ctx, headers(h))
	return p.Tracer(scope).Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attrs...))
}

// Start begins a span below that in ctx, by the same provider; without one there
// it does nothing.
func Start(ctx context.Context, name string, kind trace.SpanKind, attrs ...attribute.KeyValue) (context.Context, trace.Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.SpanContext().IsValid() {
		return ctx, noop.Span{}
	}
	return parent.TracerProvider().Tracer(scope).Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attrs...))
}

// Inject has a message carry the id of the span in ctx, if there is one.
func Inject(ctx context.Context, h map[string][]string) { format.Inject(ctx, headers(h)) }

// End ends a span. Of an error it tells the kind alone; what the caller got wrong is
// no failure of the service.
func End(span trace.Span, err error) {
	if err != nil {
		Ended(span, problem.KindOf(err))
	}
	span.End()
}

// Ended says of a span that it came to a problem of a kind.
func Ended(span trace.Span, k problem.Kind) {
	if k.Status() >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, "")
	}
	span.SetAttributes(attribute.String("error.type", k.Name()))
}

// ID returns the id of the trace of ctx, for log lines; empty without one.
func ID(ctx context.Context) string {
	if c := trace.SpanContextFromContext(ctx); c.IsValid() {
		return c.TraceID().String()
	}
	return ""
}
