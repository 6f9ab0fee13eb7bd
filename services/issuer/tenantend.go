package issuer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// settleTenant is how long a tenant's record outlives its mark: what was asked for before
// every replica knew of the mark has been written by then, and is found and removed.
const settleTenant = time.Minute

func (s *Service) tenantsMarkable() markable[Tenant] {
	return markable[Tenant]{
		kind: "tenants", table: s.d.Store.Tenants,
		tenant: func(t Tenant) string { return t.Name },
		mark:   func(t Tenant) *endings.Mark { return t.Mark },
		withMark: func(t Tenant, m *endings.Mark) Tenant {
			t.Mark = m
			return t
		},
		dependents: s.clearTenant,
	}
}

// DeleteTenant cuts everything of a tenant, and removes its records and signing keys. It is
// answered once that is durable; the name is free again when nothing of it is left, see
// Remains.
func (s *Service) DeleteTenant(ctx context.Context, c Caller, name, reason string, only ...If[Tenant]) (Ended, error) {
	if _, err := s.TenantRecord(ctx, c, name); err != nil {
		return Ended{}, err
	}
	if name == s.home.cfg.Tenant {
		return Ended{}, problem.New(problem.Conflict, "%q is the tenant of the installation itself and can't be deleted", name)
	}
	a, err := end(ctx, s, c, s.tenantsMarkable(), name, func(t Tenant) (*endings.Mark, error) {
		if err := check(t, only); err != nil {
			return nil, err
		}
		m, err := s.newMark(c, reason, commit.Target{Kind: revoke.KindTenant, ID: t.Name})
		if err == nil {
			m.Record = true
		}
		return m, err
	})
	return Ended{Target: revoke.Target{Kind: revoke.KindTenant, ID: name}.String(), Answer: a}, err
}

var errSettling = errors.New("it is looked at again when every request from before has ended")

// clearTenant removes what a tenant has. An error says that not everything is gone yet: the
// sweep comes again.
func (s *Service) clearTenant(ctx context.Context, t Tenant) error {
	now, err := s.d.Store.Tenants.Load(ctx, t.Name)
	switch {
	case problem.KindOf(err) == problem.NotFound && err != nil:
		return nil
	case err != nil:
		return err
	case now.Mark == nil || now.Mark.ID != t.Mark.ID:
		return nil // another replica has ended it, and the name is another tenant's
	}
	err = errors.Join(
		clearTable(ctx, s.d.Store.Principals, t.Name), clearTable(ctx, s.d.Store.Keys, t.Name), clearTable(ctx, s.d.Store.Clients, t.Name),
		clearTable(ctx, s.d.Store.Bindings, t.Name), clearTable(ctx, s.d.Store.Roles, t.Name),
		s.d.Signers.Gone(ctx, t.Name),
	)
	if s.d.Store.Uses != nil {
		err = errors.Join(err, clearTable(ctx, s.d.Store.Uses, t.Name))
	}
	if s.d.Store.Deliveries != nil {
		err = errors.Join(err, clearTable(ctx, s.d.Store.Deliveries, t.Name))
	}
	if s.d.Requests != nil {
		err = errors.Join(err, clearAll(ctx, t.Name, s.d.Requests.Stored, s.d.Requests.Forget))
	}
	if err == nil && s.d.Now().Before(t.Mark.At.Add(settleTenant)) {
		return errSettling
	}
	return err
}

func clearTable[T any](ctx context.Context, table Table[T], tenant string) error {
	return clearAll(ctx, tenant, table.Stored, func(ctx context.Context, key string) error {
		return table.Remove(ctx, key, func(T) bool { return true })
	})
}

// clearAll removes all that is stored of a tenant.
func clearAll(ctx context.Context, tenant string, stored func(context.Context, string) ([]string, error), remove func(context.Context, string) error) error {
	keys, err := stored(ctx, tenant)
	if err != nil {
		return err
	}
	removing, ctx := errgroup.WithContext(ctx)
	removing.SetLimit(clearAtOnce)
	for _, key := range keys {
		removing.Go(func() error { return remove(ctx, key) })
	}
	return removing.Wait()
}

