package follow

import (
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

type nowhere struct{ Source }

func (nowhere) Subscribe(func(wire.Stored, error), func()) (func(), error) { return func() {}, nil }

// A machine that slept has a monotonic clock that stood still; one whose wall
// clock was set back, a wall clock that did.
func TestStalenessGoesByTheClockThatSaysMore(t *testing.T) {
	t0 := instant{wall: 1e18, mono: 5e9}
	for name, c := range map[string]struct {
		now  instant
		want time.Duration
	}{
		"both":     {instant{wall: 1e18 + 3e9, mono: 8e9}, 3 * time.Second},
		"slept":    {instant{wall: 1e18 + 3600e9, mono: 6e9}, time.Hour},
		"set back": {instant{wall: 1e18 - 600e9, mono: 9e9}, 4 * time.Second},
	} {
		s := snapshot{proved: true, proof: t0}
		if got, err := s.check(c.now); got != c.want || err != nil {
			t.Errorf("%s: %s, %v, want %s", name, got, err, c.want)
		}
	}
}

func TestJoinOlderThanTwoDaysCountsForThoseWhoAllowOnly(t *testing.T) {
	for past, want := range map[string]error{wire.PastDeny: ErrNotJoined, wire.PastRedis: ErrNotJoined, wire.PastAllow: nil} {
		r, err := New(Config{Source: nowhere{}, Feed: nowhere{}, Past: past})
		if err != nil {
			t.Fatal(err)
		}
		r.pos.Epoch, r.loaded, r.join.epoch, r.probes.proved = 1, true, 1, true
		r.join.at, r.join.seenLimit, r.join.seenPast = r.now(), r.cfg.Limit, past
		r.publish()
		if _, err := r.CheckAt(r.base.Add(wire.JoinLife - time.Minute)); err != nil {
			t.Errorf("%s: before: %v", past, err)
		}
		if _, err := r.CheckAt(r.base.Add(wire.JoinLife + time.Minute)); err != want { //nolint:errorlint // our own values
			t.Errorf("%s: after two days: %v, want %v", past, err, want)
		}
	}
}

// After two days of silence an out may have come and ended: a tail that lacks it
// says nothing, also to a reader that allows, whose join has no end.
func TestTailAfterTwoDaysSaysNothingOfTheJoin(t *testing.T) {
	for away, want := range map[time.Duration]error{wire.JoinLife - time.Minute: nil, wire.JoinLife + time.Minute: ErrNotJoined} {
		wall := time.Now()
		r, err := New(Config{Source: nowhere{}, Feed: nowhere{}, Past: wire.PastAllow, Now: func() time.Time { return wall }})
		if err != nil {
			t.Fatal(err)
		}
		r.pos.Epoch, r.loaded, r.join.epoch = 1, true, 1
		r.probes.proved, r.probes.proof = true, r.now()
		r.join.at, r.join.seenLimit, r.join.seenPast = r.now(), r.cfg.Limit, wire.PastAllow
		wall = wall.Add(away)
		if _, _, err := r.takeTail(wire.SyncAnswer{}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Check(); err != want { //nolint:errorlint // our own values
			t.Errorf("after %s: %v, want %v", away, err, want)
		}
	}
}

// A wall clock that runs ahead and is set back again makes nobody look fresh.
func TestWallClockThatWasSetBackDoesNotHideStaleness(t *testing.T) {
	wall := time.Now()
	r, err := New(Config{Source: nowhere{}, Feed: nowhere{}, Now: func() time.Time { return wall }})
	if err != nil {
		t.Fatal(err)
	}
	wall = wall.Add(time.Hour)
	r.probes.proved, r.probes.proof = true, r.now()
	r.publish()
	wall = wall.Add(-time.Hour)
	r.base = r.base.Add(-time.Minute) // a minute later by the clock that nobody can set
	if staleness, _ := r.Check(); staleness < time.Minute {
		t.Errorf("%s", staleness)
	}
}

func TestCheckDoesNotAllocate(t *testing.T) {
	r, err := New(Config{Source: nowhere{}, Feed: nowhere{}})
	if err != nil {
		t.Fatal(err)
	}
	r.pos.Epoch, r.loaded, r.join.epoch, r.probes.proved = 1, true, 1, true
	r.join.at, r.probes.proof = r.now(), r.now()
	r.publish()
	if n := testing.AllocsPerRun(100, func() {
		if _, err := r.Check(); err != nil {
			t.Fatal(err)
		}
		_, _ = r.Stamp(), r.Position()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCheck(b *testing.B) {
	r, err := New(Config{Source: nowhere{}, Feed: nowhere{}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = r.Check()
	}
}

func TestRecentIsDenseAtItsEndAndReachesBack(t *testing.T) {
	var g ring
	if len(g.recent()) != 0 {
		t.Fatal("empty")
	}
	for i := uint64(1); i <= 20000; i++ {
		g.add(place{at: revoke.Stamp{Epoch: 1, Seq: i}, published: 1, id: "x"})
		if i > 100 && i < 7000 {
			if p, ok := g.at(i - 100); !ok || p.at.Seq != i-100 {
				t.Fatalf("lacks %d at %d", i-100, i)
			}
		}
	}
	if n := len(g.places); n < ringMost || n > ringMost*5/4 {
		t.Errorf("keeps %d", n)
	}
	conflict, _ := g.at(19000)
	out := g.recent(conflict)
	if len(out) > wire.MaxRecent || out[0].Sequence != 19000 || out[1].Sequence != 20000 || out[20].Sequence != 20000-19 {
		t.Errorf("%d: %v", len(out), out)
	}
	if last := out[len(out)-1].Sequence; last != g.places[0].at.Seq {
		t.Errorf("reaches back to %d", last)
	}
	if _, ok := g.at(1); ok {
		t.Error("still has 1")
	}
}

func TestRingForgetsByAge(t *testing.T) {
	var g ring
	for i := uint64(1); i <= 4096; i++ {
		g.add(place{at: revoke.Stamp{Epoch: 1, Seq: i}, time: int64(i) * 1000})
	}
	if n := len(g.places); n > 1024 || n < 300 {
		t.Errorf("keeps %d places of one a second, want some minutes", n)
	}
}

func TestBacklogIsBounded(t *testing.T) {
	var b backlog
	for i := range backlogMost {
		if !b.add(wire.Stored{Sequence: uint64(i)}) {
			t.Fatalf("full at %d", i)
		}
	}
	if b.add(wire.Stored{}) || len(b.messages) != 0 {
		t.Error("was not full")
	}
	many := wire.Stored{Message: wire.Message{Cut: make([]revoke.Key, wire.MaxTargets)}}
	n := 0
	for b.add(many) {
		n++
	}
	if n*wire.MaxTargets > backlogTargets {
		t.Errorf("took %d", n)
	}
}
