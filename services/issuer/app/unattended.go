package app

import (
	"context"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/services/issuer/httpapi"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/keyrotation"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
)

// serveRotation does what schedules want of keys and client secrets, until ctx ends. The rotator
// alone can ask, and tells who has made a schedule.
func (s *Service) serveRotation(ctx context.Context) error {
	server, err := natsapi.Serve(s.nats, wire.KeysIssuer, natsapi.Config{Queue: "quash-issuer", Deadline: keyrotation.Within, Log: s.log.Named("nats"), Traces: s.traces},
		natsapi.On(keyrotation.OpRotate, frame.Public, s.rotateUnattended), natsapi.On(keyrotation.OpMay, frame.Public, s.mayRotateUnattended),
		natsapi.On(keyrotation.OpAge, frame.Public, s.ageOfKey))
	if err != nil {
		return err
	}
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	server.Stop(stop)
	return nil
}

func refOf(r keyrotation.Ref) (issuer.KeyRef, error) {
	if err := revoke.CheckName("tenant", r.Tenant); err != nil {
		return issuer.KeyRef{}, problem.FieldError("tenant", "%v", err)
	}
	if (r.Key == "") == (r.Client == "") {
		return issuer.KeyRef{}, problem.FieldError("ref", "want one of key and client")
	}
	return issuer.KeyRef{Key: r.Key, Client: r.Client}, nil
}

func (s *Service) rotateUnattended(ctx context.Context, in keyrotation.Rotate) (keyrotation.Rotated, error) {
	ref, err := refOf(in.Ref)
	if err != nil {
		return keyrotation.Rotated{}, err
	}
	for field, text := range map[string]string{"firing": in.Firing, "actor": in.Actor, "reason": in.Reason} {
		if err := revoke.CheckID(field, text); err != nil {
			return keyrotation.Rotated{}, problem.FieldError(field, "%v", err)
		}
		if err := problem.NoSecret(field, text); err != nil {
			return keyrotation.Rotated{}, err
		}
	}
	a, err := s.domain.In(in.Ref.Tenant).RotateUnattended(ctx, issuer.Caller{Actor: in.Actor, Tenant: in.Ref.Tenant, Request: frame.RequestID(ctx)}, ref,
		issuer.Unattended{Firing: in.Firing, Overlap: time.Duration(in.OverlapMS) * time.Millisecond, Reason: in.Reason})
	if err != nil {
		return keyrotation.Rotated{}, err
	}
	out := keyrotation.Rotated{Outcome: string(a.Outcome), Key: a.Key, Next: a.Next}
	if !a.Until.IsZero() {
		out.UntilMS = a.Until.UnixMilli()
	}
	return out, nil
}

func (s *Service) mayRotateUnattended(ctx context.Context, in keyrotation.May) (keyrotation.Yes, error) {
	ref, err := refOf(in.Ref)
	if err != nil {
		return keyrotation.Yes{}, err
	}
	c := issuer.Caller{Actor: in.Actor, Tenant: in.Ref.Tenant, Scopes: in.Scopes}
	return keyrotation.Yes{}, s.domain.In(in.Ref.Tenant).MayRotateUnattended(ctx, c, ref, httpapi.ScopeToMake)
}

func (s *Service) ageOfKey(ctx context.Context, in keyrotation.Ref) (keyrotation.Age, error) {
	ref, err := refOf(in)
	if err != nil {
		return keyrotation.Age{}, err
	}
	a, err := s.domain.In(in.Tenant).AgeOf(ctx, issuer.Caller{Actor: "rotator", Tenant: in.Tenant}, ref)
	if err != nil {
		return keyrotation.Age{}, err
	}
	return keyrotation.Age{Subject: a.Subject, CreatedMS: a.Key.Created.UnixMilli(), ExpiresMS: a.Key.Expires.UnixMilli()}, nil
}
