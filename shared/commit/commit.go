// Package commit is how a service asks the revocation service to put an entry
// into the log: the request, the answer, and the client. Only the revocation
// service publishes to the log.
package commit

import (
	"context"

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
	// Actor is the person or machine that asked, for the audit.
	Actor string `json:"actor"`
	// Record says that the target's own record dies too, so that the entry need
	// only outlive tokens: see "Everything ends" in the design.
	Record bool `json:"record,omitempty"`
	// ForMS ends a hold after so many milliseconds; 0: never.
	ForMS int64 `json:"for_ms,omitempty"`
	// Then is what comes at the end of a hold: "release" or "revoke".
	Then string `json:"then,omitempty"`
}

// Target is a target in a request. An empty Issuer is the tenant's own.
type Target struct {
	Issuer string      `json:"issuer,omitempty"`
	Kind   revoke.Kind `json:"kind"`
	ID     string      `json:"id"`
}

// Answer tells where the entry stands.
type Answer struct {
	ID          string `json:"id"` // 43 characters: names the entry for /v1/revocations/{id}
	Epoch       uint64 `json:"epoch"`
	Sequence    uint64 `json:"sequence"`
	CommittedAt int64  `json:"committed_at"` // Unix milliseconds
	Repeated    bool   `json:"repeated,omitempty"`
}

// Stamp returns the entry's position.
func (a Answer) Stamp() revoke.Stamp { return revoke.Stamp{Epoch: a.Epoch, Seq: a.Sequence} }

// Committer commits. When it returns without an error the entry is durable. An
// error of kind problem.UnknownOutcome means that it may be; repeat with the
// same Key. Any other error means that it is not. It is safe for concurrent use.
type Committer interface {
	Commit(ctx context.Context, r Request) (Answer, error)
}
