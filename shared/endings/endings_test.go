package endings_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// log commits and applies at once.
type log struct{}

func (log) Commit(context.Context, commit.Request) (commit.Answer, error) {
	return commit.Answer{Epoch: 1, Sequence: 1}, nil
}
func (log) WaitFor(context.Context, revoke.Stamp) error { return nil }

// TestSweepFinishesWhatTakesLong: what has a million records is not begun anew every two
// seconds, and keeps no other waiting.
func TestSweepFinishesWhatTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := endings.Runner{Committer: log{}, Reader: log{}, Log: zap.NewNop(), Now: time.Now}
		begun := time.Now()
		var mu sync.Mutex
		finished, tries := map[string]time.Duration{}, map[string]int{}
		finish := func(name string, takes time.Duration) endings.Ending {
			mark := &endings.Mark{ID: name, Meta: endings.Meta{At: begun.Add(-time.Hour)}}
			return endings.Ending{Name: name, Mark: mark, Finish: func(ctx context.Context) error {
				mu.Lock()
				tries[name]++
				mu.Unlock()
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(takes):
				}
				mu.Lock()
				defer mu.Unlock()
				finished[name] = time.Since(begun)
				return nil
			}}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.Sweep(ctx, 2*time.Second, func() (pending []endings.Ending) {
				mu.Lock()
				defer mu.Unlock()
				for name, takes := range map[string]time.Duration{"large": 30 * time.Second, "small": 0, "late": 0} {
					if finished[name] == 0 && (name != "late" || time.Since(begun) > 10*time.Second) {
						pending = append(pending, finish(name, takes))
					}
				}
				return pending
			})
		}()
		time.Sleep(time.Minute)
		cancel()
		<-done
		if s, l := finished["small"], finished["late"]; s == 0 || s > 3*time.Second || l == 0 || l > 15*time.Second || finished["large"] == 0 {
			t.Errorf("finished after %v", finished)
		}
		if tries["large"] != 1 {
			t.Errorf("what takes long was begun %d times", tries["large"])
		}
	})
}
