package guard

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/keys"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Issuer is one whose tokens a guard takes. Own ones are Quash's: their tokens
// carry stamps, and their keys come through the log. Any other OpenID provider
// is a foreign one.
type Issuer struct {
	// URL is the claim iss, exactly.
	URL string
	// Name is the short name under which the tenant registered a foreign issuer:
	// targets of its tokens carry it. Empty: Quash's own.
	Name string
	// Tenant is whose targets its tokens belong to; "default" if empty.
	Tenant string
	// Tenants takes the tokens of the installation's tenants too, whose issuers stand
	// below URL (wire.TenantIssuer): each under its own tenant, with its own keys. It needs
	// the log.
	Tenants bool
	// Trust are the rotator's identity keys, "ed25519:" and 43 characters of
	// base64url. What the log says of signing keys counts only when one of these
	// signed it. Needed for an own issuer, except with Redis alone.
	Trust []string
	// JWKSURL is where the keys are fetched: of a foreign issuer, and of an own
	// one where no log is followed (Redis alone). https, or http to a loopback
	// address.
	JWKSURL string
	// AllowHTTP permits plain http for JWKSURL, and for the exchange of API keys,
	// beyond loopback: whoever can change what comes over that network can then make
	// tokens, and whoever can read it has the keys.
	AllowHTTP bool
	// Audience: one of these must be in a token's aud. {URL} if empty; a foreign
	// issuer needs it.
	Audience []string
	// Algs are the signature algorithms taken: ES256 and EdDSA if empty, for a
	// foreign issuer RS256, PS256 and ES384 too.
	Algs []string
	// Types are the values taken for the header typ: at+jwt if empty, for a
	// foreign issuer also JWT and none at all. "" stands for none.
	Types []string
	// Skew is what a foreign issuer's clock may be wrong by; 5 minutes if 0. A cut
	// hits tokens that seem to be this much newer, and a foreign clock further
	// ahead is a hole of the difference.
	Skew time.Duration
	// MaxLife is the longest life of a foreign token; an hour if 0. An own one's is
	// wire.MaxTokenLife, always.
	MaxLife time.Duration
}

// Own reports whether the issuer is Quash's own.
func (i Issuer) Own() bool { return i.Name == "" }

const (
	defaultTenant = "default"
	defaultSkew   = 5 * time.Minute
	// maxForeignLife bounds MaxLife: entries about a foreign issuer live as long as
	// its longest registered session.
	maxForeignLife = 24 * time.Hour
)

// issuer is an Issuer with its defaults and its keys: a set from the log, or a
// remote one.
type issuer struct {
	Issuer
	name               string // in targets
	set                *keys.Set
	tenants            *tenants // nil: only its own tokens are taken
	remote             *keys.Remote
	tenantKey, selfKey revoke.Key
}

func newIssuer(i Issuer, o *options) (*issuer, error) {
	if err := i.complete(); err != nil {
		return nil, fmt.Errorf("issuer %.200q: %w", i.URL, err)
	}
	iss, err := named(i)
	if err != nil {
		return nil, err
	}
	if err := iss.openKeys(o); err != nil {
		return nil, fmt.Errorf("issuer %.200q: %w", i.URL, err)
	}
	return iss, nil
}

// named returns an issuer with what its targets are called, and without keys.
func named(i Issuer) (*issuer, error) {
	iss := &issuer{Issuer: i, name: i.Name}
	if i.Own() {
		iss.name = revoke.Own
	}
	tenant, err := revoke.NewTarget(i.Tenant, revoke.Own, revoke.KindTenant, i.Tenant)
	if err != nil {
		return nil, fmt.Errorf("issuer %.200q: %w", i.URL, err)
	}
	self, err := revoke.NewTarget(i.Tenant, iss.name, revoke.KindIssuer, iss.name)
	if err != nil {
		return nil, fmt.Errorf("issuer %.200q: %w", i.URL, err)
	}
	iss.tenantKey, iss.selfKey = tenant.Key(), self.Key()
	return iss, nil
}

// complete fills in what was left out and checks the rest.
func (i *Issuer) complete() error {
	if u, err := url.Parse(i.URL); err != nil || u.Scheme == "" || u.Host == "" || u.User != nil {
		return errors.New("URL: want an absolute URL without credentials")
	}
	if i.Name == revoke.Own {
		return fmt.Errorf("name %q is that of Quash's own issuer: leave it empty", i.Name)
	}
	if i.Tenant == "" {
		i.Tenant = defaultTenant
	}
	known := keys.ForeignAlgs()
	if i.Own() {
		known = keys.OwnAlgs()
		i.MaxLife = wire.MaxTokenLife
	}
	if len(i.Algs) == 0 {
		i.Algs = known
	}
	for _, a := range i.Algs {
		if !slices.Contains(known, a) {
			return fmt.Errorf("algorithm %.20q: want some of %v", a, known)
		}
	}
	if len(i.Types) == 0 {
		i.Types = []string{"at+jwt", "application/at+jwt"}
		if !i.Own() {
			i.Types = append(i.Types, "JWT", "jwt", "")
		}
	}
	if len(i.Audience) == 0 {
		if !i.Own() {
			return errors.New("audience: needed for a foreign issuer, or every token that it ever made for anyone would do")
		}
		i.Audience = []string{i.URL}
	}
	if i.Skew == 0 {
		i.Skew = defaultSkew
	}
	if i.MaxLife == 0 {
		i.MaxLife = wire.MaxTokenLife
	}
	if i.Skew < 0 || i.Skew > time.Hour || i.MaxLife < 0 || i.MaxLife > maxForeignLife {
		return fmt.Errorf("skew %s, longest life %s: want at most 1h and %s", i.Skew, i.MaxLife, maxForeignLife)
	}
	return nil
}

func (iss *issuer) openKeys(o *options) (err error) {
	if iss.Own() && o.follows() {
		if len(iss.Trust) == 0 {
			return errors.New("trust: needed, or whoever can write the log could make tokens")
		}
		if iss.Tenants {
			return iss.openTenants()
		}
		iss.set, err = keys.NewSet(iss.Tenant, iss.URL, iss.Trust, iss.Algs)
		return err
	}
	if iss.Tenants {
		return errors.New("tenants: their keys come by the log, which is not followed")
	}
	if iss.JWKSURL == "" {
		return errors.New("JWKSURL: needed for a foreign issuer, and for an own one where no log is followed")
	}
	iss.remote, err = keys.NewRemote(keys.RemoteConfig{
		URL: iss.JWKSURL, AllowHTTP: iss.AllowHTTP, Algs: iss.Algs, Client: o.client, Now: o.now,
		Log: o.log.Named("keys").With(zap.String("issuer", iss.URL)),
	})
	return err
}

// peek returns a key that is known, without waiting.
func (iss *issuer) peek(kid string) *keys.Key {
	if iss.set != nil {
		return iss.set.Lookup(kid)
	}
	return iss.remote.Peek(kid)
}

// lookup returns a key, waiting for a fetch if there is one to wait for.
func (iss *issuer) lookup(ctx context.Context, kid string) (*keys.Key, error) {
	if iss.set == nil {
		return iss.remote.Lookup(ctx, kid)
	}
	if k := iss.set.Lookup(kid); k != nil {
		return k, nil
	}
	return nil, keys.ErrUnknown
}

// ready says what is missing before tokens of this issuer can be told good.
func (iss *issuer) ready(now time.Time) error {
	switch {
	case iss.set == nil:
		return iss.remote.Ready()
	case iss.set.Usable(now) == 0:
		return errors.New("no signing key is known yet")
	}
	return nil
}
