package issuer

import (
	"context"
	"net/netip"
	"slices"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/leaked"
	"github.com/quash-project/quash/shared/problem"
)

// Grant types.
const (
	GrantClientCredentials = "client_credentials"
	GrantTokenExchange     = "urn:ietf:params:oauth:grant-type:token-exchange"
)

// ClientAuth is how a client shows who it is.
type ClientAuth struct {
	ID     string // "" for none
	Secret string // "" for none: it names itself only
	// From is the address from which it asks; the zero Addr: not known, and in no
	// network that a key may be used from.
	From netip.Addr
	// Agent is what its program calls itself. Empty: it did not say.
	Agent string
}

// TokenRequest asks for an access token.
type TokenRequest struct {
	Client    ClientAuth
	APIKey    string   // the subject_token of an exchange
	Scopes    []string // nil: all that is held
	Resources []string // RFC 8707
}

// errKey is the one answer for every API key that gives nothing: unknown,
// ended, held, expired, mistyped, or used from elsewhere than it may be. RFC 8693, 2.2.2: "If [...] the subject_token
// [is] invalid for any reason [...] the value of the "error" parameter MUST be
// the "invalid_request" error code."
var errKey = refuse(CodeInvalidRequest, "the subject_token is not a valid API key: it is unknown, expired, revoked or held, or not for this network")

// errClient is the one answer for a client that could not be authenticated.
var errClient = refuse(CodeInvalidClient, "client authentication failed")

// Exchange gives an access token for an API key. It writes nothing.
func (s *Service) Exchange(ctx context.Context, r TokenRequest) (Token, error) {
	return stampFirst(ctx, s, false, func(m *making) (Token, error) {
		k, err := s.liveKey(ctx, m, r.APIKey, APIKey, r.Client.From)
		if err != nil {
			s.attempted(err, m, r.APIKey, r.Client.From)
			return Token{}, orRefuse(err, errKey)
		}
		if err := s.exchangeClient(ctx, m, &k, r.Client); err != nil {
			return Token{}, err
		}
		r.Client.Agent = plainOf(r.Client.Agent, r.APIKey, maxAgent)
		return s.give(ctx, m, subject{key: &k, scopes: k.Scopes, audiences: k.Audiences}, r)
	})
}

// give makes the token of a subject whose key or secret was checked. The limits are taken
// from here: what nobody may use takes nothing from those who may.
func (s *Service) give(ctx context.Context, m *making, sub subject, r TokenRequest) (Token, error) {
	held, err := s.rolesOfKey(sub.key)
	if err != nil {
		return Token{}, err
	}
	if sub.roles, err = s.roles(ctx, m, held); err != nil {
		return Token{}, err
	}
	if err := s.admitKey(ctx, sub.key, m.now); err != nil {
		return Token{}, err
	}
	t, err := s.sign(ctx, m, sub, request{r.Scopes, r.Resources})
	if err == nil {
		if len(sub.key.Networks) > 0 {
			t.BoundTo = r.Client.From
		}
		s.uses.note(sub.key, m.now, r.Client)
	}
	return t, err
}

// exchangeClient checks a client that names itself in an exchange: it needs no
// authentication, but what it shows must be right, and the key its own.
func (s *Service) exchangeClient(ctx context.Context, m *making, k *Key, auth ClientAuth) error {
	if auth.Secret != "" {
		if _, err := s.authenticate(ctx, m, auth); err != nil {
			return err
		}
	}
	if auth.ID != "" && auth.ID != k.ClientID() {
		return refuse(CodeInvalidRequest, "the subject_token was issued to another client")
	}
	if k.Client == "" {
		return nil
	}
	c, err := s.liveClient(ctx, m, k.Client)
	if err != nil {
		return orRefuse(err, errKey)
	}
	if !slices.Contains(c.Grants, GrantTokenExchange) {
		return refuse(CodeUnauthorizedClient, "the key's client may not use the grant type %s", GrantTokenExchange)
	}
	return nil
}

// ClientCredentials gives a client a token for itself. It writes nothing.
func (s *Service) ClientCredentials(ctx context.Context, r TokenRequest) (Token, error) {
	return stampFirst(ctx, s, false, func(m *making) (Token, error) {
		who, err := s.authenticate(ctx, m, r.Client)
		if err != nil {
			return Token{}, err
		}
		if who.client == nil || !slices.Contains(who.client.Grants, GrantClientCredentials) {
			return Token{}, refuse(CodeUnauthorizedClient, "this client may not use the grant type %s", GrantClientCredentials)
		}
		r.Client.Agent = plainOf(r.Client.Agent, r.Client.Secret, maxAgent)
		return s.give(ctx, m, subject{key: &who.key, scopes: who.client.Scopes, audiences: who.client.Audiences}, r)
	})
}

