package issuer_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/commit"
)

// A canary is issued, taken, cut and refused, like any token; one that lives on is an alarm.
func TestCanariesAreIssuedCutAndRefused(t *testing.T) {
	for what, want := range map[string]issuer.CanaryStats{
		"as it should be": {Refused: 3},
		"it lives":        {Lives: 3},
		"no commit":       {Failed: 3},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.own = true
				switch what {
				case "it lives":
					b.blind = true
				case "no commit":
					b.log.down = true
				}
				done := make(chan error)
				ctx, stop := context.WithCancel(t.Context())
				go func() { done <- b.Canaries(ctx, time.Second) }()
				time.Sleep(3*time.Second + time.Millisecond)
				stop()
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				if got := b.CanaryStats(); got != want {
					t.Errorf("%+v, want %+v", got, want)
				}
				for _, r := range b.log.requests {
					if !commit.IsCanary("issuer", r.Op, r.Targets) {
						t.Errorf("%+v is no canary", r)
					}
				}
			})
		})
	}
}
