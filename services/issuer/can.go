package issuer

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// Way is one way by which a subject has a scope: its own, or by a role.
type Way struct {
	Role    string // "": the subject has it itself
	Holder  string // whose role it is, or whose own scope
	State   State
	HitBy   []string
	Expires time.Time // zero: it does not end by itself
}

// Ability tells whether a subject may do something now, and why.
type Ability struct {
	Allowed bool
	State   State    // of the subject itself
	HitBy   []string // what refuses the subject itself
	Ways    []Way    // those that do not count now among them
}

// Can tells what a principal, a client (client_...) or an API key (key_...) could do with
// a token that was made now. It is for people, and decides nothing.
func (s *Service) Can(ctx context.Context, c Caller, subject, scope string) (Ability, error) {
	if err := s.checkTenant(c); err != nil {
		return Ability{}, err
	}
	if err := s.checkSubject(ctx, c, subject); err != nil {
		return Ability{}, err
	}
	if err := rights.CheckScope(scope); err != nil {
		return Ability{}, problem.FieldError("scope", "%v", err)
	}
	var a Ability
	var err error
	switch {
	case strings.HasPrefix(subject, ClientPrefix):
		err = s.canClient(ctx, c, &a, subject, scope)
	case strings.HasPrefix(subject, KeyClientPrefix):
		err = s.canKey(ctx, c, &a, strings.TrimPrefix(subject, KeyClientPrefix), scope)
	default:
		a.State, a.HitBy = s.Standing(false, time.Time{}, s.HeldBy(own(c.Tenant, revoke.KindPrincipal, subject)))
		err = s.waysOf(ctx, c, &a, subject, scope)
	}
	a.Allowed = a.State == StateActive && slices.ContainsFunc(a.Ways, func(w Way) bool { return w.State == StateActive })
	return a, err
}

func (s *Service) canClient(ctx context.Context, c Caller, a *Ability, id, scope string) error {
	cl, err := s.Client(ctx, c, id)
	if err != nil {
		return err
	}
	a.State, a.HitBy = s.Standing(cl.Mark != nil, time.Time{}, s.HeldBy(ClientTarget(&cl)))
	if slices.Contains(cl.Scopes, scope) {
		a.Ways = append(a.Ways, Way{Holder: id, State: StateActive})
	}
	return s.waysOf(ctx, c, a, id, scope)
}

func (s *Service) canKey(ctx context.Context, c Caller, a *Ability, id, scope string) error {
	k, err := s.Key(ctx, c, id)
	if err != nil {
		return err
	}
	a.State, a.HitBy = s.Standing(k.Mark != nil, k.Expires, s.HitBy(k.Stamp, KeyTargets(&k)...))
	if slices.Contains(k.Scopes, scope) {
		a.Ways = append(a.Ways, Way{Holder: KeyClientPrefix + id, State: StateActive})
	}
	for _, r := range k.Roles {
		given := Binding{Tenant: k.Tenant, Subject: k.Owner, Role: r, Stamp: k.Stamp}
		if err := s.wayBy(ctx, c, a, &given, KeyClientPrefix+id, scope); err != nil {
			return err
		}
	}
	if err := s.waysOf(ctx, c, a, KeyClientPrefix+id, scope); err != nil || !k.OwnerRoles || !k.takes(scope) {
		return err
	}
	return s.waysOf(ctx, c, a, k.Owner, scope)
}

// waysOf adds the roles that are bound to a subject and have the scope.
func (s *Service) waysOf(ctx context.Context, c Caller, a *Ability, subject, scope string) error {
	bindings, err := s.Bindings(ctx, c, BindingFilter{Subject: subject})
	for i := range bindings {
		if err == nil {
			err = s.wayBy(ctx, c, a, &bindings[i], subject, scope)
		}
	}
	return err
}

// wayBy adds a role that is held by a binding, if it has the scope.
func (s *Service) wayBy(ctx context.Context, c Caller, a *Ability, b *Binding, holder, scope string) error {
	r, err := s.Role(ctx, c, b.Role.Name)
	if problem.KindOf(err) == problem.NotFound && err != nil || err == nil && r.ID != b.Role.ID {
		return nil // a role of which only the name has come back is gone
	}
	if err != nil || !slices.Contains(r.Scopes, scope) {
		return err
	}
	w := Way{Role: r.Name, Holder: holder, Expires: b.Expires}
	hits := append(s.HitBy(b.Stamp, BindingTarget(b)), s.HitBy(r.Stamp, RoleTarget(&r))...)
	w.State, w.HitBy = s.Standing(b.Mark != nil || r.Mark != nil, b.Expires, hits)
	a.Ways = append(a.Ways, w)
	return nil
}