// authenticated is a client that was proved.
type authenticated struct {
	id     string
	key    Key     // the secret that proved it
	client *Client // nil for an API key that is its own client
}

// authenticate proves a client by its secret. An API key without a client is a
// client of its own, "key_" and its id, and its own secret.
func (s *Service) authenticate(ctx context.Context, m *making, auth ClientAuth) (authenticated, error) {
	if auth.ID == "" || auth.Secret == "" {
		return authenticated{}, errClient
	}
	want := APIKey
	if kind, err := apikey.Parse(auth.Secret); err == nil && kind != apikey.Key {
		want = ClientSecret
	}
	k, err := s.liveKey(ctx, m, auth.Secret, want, auth.From)
	if err != nil {
		s.attempted(err, m, auth.Secret, auth.From)
		return authenticated{}, orRefuse(err, errClient)
	}
	// A client's API key is no secret of that client: it names a principal.
	if k.ClientID() != auth.ID || want == APIKey && k.Client != "" {
		return authenticated{}, errClient
	}
	a := authenticated{id: auth.ID, key: k}
	if want == ClientSecret {
		c, err := s.liveClient(ctx, m, k.Client)
		if err != nil {
			return authenticated{}, orRefuse(err, errClient)
		}
		a.client = &c
	}
	return a, nil
}

// idOf returns the id under which the record of a secret stands: of one of ours it is
// made from the text, of one that was imported from its hash. So either is found, or
// not, by one look-up of the same kind.
func idOf(secret string) string { return leaked.Of(secret).ID }

// shows reports whether a secret is that of the record.
func (k *Key) shows(secret string) bool { return k.is(leaked.Of(secret)) }

func (k *Key) is(secret leaked.Secret) bool {
	imported := secret.Kind == ""
	return k.Hash.Equal(secret.Hash) && k.Imported == imported && (imported && k.Kind == APIKey || string(k.Kind) == secret.Kind)
}

// liveKey finds the record of a secret and checks it. NotFound stands for
// everything that makes it good for nothing.
//
// The look-up is by a hash of a text with 256 random bits, and the comparison
// is one of hashes in constant time: how long it takes tells nothing about any
// other secret. An imported one is as hard to guess as who made it made it.
func (s *Service) liveKey(ctx context.Context, m *making, secret string, kind KeyKind, from netip.Addr) (Key, error) {
	k, err := s.d.Store.Keys.Get(ctx, RecordKey(s.cfg.Tenant, idOf(secret)))
	if err != nil {
		return Key{}, err
	}
	if !k.shows(secret) || k.Kind != kind || k.Mark != nil || k.over(m.now) || s.goes(k.Owner) || !m.now.Before(k.Expires) || !k.from(from) {
		return Key{}, errDead
	}
	targets := keyTargets(&k)
	if hit, err := m.hit(k.Stamp, targets[:]...); err != nil {
		return Key{}, err
	} else if hit {
		return Key{}, errDead
	}
	return k, nil
}

// liveClient reads a client and checks that it is not held. Its secrets and keys
// have the stamps, not the client.
func (s *Service) liveClient(ctx context.Context, m *making, id string) (Client, error) {
	c, err := s.d.Store.Clients.Get(ctx, RecordKey(s.cfg.Tenant, id))
	if err != nil {
		return Client{}, err
	}
	if c.Mark != nil || m.held(target(c.Tenant, revoke.KindClient, c.ID)) {
		return Client{}, errDead
	}
	return c, nil
}

// standing wants that a client is not deleted, for whoever gives a key of it a new
// stamp, which no cut of until now hits. A client has no stamp itself, so that a
// copy which is behind does not show its end; the store does, since the mark comes
// before the cut.
func (s *Service) standing(ctx context.Context, client string) error {
	if client == "" {
		return nil
	}
	c, err := s.d.Store.Clients.Load(ctx, RecordKey(s.cfg.Tenant, client))
	if err == nil && c.Mark != nil {
		return errDead
	}
	return err
}

var errDead = problem.New(problem.NotFound, "it is good for nothing")

// orRefuse turns NotFound into a refusal and leaves every other error alone.
func orRefuse(err, refusal error) error {
	if problem.KindOf(err) == problem.NotFound {
		return refusal
	}
	return err
}
