package issuer

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/hits"
	"github.com/quash-project/quash/shared/problem"
)

// Hits counts what a revocation or a hold of these targets would hit. Each is of the
// tenant's own issuer. The error is Unavailable where the copies or the view can't show all
// that is there now.
func (s *Service) Hits(ctx context.Context, op commit.Op, after revoke.Stamp, targets []revoke.Target) (hits.Answer, error) {
	if err := s.seesAll(ctx, after); err != nil {
		return hits.Answer{}, err
	}
	c := &cut{
		s: s, op: op, targets: make(map[revoke.Target]bool, len(targets)), seen: map[string]bool{}, byClient: map[string]int{},
		grants: map[string]map[string]bool{}, roles: map[string]bool{}, given: map[revoke.Target]bool{},
	}
	if err := c.findRule(ctx); err != nil {
		return hits.Answer{}, err
	}
	for _, t := range targets {
		if c.targets[t] {
			continue
		}
		c.targets[t] = true
		if err := c.count(ctx, t); err != nil {
			return hits.Answer{}, err
		}
	}
	for _, rest := range []func(context.Context) error{c.countGrants, c.countRoles, c.narrow} {
		if err := rest(ctx); err != nil {
			return hits.Answer{}, err
		}
	}
	c.clients()
	c.out.LastAdmin = c.endsRule()
	return c.out, nil
}

// seesAll waits until the copies have what stands in the store now, and the view what
// whoever asks has seen of the log.
func (s *Service) seesAll(ctx context.Context, after revoke.Stamp) error {
	if err := s.Ready(); err != nil {
		return problem.Wrap(problem.Unavailable, err, "the issuer can't see all of its records now; try again")
	}
	if err := s.d.Reader.WaitFor(ctx, after); err != nil {
		return problem.Wrap(problem.Unavailable, err, "the issuer's view of the log is behind; try again")
	}
	if err := s.Present(ctx); err != nil {
		return err
	}
	for _, t := range []interface{ Fresh(context.Context) error }{s.d.Store.Keys, s.d.Store.Clients, s.d.Store.Roles, s.d.Store.Bindings} {
		if err := t.Fresh(ctx); err != nil {
			return err
		}
	}
	return nil
}

// cut gathers what some targets hit.
type cut struct {
	s        *Service
	op       commit.Op
	targets  map[revoke.Target]bool
	seen     map[string]bool            // ids of keys, clients and bindings that are counted
	grants   map[string]map[string]bool // clients of the grants that are hit, by owner
	roles    map[string]bool            // ids of roles that are hit
	bindings []Binding                  // that are hit by themselves
	pairs    bool                       // a binding is among the targets
	unbound  []revoke.Target            // bindings without a record
	given    map[revoke.Target]bool     // bindings that are roles given with a key
	byClient map[string]int
	ruling   *Role           // nil: there is none
	bound    map[string]bool // who has it by a binding
	rules    bool            // something that rules the tenant is hit
	out      hits.Answer
}

// whole reports whether everything of the tenant is hit.
func (c *cut) whole() bool {
	return c.targets[own(c.s.cfg.Tenant, revoke.KindTenant, c.s.cfg.Tenant)] || c.targets[own(c.s.cfg.Tenant, revoke.KindIssuer, revoke.Own)]
}

// count takes what one target hits, or notes it for the walk that takes all of its kind.
func (c *cut) count(ctx context.Context, t revoke.Target) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	store, tenant := c.s.d.Store, c.s.cfg.Tenant
	switch t.Kind {
	case revoke.KindKey:
		k, err := store.Keys.Get(ctx, RecordKey(tenant, t.ID))
		return c.found(t, err, func() { c.key(&k) })
	case revoke.KindPrincipal:
		return c.keys(ctx, OwnerGroup(tenant, t.ID), nil)
	case revoke.KindClient:
		return c.client(ctx, t)
	case revoke.KindGrant:
		sub, client, err := revoke.SplitPair(t.ID)
		if err != nil {
			return problem.FieldError("targets", "%v", err)
		}
		if c.grants[sub] == nil {
			c.grants[sub] = map[string]bool{}
		}
		c.grants[sub][client] = true
	case revoke.KindRole:
		c.roles[t.ID] = true
	case revoke.KindBinding:
		subject, role, err := revoke.SplitPair(t.ID)
		if err != nil {
			return problem.FieldError("targets", "%v", err)
		}
		c.pairs = true
		c.rules = c.rules || c.ruling != nil && role == c.ruling.ID
		b, err := store.Bindings.Get(ctx, BindingKey(tenant, subject, role))
		if problem.KindOf(err) == problem.NotFound && err != nil { // the role may have been given with a key
			c.unbound = append(c.unbound, t)
			return nil
		}
		return c.found(t, err, func() { c.binding(&b) })
	case revoke.KindTenant, revoke.KindIssuer:
		if err := c.keys(ctx, TenantGroup(tenant), nil); err != nil {
			return err
		}
		for cl := range store.Clients.Walk(TenantGroup(tenant)) {
			if err := ctx.Err(); err != nil {
				return err
			}
			c.clientRecord(&cl)
		}
	}
	// Of tokens, signing keys, and sign-ins with their sessions there are no records here.
	return nil
}

