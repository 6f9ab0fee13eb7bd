package issuer

import (
	"context"
	"slices"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/guard/revoke"
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
}

// TokenRequest asks for an access token.
type TokenRequest struct {
	Client    ClientAuth
	APIKey    string   // the subject_token of an exchange
	Scopes    []string // nil: all that is held
	Resources []string // RFC 8707
}

// errKey is the one answer for every API key that gives nothing: unknown,
// ended, held, expired or mistyped. RFC 8693, 2.2.2: "If [...] the subject_token
// [is] invalid for any reason [...] the value of the "error" parameter MUST be
// the "invalid_request" error code."
var errKey = refuse(CodeInvalidRequest, "the subject_token is not a valid API key: it is unknown, expired, revoked or held")

// errClient is the one answer for a client that could not be authenticated.
var errClient = refuse(CodeInvalidClient, "client authentication failed")

// Exchange gives an access token for an API key. It writes nothing.
func (s *Service) Exchange(ctx context.Context, r TokenRequest) (Token, error) {
	return stampFirst(ctx, s, false, func(m *making) (Token, error) {
		k, err := s.liveKey(ctx, m, r.APIKey, APIKey)
		if err != nil {
			return Token{}, orRefuse(err, errKey)
		}
		if err := s.exchangeClient(ctx, m, &k, r.Client); err != nil {
			return Token{}, err
		}
		held, err := s.rolesOfKey(&k)
		if err != nil {
			return Token{}, err
		}
		roles, err := s.roles(ctx, m, held)
		if err != nil {
			return Token{}, err
		}
		sub := subject{key: &k, scopes: k.Scopes, roles: roles, audiences: k.Audiences}
		return s.sign(ctx, m, sub, request{r.Scopes, r.Resources})
	})
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
		held, err := s.rolesOfKey(&who.key)
		if err != nil {
			return Token{}, err
		}
		roles, err := s.roles(ctx, m, held)
		if err != nil {
			return Token{}, err
		}
		sub := subject{key: &who.key, scopes: who.client.Scopes, roles: roles, audiences: who.client.Audiences}
		return s.sign(ctx, m, sub, request{r.Scopes, r.Resources})
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
	kind, err := apikey.Parse(auth.Secret)
	if err != nil {
		return authenticated{}, errClient
	}
	want := ClientSecret
	if kind == apikey.Key {
		want = APIKey
	}
	k, err := s.liveKey(ctx, m, auth.Secret, want)
	if err != nil {
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

// liveKey finds the record of a secret and checks it. NotFound stands for
// everything that makes it good for nothing.
//
// The look-up is by a hash of a text with 256 random bits, and the comparison
// is one of hashes in constant time: how long it takes tells nothing about any
// other secret.
func (s *Service) liveKey(ctx context.Context, m *making, secret string, kind KeyKind) (Key, error) {
	if form, err := apikey.Parse(secret); err != nil || form.String() != string(kind) {
		return Key{}, errDead
	}
	k, err := s.d.Store.Keys.Get(ctx, RecordKey(s.cfg.Tenant, apikey.ID(secret)))
	if err != nil {
		return Key{}, err
	}
	if !k.Hash.Equal(apikey.HashOf(secret)) || k.Kind != kind || k.Mark != nil || !m.now.Before(k.Expires) {
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
