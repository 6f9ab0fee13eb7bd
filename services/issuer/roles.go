package issuer

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// CreateRole makes a role.
func (s *Service) CreateRole(ctx context.Context, c Caller, name string, scopes []string, reason string) (Role, error) {
	if err := s.checkTenant(c); err != nil {
		return Role{}, err
	}
	if err := checkRoleName("name", name); err != nil {
		return Role{}, err
	}
	if err := checkScopes(c, scopes); err != nil {
		return Role{}, err
	}
	return s.makeRole(ctx, c, name, scopes, false, reason)
}

func (s *Service) makeRole(ctx context.Context, c Caller, name string, scopes []string, fixed bool, reason string) (Role, error) {
	id, err := s.newID(c)
	if err != nil {
		return Role{}, err
	}
	return stampFirst(ctx, s, true, func(m *making) (Role, error) {
		r := Role{
			ID: id, Tenant: c.Tenant, Name: name, Scopes: union(nil, scopes), Fixed: fixed, Stamp: m.stamp,
			Created: m.now.UTC().Truncate(time.Millisecond), Meta: s.meta(c, reason),
		}
		err := s.d.Store.Roles.Create(ctx, RoleKey(r.Tenant, r.Name), r)
		if err != nil && problem.KindOf(err) == problem.Conflict {
			if have, loadErr := s.d.Store.Roles.Load(ctx, RoleKey(r.Tenant, r.Name)); loadErr == nil && have.ID == id {
				return have, nil // by a try before
			}
			err = problem.Wrap(problem.Conflict, err, "there is a role %q already", name)
		}
		return r, err
	})
}

// Role returns a role by its name.
func (s *Service) Role(ctx context.Context, c Caller, name string) (Role, error) {
	if err := s.checkTenant(c); err != nil {
		return Role{}, err
	}
	if checkRoleName("name", name) != nil {
		return Role{}, problem.New(problem.NotFound, "there is no such role")
	}
	r, err := s.d.Store.Roles.Load(ctx, RoleKey(c.Tenant, name))
	if err != nil && problem.KindOf(err) == problem.NotFound {
		return Role{}, problem.New(problem.NotFound, "there is no role %q", name)
	}
	return r, err
}

// Roles returns the roles of the tenant, by name.
func (s *Service) Roles(_ context.Context, c Caller) ([]Role, error) {
	if err := s.checkTenant(c); err != nil {
		return nil, err
	}
	out := s.d.Store.Roles.Group(TenantGroup(c.Tenant))
	slices.SortFunc(out, func(a, b Role) int { return byAge(time.Time{}, a.Name, time.Time{}, b.Name) })
	return out, nil
}

var errFixed = problem.New(problem.Conflict, "this role is one of Quash's own and stays as it is")

// SetRole changes the scopes of a role. What only gives is a write; what takes a
// scope away is an ending: tokens made with the role until now are cut.
func (s *Service) SetRole(ctx context.Context, c Caller, name string, scopes []string, reason string, only ...If[Role]) (Role, *Ended, error) {
	r, err := s.Role(ctx, c, name)
	if err != nil {
		return Role{}, nil, err
	}
	if r.Fixed {
		return Role{}, nil, errFixed
	}
	scopes = union(nil, scopes)
	if err := checkScopesOf(c, &r, scopes); err != nil {
		return Role{}, nil, err
	}
	// Who has the role has it for as long as they do.
	more := slices.DeleteFunc(slices.Clone(scopes), func(sc string) bool { return slices.Contains(r.Scopes, sc) })
	if _, err := s.lasts(ctx, c, "scopes", more, time.Time{}); err != nil {
		return Role{}, nil, err
	}
	key, meta := RoleKey(r.Tenant, r.Name), s.meta(c, reason)
	if narrows(r.Scopes, scopes) {
		ended, err := s.narrowRole(ctx, c, r, scopes, reason, only)
		if err != nil {
			return Role{}, nil, err
		}
		r, err = s.d.Store.Roles.Load(ctx, key)
		return r, &ended, err
	}
	r, err = s.d.Store.Roles.Change(ctx, key, func(now Role) (Role, error) {
		if err := meets(now, now.Meta, meta, only); err != nil {
			return now, err
		}
		if now.ID != r.ID || now.Mark != nil || narrows(now.Scopes, scopes) {
			return now, errRoleChanged
		}
		if err := checkScopesOf(c, &now, scopes); err != nil {
			return now, err
		}
		if narrows(r.Scopes, now.Scopes) {
			return now, errRoleChanged
		}
		now.Scopes, now.Meta = scopes, meta
		return now, nil
	})
	return r, nil, err
}

