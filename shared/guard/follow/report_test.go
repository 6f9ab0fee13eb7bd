package follow_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/follow/followtest"
	"github.com/quash-project/quash/shared/guard/wire"
)

// spreading is a service with a large fleet.
type spreading struct{ follow.Source }

func (s spreading) Probe(ctx context.Context, q wire.ProbeRequest) (wire.ProbeAnswer, error) {
	a, err := s.Source.Probe(ctx, q)
	a.SpreadMS = 5000
	return a, err
}

// TestProbeSparesTheReport: it tells the same position, and a large fleet would
// send both within seconds.
func TestProbeSparesTheReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(func(c *follow.Config) { c.Source = spreading{c.Source} }).run(t)
		defer m.stop()
		s.ready(m)
		time.Sleep(time.Minute)
		s.log.Counts()
		for range 20 {
			s.end()
			time.Sleep(time.Millisecond) // it is applied, and its report waits
			if err := m.Fresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, want := s.log.Reported(m.Instance()), m.Position(); got.Seq+1 < want.Seq {
				t.Fatalf("told %v, at %v: the probe came before the entry", got, want)
			}
			time.Sleep(6 * time.Second) // longer than any spread
		}
		// A report may have gone out in the moment before its probe.
		if c := s.log.Counts(); c.Report > 2 {
			t.Errorf("%d reports of 20 entries that probes had told", c.Report)
		}
		// What comes after a probe is told all the same.
		last := s.end()
		time.Sleep(6 * time.Second)
		if got := s.log.Reported(m.Instance()); got.Seq < last.seq {
			t.Errorf("told %v, want %d at least", got, last.seq)
		}
	})
}
