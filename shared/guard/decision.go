package guard

import (
	"net/http"
	"net/netip"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// Outcome is what a guard says. The zero Outcome is a refusal: a path that
// forgot to decide has refused.
type Outcome uint8

// The outcomes.
const (
	Deny        Outcome = iota // the token does not give this: 401 or 403
	Allow                      // it does
	Unavailable                // the guard can't tell now: 503; it says nothing about the token
)

// String returns "deny", "allow" or "unavailable".
func (o Outcome) String() string {
	switch o {
	case Allow:
		return "allow"
	case Unavailable:
		return "unavailable"
	}
	return "deny"
}

// The checks, in the order in which they are made. Decision.Check names the one
// that failed.
const (
	CheckExchange  = "exchange"  // it is an API key, and the issuer gives a token for it
	CheckForm      = "form"      // the token can be decoded, strictly
	CheckIssuer    = "issuer"    // its issuer is one of the guard's
	CheckClaims    = "claims"    // what that issuer's tokens must have is there, and nothing that can't be checked
	CheckKey       = "key"       // its signing key is trusted for that issuer, and not past its end
	CheckSignature = "signature" // the signature is that key's
	CheckTime      = "time"      // not expired, not before its time
	CheckAudience  = "audience"  // meant for this resource
	CheckView      = "view"      // the guard has joined, its view is complete and fresh enough
	CheckTargets   = "targets"   // none of its targets hits it
	CheckScope     = "scope"     // it has the scopes
	CheckRole      = "role"      // it has one of the roles
	CheckCondition = "condition" // it meets what else is asked for
)

// Error codes of RFC 6750, section 3.1.
const (
	ErrorInvalidRequest    = "invalid_request"
	ErrorInvalidToken      = "invalid_token"
	ErrorInsufficientScope = "insufficient_scope"
)

// Probe, as a Requirement's MaxStale, has the guard prove its freshness by a
// probe of its own before each answer.
const Probe time.Duration = -1

// Requirement is what a request needs. The zero Requirement needs a good token
// and nothing more.
type Requirement struct {
	Scopes  []string // all of these
	AnyRole []string // at least one of these, if there are any
	// Where is what else must be met, if it is not nil; see Require.
	Where Condition
	// Request is what conditions about the request ask. guardhttp sets it.
	Request Values
	// From tells from which address a request came: for the count of those who try with
	// what was revoked, and for API keys that are bound to networks (see Exchange). It is
	// called where that is needed. Nil: the RemoteAddr of Request, if that is an
	// *http.Request. Behind a proxy that is the proxy's: see guardhttp.WithCaller.
	From func(Values) netip.Addr
	// MaxStale is the greatest staleness of the view for this request; 0: the
	// guard's limit, which is never exceeded; Probe: ask before the answer.
	MaxStale time.Duration
	// Audience replaces Issuer.Audience: one of these must be in the token's aud.
	Audience []string
	// AnyAudience takes a token whoever it is meant for. It is for those who tell
	// others about tokens (introspection, "would a guard take this?"), never for a
	// resource server.
	AnyAudience bool

	explained bool // only asked about; see Explain
}

// What a target that hits can be.
const (
	CauseHeld  = "held"  // until somebody releases it
	CauseEnded = "ended" // for good
	CauseCut   = "cut"   // what was made before is dead
)

// Where the answer about revocation came from.
const (
	SourceView  = "view"  // the view in memory, within its limit
	SourceRedis = "redis" // the Redis view
	SourceStale = "stale" // the view in memory past its limit, because the owner chose to allow that
)

// Target is one thing that can be revoked, of those that a token belongs to. Its
// ID is empty where the token carries only the key (the claim via).
type Target struct {
	Kind revoke.Kind
	ID   string
	Key  revoke.Key
}

// String returns "kind:id", or "via:key" where the token has no more.
func (t Target) String() string {
	switch {
	case t.Kind != revoke.KindInvalid:
		return revoke.Target{Kind: t.Kind, ID: t.ID}.String()
	case t.Key != revoke.Key{}:
		return "via:" + t.Key.String()
	}
	return ""
}

// Decision is the answer to one request. The zero Decision is a refusal.
type Decision struct {
	Outcome Outcome
	Status  int    // 200, 401, 403 or 503; 400 for a request that can't be right; see HTTPStatus
	Error   string // RFC 6750 error code of a Deny; empty where no token was sent
	Check   string // the check that failed; empty for Allow
	Reason  string // what was wrong, for people; never a part of the token's text

	Target Target       // the target that hits, of CheckTargets
	Since  revoke.Stamp // the position of what hits: of the cut or hold; zero if it is not known
	newest revoke.Stamp // of the newest entry that hits by this target: under that it is counted

	Source     string        // where the answer about revocation came from
	Staleness  time.Duration // how old the view was at most; meaningless where Source is empty
	Watermark  revoke.Stamp  // how far the view had applied the log
	RetryAfter time.Duration // of Unavailable

	// Token holds what the token says, once its signature is proved: also in a
	// refusal that came after that. The caller must not change it.
	Token *Claims
}

// Allowed reports whether the request may go on.
func (d Decision) Allowed() bool { return d.Outcome == Allow }

// Public returns what may be told to whoever sent the token: which check failed,
// but not which of its targets was revoked, nor how the guard is connected. Empty
// for Allow.
func (d Decision) Public() string {
	switch {
	case d.Outcome == Allow:
		return ""
	case d.HTTPStatus() == http.StatusServiceUnavailable:
		return "whether the token is good can't be told now; nothing is known to be wrong with it, try again"
	case d.Check == CheckTargets:
		return "the token was revoked, or is held"
	}
	return d.Reason
}

// HTTPStatus returns Status, and 503 for a Decision that nobody made.
func (d Decision) HTTPStatus() int {
	if d.Status == 0 {
		return http.StatusServiceUnavailable
	}
	return d.Status
}
