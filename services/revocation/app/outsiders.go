package app

import (
	"context"
	"time"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/services/revocation/httpapi"
	"github.com/quash-project/quash/shared/guard/wire"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// drain is how long requests that were accepted may take after the end.
const drain = 5 * time.Second

// serveOutsiders answers over NATS what the HTTP API answers, with the token in
// the header Authorization; and break-glass.
func (s *Service) serveOutsiders(ctx context.Context) error {
	cfg := natsapi.Config{Auth: s.api, Queue: "quash-revocation", Log: s.log.Named("nats"), Traces: s.traces}
	server, err := natsapi.Serve(s.nats, wire.APIRevocation, cfg, natsapi.On("revocations", rights.Revoke, s.commit))
	if err != nil {
		return err
	}
	glass, err := natsapi.Serve(s.nats, wire.BreakGlassRevocation, cfg, s.breakGlass()...)
	if err != nil {
		return err
	}
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	server.Stop(stop)
	glass.Stop(stop)
	return nil
}

// committing is a request over NATS: the body of the HTTP one and its
// idempotency key.
type committing struct {
	httpapi.Commit
	Key *string `json:"idempotency_key,omitempty"`
}

// commit answers as POST /v1/revocations: an httpapi.Entry, or an httpapi.PutOff.
func (s *Service) commit(ctx context.Context, in committing) (any, error) {
	key := ""
	if in.Key != nil {
		if key = *in.Key; key == "" {
			return nil, problem.FieldError("idempotency_key", "is empty: leave it out, or repeat with the same one")
		}
	}
	r, err := in.Request(key)
	if err != nil {
		return nil, err
	}
	c := frame.CallerOf(ctx)
	who := revocation.Caller{Actor: c.Actor(), ID: c.Subject + "\x1f" + c.Client, Tenant: c.Tenant, Subject: c.Subject, Targets: c.Targets, Request: frame.RequestID(ctx)}
	e, p, err := s.domain.Ask(ctx, who, r, 0)
	switch {
	case err != nil:
		return nil, err
	case p != nil:
		return httpapi.PutOff{Pending: httpapi.PendingOf(p, s.domain.Now())}, nil
	}
	return httpapi.EntryFor(c, s.domain.Home, e), nil
}
