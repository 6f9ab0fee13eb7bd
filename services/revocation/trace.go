package revocation

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/quash-project/quash/services/revocation/fleet"
)

// maxGuardEvents is how many guards a span names: a fleet may have thousands.
const maxGuardEvents = 100

// endConfirm says in a span which guards have applied the entry, and when this was
// heard: so far a trace follows it. Guards are named by the resource servers that
// they are in, never by people.
func endConfirm(span trace.Span, c fleet.Confirmation) {
	defer span.End()
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attribute.Int("quash.confirmed", len(c.Confirmed)), attribute.Int("quash.unconfirmed", len(c.Unconfirmed)), attribute.Bool("quash.complete", c.Complete))
	for _, g := range c.Confirmed[:min(len(c.Confirmed), maxGuardEvents)] {
		span.AddEvent("applied by a guard", trace.WithTimestamp(g.At), trace.WithAttributes(attribute.String("quash.guard", g.Name)))
	}
}