// clearAtOnce is how many records of something that ends are removed at the same time.
const clearAtOnce = 32

// Remains is how much the stores hold of a tenant, whether or not it is there.
type Remains struct {
	Record, SigningKeys                        bool
	Principals, Keys, Clients, Roles, Bindings int
	Requests                                   int // of the last day, remembered by their idempotency key
}

// None reports whether there is nothing.
func (r Remains) None() bool { return r == Remains{} }

// Remains looks into the stores themselves for what is left of a tenant.
func (s *Service) Remains(ctx context.Context, c Caller, name string) (Remains, error) {
	if err := s.checkHome(c); err != nil {
		return Remains{}, err
	}
	if checkTenantName(name) != nil {
		return Remains{}, problem.New(problem.NotFound, "there can be no such tenant")
	}
	var r Remains
	var errs []error
	count := func(keys []string, err error) int {
		errs = append(errs, err)
		return len(keys)
	}
	r.Principals = count(s.d.Store.Principals.Stored(ctx, name))
	r.Keys, r.Clients = count(s.d.Store.Keys.Stored(ctx, name)), count(s.d.Store.Clients.Stored(ctx, name))
	if s.d.Store.Uses != nil {
		r.Keys += count(s.d.Store.Uses.Stored(ctx, name)) // what is known of keys is a part of them
	}
	if s.d.Store.Deliveries != nil {
		r.Keys += count(s.d.Store.Deliveries.Stored(ctx, name))
	}
	if s.d.Requests != nil {
		r.Requests = count(s.d.Requests.Stored(ctx, name))
	}
	r.Roles, r.Bindings = count(s.d.Store.Roles.Stored(ctx, name)), count(s.d.Store.Bindings.Stored(ctx, name))
	_, err := s.d.Store.Tenants.Load(ctx, name)
	if r.Record = err == nil; problem.KindOf(err) == problem.NotFound {
		err = nil
	}
	errs = append(errs, err)
	switch err := s.d.Signers.Gone(ctx, name); {
	case errors.Is(err, ErrSigningKeys):
		r.SigningKeys = true
	default:
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return Remains{}, problem.Wrap(problem.Unavailable, err, "the record store does not answer; try again")
	}
	return r, nil
}

// ErrSigningKeys is what Signers.Gone returns while there are some.
var ErrSigningKeys = errors.New("there are signing keys of the tenant")

// Export is all records of a tenant, without what secrets are recognized by.
type Export struct {
	Tenant     Tenant
	Principals []Principal
	Clients    []Client
	Keys       []Key
	Roles      []Role
	Bindings   []Binding
}

// ExportTenant reads all records of a tenant.
func (s *Service) ExportTenant(ctx context.Context, c Caller, name string) (Export, error) {
	t, err := s.TenantRecord(ctx, c, name)
	if err != nil {
		return Export{}, err
	}
	lacking := rights.Lacking(c.Scopes, []string{rights.PrincipalsRead, rights.ClientsRead, rights.KeysRead, rights.RolesRead})
	if name == s.home.cfg.Tenant && len(lacking) > 0 {
		return Export{}, problem.New(problem.Forbidden, "of one's own tenant one can export only what one may read; lacking: %s", strings.Join(lacking, " "))
	}
	in, as := s.In(name), Caller{Actor: c.Actor, Tenant: name}
	e := Export{Tenant: t}
	var errs [5]error
	e.Clients, errs[0] = in.Clients(ctx, as)
	e.Keys, errs[1] = in.Keys(ctx, as, KeyFilter{})
	e.Roles, errs[2] = in.Roles(ctx, as)
	e.Bindings, errs[3] = in.Bindings(ctx, as, BindingFilter{})
	e.Principals, errs[4] = in.Principals(ctx, as, PrincipalFilter{})
	if err := errors.Join(errs[:]...); err != nil {
		return Export{}, fmt.Errorf("export the tenant %s: %w", name, err)
	}
	return e, nil
}
