package guard

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// Claims is what a token says, after its signature was proved. It is shared by
// all requests that bring the same token: don't change it.
type Claims struct {
	Issuer     string // the claim iss
	IssuerName string // the issuer's short name in targets: revoke.Own or Issuer.Name
	Tenant     string
	Subject    string // sub
	ClientID   string // client_id; of a foreign token azp if it has no client_id
	ID         string // jti; may be empty in a foreign token
	SessionID  string // sid; empty if the token does not come from a sign-in
	KeyID      string // kid of the key that signed
	Audience   []string
	Scopes     []string
	Roles      []string
	IssuedAt   time.Time
	Expires    time.Time
	NotBefore  time.Time // zero if the token has none

	// Stamp is rseq, the position in the log before which everything that the
	// token is made of was read. Zero in a foreign token.
	Stamp revoke.Stamp
	// Via are the target keys of what the token was made from.
	Via []revoke.Key
	// Raw is the whole payload, as the issuer wrote it: for claims of its own.
	Raw json.RawMessage

	verified *verified // for Watch
}

// HasScope reports whether the token has this scope.
func (c *Claims) HasScope(scope string) bool { return slices.Contains(c.Scopes, scope) }

// TargetKeys returns the keys of everything whose revocation refuses the token.
func (c *Claims) TargetKeys() []revoke.Key {
	if c.verified == nil {
		return nil
	}
	return slices.Clone(c.verified.targets)
}

// HasRole reports whether the token has this role.
func (c *Claims) HasRole(role string) bool { return slices.Contains(c.Roles, role) }

// HasAudience reports whether the token is meant for one of these.
func (c *Claims) HasAudience(audience ...string) bool {
	for _, a := range audience {
		if slices.Contains(c.Audience, a) {
			return true
		}
	}
	return false
}
