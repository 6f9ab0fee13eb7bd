package issuer

import (
	"context"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// MaxRoles is how many roles a key may have, and how many may be bound to one
// subject: with a role and a binding for each, the claim via stays below its
// limit of 64.
const MaxRoles = 10

// heldRole is a role that somebody holds: by a binding's record, or because it
// was given with an API key.
//
// A role given with a key is a binding of its owner made at the key's birth: it
// has the key's stamp, and the owner's binding as its target. So taking the
// role from the owner (revoke binding:alice/R) takes it from the owner's keys.
type heldRole struct {
	role    RoleRef
	binding revoke.Key
	stamp   revoke.Stamp
	until   time.Time // zero: it does not end by itself
	// most are those of Quash's own scopes that come to the holder at most; nil: all do.
	most []string
}

// rolesOf returns what a subject holds by bindings. A binding that is ending
// makes issuing impossible for its short while: with it would be wrong, and
// without it the caller would get a token that lacks a role for no reason that
// they can see.
func (s *Service) rolesOf(subject string) ([]heldRole, error) {
	var out []heldRole
	for _, b := range s.d.Store.Bindings.Group(SubjectGroup(s.cfg.Tenant, subject)) {
		if b.Mark != nil {
			return nil, problem.New(problem.Unavailable, "a binding is being taken away; try again")
		}
		out = append(out, heldRole{b.Role, target(b.Tenant, revoke.KindBinding, b.BindingID()), b.Stamp, b.Expires, nil})
	}
	return out, nil
}

// holders are the subjects whose bindings count for the key.
func (k *Key) holders() []string {
	subjects := []string{k.ClientID()}
	if k.Kind == APIKey && k.Client != "" {
		// A client's roles are the client's own; the key acts within it.
		subjects[0] = KeyClientPrefix + k.ID
	}
	if k.OwnerRoles {
		subjects = append(subjects, k.Owner)
	}
	return subjects
}

// rolesOfKey returns what an API key or client secret holds.
func (s *Service) rolesOfKey(k *Key) ([]heldRole, error) {
	var out []heldRole
	for _, r := range k.Roles {
		id := revoke.PairID(k.Owner, r.ID)
		out = append(out, heldRole{role: r, binding: target(k.Tenant, revoke.KindBinding, id), stamp: k.Stamp})
	}
	for _, subject := range k.holders() {
		more, err := s.rolesOf(subject)
		if err != nil {
			return nil, err
		}
		for i := range more {
			if subject == k.Owner {
				more[i].most = k.OwnerMost
			}
		}
		out = append(out, more...)
	}
	return out, nil
}

// effective is what roles come to: those that are alive.
type effective struct {
	names  []string
	scopes []string
	via    []revoke.Key
	until  time.Time // when the first of them ends by itself; zero: none does
}

// roles reads the records of held roles and leaves out what is gone or hit: a
// role of which only the name has come back is gone.
func (s *Service) roles(ctx context.Context, m *making, held []heldRole) (effective, error) {
	var e effective
	for _, h := range held {
		if !h.until.IsZero() && h.until.Unix() <= m.now.Unix() {
			continue // tokens end at whole seconds: none could carry it any more
		}
		role, err := s.d.Store.Roles.Get(ctx, RoleKey(s.cfg.Tenant, h.role.Name))
		if problem.KindOf(err) == problem.NotFound && err != nil || err == nil && role.ID != h.role.ID {
			continue
		}
		if err != nil {
			return effective{}, err
		}
		roleKey := target(role.Tenant, revoke.KindRole, role.ID)
		hit1, err1 := m.hit(role.Stamp, roleKey)
		if err1 == nil && hit1 && role.Mark != nil && len(role.Mark.Next) == 0 {
			continue // its end is durable; to remove all its bindings may take a while
		}
		if role.Mark != nil {
			return effective{}, problem.New(problem.Unavailable, "role %q is being changed; try again", role.Name)
		}
		hit2, err2 := m.hit(h.stamp, h.binding)
		switch {
		case err1 != nil:
			return effective{}, err1
		case err2 != nil:
			return effective{}, err2
		case hit1 || hit2:
			continue
		}
		e.add(&role, &h, roleKey)
	}
	slices.Sort(e.names)
	return e, nil
}

func (e *effective) add(r *Role, h *heldRole, roleKey revoke.Key) {
	if !h.until.IsZero() && (e.until.IsZero() || h.until.Before(e.until)) {
		e.until = h.until
	}
	if !slices.Contains(e.names, r.Name) {
		e.names = append(e.names, r.Name)
	}
	e.scopes = union(e.scopes, h.within(r.Scopes))
	e.via = union(e.via, []revoke.Key{roleKey, h.binding})
}

// union appends to a those of b that it lacks, keeping the order.
func union[T comparable](a, b []T) []T {
	for _, v := range b {
		if !slices.Contains(a, v) {
			a = append(a, v)
		}
	}
	return a
}
