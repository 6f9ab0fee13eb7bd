package app

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/services/rotator/schedule"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/keyrotation"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
)

// issuersKeys are the API keys and client secrets, which the issuer keeps.
type issuersKeys struct{ nats *nats.Conn }

func refTo(tenant string, t schedule.Target) keyrotation.Ref {
	if t.Kind == schedule.Client {
		return keyrotation.Ref{Tenant: tenant, Client: t.ID}
	}
	return keyrotation.Ref{Tenant: tenant, Key: t.ID}
}

func ask[Resp any](ctx context.Context, k issuersKeys, op string, req any) (Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, keyrotation.Within)
	defer cancel()
	return natsapi.Call[Resp](ctx, k.nats, wire.KeysIssuer+op, "", req)
}

// RotateKey implements schedule.Keys. An unknown outcome is asked for again under the same name.
func (k issuersKeys) RotateKey(ctx context.Context, r schedule.KeyRotation) (schedule.KeyRotated, error) {
	a, err := ask[keyrotation.Rotated](ctx, k, keyrotation.OpRotate, keyrotation.Rotate{
		Ref: refTo(r.Tenant, r.Key), Firing: r.ID, OverlapMS: r.Overlap.Milliseconds(), Actor: r.Actor, Reason: r.Reason,
	})
	if err != nil {
		return schedule.KeyRotated{}, err
	}
	out := schedule.KeyRotated{Next: a.Next}
	if a.UntilMS != 0 {
		out.Until = time.UnixMilli(a.UntilMS)
	}
	switch a.Outcome {
	case keyrotation.Sealed:
		out.Outcome = fmt.Sprintf("the secret of key %s is sealed to the recipient of key %s, who collects it: quash key collect %s", a.Next, a.Key, a.Key)
	case keyrotation.Due:
		out.Outcome = fmt.Sprintf("key %s is due, and was not rotated: nobody is registered who could have the new secret. Its owner was told by event; quash key recipient %s registers somebody", a.Key, a.Key)
	case keyrotation.TakenBack:
		out.Outcome = fmt.Sprintf("it was done, and taken back since: key %s is as it was", a.Key)
	default:
		return out, problem.New(problem.Unavailable, "the issuer's answer is %.40q, which this rotator does not know: upgrade it", a.Outcome)
	}
	return out, nil
}

// MayRotateKey implements schedule.Keys.
func (k issuersKeys) MayRotateKey(ctx context.Context, c schedule.Caller, t schedule.Target) error {
	_, err := ask[keyrotation.Yes](ctx, k, keyrotation.OpMay, keyrotation.May{Ref: refTo(c.Tenant, t), Actor: c.Actor, Scopes: c.Scopes})
	if problem.KindOf(err) == problem.UnknownOutcome { // it only asks
		return problem.Wrap(problem.Unavailable, err, "the issuer does not answer; try again")
	}
	return err
}

// Age implements schedule.Keys.
func (k issuersKeys) Age(ctx context.Context, tenant string, t schedule.Target) (schedule.Subject, error) {
	a, err := ask[keyrotation.Age](ctx, k, keyrotation.OpAge, refTo(tenant, t))
	switch {
	case err != nil && problem.KindOf(err) == problem.NotFound:
		return schedule.Subject{}, nil
	case err != nil && problem.KindOf(err) == problem.UnknownOutcome:
		return schedule.Subject{}, problem.Wrap(problem.Unavailable, err, "the issuer does not answer; try again")
	case err != nil:
		return schedule.Subject{}, err
	}
	return schedule.Subject{ID: a.Subject, Since: time.UnixMilli(a.CreatedMS), Expires: time.UnixMilli(a.ExpiresMS)}, nil
}

// subjects tells how old anything is that a schedule rotates.
type subjects struct {
	signingKeys
	keys issuersKeys
}

// Subject implements schedule.Subjects.
func (s subjects) Subject(ctx context.Context, tenant string, t schedule.Target) (schedule.Subject, error) {
	if t.Kind == schedule.SigningKey {
		return s.signingKeys.Subject(ctx, tenant, t)
	}
	return s.keys.Age(ctx, tenant, t)
}
