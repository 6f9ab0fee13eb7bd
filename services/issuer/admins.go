package issuer

import (
	"context"
	"slices"

	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// leaving is what a change would take away.
type leaving struct {
	key, client, owner string // ids, empty for none; of the owner all keys
	subject            string // of a binding to the ruling role
	back               string // a key whose rotation is taken back: it is no longer on its way out
}

// rulingRole is the role without whose holders nobody could rule the tenant any more.
func (s *Service) rulingRole() string {
	if s.isHome() {
		return rights.Operator
	}
	return rights.Admin
}

// endingRuler ends what can hold the ruling role, one at a time in a tenant: of two that
// would each leave it to the other, the second sees the mark of the first.
func (s *Service) endingRuler(ctx context.Context, c Caller, gone leaving, end func(context.Context) (Ended, error)) (Ended, error) {
	done, err := s.d.Store.Turn(ctx, "rulers."+s.cfg.Tenant)
	if err != nil {
		return Ended{}, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, TurnTime)
	defer cancel()
	for _, t := range []interface{ Fresh(context.Context) error }{s.d.Store.Keys, s.d.Store.Roles, s.d.Store.Bindings, s.d.Store.Clients} {
		if err := t.Fresh(ctx); err != nil {
			return Ended{}, err
		}
	}
	if err := s.keepsAdmin(ctx, c, gone); err != nil {
		return Ended{}, err
	}
	return end(ctx)
}

// keepsAdmin refuses a change after which no credential that is good now would hold the
// ruling role. What is revoked, held or expires is not asked about: break-glass lets
// somebody in again.
func (s *Service) keepsAdmin(ctx context.Context, c Caller, gone leaving) error {
	role, err := s.Role(ctx, c, s.rulingRole())
	if problem.KindOf(err) == problem.NotFound && err != nil {
		return nil
	}
	if err != nil {
		return err
	}
	stays := func(k *Key, by []Binding) bool {
		// One that is on its way out rules for now.
		if k.leaving() && k.ID != gone.back || k.ID == gone.key || k.Client != "" && k.Client == gone.client || gone.owner != "" && k.Owner == gone.owner {
			return false
		}
		// The binding of its owner is that of the role given with it.
		return k.given(&role) && k.Owner != gone.subject || slices.ContainsFunc(by, func(b Binding) bool { return b.Subject != gone.subject })
	}
	left, now := false, false
	s.rulers(&role, func(k *Key, by []Binding) bool {
		now, left = true, stays(k, by)
		return !left
	})
	if left || !now { // or nobody rules it now either
		return nil
	}
	return problem.New(problem.Conflict, "nobody would hold the role %q of the tenant %q any more: give it to another API key or client first", role.Name, c.Tenant)
}

// rulers gives the API keys and client secrets that are good now and hold the role, with the
// bindings by which they do; until yield returns false.
func (s *Service) rulers(role *Role, yield func(k *Key, by []Binding) bool) {
	bound := map[string]Binding{}
	for _, b := range s.d.Store.Bindings.Group(RoleGroup(role.Tenant, role.ID)) {
		if b.Mark == nil && !b.Ended(s.d.Now()) && len(s.HitBy(b.Stamp, BindingTarget(&b))) == 0 {
			bound[b.Subject] = b
		}
	}
	for k := range s.d.Store.Keys.Walk(TenantGroup(role.Tenant)) {
		var by []Binding
		for _, subject := range k.holders() {
			b, is := bound[subject]
			if is && (subject != k.Owner || !slices.ContainsFunc(role.Scopes, func(sc string) bool { return !k.takes(sc) })) {
				by = append(by, b)
			}
		}
		if len(by) == 0 && !k.given(role) || s.stateOfKey(&k) != StateActive || !s.reachesUs(&k) {
			continue
		}
		if !yield(&k, by) {
			return
		}
	}
}

// reachesUs reports whether a token of the key can be one for Quash's own API.
func (s *Service) reachesUs(k *Key) bool {
	if len(k.Audiences) > 0 && !slices.Contains(k.Audiences, s.home.cfg.Issuer) {
		return false
	}
	if k.Kind == APIKey {
		return true
	}
	cl, known := s.d.Store.Clients.Peek(RecordKey(k.Tenant, k.Client))
	return known && slices.Contains(cl.Grants, GrantClientCredentials) && (len(cl.Audiences) == 0 || slices.Contains(cl.Audiences, s.home.cfg.Issuer))
}

// given reports whether the key was made with the role.
func (k *Key) given(role *Role) bool {
	return slices.ContainsFunc(k.Roles, func(r RoleRef) bool { return r.ID == role.ID })
}

// mayRule reports whether a key could hold the ruling role: only then endingRuler, which
// looks at every key, is worth its while.
func (s *Service) mayRule(k *Key) bool {
	ruling := s.rulingRole()
	if slices.ContainsFunc(k.Roles, func(r RoleRef) bool { return r.Name == ruling }) {
		return true
	}
	return slices.ContainsFunc(k.holders(), func(subject string) bool { return s.boundTo(subject, ruling) })
}

func (s *Service) boundTo(subject, role string) bool {
	return slices.ContainsFunc(s.d.Store.Bindings.Group(SubjectGroup(s.cfg.Tenant, subject)), func(b Binding) bool { return b.Role.Name == role })
}
