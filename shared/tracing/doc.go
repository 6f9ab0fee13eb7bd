// Package tracing follows a request through the services by OpenTelemetry: from
// HTTP over NATS to the commit, and to the decisions of guards. It is off where no
// endpoint is set.
//
// A service has a provider (Open), with which the ways in begin spans; nothing is
// global. Everything below them takes the provider of the span in its context:
//
//	ctx, span := tracing.Begin(ctx, provider, "POST /v1/revocations", r.Header)
//	...
//	ctx, span := tracing.Start(ctx, "commit", trace.SpanKindInternal) // nothing, where there is no span in ctx
//	defer func() { tracing.End(span, err) }()
//
// No span has a secret, a token, an id of a person or of what is theirs, or the
// text of an error, which may have one: names are those of routes, and errors are
// named by their kind. Of what a caller sends only traceparent is taken: it is an
// id. A caller can choose it, and that it is not recorded; traces are no audit.
package tracing
