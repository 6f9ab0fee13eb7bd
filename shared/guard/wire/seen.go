package wire

import (
	"errors"
	"fmt"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// What a guard remembers of the tokens that it accepted.
const (
	// MaxAsked is how many targets one Question may have: some 24 KB.
	MaxAsked = 1000
	// RememberedFor is how far back a guard remembers at least, once it has run so long.
	RememberedFor = 24 * time.Hour
	// Million is what Seen.WrongPPM is a part of.
	Million = 1_000_000
)

// Question asks every guard whether it has accepted a token, within the last day, to
// which any of these targets belongs. Its headers are those of a message that readers
// have had already, the log's newest epoch: to one of an older version, which takes
// whatever comes on the feed for a message of the log, it is a repeat of that.
type Question struct {
	ID      string       `json:"id"`
	Replica string       `json:"replica"` // that asks, and gets the answers
	Targets []revoke.Key `json:"targets"`
}

// Seen is a guard's answer to a Question, under its own name; see OpSeen.
type Seen struct {
	Instance string `json:"instance"`
	Question string `json:"question"` // its id
	// Seen may be true wrongly, and is never false wrongly.
	Seen bool `json:"seen"`
	// ForMS is for how long the guard has remembered; at most RememberedFor.
	ForMS int64 `json:"for_ms"`
	// WrongPPM is how likely it was, in millionths, that Seen is true although none of
	// the targets was ever seen.
	WrongPPM int64 `json:"wrong_ppm,omitempty"`
}

// Check implements Checker.
func (q Question) Check() error {
	if err := CheckMessageID(q.ID); err != nil {
		return err
	}
	if err := CheckInstance(q.Replica); err != nil {
		return fmt.Errorf("replica: %w", err) // the answer's subject has it
	}
	if len(q.Targets) == 0 || len(q.Targets) > MaxAsked {
		return fmt.Errorf("targets: %d, want 1 to %d", len(q.Targets), MaxAsked)
	}
	return nil
}

// Check implements Checker.
func (s Seen) Check() error {
	if err := CheckInstance(s.Instance); err != nil {
		return err
	}
	if err := CheckMessageID(s.Question); err != nil {
		return fmt.Errorf("question: %w", err)
	}
	if s.ForMS < 0 || s.ForMS > RememberedFor.Milliseconds() {
		return fmt.Errorf("for_ms %d: want 0 to %d", s.ForMS, RememberedFor.Milliseconds())
	}
	if s.WrongPPM < 0 || s.WrongPPM > Million {
		return errors.New("wrong_ppm: out of range")
	}
	return nil
}
