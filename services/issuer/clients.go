package issuer

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// NewClient asks for a client.
type NewClient struct {
	Name       string
	Grants     []string
	Scopes     []string
	Roles      []string // by name: each becomes a binding
	Audiences  []string
	Serves     []string
	SecretLife time.Duration // 0: DefaultKeyLife
	Recipient  string        // of the secret: age; empty: none
	Reason     string
}

// Grants are the grant types that a client can have.
func Grants() []string { return []string{GrantClientCredentials, GrantTokenExchange} }

// CreateClient makes a client and its first secret, which is returned once and
// kept nowhere.
func (s *Service) CreateClient(ctx context.Context, c Caller, n NewClient) (Client, Key, apikey.Text, error) {
	if err := s.checkNewClient(c, &n); err != nil {
		return Client{}, Key{}, apikey.Text{}, err
	}
	if _, err := s.lasts(ctx, c, "scopes", n.Scopes, time.Time{}); err != nil { // a client does not end by itself
		return Client{}, Key{}, apikey.Text{}, err
	}
	if err := s.roomForClient(ctx); err != nil {
		return Client{}, Key{}, apikey.Text{}, err
	}
	id, err := s.newID(c)
	if err != nil {
		return Client{}, Key{}, apikey.Text{}, err
	}
	cl := Client{
		ID: ClientPrefix + id, Tenant: c.Tenant, Name: n.Name, Grants: union(nil, n.Grants), Scopes: union(nil, n.Scopes),
		Audiences: union(nil, n.Audiences), Serves: union(nil, n.Serves),
		Created: s.d.Now().UTC().Truncate(time.Millisecond), Meta: s.meta(c, n.Reason),
	}
	if err := s.d.Store.Clients.Create(ctx, RecordKey(cl.Tenant, cl.ID), cl); err != nil {
		if c.Try != nil && problem.KindOf(err) == problem.Conflict { // a try before got so far
			err = problem.MadeBefore(revoke.Target{Kind: revoke.KindClient, ID: cl.ID}.String())
		}
		return Client{}, Key{}, apikey.Text{}, err
	}
	c.Try = nil // the rest hangs on the client
	k, secret, err := s.furnish(ctx, c, &cl, n)
	if err != nil {
		// Nobody has heard of the client yet, so nothing has to be revoked.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = s.removeBindings(undo, SubjectGroup(cl.Tenant, cl.ID), every)                                  // harmless without its client
		_ = s.d.Store.Clients.Remove(undo, RecordKey(cl.Tenant, cl.ID), func(Client) bool { return true }) // and it without a secret
		return Client{}, Key{}, apikey.Text{}, err
	}
	return cl, k, secret, nil
}

// furnish gives a new client its roles and its first secret.
func (s *Service) furnish(ctx context.Context, c Caller, cl *Client, n NewClient) (Key, apikey.Text, error) {
	for _, name := range n.Roles {
		if _, err := s.bind(ctx, c, NewBinding{Subject: cl.ID, Role: name, Reason: n.Reason}, "roles"); err != nil {
			return Key{}, apikey.Text{}, err
		}
	}
	secret := secretOf(cl, "", n.SecretLife, n.Reason)
	secret.Recipient = n.Recipient
	return s.makeKey(ctx, c, secret, ClientSecret)
}

func secretOf(cl *Client, name string, life time.Duration, reason string) NewKey {
	return NewKey{Owner: cl.ID, Client: cl.ID, Name: name, Life: life, Reason: reason}
}

func (s *Service) checkNewClient(c Caller, n *NewClient) error {
	if err := s.checkTenant(c); err != nil {
		return err
	}
	if err := checkText("name", n.Name, false); err != nil {
		return err
	}
	if len(n.Grants) == 0 {
		return problem.FieldError("grants", "a client needs at least one of %s", strings.Join(Grants(), ", "))
	}
	for _, g := range n.Grants {
		if !slices.Contains(Grants(), g) {
			return problem.FieldError("grants", "%.80q: want %s", g, strings.Join(Grants(), " or "))
		}
	}
	if err := checkScopes(c, n.Scopes); err != nil {
		return err
	}
	if len(n.Roles) > MaxRoles {
		return problem.FieldError("roles", "%d roles: a client can have %d", len(n.Roles), MaxRoles)
	}
	if err := checkAudiences("audiences", n.Audiences); err != nil {
		return err
	}
	if err := checkRecipient(&n.Recipient); err != nil {
		return err
	}
	return checkAudiences("serves", n.Serves)
}

// NewSecret asks for another secret of a client.
type NewSecret struct {
	Name      string        // for people
	Life      time.Duration // 0: that of the policy
	Recipient string        // age; empty: none
	Reason    string
}

