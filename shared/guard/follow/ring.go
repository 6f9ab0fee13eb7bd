package follow

import (
	"sort"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// What a ring keeps: enough to compare what comes late or twice, and to answer
// whether a tick was applied.
const (
	ringMost = 8192
	ringAge  = int64(5 * 60 * 1000) // milliseconds of the broker's time
)

// place is a message that was applied, by its identity alone.
type place struct {
	at        revoke.Stamp // its position
	published uint64       // the epoch of its publisher: that of at, or an older one
	id        string
	time      int64 // the broker's, Unix milliseconds
}

// ring keeps the newest places, by ascending sequence. The zero ring is empty.
type ring struct{ places []place }

func (g *ring) add(p place) {
	g.places = append(g.places, p)
	// Dropped in lots, so that the copy costs little for each.
	if n := len(g.places); n >= ringMost+ringMost/4 {
		g.places = append(g.places[:0], g.places[n-ringMost:]...)
	} else if n%256 == 0 && g.places[n/2].time < p.time-ringAge {
		g.places = append(g.places[:0], g.places[n/2:]...)
	}
}

// at returns what was applied at a sequence.
func (g *ring) at(seq uint64) (place, bool) {
	i := sort.Search(len(g.places), func(i int) bool { return g.places[i].at.Seq >= seq })
	if i == len(g.places) || g.places[i].at.Seq != seq {
		return place{}, false
	}
	return g.places[i], true
}

// recent returns what proves how far the log was this one, newest first: each of
// the last ones, then ever fewer, back to the oldest. If not all of it is in the
// service's log, the newest that is becomes the D of a new epoch, so the gaps
// only cost precision.
func (g *ring) recent(also ...place) []wire.PositionJSON {
	const dense = 24
	var out []wire.PositionJSON
	put := func(p place) {
		out = append(out, wire.PositionJSON{Epoch: p.at.Epoch, Sequence: p.at.Seq, ID: p.id})
	}
	for _, p := range also {
		put(p)
	}
	n := len(g.places)
	for back, step := 1, 1.0; back <= n && len(out) < wire.MaxRecent-1; back += int(step) {
		put(g.places[n-back])
		if back >= dense {
			step *= 1.2
		}
	}
	if n > 0 && len(out) > 0 && out[len(out)-1].Sequence > g.places[0].at.Seq {
		put(g.places[0])
	}
	return out
}
