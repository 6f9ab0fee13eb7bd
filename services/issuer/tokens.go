package issuer

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// freshIn is how long the log may take to answer for an introspection.
const freshIn = 3 * time.Second

// Introspect tells an authenticated client about a token (RFC 7662): the client
// that it was issued to, or one that serves its audience. To anybody else, and
// of anything that is no good token, it says that it is not active. fresh has the log asked
// anew first, so that whatever was acknowledged before the call counts.
func (s *Service) Introspect(ctx context.Context, auth ClientAuth, token string, fresh bool) (*Claims, error) {
	who, err := stampFirst(ctx, s, false, func(m *making) (authenticated, error) {
		return s.authenticate(ctx, m, auth)
	})
	if err != nil {
		return nil, err
	}
	if fresh {
		// Who asks holds up a request of their own meanwhile.
		asking, cancel := context.WithTimeout(ctx, freshIn)
		err := s.d.Reader.Fresh(asking)
		cancel()
		if err != nil {
			return nil, problem.Wrap(problem.Unavailable, err, "the log can't be asked now; try again, or without fresh")
		}
	}
	v, err := s.d.Verifier.Verify(ctx, token)
	if errors.Is(err, ErrNotOurs) || err == nil && v.Token.Tenant != s.cfg.Tenant {
		return nil, nil //nolint:nilnil // not active
	}
	if err != nil {
		return nil, err
	}
	if !who.mayIntrospect(&v.Token) {
		return nil, nil //nolint:nilnil // not active, to this client
	}
	if v.Unknown {
		return nil, problem.New(problem.Unavailable, "the log can't be followed now, so nothing can be said of tokens; try again")
	}
	if !v.Active {
		return nil, nil //nolint:nilnil // not active
	}
	return &v.Token, nil
}

func (a *authenticated) mayIntrospect(t *Claims) bool {
	if t.ClientID == a.id || slices.Contains(t.Audience, a.id) {
		return true
	}
	return a.client != nil && slices.ContainsFunc(t.Audience, func(aud string) bool { return slices.Contains(a.client.Serves, aud) })
}

// Revoke ends a token of an authenticated client's own (RFC 7009). It returns
// without an error when that is durable, and for what is no token at all: RFC
// 7009, 2.2: "invalid tokens do not cause an error response".
func (s *Service) Revoke(ctx context.Context, auth ClientAuth, token string) error {
	who, err := stampFirst(ctx, s, false, func(m *making) (authenticated, error) {
		return s.authenticate(ctx, m, auth)
	})
	if err != nil {
		return err
	}
	if kind, err := apikey.Parse(token); err == nil {
		return s.revokeSecret(ctx, who, kind, token)
	}
	v, err := s.d.Verifier.Verify(ctx, token)
	if err == nil && v.Token.Tenant != s.cfg.Tenant {
		return nil
	}
	if errors.Is(err, ErrNotOurs) {
		return s.revokeSecret(ctx, who, apikey.Key, token) // perhaps an imported key
	}
	if err != nil {
		return err
	}
	if v.Token.ClientID != who.id {
		return refuse(CodeInvalidGrant, "the token was issued to another client")
	}
	if v.Token.Expires <= s.d.Now().Unix() {
		return nil
	}
	// The same token is the same request, whoever asks how often.
	_, err = s.commitOne(ctx, "rfc7009:"+v.Token.ID, commit.Request{
		Tenant: s.cfg.Tenant, Op: commit.Revoke, Targets: []commit.Target{{Kind: revoke.KindToken, ID: v.Token.ID}},
		Reason: "revoked by its client (RFC 7009)", Actor: "client:" + who.id, Record: true,
	})
	return err
}

// revokeSecret ends an API key at its own wish: whoever has found a key can do
// no better with it than that.
func (s *Service) revokeSecret(ctx context.Context, who authenticated, kind apikey.Kind, secret string) error {
	if kind != apikey.Key {
		return refuse(CodeUnsupportedTokenType, "a %s can't be revoked here", kind)
	}
	caller := Caller{Actor: "client:" + who.id, Tenant: s.cfg.Tenant}
	k, err := s.Key(ctx, caller, idOf(secret))
	if problem.KindOf(err) == problem.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if k.Kind != APIKey || !k.shows(secret) {
		return nil
	}
	if k.ClientID() != who.id {
		return refuse(CodeInvalidGrant, "the key was issued to another client")
	}
	_, err = s.endKey(ctx, caller, &k, "revoked by its client (RFC 7009)")
	if problem.KindOf(err) == problem.NotFound {
		return nil
	}
	return err
}

