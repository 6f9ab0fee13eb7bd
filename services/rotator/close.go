package rotator

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/signing"
)

// errNothingLeft says that a tenant that is ending has no signing keys any more.
var errNothingLeft = errors.New("nothing is left of the tenant's signing keys")

// close does one step of what ends a tenant's keys: each is revoked, the log is told, the
// rotations are forgotten, and then the keys' record goes. It is called with what Store.Set has answered.
func (r *Rotator) close(ctx context.Context, tenant string, set signing.Set, missing error) (progress bool, again time.Time, _ error) {
	nothing := problem.KindOf(missing) == problem.NotFound && missing != nil
	if missing != nil && !nothing {
		return false, time.Time{}, missing
	}
	// The copy may show the end of a tenant whose name has been given again. What was read
	// until here is of one that has ended, if the name is still nobody's now.
	rotations, err := r.Store.Rotations(tenant)
	if err != nil {
		return false, time.Time{}, err
	}
	if ends, err := r.Store.Ends(ctx, tenant); err != nil || !ends {
		return false, r.Now().Add(time.Second), err
	}
	if nothing {
		// Another replica may have taken a rotation in before it knew of the end.
		err := errors.Join(r.forget(ctx, rotations), r.clear(ctx, tenant))
		if err == nil && len(rotations) == 0 {
			err = errNothingLeft
		}
		return false, r.Now(), err
	}
	err = r.closeStep(ctx, &set, rotations)
	if errors.Is(err, errOvertaken) || problem.KindOf(err) == problem.Conflict {
		return false, r.Now(), nil // what was read had been changed already
	}
	return err == nil, r.Now().Add(time.Second), err
}

func (r *Rotator) closeStep(ctx context.Context, set *signing.Set, rotations []string) error {
	if open(set) {
		r.Log.Warn("the signing keys of a deleted tenant end", zap.String("tenant", set.Tenant))
		meta := r.meta(automatic, "the tenant is deleted")
		return r.change(ctx, set.Tenant, func(cur *signing.Set) error {
			if cur.CreatedAt != set.CreatedAt {
				return errOvertaken
			}
			return closeAll(cur, meta)
		})
	}
	if steps := r.cfg.Policy.messages(set, Facts{Now: r.Now()}); len(steps) > 0 {
		return r.do(ctx, set, steps[0])
	}
	if err := r.forget(ctx, rotations); err != nil {
		return err
	}
	// The record of the keys goes last: the issuer gives the name away once it is gone.
	if err := r.clear(ctx, set.Tenant); err != nil {
		return err
	}
	return r.Store.RemoveSet(ctx, *set)
}

// forgotten reports whether no rotation of a tenant is known.
func (r *Rotator) forgotten(tenant string) bool {
	ids, err := r.Store.Rotations(tenant)
	return err == nil && len(ids) == 0
}

// forget removes the rotations of a tenant: one that waits must not become one of another
// tenant that gets the name.
func (r *Rotator) forget(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if err := r.Store.RemoveRotation(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

func (r *Rotator) clear(ctx context.Context, tenant string) error {
	if r.Clear == nil {
		return nil
	}
	return r.Clear(ctx, tenant)
}

// open reports whether a key of the set could still sign, or its signatures count.
func open(s *signing.Set) bool {
	for _, k := range s.Keys {
		if k.State != signing.Revoked && k.State != signing.Gone {
			return true
		}
	}
	return false
}

// closeAll revokes every key. One that nobody has heard of is forgotten.
func closeAll(s *signing.Set, meta signing.Meta) error {
	kept := s.Keys[:0:0]
	for _, k := range s.Keys {
		if k.State == signing.Planned {
			continue
		}
		if k.State != signing.Gone && k.State != signing.Revoked {
			k.State, k.StoppedAt, k.Meta = signing.Revoked, meta.At, meta
		}
		k.Sealed = nil
		kept = append(kept, k)
	}
	s.Keys, s.Meta = kept, meta
	return nil
}
