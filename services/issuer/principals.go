package issuer

import (
	"context"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// NewPrincipal asks for the record of a principal.
type NewPrincipal struct {
	ID     string
	Kind   PrincipalKind
	Name   string
	Labels map[string]string
	Reason string
}

// MaxOwned is how many API keys a principal may have to be deleted with them: all of them
// stand in its mark, which is one message.
const MaxOwned = 10_000

// CreatePrincipal makes the record of a principal. What goes by its name already is the
// principal's own.
func (s *Service) CreatePrincipal(ctx context.Context, c Caller, n NewPrincipal) (Principal, error) {
	if err := s.checkNewPrincipal(c, &n); err != nil {
		return Principal{}, err
	}
	birth, err := s.newID(c)
	if err != nil {
		return Principal{}, err
	}
	if err := s.Present(ctx); err != nil {
		return Principal{}, err
	}
	p := Principal{
		ID: n.ID, Tenant: c.Tenant, Birth: birth, Kind: n.Kind, Name: n.Name, Labels: n.Labels,
		Created: s.d.Now().UTC().Truncate(time.Millisecond), Meta: s.meta(c, n.Reason),
	}
	key := PrincipalKey(p.Tenant, p.ID)
	err = s.d.Store.Principals.Create(ctx, key, p)
	if err == nil || problem.KindOf(err) != problem.Conflict {
		return p, err
	}
	have, loadErr := s.d.Store.Principals.Load(ctx, key)
	switch {
	case loadErr == nil && have.Birth == birth && have.Mark == nil:
		return have, nil // by a try before
	case loadErr == nil && have.Mark != nil:
		return Principal{}, goingAway("id", n.ID)
	}
	return Principal{}, problem.Wrap(problem.Conflict, err, "there is a principal %q already", n.ID)
}

func (s *Service) checkNewPrincipal(c Caller, n *NewPrincipal) error {
	if err := s.checkTenant(c); err != nil {
		return err
	}
	if err := checkPrincipal("id", n.ID); err != nil {
		return err
	}
	if n.ID == "." || n.ID == ".." {
		return problem.FieldError("id", "%q: no URL of the record could be written", n.ID)
	}
	if n.Kind != Person && n.Kind != Workload {
		return problem.FieldError("kind", "%.80q: want %s or %s", n.Kind, Person, Workload)
	}
	if err := checkText("name", n.Name, true); err != nil {
		return err
	}
	return checkLabels(n.Labels)
}

// Principal returns the record of a principal.
func (s *Service) Principal(ctx context.Context, c Caller, id string) (Principal, error) {
	if err := s.checkTenant(c); err != nil {
		return Principal{}, err
	}
	if checkPrincipal("id", id) != nil {
		return Principal{}, problem.New(problem.NotFound, "there can be no principal of this name")
	}
	p, err := s.d.Store.Principals.Load(ctx, PrincipalKey(c.Tenant, id))
	if err != nil && problem.KindOf(err) == problem.NotFound {
		return Principal{}, problem.New(problem.NotFound, "there is no record of a principal %q; keys and roles need none: quash revoke %s cuts what goes by the name",
			id, own(c.Tenant, revoke.KindPrincipal, id))
	}
	return p, err
}

// PrincipalFilter narrows a list. Empty parts don't.
type PrincipalFilter struct {
	Kind   PrincipalKind
	Labels map[string]string // all of these
}

// Principals returns the principals of the tenant that have a record and fit, oldest first.
func (s *Service) Principals(_ context.Context, c Caller, f PrincipalFilter) ([]Principal, error) {
	if err := s.checkTenant(c); err != nil {
		return nil, err
	}
	out := slices.DeleteFunc(s.d.Store.Principals.Group(TenantGroup(c.Tenant)), func(p Principal) bool {
		return f.Kind != "" && p.Kind != f.Kind || !labelled(p.Labels, f.Labels)
	})
	slices.SortFunc(out, func(a, b Principal) int { return byAge(a.Created, a.ID, b.Created, b.ID) })
	return out, nil
}

// Possessions are what a principal has.
type Possessions struct {
	Keys, ActiveKeys int
	Roles            []string // bound to it, by name
}

// PossessionsOf tells what a principal has, for people.
func (s *Service) PossessionsOf(p *Principal) Possessions {
	var has Possessions
	for _, k := range s.d.Store.Keys.Group(OwnerGroup(p.Tenant, p.ID)) {
		has.Keys++
		if s.StateOf(k.Mark != nil, k.Expires, s.HitBy(k.Stamp, KeyTargets(&k)...)) == StateActive {
			has.ActiveKeys++
		}
	}
	for _, b := range s.d.Store.Bindings.Group(SubjectGroup(p.Tenant, p.ID)) {
		has.Roles = append(has.Roles, b.Role.Name)
	}
	slices.Sort(has.Roles)
	return has
}

// DeletePrincipal cuts a principal and its bindings and ends its API keys, all in the same
// entries, and removes their records. The name may come again: what it has then is clean.
func (s *Service) DeletePrincipal(ctx context.Context, c Caller, id, reason string, only ...If[Principal]) (Ended, error) {
	p, err := s.Principal(ctx, c, id)
	if err != nil {
		return Ended{}, err
	}
	// Unlike other ids the name comes again, and a binding that was missed with it.
	for _, t := range []interface{ Fresh(context.Context) error }{s.d.Store.Keys, s.d.Store.Bindings} {
		if err := t.Fresh(ctx); err != nil {
			return Ended{}, err
		}
	}
	keys := s.d.Store.Keys.Group(OwnerGroup(p.Tenant, p.ID))
	if slices.ContainsFunc(keys, func(k Key) bool { return s.mayRule(&k) }) {
		return s.endingRuler(ctx, c, leaving{owner: p.ID}, func(ctx context.Context) (Ended, error) {
			return s.endPrincipal(ctx, c, &p, reason, only...)
		})
	}
	return s.endPrincipal(ctx, c, &p, reason, only...)
}

func (s *Service) endPrincipal(ctx context.Context, c Caller, p *Principal, reason string, only ...If[Principal]) (Ended, error) {
	t := PrincipalTarget(p)
	a, err := end(ctx, s, c, s.principalsMarkable(), PrincipalKey(p.Tenant, p.ID), func(p Principal) (*endings.Mark, error) {
		if err := check(p, only); err != nil {
			return nil, err
		}
		targets, err := s.allOf(&p)
		if err != nil {
			return nil, err
		}
		// Not Record: a key that was made at the same time is not named, and stays; and those
		// that were imported come again with their hash. The entry has to outlive them.
		return s.newMark(c, reason, targets...)
	})
	return Ended{Target: t.String(), Answer: a}, err
}

// allOf returns a principal and all that it has as targets.
func (s *Service) allOf(p *Principal) ([]commit.Target, error) {
	targets := []commit.Target{{Kind: revoke.KindPrincipal, ID: p.ID}}
	for _, k := range s.d.Store.Keys.Group(OwnerGroup(p.Tenant, p.ID)) {
		targets = append(targets, commit.Target{Kind: revoke.KindKey, ID: k.ID})
	}
	if n := len(targets) - 1; n > MaxOwned {
		return nil, problem.New(problem.Conflict, "%q has %d API keys: %d can be deleted with it; delete some first, or cut them all by quash revoke %s", p.ID, n, MaxOwned, PrincipalTarget(p))
	}
	for _, b := range s.d.Store.Bindings.Group(SubjectGroup(p.Tenant, p.ID)) {
		targets = append(targets, commit.Target{Kind: revoke.KindBinding, ID: b.BindingID()})
	}
	return targets, nil
}

// goes reports whether a principal is being deleted, as far as it has been heard of here.
// That is enough for keys and tokens: those that are made all the same are dead by the cut,
// or made after it.
func (s *Service) goes(id string) bool {
	if s.d.Store.Principals.Size(MarkedGroup) == 0 {
		return false // mostly: then no exchange has to hash the name
	}
	p, ok := s.d.Store.Principals.Peek(PrincipalKey(s.cfg.Tenant, id))
	return ok && p.Mark != nil
}

// staying wants that a principal is not being deleted, as the store has it: a binding that
// is given again would be removed with the one of before.
func (s *Service) staying(ctx context.Context, subject string) error {
	if reserved(subject) {
		return nil
	}
	p, err := s.d.Store.Principals.Load(ctx, PrincipalKey(s.cfg.Tenant, subject))
	switch {
	case problem.KindOf(err) == problem.NotFound && err != nil:
		return nil
	case err == nil && p.Mark != nil:
		return goingAway("subject", subject)
	}
	return err
}

func goingAway(field, id string) error {
	e := problem.New(problem.Conflict, "the principal %q is being deleted; try again in a few seconds", id)
	e.Field = field
	return e
}