// checkScopesOf tells whether the caller may have a role be these: what it has just now may
// stay, and what somebody took from it meanwhile does not come back by it.
func checkScopesOf(c Caller, now *Role, scopes []string) error {
	return checkScopes(Caller{Scopes: union(slices.Clone(c.Scopes), now.Scopes)}, scopes)
}

var errRoleChanged = problem.New(problem.Conflict, "the role was changed meanwhile; look at it again")

// narrows reports whether next lacks something that have has.
func narrows(have, next []string) bool {
	return slices.ContainsFunc(have, func(sc string) bool { return !slices.Contains(next, sc) })
}

func (s *Service) narrowRole(ctx context.Context, c Caller, r Role, scopes []string, reason string, only []If[Role]) (Ended, error) {
	if scopes == nil {
		scopes = []string{}
	}
	next, err := json.Marshal(scopes)
	if err != nil {
		return Ended{}, err
	}
	a, err := end(ctx, s, c, s.rolesMarkable(), RoleKey(r.Tenant, r.Name), func(now Role) (*endings.Mark, error) {
		if err := check(now, only); err != nil {
			return nil, err
		}
		if now.ID != r.ID {
			return nil, errRoleChanged
		}
		if err := checkScopesOf(c, &now, scopes); err != nil {
			return nil, err
		}
		if narrows(r.Scopes, now.Scopes) {
			return nil, errRoleChanged
		}
		m, err := s.newMark(c, reason, commit.Target{Kind: revoke.KindRole, ID: now.ID})
		if err == nil {
			m.Record, m.Next = true, next
		}
		return m, err
	})
	return Ended{Target: revoke.Target{Kind: revoke.KindRole, ID: r.ID}.String(), Answer: a}, err
}

// maxNamedBindings is how many bindings the end of a role names: as many as are one entry
// with it. Of more the role alone is cut, which all tokens with it carry in via, and which
// no binding outlives: the id is random. A mark that named them all would be too large a
// record.
const maxNamedBindings = wire.MaxTargets - 1

// DeleteRole cuts the role and its bindings and removes their records.
func (s *Service) DeleteRole(ctx context.Context, c Caller, name, reason string, only ...If[Role]) (Ended, error) {
	r, err := s.Role(ctx, c, name)
	if err != nil {
		return Ended{}, err
	}
	if r.Fixed {
		return Ended{}, errFixed
	}
	a, err := end(ctx, s, c, s.rolesMarkable(), RoleKey(r.Tenant, r.Name), func(r Role) (*endings.Mark, error) {
		if err := check(r, only); err != nil {
			return nil, err
		}
		targets := []commit.Target{{Kind: revoke.KindRole, ID: r.ID}}
		bindings := s.d.Store.Bindings.Group(RoleGroup(r.Tenant, r.ID))
		if len(bindings) > maxNamedBindings {
			bindings = nil
		}
		for _, b := range bindings {
			targets = append(targets, commit.Target{Kind: revoke.KindBinding, ID: b.BindingID()})
		}
		m, err := s.newMark(c, reason, targets...)
		if err == nil {
			m.Record = true
		}
		return m, err
	})
	return Ended{Target: revoke.Target{Kind: revoke.KindRole, ID: r.ID}.String(), Answer: a}, err
}

// RenewRole gives the role a new stamp: cuts that hit it until now do so no more.
func (s *Service) RenewRole(ctx context.Context, c Caller, name, reason string, only ...If[Role]) (Role, error) {
	r, err := s.Role(ctx, c, name)
	if err != nil {
		return Role{}, err
	}
	if err := checkScopes(c, r.Scopes); err != nil {
		return Role{}, err
	}
	if _, err := s.lasts(ctx, c, "name", r.Scopes, time.Time{}); err != nil {
		return Role{}, err
	}
	return stampFirst(ctx, s, true, func(m *making) (Role, error) {
		meta := s.meta(c, reason)
		return s.d.Store.Roles.Change(ctx, RoleKey(r.Tenant, r.Name), func(now Role) (Role, error) {
			if now.ID != r.ID || now.Mark != nil {
				return now, errRoleChanged
			}
			if err := meets(now, now.Meta, meta, only); err != nil {
				return now, err
			}
			now.Stamp, now.Meta = m.stamp, meta
			return now, nil
		})
	})
}
