package issuer

import (
	"context"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// NewKey asks for an API key.
type NewKey struct {
	Owner      string
	Client     string
	Name       string
	Scopes     []string
	Roles      []string // by name
	OwnerRoles bool
	Audiences  []string
	Life       time.Duration // 0: DefaultKeyLife
	Reason     string
}

// CreateKey makes an API key. The secret is returned once and kept nowhere.
func (s *Service) CreateKey(ctx context.Context, c Caller, n NewKey) (Key, apikey.Text, error) {
	if err := s.checkNewKey(c, &n); err != nil {
		return Key{}, apikey.Text{}, err
	}
	return s.makeKey(ctx, c, n, APIKey)
}

func (s *Service) checkNewKey(c Caller, n *NewKey) error {
	if err := s.checkTenant(c); err != nil {
		return err
	}
	if err := checkOwner(n.Owner); err != nil {
		return err
	}
	if err := checkText("name", n.Name, true); err != nil {
		return err
	}
	if err := checkScopes(c, n.Scopes); err != nil {
		return err
	}
	if len(n.Roles) > MaxRoles {
		return problem.FieldError("roles", "%d roles: a key can have %d", len(n.Roles), MaxRoles)
	}
	return checkAudiences("audiences", n.Audiences)
}

// makeKey makes an API key or a client secret from what was checked by itself;
// here it is checked against records and view.
func (s *Service) makeKey(ctx context.Context, c Caller, n NewKey, kind KeyKind) (Key, apikey.Text, error) {
	life := n.Life
	if life == 0 {
		life = DefaultKeyLife
	}
	if life < time.Minute || life > MaxKeyLife {
		return Key{}, apikey.Text{}, problem.FieldError("expires_in", "%v: want 1m to %v (400 days)", life, MaxKeyLife)
	}
	form := apikey.Key
	if kind == ClientSecret {
		form = apikey.Secret
	}
	secret, err := apikey.Generate(s.d.Rand, form)
	if err != nil {
		return Key{}, apikey.Text{}, err
	}
	k, err := stampFirst(ctx, s, true, func(m *making) (Key, error) {
		now := m.now.UTC().Truncate(time.Millisecond)
		k := Key{
			ID: apikey.ID(secret.Reveal()), Kind: kind, Tenant: c.Tenant, Hash: apikey.HashOf(secret.Reveal()),
			Name: n.Name, Owner: n.Owner, Client: n.Client, Scopes: union(nil, n.Scopes), OwnerRoles: n.OwnerRoles,
			Audiences: union(nil, n.Audiences), Stamp: m.stamp, Created: now, Expires: now.Add(life), Meta: s.meta(c, n.Reason),
		}
		if err := s.standing(ctx, n.Client); err != nil {
			return Key{}, notFoundField(err, "client_id", "there is no client %q", n.Client)
		}
		if n.Client != "" {
			if _, err := s.liveClient(ctx, m, n.Client); err != nil {
				return Key{}, notFoundField(err, "client_id", "there is no client %q, or it is held", n.Client)
			}
		}
		if m.held(target(c.Tenant, revoke.KindPrincipal, n.Owner)) {
			return Key{}, problem.FieldError("owner", "%q is held: release it first", n.Owner)
		}
		for _, name := range n.Roles {
			r, err := s.giveRole(ctx, m, c, "roles", name)
			if err != nil {
				return Key{}, err
			}
			k.Roles = append(k.Roles, r.Ref())
		}
		if n.OwnerRoles {
			held, err := s.rolesOf(n.Owner)
			if err != nil {
				return Key{}, err
			}
			if err := s.mayGive(ctx, c, "owner_roles", nil, held); err != nil {
				return Key{}, err
			}
		}
		return k, s.d.Store.Keys.Create(ctx, RecordKey(k.Tenant, k.ID), k)
	})
	if err != nil {
		return Key{}, apikey.Text{}, err
	}
	return k, secret, nil
}

// giveRole reads a role that the caller wants to give to somebody: it must be
// alive, and the caller must hold what it has of Quash's own scopes.
func (s *Service) giveRole(ctx context.Context, m *making, c Caller, field, name string) (Role, error) {
	r, err := s.d.Store.Roles.Get(ctx, RoleKey(c.Tenant, name))
	if err != nil {
		return Role{}, notFoundField(err, field, "there is no role %.80q", name)
	}
	if r.Mark != nil {
		return Role{}, problem.New(problem.Unavailable, "role %q is being changed; try again", r.Name)
	}
	hit, err := m.hit(r.Stamp, target(r.Tenant, revoke.KindRole, r.ID))
	if err != nil {
		return Role{}, err
	}
	if hit {
		return Role{}, problem.FieldError(field, "the role %q is revoked or held: release or renew it first", r.Name)
	}
	if lacking := rights.Lacking(c.Scopes, r.Scopes); len(lacking) > 0 {
		return Role{}, forbidden(field, lacking)
	}
	return r, nil
}

// mayGive tells whether the caller holds what these scopes and roles come to, of
// Quash's own: whoever makes a secret for something gives all that it has. Roles
// count whether or not they are hit just now.
func (s *Service) mayGive(ctx context.Context, c Caller, field string, scopes []string, held []heldRole) error {
	all := slices.Clone(scopes)
	for _, h := range held {
		r, err := s.d.Store.Roles.Get(ctx, RoleKey(c.Tenant, h.role.Name))
		switch {
		case err == nil && r.ID == h.role.ID:
			all = union(all, r.Scopes)
		case err != nil && problem.KindOf(err) != problem.NotFound:
			return err
		}
	}
	if lacking := rights.Lacking(c.Scopes, all); len(lacking) > 0 {
		return forbidden(field, lacking)
	}
	return nil
}

// Key returns the record of an API key or client secret.
func (s *Service) Key(ctx context.Context, c Caller, id string) (Key, error) {
	if err := s.checkTenant(c); err != nil {
		return Key{}, err
	}
	if !apikey.IsID(id) {
		return Key{}, problem.New(problem.NotFound, "there is no key with this id")
	}
	k, err := s.d.Store.Keys.Load(ctx, RecordKey(c.Tenant, id))
	if err != nil && problem.KindOf(err) == problem.NotFound {
		return Key{}, problem.New(problem.NotFound, "there is no key %s", id)
	}
	return k, err
}

// KeyFilter narrows a list. Empty parts don't.
type KeyFilter struct {
	Owner  string
	Client string
	Kind   KeyKind
}

// Keys returns the keys of the tenant that fit, oldest first.
func (s *Service) Keys(_ context.Context, c Caller, f KeyFilter) ([]Key, error) {
	if err := s.checkTenant(c); err != nil {
		return nil, err
	}
	var out []Key
	add := func(k Key) {
		if k.Tenant == c.Tenant && (f.Owner == "" || k.Owner == f.Owner) && (f.Client == "" || k.Client == f.Client) && (f.Kind == "" || k.Kind == f.Kind) {
			out = append(out, k)
		}
	}
	switch {
	case f.Client != "":
		for _, k := range s.d.Store.Keys.Group(ClientGroup(c.Tenant, f.Client)) {
			add(k)
		}
	case f.Owner != "":
		for _, k := range s.d.Store.Keys.Group(OwnerGroup(c.Tenant, f.Owner)) {
			add(k)
		}
	default:
		for _, k := range s.d.Store.Keys.All() {
			add(k)
		}
	}
	slices.SortFunc(out, func(a, b Key) int { return byAge(a.Created, a.ID, b.Created, b.ID) })
	return out, nil
}

// DeleteKey ends an API key or client secret and removes its record.
func (s *Service) DeleteKey(ctx context.Context, c Caller, id, reason string) (Ended, error) {
	k, err := s.Key(ctx, c, id)
	if err != nil {
		return Ended{}, err
	}
	a, err := end(ctx, s, s.keysMarkable(), RecordKey(k.Tenant, k.ID), func(k Key) (*endings.Mark, error) {
		m, err := endings.NewMark(s.d.Rand, s.meta(c, reason), commit.Target{Kind: revoke.KindKey, ID: k.ID})
		if err == nil {
			m.Record = true
		}
		return m, err
	})
	return Ended{Target: revoke.Target{Kind: revoke.KindKey, ID: k.ID}.String(), Answer: a}, err
}

// RenewKey gives the key a new stamp: cuts that hit it until now do so no more.
// An ended key stays dead.
func (s *Service) RenewKey(ctx context.Context, c Caller, id, reason string) (Key, error) {
	k, err := s.Key(ctx, c, id)
	if err != nil {
		return Key{}, err
	}
	return stampFirst(ctx, s, true, func(m *making) (Key, error) {
		if err := s.standing(ctx, k.Client); problem.KindOf(err) == problem.NotFound {
			return Key{}, problem.New(problem.Conflict, "the key's client is deleted")
		} else if err != nil {
			return Key{}, err
		}
		held, err := s.rolesOfKey(&k)
		if err != nil {
			return Key{}, err
		}
		if err := s.mayGive(ctx, c, "id", k.Scopes, held); err != nil {
			return Key{}, err
		}
		return s.d.Store.Keys.Change(ctx, RecordKey(k.Tenant, k.ID), func(k Key) (Key, error) {
			if k.Mark != nil {
				return k, problem.New(problem.Conflict, "the key is ending")
			}
			k.Stamp, k.Meta = m.stamp, s.meta(c, reason)
			return k, nil
		})
	})
}

func byAge(a time.Time, aID string, b time.Time, bID string) int {
	if c := a.Compare(b); c != 0 {
		return c
	}
	switch {
	case aID < bID:
		return -1
	case aID > bID:
		return 1
	}
	return 0
}