// found takes a record that was looked for, or notes that there is none.
func (c *cut) found(t revoke.Target, err error, take func()) error {
	if problem.KindOf(err) == problem.NotFound && err != nil {
		c.unknown(t)
		return nil
	}
	if err != nil {
		return err
	}
	take()
	return nil
}

func (c *cut) unknown(t revoke.Target) {
	c.out.Unknown = append(c.out.Unknown, commit.Target{Kind: t.Kind, ID: t.ID})
}

// ends reports whether something in a state would not be good any more: a hold adds
// nothing to what is held.
func (c *cut) ends(state State) bool {
	return state == StateActive || state == StateHeld && c.op == commit.Revoke
}

// first reports whether a record has not been counted yet.
func (c *cut) first(member string) bool {
	if c.seen[member] {
		return false
	}
	c.seen[member] = true
	return true
}

func (c *cut) key(k *Key) {
	if !c.ends(c.s.stateOfKey(k)) || !c.first("key:"+k.ID) {
		return
	}
	if k.Kind == ClientSecret {
		c.out.Secrets++
	} else {
		c.out.Keys++
	}
	c.mayRule(k)
	c.byClient[k.Client]++
	c.out.Boxes.Add("key:" + k.ID)
}

// keys takes those of a group that fit.
func (c *cut) keys(ctx context.Context, group string, fits func(*Key) bool) error {
	for k := range c.s.d.Store.Keys.Walk(group) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if fits == nil || fits(&k) {
			c.key(&k)
		}
	}
	return nil
}

// countGrants walks the keys of an owner once for all of their grants.
func (c *cut) countGrants(ctx context.Context) error {
	for owner, clients := range c.grants {
		if err := c.keys(ctx, OwnerGroup(c.s.cfg.Tenant, owner), func(k *Key) bool { return clients[k.ClientID()] }); err != nil {
			return err
		}
	}
	return nil
}

// client takes a client with its keys and secrets, or a key that is a client of its own.
func (c *cut) client(ctx context.Context, t revoke.Target) error {
	tenant := c.s.cfg.Tenant
	if id, of := strings.CutPrefix(t.ID, KeyClientPrefix); of {
		k, err := c.s.d.Store.Keys.Get(ctx, RecordKey(tenant, id))
		return c.found(t, err, func() {
			if k.ClientID() == t.ID {
				c.key(&k)
			}
		})
	}
	if err := c.keys(ctx, ClientGroup(tenant, t.ID), nil); err != nil {
		return err
	}
	if !strings.HasPrefix(t.ID, ClientPrefix) { // keys may name a client that has no record
		return nil
	}
	cl, err := c.s.d.Store.Clients.Get(ctx, RecordKey(tenant, t.ID))
	return c.found(t, err, func() { c.clientRecord(&cl) })
}

func (c *cut) clientRecord(cl *Client) {
	if cl.Mark == nil && c.first(cl.ID) {
		c.out.Clients++
		c.out.Boxes.Add(cl.ID)
	}
}

// countRoles takes the roles with their bindings.
func (c *cut) countRoles(ctx context.Context) error {
	if len(c.roles) == 0 {
		return nil
	}
	is := map[string]bool{}
	for r := range c.s.d.Store.Roles.Walk(TenantGroup(c.s.cfg.Tenant)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !c.roles[r.ID] {
			continue
		}
		is[r.ID] = true
		if c.ends(c.s.StateOf(r.Mark != nil, time.Time{}, c.s.HitBy(r.Stamp, RoleTarget(&r)))) {
			c.out.Roles++
			c.out.Boxes.Add("role:" + r.ID)
		}
	}
	for id := range c.roles {
		if !is[id] {
			c.unknown(own(c.s.cfg.Tenant, revoke.KindRole, id))
			continue
		}
		for b := range c.s.d.Store.Bindings.Walk(RoleGroup(c.s.cfg.Tenant, id)) {
			if err := ctx.Err(); err != nil {
				return err
			}
			c.binding(&b)
		}
	}
	c.rules = c.rules || c.ruling != nil && c.roles[c.ruling.ID]
	return nil
}

