package issuer

import (
	"context"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// FirstAdmin is the principal that owns the keys which an operator makes for a tenant.
const FirstAdmin = "admin"

// The greatest limits: more is no limit.
const (
	maxRecords = 100_000_000
	maxRate    = 1_000_000
)

// checkHome wants a caller of the installation's own tenant: only its operators rule over
// tenants.
func (s *Service) checkHome(c Caller) error {
	if c.Tenant != s.home.cfg.Tenant {
		return problem.New(problem.Forbidden, "tenants are ruled by the operators of the tenant %q alone", s.home.cfg.Tenant)
	}
	return s.home.checkTenant(c)
}

// checkTenantName wants a name that can stand in a URL, a subject and a key as it is.
func checkTenantName(name string) error {
	if err := revoke.CheckName("name", name); err != nil {
		return problem.FieldError("name", "%v", err)
	}
	return nil
}

func checkLimits(l Limits) error {
	switch {
	case l.Keys < 0 || l.Keys > maxRecords:
		return problem.FieldError("limits.keys", "%d: want 0 (no limit) to %d", l.Keys, maxRecords)
	case l.Clients < 0 || l.Clients > maxRecords:
		return problem.FieldError("limits.clients", "%d: want 0 (no limit) to %d", l.Clients, maxRecords)
	case l.TokensPerSecond != 0 && !(l.TokensPerSecond >= 0.01 && l.TokensPerSecond <= maxRate):
		return problem.FieldError("limits.tokens_per_second", "%g: want 0 (no limit), or 0.01 to %d", l.TokensPerSecond, maxRate)
	}
	return nil
}

// CreateTenant makes a tenant with the roles that each begins with. Its issuer can sign once
// the rotator has made its keys, which takes a moment; who is to rule it gets a key by
// CreateAdmin.
func (s *Service) CreateTenant(ctx context.Context, c Caller, name string, limits Limits, reason string) (Tenant, error) {
	if err := s.checkHome(c); err != nil {
		return Tenant{}, err
	}
	if err := checkTenantName(name); err != nil {
		return Tenant{}, err
	}
	if err := checkLimits(limits); err != nil {
		return Tenant{}, err
	}
	exists := problem.New(problem.Conflict, "there is a tenant %q already", name)
	if name == s.home.cfg.Tenant {
		return Tenant{}, exists
	}
	_, err := stampFirst(ctx, s.home, true, func(m *making) (Tenant, error) {
		t := Tenant{Name: name, Limits: limits, Stamp: m.stamp, Created: m.now.UTC().Truncate(time.Millisecond), Meta: s.meta(c, reason)}
		return t, s.d.Store.Tenants.Create(ctx, name, t)
	})
	if problem.KindOf(err) == problem.Conflict {
		return Tenant{}, exists
	}
	if err != nil {
		return Tenant{}, err
	}
	// What is missing after a crash here is made at the next start, or with an admin's key.
	if err := s.In(name).EnsureRoles(ctx); err != nil {
		return Tenant{}, err
	}
	return s.TenantRecord(ctx, c, name)
}

// CreateAdmin makes an API key with the role admin of a tenant. The secret is returned once
// and kept nowhere.
func (s *Service) CreateAdmin(ctx context.Context, c Caller, name string, life time.Duration, reason string) (Key, apikey.Text, error) {
	t, err := s.TenantRecord(ctx, c, name)
	if err != nil {
		return Key{}, apikey.Text{}, err
	}
	if t.Mark != nil {
		return Key{}, apikey.Text{}, errTenantEnding
	}
	// Of one's own tenant one can give only what one has.
	if lacking := rights.Lacking(c.Scopes, rights.OfTenant()); name == s.home.cfg.Tenant && len(lacking) > 0 {
		return Key{}, apikey.Text{}, forbidden("tenant", lacking)
	}
	lives, err := s.cfg.Keys.lifeOf(life)
	if err != nil {
		return Key{}, apikey.Text{}, err
	}
	until, err := s.home.lasts(ctx, c, "expires_in", []string{rights.TenantsWrite}, s.d.Now().Add(lives))
	if err != nil {
		return Key{}, apikey.Text{}, err
	}
	in, as := s.In(name), Caller{Actor: c.Actor, Tenant: name, Scopes: rights.OfTenant()}
	if err := in.mendRole(ctx, as, rights.Admin, reason); err != nil {
		return Key{}, apikey.Text{}, err
	}
	as.Try = c.Try
	return in.CreateKey(ctx, as, NewKey{
		Owner: FirstAdmin, Name: "admin", Roles: []string{rights.Admin}, Life: life, Reason: reason, rightsUntil: until,
	})
}

// TenantRecord returns the record of a tenant.
func (s *Service) TenantRecord(ctx context.Context, c Caller, name string) (Tenant, error) {
	if err := s.checkHome(c); err != nil {
		return Tenant{}, err
	}
	if checkTenantName(name) != nil {
		return Tenant{}, problem.New(problem.NotFound, "there is no such tenant")
	}
	t, err := s.d.Store.Tenants.Load(ctx, name)
	if err != nil && problem.KindOf(err) == problem.NotFound {
		return Tenant{}, problem.New(problem.NotFound, "there is no tenant %q", name)
	}
	return t, err
}

// Tenants returns all tenants, by name.
func (s *Service) Tenants(_ context.Context, c Caller) ([]Tenant, error) {
	if err := s.checkHome(c); err != nil {
		return nil, err
	}
	var out []Tenant
	for _, t := range s.d.Store.Tenants.All() {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Tenant) int { return byAge(time.Time{}, a.Name, time.Time{}, b.Name) })
	return out, nil
}

