package app

import (
	"context"
	"errors"

	"github.com/quash-project/quash/shared/approvers"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/hits"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/leaked"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
)

// serveRecords answers the revocation service, until ctx ends, what a cut would hit and who may make one, and
// takes its word and that of the rotator for what has leaked. The broker lets nobody else ask; whose records
// they are was checked there.
func (s *Service) serveRecords(ctx context.Context) error {
	server, err := natsapi.Serve(s.nats, wire.RecordsIssuer, natsapi.Config{Queue: "quash-issuer", Deadline: hits.Within, Log: s.log.Named("nats"), Traces: s.traces},
		natsapi.On(hits.Operation, frame.Public, s.hits), natsapi.On(approvers.Operation, frame.Public, s.approvers), natsapi.On(leaked.Operation, frame.Public, s.leaked))
	if err != nil {
		return err
	}
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	server.Stop(stop)
	return nil
}

func (s *Service) hits(ctx context.Context, in hits.Request) (hits.Answer, error) {
	if err := revoke.CheckName("tenant", in.Tenant); err != nil {
		return hits.Answer{}, problem.FieldError("tenant", "%v", err)
	}
	if in.Op != commit.Revoke && in.Op != commit.Hold {
		return hits.Answer{}, problem.FieldError("op", "%.40q: want revoke or hold", string(in.Op))
	}
	if len(in.Targets) > wire.MaxTargets {
		return hits.Answer{}, problem.FieldError("targets", "%d targets: %d at most", len(in.Targets), wire.MaxTargets)
	}
	targets := make([]revoke.Target, 0, len(in.Targets))
	for _, t := range in.Targets {
		one, err := revoke.NewTarget(in.Tenant, t.Issuer, t.Kind, t.ID)
		if err != nil || one.Issuer != revoke.Own {
			return hits.Answer{}, problem.FieldError("targets", "%s: want one of the tenant's own issuer", one)
		}
		targets = append(targets, one)
	}
	return s.domain.In(in.Tenant).Hits(ctx, in.Op, revoke.Stamp{Epoch: in.Epoch, Seq: in.Sequence}, targets)
}

func (s *Service) approvers(ctx context.Context, in approvers.Request) (approvers.Answer, error) {
	if err := revoke.CheckName("tenant", in.Tenant); err != nil {
		return approvers.Answer{}, problem.FieldError("tenant", "%v", err)
	}
	if len(in.Subjects) > approvers.MaxSubjects {
		return approvers.Answer{}, problem.FieldError("subjects", "%d subjects: %d at most", len(in.Subjects), approvers.MaxSubjects)
	}
	return s.domain.In(in.Tenant).Approvers(ctx, revoke.Stamp{Epoch: in.Epoch, Seq: in.Sequence}, in.Subjects)
}

func (s *Service) leaked(ctx context.Context, in leaked.Request) (leaked.Answer, error) {
	if len(in.Secrets) > leaked.MaxSecrets {
		return leaked.Answer{}, problem.FieldError("secrets", "%d secrets: %d at most", len(in.Secrets), leaked.MaxSecrets)
	}
	if err := errors.Join(revoke.CheckID("where", in.Where), problem.NoSecret("where", in.Where)); err != nil {
		return leaked.Answer{}, problem.FieldError("where", "%v", err)
	}
	var errs []error
	for _, secret := range in.Secrets {
		errs = append(errs, s.domain.ReportLeaked(ctx, secret, in.Where, in.From))
	}
	return leaked.Answer{}, errors.Join(errs...)
}
