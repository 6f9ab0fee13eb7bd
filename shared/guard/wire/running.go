package wire

import (
	"fmt"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// MaxRunning is how many counts one RunningReport has.
const MaxRunning = 100

// RunningReport tells how many requests go on that were admitted with what an entry has
// cut or holds since. Each count is as it is now, so that a report which is lost, repeated
// or late does no harm: the one that was told last counts.
type RunningReport struct {
	Instance string    `json:"instance"`
	Running  []Running `json:"running"`
}

// Running is how many there are because of one target of one entry; 0: the last one has
// ended.
type Running struct {
	At     revoke.Stamp `json:"at"`     // of the newest entry that refuses them
	Target revoke.Key   `json:"target"` // of that entry
	// Told grows with each change of the count: Unix milliseconds by the guard's clock, or
	// one more than before.
	Told  int64  `json:"told"`
	Count uint64 `json:"count"`
}

// Check implements Checker.
func (r RunningReport) Check() error {
	if err := CheckInstance(r.Instance); err != nil {
		return err
	}
	if len(r.Running) == 0 || len(r.Running) > MaxRunning {
		return fmt.Errorf("running: %d counts, want 1 to %d", len(r.Running), MaxRunning)
	}
	for i, n := range r.Running {
		switch {
		case n.At.Epoch == 0 || n.At.Epoch > MaxEpoch || n.At.Seq == 0:
			return fmt.Errorf("running %d: at %s: out of range", i, n.At)
		case n.Told <= 0 || n.Told > maxMillis:
			return fmt.Errorf("running %d: told %d: out of range", i, n.Told)
		case n.Count > maxCount:
			return fmt.Errorf("running %d: count %d: %d at most", i, n.Count, uint64(maxCount))
		}
	}
	return nil
}
