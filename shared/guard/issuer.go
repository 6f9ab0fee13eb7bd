package guard

import (
	"time"

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
	// Trust are the rotator's identity keys, "ed25519:" and 43 characters of
	// base64url. What the log says of signing keys counts only when one of these
	// signed it. Needed for an own issuer unless its keys come from JWKSURL.
	Trust []string
	// JWKSURL is where the keys are fetched: of a foreign issuer, and of an own
	// one where no log is followed (Redis alone). https, or http to a loopback
	// address.
	JWKSURL string
	// AllowHTTP permits plain http for JWKSURL beyond loopback: whoever can change
	// what comes over that network can then make tokens.
	AllowHTTP bool
	// Audience: one of these must be in a token's aud; {URL} if empty.
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
	defaultLife   = wire.MaxTokenLife
)
