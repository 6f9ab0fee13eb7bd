package issuer

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// system is who does what nobody asked for.
func (s *Service) system() Caller {
	return Caller{Actor: "system:issuer", Tenant: s.cfg.Tenant, Scopes: rights.All()}
}

// EnsureRoles makes the fixed roles that are missing, and gives those that are
// there what a newer version adds; a tenant that has just begun gets those that it may
// change, too. It may be done by every replica at each start.
func (s *Service) EnsureRoles(ctx context.Context) error {
	if err := s.ensureFixed(ctx); err != nil {
		return err
	}
	t, err := s.ensureRecord(ctx)
	if err != nil || t.Started {
		return err
	}
	for _, r := range rights.StartingRoles() {
		_, err := s.makeRole(ctx, s.system(), r.Name, r.Scopes, false, "a role to begin with")
		if err != nil && problem.KindOf(err) != problem.Conflict { // another replica was faster
			return fmt.Errorf("role %s: %w", r.Name, err)
		}
	}
	_, err = s.d.Store.Tenants.Change(ctx, s.cfg.Tenant, func(t Tenant) (Tenant, error) {
		t.Started = true
		return t, nil
	})
	return err
}

// EnsureTenants is EnsureRoles for every other tenant. What fails is logged: it is done at
// the next start, or when the tenant gets another admin's key.
func (s *Service) EnsureTenants(ctx context.Context) {
	for _, t := range s.d.Store.Tenants.All() {
		if t.Name == s.home.cfg.Tenant || t.Mark != nil {
			continue
		}
		if err := s.In(t.Name).EnsureRoles(ctx); err != nil {
			s.d.Log.Warn("the roles of a tenant could not be made", zap.String("tenant", t.Name), zap.Error(err))
		}
	}
}

// ensureRecord returns the tenant's record. That of the installation's own tenant is made at
// its first start.
func (s *Service) ensureRecord(ctx context.Context) (Tenant, error) {
	t, err := s.d.Store.Tenants.Load(ctx, s.cfg.Tenant)
	if !s.isHome() || problem.KindOf(err) != problem.NotFound {
		return t, err
	}
	t = Tenant{Name: s.cfg.Tenant, Created: s.d.Now().UTC().Truncate(time.Millisecond), Meta: s.meta(s.system(), "first start")}
	err = s.d.Store.Tenants.Create(ctx, t.Name, t)
	if problem.KindOf(err) == problem.Conflict {
		return s.d.Store.Tenants.Load(ctx, s.cfg.Tenant)
	}
	return t, err
}

