package issuer

import (
	"context"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/problem"
)

// mayRotate tells whether the caller may have a secret for all that the key gives; found is
// the error of looking for it. To whoever may not it looks as if there were none.
func (s *Service) mayRotate(ctx context.Context, c Caller, k *Key, r *Rotate, found error) error {
	if r.Current != "" {
		if err := s.isOwn(c, k, r.Current, found); err != nil {
			return err
		}
		if s.cfg.Keys.NoSelfRotation {
			return problem.New(problem.Forbidden, "keys do not rotate themselves here (self_rotation): ask an operator")
		}
		return nil
	}
	for _, kind := range []KeyKind{APIKey, ClientSecret} {
		if found == nil && k.Kind != kind || slices.Contains(c.Scopes, r.Scope(kind)) {
			continue
		}
		return problem.New(problem.Forbidden, "the token lacks the scope %s; a key rotates itself with its secret as current", r.Scope(kind))
	}
	if found != nil {
		if err := s.madeBefore(ctx, c); err != nil {
			return err
		}
		return found
	}
	return s.mayGiveKey(ctx, c, k)
}

// mayGiveKey tells whether the caller may give all that a key gives.
func (s *Service) mayGiveKey(ctx context.Context, c Caller, k *Key) error {
	all, err := s.scopesOfKey(ctx, c, k)
	if err != nil {
		return err
	}
	return mayGive(c, "id", all)
}

// givesKey is lasts of all that a key gives.
func (s *Service) givesKey(ctx context.Context, c Caller, field string, k *Key, until time.Time) (time.Time, error) {
	all, err := s.scopesOfKey(ctx, c, k)
	if err != nil {
		return time.Time{}, err
	}
	return s.lasts(ctx, c, field, all, until)
}

// scopesOfKey returns all that a key gives.
func (s *Service) scopesOfKey(ctx context.Context, c Caller, k *Key) ([]string, error) {
	scopes := k.Scopes
	if k.Kind == ClientSecret {
		cl, err := s.Client(ctx, c, k.Client)
		if err != nil {
			return nil, err
		}
		scopes = cl.Scopes
	}
	held, err := s.rolesOfKey(k)
	if err != nil {
		return nil, err
	}
	return s.scopesOf(ctx, scopes, held)
}
