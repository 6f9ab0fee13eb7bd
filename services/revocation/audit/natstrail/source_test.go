package natstrail

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/audit"
)

// A server that has just started may not have read everything yet that it has: that is no
// stream that went back, and what was read is not read again.
func TestStreamThatEndsTooEarlyForAMomentDidNotGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := time.Now()
		s := &source{}
		look := func(last uint64) (another, unsure bool) {
			another, err := s.another(&jetstream.StreamInfo{Created: made, State: jetstream.StreamState{LastSeq: last}}, audit.Place{Sequence: 100, Made: made})
			return another, err != nil
		}
		for _, c := range []struct {
			wait            time.Duration
			last            uint64
			another, unsure bool
		}{
			{0, 100, false, false},
			{0, 90, false, true},
			{time.Second, 99, false, true},
			{time.Second, 100, false, false}, // it has caught up
			{time.Minute, 90, false, true},
			{settles, 90, true, false}, // it stays so
		} {
			time.Sleep(c.wait)
			if another, unsure := look(c.last); another != c.another || unsure != c.unsure {
				t.Errorf("%s later, it ends at %d: another %t, unsure %t", c.wait, c.last, another, unsure)
			}
		}
	})
}
