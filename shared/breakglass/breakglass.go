// Package breakglass is the way in for the hour when a hold or a cut has locked
// everybody out: requests over NATS for which no token is asked, because only one
// identity may send them (see package identity). Each use is loud: it needs a
// reason, is logged as an error and counted, and what it does names the actor
// break-glass.
package breakglass

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
)

// Actor is who did it, for the audit.
const Actor = identity.BreakGlass

// Request is what every request has; embed it.
type Request struct {
	Reason string `json:"reason"` // why, for the audit; required
}

func (r Request) why() string { return r.Reason }

// Door counts and logs what comes in. Make it with New.
type Door struct {
	log  *zap.Logger
	uses *prometheus.CounterVec
}

// New returns a Door.
func New(log *zap.Logger) *Door {
	return &Door{log: log, uses: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quash_break_glass_total", Help: "Requests of the break-glass identity, and revocations and holds that went past a second person, by operation. Anything but 0 wants a person to look.",
	}, []string{"operation"})}
}

// Metrics returns the door's collector.
func (d *Door) Metrics() prometheus.Collector { return d.uses }

// Declare shows an operation before its first use.
func (d *Door) Declare(operation string) { d.uses.WithLabelValues(operation) }

// Used is told of a use that came by another way: of whoever went past a second person.
func (d *Door) Used(operation, actor, reason string, err error) {
	d.uses.WithLabelValues(operation).Inc()
	if problem.NoSecret("reason", reason) != nil {
		reason = "" // it was refused for it
	}
	d.log.Error("BREAK-GLASS was used", zap.String("operation", operation), zap.String("actor", actor), zap.String("reason", reason), zap.Error(err))
}

// On returns an endpoint of the door for natsapi.Serve.
func On[Req interface{ why() string }, Resp any](d *Door, name string, h func(context.Context, Req) (Resp, error)) natsapi.Endpoint {
	d.uses.WithLabelValues(name) // 0 is shown too
	return natsapi.On(name, httpapi.Public, func(ctx context.Context, r Req) (resp Resp, err error) {
		d.uses.WithLabelValues(name).Inc()
		if err := revoke.CheckID("reason", r.why()); err != nil {
			return resp, problem.FieldError("reason", "%v", err)
		}
		if err := problem.NoSecret("reason", r.why()); err != nil {
			return resp, err
		}
		resp, err = h(ctx, r)
		d.log.Error("BREAK-GLASS was used", zap.String("operation", name), zap.String("reason", r.why()), zap.Error(err))
		return resp, err
	})
}
