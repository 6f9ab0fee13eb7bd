package revocation

import (
	"context"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// Tenants tells when the issuer made a tenant; NotFound: there is none of that name.
type Tenants interface {
	// Made returns where the log was.
	Made(ctx context.Context, name string) (revoke.Stamp, error)
	// Created returns when it was, by the broker's clock.
	Created(ctx context.Context, name string) (time.Time, error)
}

// From returns from where in the log on entries are of the caller's tenant: those before are
// of an earlier one of the same name, which was deleted, and are not theirs to see. All are
// the home tenant's.
func (s *Service) From(ctx context.Context, tenant string) (revoke.Stamp, error) {
	if tenant == s.Home {
		return revoke.Stamp{}, nil
	}
	at, err := s.Tenants.Made(ctx, tenant)
	return at, noTenant(tenant, err)
}

// Since is From for what has no place in the log.
func (s *Service) Since(ctx context.Context, tenant string) (time.Time, error) {
	if tenant == s.Home {
		return time.Time{}, nil
	}
	at, err := s.Tenants.Created(ctx, tenant)
	return at, noTenant(tenant, err)
}

func noTenant(tenant string, err error) error {
	if err != nil && problem.KindOf(err) == problem.NotFound {
		return problem.New(problem.NotFound, "there is no tenant %q any more", tenant)
	}
	return err
}