func (s *Service) ensureFixed(ctx context.Context) error {
	for _, fixed := range rights.Roles(s.isHome()) {
		key := RoleKey(s.cfg.Tenant, fixed.Name)
		r, err := s.d.Store.Roles.Load(ctx, key)
		if problem.KindOf(err) == problem.NotFound {
			_, err = s.makeRole(ctx, s.system(), fixed.Name, fixed.Scopes, true, "fixed role")
			if problem.KindOf(err) == problem.Conflict {
				err = nil // another replica was faster
			}
			if err != nil {
				return fmt.Errorf("role %s: %w", fixed.Name, err)
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("role %s: %w", fixed.Name, err)
		}
		if !narrows(fixed.Scopes, r.Scopes) {
			continue
		}
		_, err = s.d.Store.Roles.Change(ctx, key, func(r Role) (Role, error) {
			r.Scopes, r.Meta = union(append([]string(nil), r.Scopes...), fixed.Scopes), s.meta(s.system(), "fixed role of a newer version")
			return r, nil
		})
		if err != nil {
			return fmt.Errorf("role %s: %w", fixed.Name, err)
		}
	}
	return nil
}

// FirstOperator is the principal that owns the first operator's key.
const FirstOperator = "operator"

// EnsureOperator makes the first operator's API key in an installation that has
// had none yet, and hands it to save, which must put it where only the operator
// can read it. Only then is the installation no longer empty: after a crash in
// between there is another key, and the one that nobody has got is ended.
//
// It reports whether this call made the key. Several replicas may call it at
// once; one of them makes the key that counts.
func (s *Service) EnsureOperator(ctx context.Context, save func(id, secret string) error) (bool, error) {
	t, err := s.ensureRecord(ctx)
	if err != nil {
		return false, fmt.Errorf("first operator: %w", err)
	}
	if t.Operator != "" {
		return false, nil
	}
	k, secret, err := s.CreateKey(ctx, s.system(), NewKey{
		Owner: FirstOperator, Name: "first operator", Roles: []string{rights.Operator}, Life: s.cfg.Keys.MaxLife, Reason: "first start of an empty installation",
	})
	if err != nil {
		return false, fmt.Errorf("first operator: %w", err)
	}
	if err := save(k.ID, secret.Reveal()); err != nil {
		_, _ = s.endKey(ctx, s.system(), &k, "it could not be handed over") // nobody has it
		return false, fmt.Errorf("first operator: hand over the key: %w", err)
	}
	t, err = s.d.Store.Tenants.Change(ctx, s.cfg.Tenant, func(t Tenant) (Tenant, error) {
		if t.Operator == "" {
			t.Operator, t.Meta = k.ID, s.meta(s.system(), "first operator's key handed over")
		}
		return t, nil
	})
	if err != nil {
		return false, fmt.Errorf("first operator: %w", err)
	}
	if t.Operator != k.ID {
		_, err := s.endKey(ctx, s.system(), &k, "another replica made the first operator's key")
		return false, err
	}
	return true, s.endUnclaimed(ctx, k.ID)
}

// OperatorKeyLife is how long an operator's key of break-glass lives by default:
// long enough to make a better one.
const OperatorKeyLife = 24 * time.Hour

// BreakGlassOperator makes an API key with the fixed role operator for whoever has
// the break-glass identity. A role that was cut or deleted is made good again,
// since nobody else could; a hold is not undone on the way.
func (s *Service) BreakGlassOperator(ctx context.Context, actor, reason string, life time.Duration) (Key, apikey.Text, error) {
	c := Caller{Actor: actor, Tenant: s.cfg.Tenant, Scopes: rights.All()}
	if err := s.mendRole(ctx, c, rights.Operator, reason); err != nil {
		return Key{}, apikey.Text{}, err
	}
	if life == 0 {
		life = min(OperatorKeyLife, s.cfg.Keys.MaxLife)
	}
	return s.CreateKey(ctx, c, NewKey{
		Owner: FirstOperator, Name: "break-glass", Roles: []string{rights.Operator}, Life: life, Reason: reason,
	})
}

// mendRole makes a fixed role that was cut or deleted good again, for whoever lets somebody
// in by it.
func (s *Service) mendRole(ctx context.Context, c Caller, name, reason string) error {
	if err := s.EnsureRoles(ctx); err != nil {
		return err
	}
	cut, err := stampFirst(ctx, s, true, func(m *making) (bool, error) {
		r, err := s.d.Store.Roles.Load(ctx, RoleKey(c.Tenant, name))
		if err != nil {
			return false, err
		}
		key := target(r.Tenant, revoke.KindRole, r.ID)
		if m.held(key) {
			return false, problem.New(problem.Conflict, "held: the tenant, its issuer, or the role %s (role:%s); release it first, see the holds", name, r.ID)
		}
		return m.hit(r.Stamp, key)
	})
	if err == nil && cut {
		_, err = s.RenewRole(ctx, c, name, reason)
	}
	return err
}

// endUnclaimed ends keys of the first operator's that were made before a crash
// and not handed over.
func (s *Service) endUnclaimed(ctx context.Context, handedOver string) error {
	keys, err := s.Keys(ctx, s.system(), KeyFilter{Owner: FirstOperator, Kind: APIKey})
	if err != nil {
		return err
	}
	for _, k := range keys {
		if k.ID != handedOver && k.Meta.Actor == s.system().Actor && k.Creator == s.system().Actor {
			if _, err := s.endKey(ctx, s.system(), &k, "it was never handed over"); err != nil {
				return err
			}
		}
	}
	return nil
}
