package fsck

import (
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// TestLostReleaseThatOpensNothingIsNoDifference: of a hold that was released, and then
// made again, the release can be lost with what others wrote after the second hold. Who
// has read it keeps it, and nobody commits it again: the second hold stands either way.
func TestLostReleaseThatOpensNothingIsNoDifference(t *testing.T) {
	at := func(epoch, seq uint64) revoke.Stamp { return revoke.Stamp{Epoch: epoch, Seq: seq} }
	c := &checker{cfg: Config{Now: func() time.Time { return time.Unix(0, 0) }}}
	c.log = newHistory(c, time.Unix(0, 0))
	c.log.epochs = []epochAt{
		{revoke.Epoch{Number: 10}, message{seq: 1}},
		{revoke.Epoch{Number: 20, D: at(10, 11)}, message{seq: 12}},
	}
	c.log.head = 20
	for seq := uint64(1); seq <= 20; seq++ {
		m := message{seq: seq, epoch: 10}
		if seq >= 12 {
			m.epoch = 20
		}
		c.log.messages = append(c.log.messages, m)
	}
	for _, tc := range []struct {
		name       string
		redis, log revoke.State
		fine       bool
	}{
		{"an older hold's release", revoke.State{Held: at(10, 11), Released: at(10, 3)}, revoke.State{Held: at(10, 11)}, true},
		{"the standing hold's release", revoke.State{Held: at(10, 11), Released: at(10, 11)}, revoke.State{Held: at(10, 11)}, false},
		{"a release of this history", revoke.State{Held: at(20, 15), Released: at(20, 13)}, revoke.State{Held: at(20, 15)}, false},
		{"no hold", revoke.State{Released: at(10, 3)}, revoke.State{}, false},
	} {
		if why := c.unexplained(tc.redis, tc.log); (len(why) == 0) != tc.fine {
			t.Errorf("%s: %q", tc.name, why)
		}
	}
}
