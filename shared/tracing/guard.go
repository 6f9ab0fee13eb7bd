package tracing

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/problem"
)

// Decisions makes a span of each decision of a guard, below that of its request:
// guard.WithObserver(tracing.Decisions). It says what was decided and by which view,
// and not about whom.
func Decisions(ctx context.Context) (context.Context, func(guard.Decision)) {
	ctx, span := Start(ctx, "guard decision", trace.SpanKindInternal)
	return ctx, func(d guard.Decision) {
		if span.IsRecording() {
			span.SetAttributes(attribute.String("quash.outcome", d.Outcome.String()))
			if d.Check != "" {
				span.SetAttributes(attribute.String("quash.check", d.Check))
			}
			if d.Source != "" {
				span.SetAttributes(attribute.String("quash.source", d.Source),
					attribute.Int64("quash.staleness_ms", d.Staleness.Milliseconds()),
					attribute.String("quash.watermark", d.Watermark.String()))
			}
			if d.Outcome == guard.Unavailable { // about the guard, not the token
				Ended(span, problem.Unavailable)
			}
		}
		span.End()
	}
}