// Found is what a secret turned out to be.
type Found struct {
	Kind   string // "key", "secret" or "refresh"
	ID     string
	Target string
	Known  bool // there is a record of it
	Owner  string
	Client string
	// Successors have taken its place, the newest last: whoever had this one may have made
	// them.
	Successors []string
}

// Lookup tells what a pasted secret is. A secret without a record (removed
// already, or never written) is named all the same: its id is made from it.
func (s *Service) Lookup(ctx context.Context, c Caller, secret string) (Found, error) {
	if err := s.checkTenant(c); err != nil {
		return Found{}, err
	}
	kind, notOurs := apikey.Parse(secret)
	if notOurs != nil {
		kind = apikey.Key // one that was imported, if it is known
	}
	f := Found{Kind: kind.String(), ID: idOf(secret)}
	f.Target = revoke.Target{Kind: revoke.KindKey, ID: f.ID}.String()
	f.Successors = s.Successors(c.Tenant, f.ID)
	k, err := s.Key(ctx, c, f.ID)
	switch {
	case problem.KindOf(err) == problem.NotFound && notOurs != nil:
		return Found{}, problem.FieldError("secret", "%v; and no key with its hash was imported", notOurs)
	case problem.KindOf(err) == problem.NotFound:
		return f, nil
	case err != nil:
		return Found{}, err
	case k.shows(secret):
		f.Known, f.Owner, f.Client = true, k.Owner, k.Client
	}
	return f, nil
}

// Hit is a target by which a record is dead or held just now.
type Hit struct {
	Target string
	Held   bool  // only held: a release brings it back
	CutAt  int64 // of the newest cut of the target, Unix milliseconds
}

// HitBy names the targets by which a record is dead or held just now, for
// people who look at it. It decides nothing.
func (s *Service) HitBy(stamp revoke.Stamp, targets ...revoke.Target) []Hit {
	view := s.d.Reader.View()
	if len(targets) > 0 {
		tenant := targets[0].Tenant
		targets = append(targets, own(tenant, revoke.KindTenant, tenant), own(tenant, revoke.KindIssuer, revoke.Own))
	}
	epochs := view.Epochs()
	var out []Hit
	for _, t := range targets {
		st := view.State(t.Key())
		if !st.Hits(stamp, epochs) {
			continue
		}
		dead := st.Ended || epochs.Clamp(stamp).Less(st.Cut)
		out = append(out, Hit{Target: t.String(), Held: !dead, CutAt: st.CutAt})
	}
	return out
}

// HeldBy is HitBy for what has no stamp (a client): only holds count.
func (s *Service) HeldBy(targets ...revoke.Target) []Hit {
	// Nothing lies above this stamp, so that no cut hits it.
	return s.HitBy(revoke.Stamp{Epoch: math.MaxUint64, Seq: math.MaxUint64}, targets...)
}

func own(tenant string, kind revoke.Kind, id string) revoke.Target {
	return revoke.Target{Tenant: tenant, Issuer: revoke.Own, Kind: kind, ID: id}
}

// KeyTargets returns the targets of a key by name.
func KeyTargets(k *Key) []revoke.Target {
	client := k.ClientID()
	return []revoke.Target{
		own(k.Tenant, revoke.KindKey, k.ID), own(k.Tenant, revoke.KindPrincipal, k.Owner), own(k.Tenant, revoke.KindClient, client),
		own(k.Tenant, revoke.KindGrant, revoke.PairID(k.Owner, client)),
	}
}

// ClientTarget returns the client as a target.
func ClientTarget(c *Client) revoke.Target { return own(c.Tenant, revoke.KindClient, c.ID) }

// PrincipalTarget returns the principal as a target.
func PrincipalTarget(p *Principal) revoke.Target { return own(p.Tenant, revoke.KindPrincipal, p.ID) }

// RoleTarget returns the role as a target.
func RoleTarget(r *Role) revoke.Target { return own(r.Tenant, revoke.KindRole, r.ID) }

// BindingTarget returns the binding as a target.
func BindingTarget(b *Binding) revoke.Target { return own(b.Tenant, revoke.KindBinding, b.BindingID()) }
