package app

import (
	"context"
	"time"

	"github.com/quash-project/quash/shared/breakglass"
	"github.com/quash-project/quash/shared/guard/wire"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
)

// drain is how long requests over NATS may take after the end was asked for.
const drain = 5 * time.Second

// operatorRequest asks for an operator's key by break-glass.
type operatorRequest struct {
	breakglass.Request
	ExpiresIn string `json:"expires_in,omitempty"` // default issuer.OperatorKeyLife
}

// OperatorKey is the answer. The secret stands here alone.
type OperatorKey struct {
	ID        string     `json:"id"`
	Owner     string     `json:"owner"`
	ExpiresAt frame.Time `json:"expires_at"`
	Secret    string     `json:"secret"`
}

// breakGlass answers the break-glass identity until ctx ends.
func (s *Service) breakGlass(ctx context.Context) error {
	server, err := natsapi.Serve(s.nats, wire.BreakGlassIssuer, natsapi.Config{Queue: "quash-issuer", Log: s.log.Named("nats"), Traces: s.traces},
		breakglass.On(s.door, "operator", s.operatorKey))
	if err != nil {
		return err
	}
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	server.Stop(stop)
	return nil
}

func (s *Service) operatorKey(ctx context.Context, in operatorRequest) (OperatorKey, error) {
	var life time.Duration
	if in.ExpiresIn != "" {
		var err error
		if life, err = time.ParseDuration(in.ExpiresIn); err != nil || life <= 0 {
			return OperatorKey{}, problem.FieldError("expires_in", "want a positive duration as in 24h")
		}
	}
	if err := s.canMake(); err != nil {
		return OperatorKey{}, problem.Wrap(problem.Unavailable, err, "the issuer can't make anything yet; try again")
	}
	k, secret, err := s.domain.BreakGlassOperator(ctx, breakglass.Actor, in.Reason, life)
	if err != nil {
		return OperatorKey{}, err
	}
	return OperatorKey{ID: k.ID, Owner: k.Owner, ExpiresAt: frame.Time(k.Expires), Secret: secret.Reveal()}, nil
}
