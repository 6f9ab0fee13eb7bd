package revocation

import (
	"context"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/engine/enginetest"
)

// TestNoAttemptOfAnEarlierTenant: somebody tries with what an earlier tenant of the name had
// cut; the one of today has no part in it. Of a record that tells no time nobody knows.
func TestNoAttemptOfAnEarlierTenant(t *testing.T) {
	made := time.UnixMilli(1_764_000_000_000)
	for _, c := range []struct {
		who  Watcher
		want []string
	}{
		{Watcher{Tenant: "acme", Since: made}, []string{"at once", "later"}},
		{Watcher{Tenant: "default", All: true}, []string{"home", "home, no time"}},
	} {
		f, seen := &Feed{}, []string{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- f.Watch(ctx, nil, c.who, func(h Happening) error {
				if seen = append(seen, h.Attempt.Receipt); len(seen) == len(c.want) {
					cancel()
				}
				return nil
			})
		}()
		enginetest.Eventually(t, "it watches", func() error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.watchers) == 0 {
				return context.Canceled
			}
			return nil
		})
		for _, a := range []Attempt{
			{Receipt: "former", Tenant: "acme", Committed: made.Add(-time.Millisecond)},
			{Receipt: "no time", Tenant: "acme", Committed: time.UnixMilli(0)},
			{Receipt: "at once", Tenant: "acme", Committed: made},
			{Receipt: "later", Tenant: "acme", Committed: made.Add(time.Hour)},
			{Receipt: "home", Tenant: "default", Committed: made},
			{Receipt: "home, no time", Tenant: "default", Committed: time.UnixMilli(0)},
		} {
			f.Tell(Happening{Kind: KindAttempt, Attempt: &a})
		}
		if err := <-done; err != nil || len(seen) != len(c.want) || seen[0] != c.want[0] || seen[1] != c.want[1] {
			t.Errorf("%+v sees %q, want %q: %v", c.who, seen, c.want, err)
		}
	}
}