// AddSecret gives a client another secret; the old ones stay good.
func (s *Service) AddSecret(ctx context.Context, c Caller, clientID string, want NewSecret) (Key, apikey.Text, error) {
	cl, err := s.Client(ctx, c, clientID)
	if err != nil {
		return Key{}, apikey.Text{}, err
	}
	if err := checkText("name", want.Name, true); err != nil {
		return Key{}, apikey.Text{}, err
	}
	if err := checkRecipient(&want.Recipient); err != nil {
		return Key{}, apikey.Text{}, err
	}
	held, err := s.rolesOf(cl.ID)
	if err != nil {
		return Key{}, apikey.Text{}, err
	}
	all, err := s.scopesOf(ctx, cl.Scopes, held)
	if err != nil {
		return Key{}, apikey.Text{}, err
	}
	if err := mayGive(c, "client_id", all); err != nil {
		return Key{}, apikey.Text{}, err
	}
	lives, err := s.cfg.Keys.lifeOf(want.Life)
	if err != nil {
		return Key{}, apikey.Text{}, err
	}
	n := secretOf(&cl, want.Name, want.Life, want.Reason)
	n.Recipient = want.Recipient
	if n.rightsUntil, err = s.lasts(ctx, c, "expires_in", all, s.d.Now().Add(lives)); err != nil {
		return Key{}, apikey.Text{}, err
	}
	return s.makeKey(ctx, c, n, ClientSecret)
}

// Client returns the record of a client.
func (s *Service) Client(ctx context.Context, c Caller, id string) (Client, error) {
	if err := s.checkTenant(c); err != nil {
		return Client{}, err
	}
	if tail, ok := strings.CutPrefix(id, ClientPrefix); !ok || !apikey.IsID(tail) {
		return Client{}, problem.New(problem.NotFound, "there is no client with this id")
	}
	cl, err := s.d.Store.Clients.Load(ctx, RecordKey(c.Tenant, id))
	if err != nil && problem.KindOf(err) == problem.NotFound {
		return Client{}, problem.New(problem.NotFound, "there is no client %s", id)
	}
	return cl, err
}

// Clients returns the clients of the tenant, oldest first.
func (s *Service) Clients(_ context.Context, c Caller) ([]Client, error) {
	if err := s.checkTenant(c); err != nil {
		return nil, err
	}
	out := s.d.Store.Clients.Group(TenantGroup(c.Tenant))
	slices.SortFunc(out, func(a, b Client) int { return byAge(a.Created, a.ID, b.Created, b.ID) })
	return out, nil
}

// DeleteClient cuts the client and its bindings and ends its secrets and API
// keys, all in the same entries, and removes their records.
func (s *Service) DeleteClient(ctx context.Context, c Caller, id, reason string, only ...If[Client]) (Ended, error) {
	cl, err := s.Client(ctx, c, id)
	if err != nil {
		return Ended{}, err
	}
	if err := s.d.Store.Bindings.Fresh(ctx); err != nil {
		return Ended{}, err
	}
	if err := s.d.Store.Keys.Fresh(ctx); err != nil {
		return Ended{}, err
	}
	if slices.ContainsFunc(s.d.Store.Keys.Group(ClientGroup(cl.Tenant, cl.ID)), func(k Key) bool { return s.mayRule(&k) }) {
		return s.endingRuler(ctx, c, leaving{client: cl.ID}, func(ctx context.Context) (Ended, error) {
			return s.endClient(ctx, c, &cl, reason, only...)
		})
	}
	return s.endClient(ctx, c, &cl, reason, only...)
}

func (s *Service) endClient(ctx context.Context, c Caller, cl *Client, reason string, only ...If[Client]) (Ended, error) {
	a, err := end(ctx, s, c, s.clientsMarkable(), RecordKey(cl.Tenant, cl.ID), func(cl Client) (*endings.Mark, error) {
		if err := check(cl, only); err != nil {
			return nil, err
		}
		targets := []commit.Target{{Kind: revoke.KindClient, ID: cl.ID}}
		for _, k := range s.d.Store.Keys.Group(ClientGroup(cl.Tenant, cl.ID)) {
			targets = append(targets, commit.Target{Kind: revoke.KindKey, ID: k.ID})
		}
		for _, b := range s.d.Store.Bindings.Group(SubjectGroup(cl.Tenant, cl.ID)) {
			targets = append(targets, commit.Target{Kind: revoke.KindBinding, ID: b.BindingID()})
		}
		m, err := s.newMark(c, reason, targets...)
		if err == nil {
			m.Record = true
		}
		return m, err
	})
	return Ended{Target: revoke.Target{Kind: revoke.KindClient, ID: cl.ID}.String(), Answer: a}, err
}
