package attempts

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

const at = int64(1_764_000_000_000)

var target = revoke.Key{1}

func (r *Record) hear(instance string, a wire.Attempts, now int64) uint64 {
	more, _ := r.merge(source{"orders", instance, target, a.Began}, "key:a", &a, now)
	return more
}

func told(began int64, count uint64, last int64, from ...wire.AttemptsFrom) wire.Attempts {
	return wire.Attempts{Began: began, First: began, Last: last, Count: count, From: from}
}

func network(name string, first, last int64, count uint64) wire.AttemptsFrom {
	return wire.AttemptsFrom{Network: name, First: first, Last: last, Count: count}
}

func (r *Record) sum() (n uint64) {
	for _, l := range r.Lines() {
		n += l.Count
	}
	return n
}

// TestReportsInAnyOrder: repeated and reordered, and some of the earlier ones lost, they
// give the same; another process adds to what was; a network that was forgotten by its
// guard has begun again.
func TestReportsInAnyOrder(t *testing.T) {
	reports := []struct {
		instance string
		a        wire.Attempts
	}{
		{"one", told(at, 1, at, network("192.0.2.1", at, at, 1))},
		{"one", told(at, 5, at+10, network("192.0.2.1", at, at+10, 4), network("192.0.2.2", at+5, at+5, 1))},
		{"one", told(at, 9, at+30, network("192.0.2.1", at+25, at+30, 2))}, // it was forgotten: the last of it
		{"one", told(at+100, 2, at+110, network("192.0.2.1", at+100, at+110, 2))},
		{"two", told(at, 3, at+20, network("", at, at+20, 3))},
	}
	var want string
	for round := range 200 {
		order := rand.Perm(len(reports))
		for range 5 {
			order = append(order, rand.IntN(len(reports)))
		}
		if round%2 == 1 { // the first report of a count may be lost: the next says as much
			for i, n := range order {
				if n == 0 {
					order[i] = 1
				}
			}
		}
		r := &Record{}
		var sum uint64
		for _, n := range order {
			sum += r.hear(reports[n].instance, reports[n].a, at+1000)
		}
		if sum != 14 || r.sum() != 14 {
			t.Fatalf("order %v: %d and %d attempts, want 9 and 2 and 3", order, sum, r.sum())
		}
		text, _ := json.Marshal(r.Lines())
		if want == "" {
			want = string(text)
		}
		if string(text) != want {
			t.Fatalf("order %v:\n%s\nwant\n%s", order, text, want)
		}
	}
}

// TestARecordIsBounded, whoever tells whatever: networks first, then counts; what is over
// is summed, and what has no place is said.
func TestARecordIsBounded(t *testing.T) {
	r := &Record{}
	for i := range MaxNetworks + 100 {
		r.hear("one", told(at, uint64(i+1), at+int64(i), network(fmt.Sprintf("10.0.%d.%d", i/256, i%256), at+int64(i), at+int64(i), 1)), at)
	}
	if n := len(r.Counts[0].From); n != MaxNetworks || r.sum() != MaxNetworks+100 {
		t.Errorf("%d networks, %d attempts", n, r.sum())
	}
	if l := r.Lines(); l[0].Network != Others || l[0].Count != 100 {
		t.Errorf("the first line is %+v, want 100 of others", l[0])
	}
	for i := 1; i < MaxCounts+10; i++ {
		r.hear(fmt.Sprint("i", i), told(at, 1, at), at)
	}
	if len(r.Counts) != MaxCounts || !r.Unkept {
		t.Errorf("%d counts, unkept %t", len(r.Counts), r.Unkept)
	}
	before, later := r.sum(), at+quiet.Milliseconds()
	for i := range MaxCounts {
		r.hear(fmt.Sprint("later", i), told(later, 2, later), later)
	}
	if len(r.Counts) != MaxCounts || len(r.Former) != 1 || r.sum() != before+2*MaxCounts {
		t.Errorf("%d counts, %d sums, %d attempts, want %d", len(r.Counts), len(r.Former), r.sum(), before+2*MaxCounts)
	}
}

// TestClocksOfGuards: nobody tries before the entry was committed, or later than now.
func TestClocksOfGuards(t *testing.T) {
	a := clamp(told(1, 2, at*2, network("", 1, at*2, 2)), at, at+5)
	if a.First != at || a.Last != at+5 || a.From[0].First != at || a.From[0].Last != at+5 {
		t.Errorf("%+v", a)
	}
}
