package issuer

import (
	"context"
	"net/netip"
	"slices"
	"strings"
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
	Networks   []netip.Prefix // from which it may be used; empty: from everywhere
	RateLimit  int            // exchanges a minute; 0: no limit
	Labels     map[string]string
	Life       time.Duration // 0: that of the policy
	Recipient  string        // age; empty: none
	Reason     string
	// rightsUntil is the bound of what it gives besides its own scopes and roles.
	rightsUntil time.Time
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
	if err := checkPrincipal("owner", n.Owner); err != nil {
		return err
	}
	if err := checkText("name", n.Name, true); err != nil {
		return err
	}
	if err := checkLabels(n.Labels); err != nil {
		return err
	}
	if err := checkScopes(c, n.Scopes); err != nil {
		return err
	}
	if len(n.Roles) > MaxRoles {
		return problem.FieldError("roles", "%d roles: a key can have %d", len(n.Roles), MaxRoles)
	}
	if err := checkNetworks(n.Networks); err != nil {
		return err
	}
	if err := checkRate(n.RateLimit); err != nil {
		return err
	}
	if err := checkRecipient(&n.Recipient); err != nil {
		return err
	}
	return checkAudiences("audiences", n.Audiences)
}

// makeKey makes an API key or a client secret from what was checked by itself;
// here it is checked against records and view.
func (s *Service) makeKey(ctx context.Context, c Caller, n NewKey, kind KeyKind) (Key, apikey.Text, error) {
	life, err := s.cfg.Keys.lifeOf(n.Life)
	if err != nil {
		return Key{}, apikey.Text{}, err
	}
	if err := s.madeBefore(ctx, c); err != nil {
		return Key{}, apikey.Text{}, err
	}
	if err := s.roomForKey(ctx); err != nil {
		return Key{}, apikey.Text{}, err
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
		k := s.newKey(m, c, &n, kind)
		k.ID, k.Hash, k.Expires = apikey.ID(secret.Reveal()), apikey.HashOf(secret.Reveal()), k.Created.Add(life)
		if err := s.furnishKey(ctx, m, c, &n, &k); err != nil {
			return Key{}, err
		}
		if c.Try != nil {
			if err := c.Try.Makes(ctx, revoke.Target{Kind: revoke.KindKey, ID: k.ID}.String()); err != nil {
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

// newKey is the record of a key, without its secret, end and roles.
func (s *Service) newKey(m *making, c Caller, n *NewKey, kind KeyKind) Key {
	return Key{
		Recipient: registered(n.Recipient, c, m.now, time.Time{}),
		Kind:      kind, Tenant: c.Tenant, Name: n.Name, Labels: n.Labels, Creator: c.Actor, Owner: n.Owner, Client: n.Client, Scopes: union(nil, n.Scopes), OwnerRoles: n.OwnerRoles,
		Audiences: union(nil, n.Audiences), Networks: n.Networks, RateLimit: n.RateLimit,
		Stamp: m.stamp, Created: m.now.UTC().Truncate(time.Millisecond), Meta: s.meta(c, n.Reason),
	}
}

// furnishKey gives a new key its roles, and checks what it is to belong to.
func (s *Service) furnishKey(ctx context.Context, m *making, c Caller, n *NewKey, k *Key) error {
	if err := s.standing(ctx, n.Client); err != nil {
		return notFoundField(err, "client_id", "there is no client %q", n.Client)
	}
	if n.Client != "" {
		if _, err := s.liveClient(ctx, m, n.Client); err != nil {
			return notFoundField(err, "client_id", "there is no client %q, or it is held", n.Client)
		}
	}
	if s.goes(n.Owner) {
		return goingAway("owner", n.Owner)
	}
	if m.held(target(c.Tenant, revoke.KindPrincipal, n.Owner)) {
		return problem.FieldError("owner", "%q is held: release it first", n.Owner)
	}
	all := slices.Clone(n.Scopes)
	for _, name := range n.Roles {
		r, err := s.giveRole(ctx, m, c, "roles", name)
		if err != nil {
			return err
		}
		k.Roles, all = append(k.Roles, r.Ref()), union(all, r.Scopes)
	}
	k.RightsUntil = n.rightsUntil
	if !n.OwnerRoles {
		return s.bounded(ctx, c, k, all)
	}
	held, err := s.rolesOf(n.Owner)
	if err != nil {
		return err
	}
	theirs, err := s.scopesOf(ctx, nil, held)
	if err != nil {
		return err
	}
	if err := mayGive(c, "owner_roles", theirs); err != nil {
		return err
	}
	if k.OwnerMost, err = s.lasting(ctx, c, k.Expires); err != nil {
		return err
	}
	return s.bounded(ctx, c, k, union(union(all, theirs), k.OwnerMost))
}

// bounded wants that the caller holds what a key gives for as long as that lives, and notes
// for how long they do.
func (s *Service) bounded(ctx context.Context, c Caller, k *Key, scopes []string) error {
	until, err := s.lasts(ctx, c, "expires_in", scopes, k.Expires)
	k.RightsUntil = sooner(k.RightsUntil, until)
	return err
}

// madeBefore refuses a request of which an earlier try, cut off before it could
// say so, has made something with a secret.
func (s *Service) madeBefore(ctx context.Context, c Caller) error {
	if c.Try == nil || c.Try.Earlier() == "" {
		return nil
	}
	made := c.Try.Earlier()
	_, err := s.d.Store.Keys.Load(ctx, RecordKey(c.Tenant, strings.TrimPrefix(made, revoke.KindKey.String()+":")))
	switch {
	case err == nil:
		return problem.MadeBefore(made)
	case problem.KindOf(err) == problem.NotFound:
		return nil
	}
	return err
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

// mayGive tells whether the caller holds these scopes, of Quash's own: whoever makes a secret
// for something gives all that it has.
func mayGive(c Caller, field string, scopes []string) error {
	if lacking := rights.Lacking(c.Scopes, scopes); len(lacking) > 0 {
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

// DeleteKey ends an API key or client secret and removes its record. The last one that
// rules the tenant stays; to cut off even that one, revoke it.
func (s *Service) DeleteKey(ctx context.Context, c Caller, id, reason string, only ...If[Key]) (Ended, error) {
	k, err := s.Key(ctx, c, id)
	if err != nil {
		return Ended{}, err
	}
	if err := s.d.Store.Bindings.Fresh(ctx); err != nil {
		return Ended{}, err
	}
	if s.mayRule(&k) {
		return s.endingRuler(ctx, c, leaving{key: k.ID}, func(ctx context.Context) (Ended, error) {
			return s.endKey(ctx, c, &k, reason, only...)
		})
	}
	return s.endKey(ctx, c, &k, reason, only...)
}

// endKey is DeleteKey for whoever has the key itself, or made it for nobody.
func (s *Service) endKey(ctx context.Context, c Caller, k *Key, reason string, only ...If[Key]) (Ended, error) {
	stands := *k
	a, err := end(ctx, s, c, s.keysMarkable(), RecordKey(k.Tenant, k.ID), func(k Key) (*endings.Mark, error) {
		if err := check(k, only); err != nil {
			return nil, err
		}
		stands = k
		m, err := s.newMark(c, reason, commit.Target{Kind: revoke.KindKey, ID: k.ID})
		if err == nil {
			// The id of an imported key comes again with its hash: the log remembers its end
			// for as long as any key could live, so that no import brings it back.
			m.Record = !k.Imported
		}
		return m, err
	})
	e := Ended{Target: revoke.Target{Kind: revoke.KindKey, ID: k.ID}.String(), Answer: a}
	if stands.Rotation != nil {
		e.Next = stands.Rotation.Next
		if err == nil {
			s.counts.rotatedOut.Add(1)
			s.tellRotation(ctx, &stands, RotationEnded)
		}
	}
	return e, err
}

// RenewKey gives the key a new stamp: cuts that hit it until now do so no more.
// An ended key stays dead.
func (s *Service) RenewKey(ctx context.Context, c Caller, id, reason string, only ...If[Key]) (Key, error) {
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
		if err := s.mayGiveKey(ctx, c, &k); err != nil {
			return Key{}, err
		}
		if _, err := s.givesKey(ctx, c, "id", &k, k.Expires); err != nil {
			return Key{}, err
		}
		meta := s.meta(c, reason)
		return s.d.Store.Keys.Change(ctx, RecordKey(k.Tenant, k.ID), func(k Key) (Key, error) {
			if k.Mark != nil {
				return k, problem.New(problem.Conflict, "the key is ending")
			}
			if err := meets(k, k.Meta, meta, only); err != nil {
				return k, err
			}
			k.Stamp, k.Meta = m.stamp, meta
			return k, nil
		})
	})
}
