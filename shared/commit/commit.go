// Package commit is how a service asks the revocation service to put an entry
// into the log: the request, the answer, and the client. Only the revocation
// service publishes to the log.
package commit

import (
	"context"
	"strings"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// Op is what is to happen to a target.
type Op string

// The ops of a request. Revoke becomes an end or a cut by the target's kind.
const (
	Revoke  Op = "revoke"
	Hold    Op = "hold"
	Release Op = "release"
)

// Request asks for one entry. The same Key from the same service and tenant is
// the same request: its answer is that of the first.
type Request struct {
	Key     string   `json:"idempotency_key"`
	Tenant  string   `json:"tenant"`
	Op      Op       `json:"op"`
	Targets []Target `json:"targets"`
	Reason  string   `json:"reason"`
	// Code is the reason in a word; see Codes. It may be empty.
	Code string `json:"code,omitempty"`
	// Actor is the person or machine that asked, for the audit.
	Actor string `json:"actor"`
	// Record says that the target's own record dies too, so that the entry need
	// only outlive tokens: see "Everything ends" in the design.
	Record bool `json:"record,omitempty"`
	// ForMS ends a hold after so many milliseconds; 0: never.
	ForMS int64 `json:"for_ms,omitempty"`
	// Then is what comes at the end of a hold: "release" or "revoke".
	Then string `json:"then,omitempty"`
	// Of is the id of the hold that a release ends: newer holds of its targets stay. Empty:
	// a release ends whatever holds them.
	Of string `json:"of,omitempty"`
	// Own says that a release, of one target, ends holds that the same service has asked for
	// and no others: where another's is in effect it is problem.Conflict, and nothing is
	// released. What a service lets people lift is then never what somebody else has held.
	Own bool `json:"own,omitempty"`
	// Incident is under which it is done, and RequestID is the id of the request that led to
	// it, both for the audit. Neither is part of what is asked: a repetition is answered as the
	// first request, whatever it names.
	Incident  string `json:"incident,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	// ApprovedBy is the second person, where there was one; BreakGlass says that there was to
	// be one, or that it came by the break-glass identity. Only the revocation service knows
	// of either: no request of another service can say so.
	ApprovedBy string `json:"-"`
	BreakGlass bool   `json:"-"`
}

// Target is a target in a request. An empty Issuer is the tenant's own.
type Target struct {
	Issuer string      `json:"issuer,omitempty"`
	Kind   revoke.Kind `json:"kind"`
	ID     string      `json:"id"`
}

// CanaryPrefix begins the id of a token that is issued to nobody and cut at once, to measure
// how fast that takes effect. No other token has such an id: an entry that names canaries
// alone hits nothing of anybody's.
const CanaryPrefix = "canary."

// canaryService cuts canaries, and issues them; nobody else's entry is one of a canary.
const canaryService = "issuer"

// IsCanary reports whether what a service has asked for cuts a canary and nothing else. Such
// entries nobody has to be told of: everything else is told, whatever its id looks like.
func IsCanary(service string, op Op, targets []Target) bool {
	if service != canaryService || op != Revoke || len(targets) != 1 {
		return false
	}
	t := targets[0]
	return t.Kind == revoke.KindToken && (t.Issuer == "" || t.Issuer == revoke.Own) && strings.HasPrefix(t.ID, CanaryPrefix)
}

// Answer tells where the entry stands.
type Answer struct {
	ID          string `json:"id"` // 43 characters: names the entry for /v1/revocations/{id}
	Epoch       uint64 `json:"epoch"`
	Sequence    uint64 `json:"sequence"`
	CommittedAt int64  `json:"committed_at"` // Unix milliseconds
	Repeated    bool   `json:"repeated,omitempty"`
	Incident    string `json:"incident,omitempty"` // that the entry names
}

// Stamp returns the entry's position.
func (a Answer) Stamp() revoke.Stamp { return revoke.Stamp{Epoch: a.Epoch, Seq: a.Sequence} }

// Committer commits. When it returns without an error the entry is durable. An
// error of kind problem.UnknownOutcome means that it may be; repeat with the
// same Key. Any other error means that it is not. It is safe for concurrent use.
type Committer interface {
	Commit(ctx context.Context, r Request) (Answer, error)
}