// TenantTarget returns a tenant as a target.
func TenantTarget(t *Tenant) revoke.Target { return own(t.Name, revoke.KindTenant, t.Name) }

// SetLimits gives a tenant other limits. What it has above them stays.
func (s *Service) SetLimits(ctx context.Context, c Caller, name string, limits Limits, reason string, only ...If[Tenant]) (Tenant, error) {
	if _, err := s.TenantRecord(ctx, c, name); err != nil {
		return Tenant{}, err
	}
	if err := checkLimits(limits); err != nil {
		return Tenant{}, err
	}
	meta := s.meta(c, reason)
	return s.d.Store.Tenants.Change(ctx, name, func(t Tenant) (Tenant, error) {
		if err := meets(t, t.Meta, meta, only); err != nil {
			return t, err
		}
		if t.Mark != nil {
			return t, errTenantEnding
		}
		t.Limits, t.Meta = limits, meta
		return t, nil
	})
}

var errTenantEnding = problem.New(problem.Conflict, "the tenant is being deleted")

// CutTenant holds or releases a tenant, or revokes what was made in it until now. The
// installation's own tenant can't be cut here: whoever did could not undo it.
func (s *Service) CutTenant(ctx context.Context, c Caller, name string, op commit.Op, reason string, only ...If[Tenant]) (Ended, error) {
	t, err := s.TenantRecord(ctx, c, name)
	switch {
	case err != nil:
		return Ended{}, err
	case t.Mark != nil:
		return Ended{}, errTenantEnding
	case name == s.home.cfg.Tenant:
		return Ended{}, problem.New(problem.Conflict, "%q is the tenant of the installation itself: revoke tenant:%s says that you mean it", name, name)
	}
	if err := check(t, only); err != nil {
		return Ended{}, err
	}
	request, err := s.newID(c)
	if err != nil {
		return Ended{}, err
	}
	return s.commitOne(ctx, request, commit.Request{
		Tenant: name, Op: op, Actor: c.Actor, RequestID: c.Request, Reason: reason, Targets: []commit.Target{{Kind: revoke.KindTenant, ID: name}},
	})
}
