package fleet_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/shared/guard/wire"
)

// TestRelaySendsTheFirstAtOnceAndTheRestTogether: however many guards are heard,
// the other replicas hear few messages, and each of bounded size.
func TestRelaySendsTheFirstAtOnceAndTheRestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // a batch is sent by a timer
		var sent []int
		newest := map[string]uint64{}
		r := fleet.Relay{Send: func(b wire.HeardBatch) {
			mu.Lock()
			defer mu.Unlock()
			sent = append(sent, len(b.Heard))
			for _, h := range b.Heard {
				newest[h.Instance] = h.Position.Sequence
			}
		}}
		tell := func(i int, seq uint64) {
			r.Tell(wire.Heard{Name: "orders", Instance: fmt.Sprint(i), Position: wire.PositionJSON{Epoch: 1, Sequence: seq}})
		}
		want := func(what string, n ...int) {
			t.Helper()
			synctest.Wait() // for what has just come due
			mu.Lock()
			defer mu.Unlock()
			if fmt.Sprint(sent) != fmt.Sprint(n) {
				t.Errorf("%s: sent %v, want %v", what, sent, n)
			}
			sent = nil
		}
		tell(0, 1)
		want("the first", 1)
		for i := range 10 {
			tell(i, 1)
		}
		tell(3, 2)
		want("what comes soon after")
		time.Sleep(50 * time.Millisecond)
		want("soon after that", 10)
		mu.Lock()
		if newest["3"] != 2 {
			t.Errorf("of two positions of a guard %d was passed on, want the newer one", newest["3"])
		}
		mu.Unlock()
		time.Sleep(time.Second)
		tell(1, 3)
		for i := range wire.MaxHeard + 5 {
			tell(i, 4)
		}
		want("a full batch", 1, wire.MaxHeard)
		time.Sleep(time.Second)
		want("its rest", 5)
		tell(1, 5)
		want("the first after a quiet time", 1)
		time.Sleep(time.Second)
	})
}
