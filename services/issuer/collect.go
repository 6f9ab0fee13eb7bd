package issuer

import (
	"context"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// Collect asks for the sealed secret of a key's successor.
type Collect struct {
	Reason string
	// Current and Scope are those of Rotate. Whoever has the old secret may have the new one also
	// where keys do not rotate themselves.
	Current string
	Scope   func(KeyKind) string
}

// Collected is a sealed secret that was given out.
type Collected struct {
	Delivery
	Old Key
}

// Collect gives out the sealed secret of the key that takes the place of one. It is given out
// once; the same request gets it again.
func (s *Service) Collect(ctx context.Context, c Caller, id string, want Collect, only ...If[Key]) (Collected, error) {
	k, err := s.Key(ctx, c, id)
	if err := s.mayCollect(ctx, c, &k, &want, err); err != nil {
		return Collected{}, err
	}
	if err := s.collectable(c, &k); err != nil {
		return Collected{}, err
	}
	if s.d.Store.Deliveries == nil {
		return Collected{}, noDeliveries()
	}
	// Read before it counts as collected: what can't be had is not.
	d, err := s.d.Store.Deliveries.Load(ctx, RecordKey(k.Tenant, k.Rotation.Next))
	if err != nil {
		return Collected{}, notFoundConflict(err, "the sealed secret is gone: roll the rotation back, and rotate again")
	}
	meta := s.meta(c, want.Reason)
	old, err := s.d.Store.Keys.Change(ctx, RecordKey(k.Tenant, k.ID), func(k Key) (Key, error) {
		if wrote(k.Meta, meta) && k.Meta.Request == meta.Request && k.Rotation != nil {
			return k, nil // its own work, of which the answer was lost
		}
		if err := s.collectable(c, &k); err != nil {
			return k, err
		}
		if k.Rotation.Next != d.ID {
			return k, problem.New(problem.Conflict, "another key takes its place since; ask again")
		}
		if !k.Rotation.CollectedAt.IsZero() {
			return k, nil // by this very request
		}
		if err := check(k, only); err != nil {
			return k, err
		}
		r := *k.Rotation
		r.CollectedAt, r.CollectedBy, r.CollectedIn = meta.At, c.Actor, c.seed()
		k.Rotation, k.Meta = &r, meta
		return k, nil
	})
	return Collected{d, old}, err
}

// seed is what every try of a request has; empty: it is not repeated.
func (c *Caller) seed() string {
	if c.Try == nil {
		return ""
	}
	return c.Try.Seed()
}

// collectable tells whether the sealed secret can be given to a request.
func (s *Service) collectable(c Caller, k *Key) error {
	r := k.Rotation
	if r == nil || !r.Sealed {
		return problem.New(problem.NotFound, "no secret waits to be collected: the key is not being rotated by a schedule")
	}
	if err := s.inOverlap(k); err != nil {
		return err
	}
	switch {
	case r.CollectedAt.IsZero() && !s.d.Now().Before(r.Until):
		return problem.New(problem.Conflict, "it was to be collected until %s: the rotation is taken back, and the key stays as it is", r.Until.Format(time.RFC3339))
	case r.CollectedAt.IsZero() || r.CollectedIn != "" && r.CollectedIn == c.seed():
		return nil
	}
	return problem.New(problem.Conflict, "it was collected by %s at %s, and is given out once. If that was not you: quash key rollback %s, and find out who has the old secret", r.CollectedBy, r.CollectedAt.Format(time.RFC3339), k.ID)
}

// mayCollect tells whether the caller may have the sealed secret; found is the error of looking
// for the key.
func (s *Service) mayCollect(ctx context.Context, c Caller, k *Key, want *Collect, found error) error {
	if want.Current == "" {
		return s.mayRotate(ctx, c, k, &Rotate{Scope: want.Scope}, found)
	}
	return s.isOwn(c, k, want.Current, found)
}

// isOwn tells whether a secret is that of the key, and the caller's token of it.
func (s *Service) isOwn(c Caller, k *Key, current string, found error) error {
	switch {
	case found != nil && problem.KindOf(found) != problem.NotFound:
		return found
	case found != nil || !k.shows(current) || !slices.Contains(c.Targets, target(k.Tenant, revoke.KindKey, k.ID)):
		return problem.New(problem.Forbidden, "current is not the secret of this key, or the token is of another one: ask with a token that came from the key itself")
	}
	return nil
}
