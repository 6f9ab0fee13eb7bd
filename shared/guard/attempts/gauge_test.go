package attempts

import (
	"sync"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard/wire"
)

func (c *clock) gauge() *Gauge { return NewGauge(c.now) }

func level1(t *testing.T, list []wire.Running, want ...uint64) {
	t.Helper()
	if len(list) != len(want) {
		t.Fatalf("%+v, want %d", list, want)
	}
	for i, n := range want {
		if list[i].Count != n {
			t.Errorf("%+v, want %d", list, want)
		}
	}
	if len(list) > 0 {
		if err := (wire.RunningReport{Instance: "i", Running: list}).Check(); err != nil {
			t.Errorf("a report that nobody takes: %v", err)
		}
	}
}

// TestALevelIsToldTwice, each change of it, the last one down to nothing too; then it is
// forgotten; and told grows also where the clock stands still, or is set back.
func TestALevelIsToldTwice(t *testing.T) {
	at := &clock{time.UnixMilli(1_764_000_000_000)}
	g := at.gauge()
	level1(t, g.Report())
	g.Add(of(1))
	g.Add(of(1))
	select {
	case <-g.Kicked():
	default:
		t.Error("nobody was told that there is something to report")
	}
	first := g.Report()
	level1(t, first, 2)
	level1(t, g.Report())
	if g.Next() != repeat {
		t.Errorf("told again in %s", g.Next())
	}
	at.advance(repeat)
	level1(t, g.Report(), 2)
	at.advance(repeat)
	level1(t, g.Report())
	at.advance(-time.Hour)
	g.End(of(1))
	g.End(of(1))
	g.End(of(1)) // of nothing
	last := g.Report()
	level1(t, last, 0)
	if last[0].Told <= first[0].Told {
		t.Errorf("told %d after %d", last[0].Told, first[0].Told)
	}
	g.Unsent(last)
	level1(t, g.Report(), 0)
	at.advance(repeat)
	level1(t, g.Report(), 0)
	level1(t, g.Report())
	if len(g.counts) != 0 {
		t.Error("what has ended is not forgotten")
	}
}

// TestTooManyLevelsAreRefused: what has room is right, and reports are of a size that is
// taken.
func TestTooManyLevelsAreRefused(t *testing.T) {
	at := &clock{time.UnixMilli(1_764_000_000_000)}
	g := at.gauge()
	var adding sync.WaitGroup
	for range 4 {
		adding.Go(func() {
			for n := range uint64(MaxCounts) {
				if !g.Add(of(n)) {
					t.Errorf("no room for %d", n)
				}
			}
		})
	}
	adding.Wait()
	if g.Add(of(MaxCounts)) {
		t.Error("there is room for one too many")
	}
	total := 0
	for list := g.Report(); len(list) > 0; list = g.Report() {
		for _, r := range list {
			if total++; r.Count != 4 {
				t.Errorf("%+v", r)
			}
		}
		if err := (wire.RunningReport{Instance: "i", Running: list}).Check(); err != nil {
			t.Fatal(err)
		}
	}
	if total != MaxCounts {
		t.Errorf("%d of %d are told", total, MaxCounts)
	}
}

// TestWhatHasEndedAndWasToldTakesNoRoom from what is cut next.
func TestWhatHasEndedAndWasToldTakesNoRoom(t *testing.T) {
	at := &clock{time.UnixMilli(1_764_000_000_000)}
	g := at.gauge()
	for n := range uint64(MaxCounts) {
		g.Add(of(n))
		g.End(of(n))
	}
	for range 2 { // each is told twice
		for told := 0; told < MaxCounts; {
			told += len(g.Report())
		}
		at.advance(repeat)
	}
	for n := range uint64(MaxCounts) {
		if !g.Add(of(MaxCounts + n)) {
			t.Fatalf("there is room for %d, of %d", n, MaxCounts)
		}
	}
}
