package attempts

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

type clock struct{ time.Time }

func (c *clock) now() time.Time          { return c.Time }
func (c *clock) advance(d time.Duration) { c.Time = c.Add(d) }

func of(n uint64) Of {
	return Of{At: revoke.Stamp{Epoch: 1, Seq: n + 1}, Target: revoke.Key{byte(n + 1), byte(n >> 8)}}
}

func v4(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}) }

func valid(t *testing.T, list []wire.Attempts) {
	t.Helper()
	if len(list) == 0 {
		return
	}
	if err := (wire.AttemptsReport{Instance: "i", Attempts: list}).Check(); err != nil {
		t.Fatalf("a report that nobody takes: %v", err)
	}
}

// TestAFloodFillsNothing: 100,000 networks, and more cut credentials than there is room
// for; every attempt of a count stands in its sum, and what stands nowhere is told.
func TestAFloodFillsNothing(t *testing.T) {
	at := &clock{time.UnixMilli(1_764_000_000_000)}
	c := New(at.now)
	const networks = 100_000
	for i := range networks {
		c.Note(of(0), v4(i))
		if i%1000 == 0 {
			at.advance(time.Millisecond)
		}
	}
	for n := range uint64(1000) {
		for i := range 10 {
			c.Note(of(n), v4(i))
		}
	}
	if len(c.counts) > MaxCounts || c.rows > MaxNetworks {
		t.Errorf("%d counts, %d networks", len(c.counts), c.rows)
	}
	rows := 0
	for _, n := range c.counts {
		rows += len(n.from)
	}
	if rows != c.rows {
		t.Errorf("%d networks are kept, and %d counted", rows, c.rows)
	}
	var sum uint64
	for range 20 {
		list := c.Report()
		valid(t, list)
		for _, a := range list {
			sum += a.Count
		}
		at.advance(time.Second)
	}
	if all, lost := c.Counted(); all != networks+10_000 || lost == 0 || sum+lost != all {
		t.Errorf("%d noted, %d lost, %d reported: want every one in a sum, or lost", all, lost, sum)
	}
}

// TestWhatIsReported: sums, twice, then not before there is more; IPv6 by /64.
func TestWhatIsReported(t *testing.T) {
	at := &clock{time.UnixMilli(1_764_000_000_000)}
	c := New(at.now)
	if c.Next() != forget || c.Report() != nil {
		t.Fatal("there is something to tell before the first attempt")
	}
	for _, from := range []string{"192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2"} {
		c.Note(of(0), netip.MustParseAddr(from))
	}
	c.Note(of(0), netip.Addr{})
	select {
	case <-c.Kicked():
	default:
		t.Error("nobody was told that there is something to report")
	}
	first := c.Report()
	valid(t, first)
	want := "[{ 1} {192.0.2.1 2} {2001:db8::/64 2}]"
	short := func(a wire.Attempts) string {
		var out []string
		for _, f := range a.From {
			out = append(out, fmt.Sprintf("{%s %d}", f.Network, f.Count))
		}
		return fmt.Sprint(out)
	}
	if len(first) != 1 || first[0].Count != 5 || short(first[0]) != want {
		t.Fatalf("%+v, want 5 from %s", first, want)
	}
	if c.Report() != nil || c.Next() != repeat {
		t.Errorf("it is told again at once, or never: %s", c.Next())
	}
	at.advance(repeat)
	if again := c.Report(); fmt.Sprint(again) != fmt.Sprint(first) {
		t.Errorf("again %+v, first %+v", again, first)
	}
	at.advance(repeat)
	if list := c.Report(); list != nil {
		t.Errorf("a third time: %+v", list)
	}
	c.Note(of(0), netip.MustParseAddr("192.0.2.1"))
	more := c.Report()
	if len(more) != 1 || more[0].Count != 6 || short(more[0]) != "[{192.0.2.1 3}]" || more[0].Began != first[0].Began {
		t.Errorf("more: %+v", more)
	}
	c.Unsent(more)
	if again := c.Report(); fmt.Sprint(again) != fmt.Sprint(more) {
		t.Errorf("what was not sent is not told again: %+v", again)
	}
	at.advance(forget)
	_ = c.Report() // told again
	_ = c.Report()
	if len(c.counts) != 0 || c.rows != 0 {
		t.Error("what was quiet for long is not forgotten")
	}
	c.Note(of(0), netip.Addr{})
	if list := c.Report(); len(list) != 1 || list[0].Count != 1 || list[0].Began <= first[0].Began {
		t.Errorf("a count that begins again: %+v", list)
	}
}

// TestNoNetworkIsLeftOut: more networks than one report takes, and some of each count go on.
func TestNoNetworkIsLeftOut(t *testing.T) {
	at := &clock{time.UnixMilli(1_764_000_000_000)}
	c := New(at.now)
	const counts, networks = 12, wire.MaxAttemptsFrom
	sums := map[Of]map[string]uint64{}
	for second := range uint64(20) {
		for n := range uint64(counts) {
			for i := range networks {
				if second == 0 || i < 5 {
					c.Note(of(n), v4(i))
				}
			}
		}
		list := c.Report()
		valid(t, list)
		for _, a := range list {
			of := Of{a.At, a.Target}
			if sums[of] == nil {
				sums[of] = map[string]uint64{}
			}
			for _, f := range a.From {
				sums[of][f.Network] = f.Count
			}
		}
		at.advance(time.Second)
	}
	for n := range uint64(counts) {
		if got := sums[of(n)]; len(got) != networks || got[v4(0).String()] < 18 {
			t.Errorf("count %d: %d networks were reported, and %d attempts of the first: want %d, and 20 or a little less", n, len(got), got[v4(0).String()], networks)
		}
	}
}

// TestANetworkIsToldAgain when it is its time, though another of its count goes on: the
// report with it may have been lost.
func TestANetworkIsToldAgain(t *testing.T) {
	at := &clock{time.UnixMilli(1_764_000_000_000)}
	c := New(at.now)
	one, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	c.Note(of(0), one)
	_ = c.Report() // it is lost
	began := at.Time
	var when []time.Duration
	for range 24 {
		at.advance(5 * time.Second)
		c.Note(of(0), other)
		for _, a := range c.Report() {
			for _, f := range a.From {
				if f.Network == one.String() {
					when = append(when, at.Sub(began))
				}
			}
		}
	}
	if len(when) != 1 || when[0] != repeat {
		t.Errorf("%s is told again after %s, want once, after %s", one, when, repeat)
	}
	at.advance(repeat - time.Second)
	c.Note(of(0), one)
	_ = c.Report()
	at.advance(repeat - time.Second)
	c.Note(of(0), other)
	_ = c.Report()
	if next := c.Next(); next != time.Second {
		t.Errorf("the next is due in %s, want %s's in a second", next, one)
	}
}

func BenchmarkNote(b *testing.B) {
	c := New(time.Now)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		c.Note(of(uint64(i&3)), v4(i))
		i++
	}
}