func (c *cut) binding(b *Binding) {
	if b.Mark != nil || b.Ended(c.s.d.Now()) || !c.ends(c.s.StateOf(false, b.Expires, c.s.HitBy(b.Stamp, BindingTarget(b)))) || !c.first("binding:"+b.BindingID()) {
		return
	}
	c.out.Bindings++
	c.bindings = append(c.bindings, *b)
	c.out.Boxes.Add("binding:" + b.BindingID())
}

// narrow counts the keys that lose a role and stay.
func (c *cut) narrow(ctx context.Context) error {
	if len(c.roles) == 0 && !c.pairs {
		return nil
	}
	bound := map[string]bool{}
	for _, b := range c.bindings {
		bound[b.Subject] = true
	}
	for k := range c.s.d.Store.Keys.Walk(TenantGroup(c.s.cfg.Tenant)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.loses(&k, bound) && !c.seen["key:"+k.ID] && c.s.stateOfKey(&k) == StateActive {
			c.out.Narrowed++
			c.out.Boxes.Add("narrowed:" + k.ID)
		}
	}
	for _, t := range c.unbound {
		if !c.given[t] {
			c.unknown(t)
		}
	}
	return nil
}

// loses reports whether a key has a role, or one of these bindings, that is hit. A role that
// was given with a key has no binding's record: see heldRole.
func (c *cut) loses(k *Key, bound map[string]bool) bool {
	loses := false
	for _, r := range k.Roles {
		loses = loses || c.roles[r.ID]
		if t := own(k.Tenant, revoke.KindBinding, revoke.PairID(k.Owner, r.ID)); c.pairs && c.targets[t] {
			c.given[t] = true
			loses = loses || c.ends(c.s.StateOf(false, time.Time{}, c.s.HitBy(k.Stamp, t)))
		}
	}
	return loses || slices.ContainsFunc(k.holders(), func(subject string) bool { return bound[subject] })
}

// clients puts those that have the most first.
func (c *cut) clients() {
	list := make([]hits.Client, 0, len(c.byClient))
	for id, n := range c.byClient {
		list = append(list, hits.Client{ID: id, Keys: n})
	}
	slices.SortFunc(list, func(a, b hits.Client) int { return cmp.Or(cmp.Compare(b.Keys, a.Keys), strings.Compare(a.ID, b.ID)) })
	c.out.MoreClients = max(0, len(list)-hits.MaxClients)
	c.out.ByClient = list[:len(list)-c.out.MoreClients]
}

// findRule finds the role that rules the tenant.
func (c *cut) findRule(ctx context.Context) error {
	role, err := c.s.d.Store.Roles.Get(ctx, RoleKey(c.s.cfg.Tenant, c.s.rulingRole()))
	if problem.KindOf(err) == problem.NotFound && err != nil {
		return nil
	}
	if err != nil {
		return err
	}
	c.ruling, c.bound = &role, map[string]bool{}
	for b := range c.s.d.Store.Bindings.Walk(RoleGroup(role.Tenant, role.ID)) {
		c.bound[b.Subject] = true
	}
	return nil
}

// mayRule notes that a key is hit which may rule the tenant.
func (c *cut) mayRule(k *Key) {
	c.rules = c.rules || c.ruling != nil && (k.given(c.ruling) || slices.ContainsFunc(k.holders(), func(subject string) bool { return c.bound[subject] }))
}

// endsRule reports whether somebody rules the tenant now, and nobody would then. All of its
// keys are looked at only if one that may rule is among those that are hit.
func (c *cut) endsRule() bool {
	if !c.rules {
		return false
	}
	left, now := false, false
	c.s.rulers(c.ruling, func(k *Key, by []Binding) bool {
		now = true
		left = !c.stops(k, c.ruling, by)
		return !left
	})
	return now && !left
}

// stops reports whether a key that rules would do so no more.
func (c *cut) stops(k *Key, ruling *Role, by []Binding) bool {
	if c.whole() || c.roles[ruling.ID] || slices.ContainsFunc(KeyTargets(k), func(t revoke.Target) bool { return c.targets[t] }) {
		return true
	}
	if k.given(ruling) && !c.targets[own(k.Tenant, revoke.KindBinding, revoke.PairID(k.Owner, ruling.ID))] {
		return false
	}
	return !slices.ContainsFunc(by, func(b Binding) bool { return !c.targets[BindingTarget(&b)] })
}
