package httpapi

import (
	"context"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/tracing"
)

// begin begins the span of a request. It is named by its route: the path itself has
// ids of people and keys in it.
func begin(r *http.Request, traces trace.TracerProvider, pattern, id string) (context.Context, trace.Span) {
	method, name := methodOf(r), methodOf(r)
	attrs := []attribute.KeyValue{attribute.String("http.request.method", method), attribute.String("quash.request_id", id)}
	if pattern != "" && IsClean(r) {
		_, route, found := strings.Cut(pattern, " ")
		if !found {
			route = pattern
		}
		name += " " + route
		attrs = append(attrs, attribute.String("http.route", route))
	}
	return tracing.Begin(r.Context(), traces, name, r.Header, attrs...)
}

// methodOf keeps what strangers make up out of the spans.
func methodOf(r *http.Request) string {
	switch m := r.Method; m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "_OTHER"
}

// finish ends it. What the caller got wrong is no error of the server's.
func finish(span trace.Span, status int, err error) {
	span.SetAttributes(attribute.Int("http.response.status_code", status))
	if status >= http.StatusInternalServerError {
		kind := problem.Internal
		if err != nil {
			kind = problem.KindOf(err)
		}
		tracing.Ended(span, kind)
	}
	span.End()
}
