package guard

import (
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Explanation is a Decision with everything that led to it.
type Explanation struct {
	Decision
	Checks   []CheckResult  // each check that could be made, in order
	Targets  []TargetResult // each target of the token, if it could be decoded
	Position wire.Position  // the watermark of the view
	// ViewStaleness is how old the view is at most; ViewError why nothing is accepted from it.
	ViewStaleness time.Duration
	ViewError     string
}

// CheckResult is the outcome of one check.
type CheckResult struct {
	Check  string
	OK     bool
	Detail string
}

// TargetResult is what is known of one target of a token.
type TargetResult struct {
	Target
	Hit   bool
	Since revoke.Stamp // the position of the cut or hold that hits
	Cause string       // "ended", "held" or "cut", if it hits
	State revoke.State
}

// Hits returns the targets that hit.
func (e Explanation) Hits() []TargetResult {
	var hits []TargetResult
	for _, t := range e.Targets {
		if t.Hit {
			hits = append(hits, t)
		}
	}
	return hits
}
