package seen

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
)

var begin = time.Now()

// keys are as those of targets are: what a hash gives.
func keys(seed uint64, n int) []revoke.Key {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]revoke.Key, n)
	for i := range out {
		binary.LittleEndian.PutUint64(out[i][:8], r.Uint64())
		binary.LittleEndian.PutUint64(out[i][8:], r.Uint64())
	}
	return out
}

func (m *Memory) has(at time.Time, k revoke.Key) bool {
	seen, _ := m.Any(at, []revoke.Key{k})
	return seen
}

// TestNothingThatWasSeenIsMissed, whoever notes at the same time, and however much there
// is: filters that grow meanwhile lose nothing.
func TestNothingThatWasSeenIsMissed(t *testing.T) {
	m := New(begin)
	all := keys(1, 60_000)
	var notes sync.WaitGroup
	const writers = 8
	for w := range writers {
		notes.Go(func() {
			for i := w; i < len(all); i += writers {
				m.Note(1, all[i:i+1])
			}
		})
	}
	notes.Wait()
	for i, k := range all {
		if !m.has(begin, k) {
			t.Fatalf("%d was seen, and is said not to have been", i)
		}
	}
}

// TestWhatWasNotSeenIsSeldomSaidToBe: as seldom as it says itself, from a guard with few
// tokens to one with more than there is room for.
func TestWhatWasNotSeenIsSeldomSaidToBe(t *testing.T) {
	const asked = 5000
	for _, c := range []struct {
		n     int
		limit float64
	}{{0, 0}, {3000, 1e-6}, {90_000, 1e-6}, {250_000, 0.5}} {
		m := New(begin)
		m.Note(1, keys(2, c.n))
		wrong := 0
		for _, k := range keys(3, asked) {
			if m.has(begin, k) {
				wrong++
			}
		}
		_, says := m.Any(begin, keys(3, 1))
		if says > c.limit {
			t.Errorf("%d seen: %g is the chance to be wrong, %g at most", c.n, says, c.limit)
		}
		if got := float64(wrong); got > 10+1.2*says*asked || got < 0.8*says*asked-10 {
			t.Errorf("%d seen: wrong of %d in %d, and it says %g", c.n, wrong, asked, says)
		}
		if _, thousand := m.Any(begin, keys(3, 1000)); thousand < says || thousand > 1000*says+1e-12 {
			t.Errorf("%d seen: of 1,000 targets %g, of one %g", c.n, thousand, says)
		}
	}
}

// TestADayIsRemembered, and no more than an hour above it; then the memory is free again.
func TestADayIsRemembered(t *testing.T) {
	m := New(begin)
	all := keys(4, 200)
	at := func(d time.Duration) time.Time { return begin.Add(d) }
	for i, k := range all { // one each hour
		now := at(time.Duration(i)*time.Hour + 59*time.Minute)
		m.Note(m.Hour(now), []revoke.Key{k})
		for back, want := range map[int]bool{0: true, 1: true, 24: true, 25: false, 26: false, 50: false} {
			if i >= back && m.has(now, all[i-back]) != want {
				t.Fatalf("hour %d: seen %d hours ago, and it says %t", i, back, !want)
			}
		}
	}
	last := at(200 * time.Hour)
	for d, want := range map[time.Duration]bool{23 * time.Hour: true, 24*time.Hour + 59*time.Minute: false} {
		if got := m.has(last.Add(d), all[199]); got != want {
			t.Errorf("%s later: %t", d, got)
		}
	}
	for d, want := range map[time.Duration]time.Duration{-time.Hour: 0, 0: 0, time.Minute: time.Minute, 40 * time.Hour: 24 * time.Hour} {
		if got := m.For(at(d)); got != want {
			t.Errorf("%s after its beginning it has remembered for %s, want %s", d, got, want)
		}
	}
}

// TestALateNoteForgetsNothing: one of a decision that began in an hour that is over, or by
// a clock that was set back.
func TestALateNoteForgetsNothing(t *testing.T) {
	m := New(begin)
	k := keys(5, 4)
	m.Note(30, k[:1])
	m.Note(5, k[1:2]) // the same place in the ring
	m.Note(29, k[2:3])
	m.Note(m.Hour(begin.Add(-48*time.Hour)), k[3:4])
	now := begin.Add(29*time.Hour + time.Minute)
	for i := range 3 {
		if !m.has(now, k[i]) {
			t.Errorf("%d is forgotten", i)
		}
	}
	if now := begin.Add(-48 * time.Hour); !m.has(now, k[3]) {
		t.Error("what was seen before the beginning, by this clock, is forgotten")
	}
}

func BenchmarkNote(b *testing.B) {
	m := New(begin)
	all := keys(6, 1000)
	m.Note(1, all)
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			m.Note(1, all[i%990:i%990+10])
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			one := keys(uint64(i), 10)
			m.Note(1, one)
		}
	})
}

// TestWhatIsWrongIsAsSeldomAsSaid, where the filter is nearly full: the chance is far below
// what a few thousand questions can show.
func TestWhatIsWrongIsAsSeldomAsSaid(t *testing.T) {
	m := New(begin)
	m.Note(1, keys(5, 3000))
	r := rand.New(rand.NewPCG(6, 1))
	wrong := 0
	const asked = 2_000_000
	for range asked {
		var k revoke.Key
		binary.LittleEndian.PutUint64(k[:8], r.Uint64())
		binary.LittleEndian.PutUint64(k[8:], r.Uint64())
		if m.has(begin, k) {
			wrong++
		}
	}
	if _, says := m.Any(begin, keys(7, 1)); float64(wrong) > 2+2*says*asked {
		t.Errorf("wrong of %d in %d, and it says %g", wrong, asked, says)
	}
}
