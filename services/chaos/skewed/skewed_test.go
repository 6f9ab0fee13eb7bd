package skewed

import (
	"testing"
	"time"
)

// Only the wall clock is wrong: two readings of one process are as far apart as ever.
func TestOnlyTheWallClockIsWrong(t *testing.T) {
	for _, by := range []time.Duration{0, 10 * time.Minute, -10 * time.Minute, 1, -time.Second} {
		now := time.Now()
		got := wrong(now, by)
		if d := got.Round(0).Sub(now.Round(0)); d != by {
			t.Errorf("the wall clock is wrong by %s, want %s", d, by)
		}
		if d := got.Sub(now); d != 0 {
			t.Errorf("by %s: the monotonic clock is wrong by %s", by, d)
		}
	}
}
