package issuer

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/approvers"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// Approvers tells who may make cuts in the tenant now, as far as it is asked: see
// approvers.Answer. The error is Unavailable where the copies or the view can't show all
// that is there now.
func (s *Service) Approvers(ctx context.Context, after revoke.Stamp, subjects []string) (approvers.Answer, error) {
	if err := s.seesAll(ctx, after); err != nil {
		return approvers.Answer{}, err
	}
	if err := s.d.Store.Principals.Fresh(ctx); err != nil {
		return approvers.Answer{}, err
	}
	var out approvers.Answer
	wanted := map[string]bool{}
	for _, subject := range subjects {
		if !strings.HasPrefix(subject, ClientPrefix) {
			wanted[subject] = true
			continue
		}
		a, err := s.Can(ctx, Caller{Actor: identity.Revocation, Tenant: s.cfg.Tenant}, subject, rights.Revoke)
		switch {
		case err == nil && a.Allowed:
			out.May = append(out.May, subject)
		case err != nil && problem.KindOf(err) != problem.NotFound && problem.KindOf(err) != problem.Invalid: // no such client
			return approvers.Answer{}, err
		}
	}
	people := map[string]bool{} // by owner; false: a workload
	err := s.cutters(ctx, func(k *Key, is standing) (bool, error) {
		person, seen := people[k.Owner]
		if !seen {
			var err error
			if person, err = s.isPerson(ctx, k.Owner); err != nil {
				return false, err
			}
			if people[k.Owner] = person; person {
				out.Count = min(out.Count+1, approvers.Enough)
			}
		}
		if is == standsNow && wanted[k.Owner] {
			delete(wanted, k.Owner)
			out.May = append(out.May, k.Owner)
			if person {
				out.People = append(out.People, k.Owner)
			}
		}
		return out.Count < approvers.Enough || len(wanted) > 0, nil
	})
	return out, err
}

// isPerson reports whether a principal may be a person: it is, unless its record says
// otherwise.
func (s *Service) isPerson(ctx context.Context, id string) (bool, error) {
	p, err := s.d.Store.Principals.Load(ctx, PrincipalKey(s.cfg.Tenant, id))
	if err != nil && problem.KindOf(err) == problem.NotFound {
		return true, nil
	}
	return err == nil && p.Kind != Workload, err
}

// standing is how something stands in the log, for the question how many people there are.
type standing int

const (
	standsNot standing = iota
	// stoodLately: it is held, or was cut within lately. Nobody becomes the only person by
	// cutting the others off first.
	stoodLately
	standsNow
)

const lately = 24 * time.Hour

func (s *Service) stands(hits []Hit) standing {
	is := standsNow
	for _, h := range hits {
		if !h.Held && s.d.Now().Sub(time.UnixMilli(h.CutAt)) >= lately {
			return standsNot
		}
		is = stoodLately
	}
	return is
}

// cutters gives the API keys that may make cuts, or could lately, until yield says that it is
// enough.
func (s *Service) cutters(ctx context.Context, yield func(*Key, standing) (more bool, err error)) error {
	roles, bound := map[string]standing{}, map[string]standing{}
	for r := range s.d.Store.Roles.Walk(TenantGroup(s.cfg.Tenant)) {
		if r.Mark != nil || !slices.Contains(r.Scopes, rights.Revoke) {
			continue
		}
		role := s.stands(s.HitBy(r.Stamp, RoleTarget(&r)))
		roles[r.ID] = role
		for _, b := range s.d.Store.Bindings.Group(RoleGroup(r.Tenant, r.ID)) {
			if b.Mark == nil && !b.Ended(s.d.Now()) {
				bound[b.Subject] = max(bound[b.Subject], min(role, s.stands(s.HitBy(b.Stamp, BindingTarget(&b)))))
			}
		}
	}
	for k := range s.d.Store.Keys.Walk(TenantGroup(s.cfg.Tenant)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if k.Kind != APIKey || s.StateOf(k.Mark != nil, k.Expires, nil) != StateActive {
			continue
		}
		is := s.cuts(&k, roles, bound)
		if is != standsNot {
			is = min(is, s.stands(s.HitBy(k.Stamp, KeyTargets(&k)...)))
		}
		if is == standsNot {
			continue
		}
		if more, err := yield(&k, is); err != nil || !more {
			return err
		}
	}
	return nil
}

// cuts tells how a key has the right itself, by a role given with it, or by one that is bound
// to whom it stands for.
func (s *Service) cuts(k *Key, roles, bound map[string]standing) standing {
	if slices.Contains(k.Scopes, rights.Revoke) {
		return standsNow
	}
	is := standsNot
	for _, r := range k.Roles {
		if role := roles[r.ID]; role != standsNot {
			// See heldRole: it is a binding of its owner.
			is = max(is, min(role, s.stands(s.HitBy(k.Stamp, own(k.Tenant, revoke.KindBinding, revoke.PairID(k.Owner, r.ID))))))
		}
	}
	for _, subject := range k.holders() {
		if subject != k.Owner || k.takes(rights.Revoke) {
			is = max(is, bound[subject])
		}
	}
	return is
}
