package ledger

import (
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/tracing"
)

// endCommit says in the span of a commit where the entry stands, and nothing of
// what it is about.
func endCommit(span trace.Span, a commit.Answer, err error) {
	if err == nil && span.IsRecording() {
		span.SetAttributes(attribute.String("quash.position", a.Stamp().String()), attribute.Bool("quash.repeated", a.Repeated))
	}
	tracing.End(span, err)
}

// endStore says in the span of one try what the broker's answer means.
func endStore(span trace.Span, err error) {
	if err != nil && span.IsRecording() {
		var exists errExists
		switch err := classify(err); {
		case errors.As(err, &exists), errors.Is(err, errBusy):
			tracing.Ended(span, problem.Conflict) // a repetition, mostly
		case errors.Is(err, errRefused):
			tracing.Ended(span, problem.Invalid)
		case errors.Is(err, errNotStored):
			tracing.Ended(span, problem.Unavailable)
		default:
			tracing.Ended(span, problem.UnknownOutcome)
		}
	}
	span.End()
}
