package running

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

func told(n uint64, at int64) heard { return heard{wire.Running{Told: at, Count: n}, 1000 + at} }

// TestTheLastWordCounts, in whatever order words come, twice or not.
func TestTheLastWordCounts(t *testing.T) {
	a, b := source{"orders", "a", revoke.Key{1}}, source{"orders", "a", revoke.Key{2}}
	other := source{"billing", "b", revoke.Key{1}}
	type word struct {
		from   source
		target string
		h      heard
	}
	words := []word{
		{a, "key:1", told(3, 10)}, {a, "key:1", told(2, 11)}, {a, "key:1", told(0, 12)}, {b, "key:2", told(1, 5)}, {b, "key:2", told(4, 6)}, {other, "key:1", told(7, 1)},
	}
	for range 200 {
		var r Record
		for _, i := range rand.Perm(len(words) * 2) {
			w := words[i%len(words)]
			if _, kept := r.merge(w.from, w.target, w.h); !kept {
				t.Fatal("no room")
			}
		}
		if got := fmt.Sprint(r.Lines()); got != "[{billing b 7 1001} {orders a 4 1012}]" {
			t.Fatal(got)
		}
	}
}

// TestARecordIsBounded: what has come to nothing makes room, and nothing else does.
func TestARecordIsBounded(t *testing.T) {
	var r Record
	for i := range MaxCounts {
		if _, kept := r.merge(source{"s", fmt.Sprint(i), revoke.Key{}}, "key:1", told(uint64(i%2), int64(i+1))); !kept {
			t.Fatalf("no room for %d", i)
		}
	}
	for i := range MaxCounts/2 + 1 {
		_, kept := r.merge(source{"more", fmt.Sprint(i), revoke.Key{}}, "key:1", told(1, 1))
		if want := i < MaxCounts/2; kept != want {
			t.Fatalf("%d: kept %t", i, kept)
		}
	}
	if len(r.Counts) != MaxCounts {
		t.Errorf("%d counts", len(r.Counts))
	}
}
