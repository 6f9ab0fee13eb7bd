package revoke

import "sync/atomic"

// Nearly every entry is a lone cut or a lone end, and these fit into two words
// of a slot:
//
//	what   2 bits: kind | cut, end: 12 bits index of its epoch in View.numbers, 50 bits sequence
//	                    | overflow: index in table.over
//	when   cut, end: 38 bits milliseconds from table.base to CutAt | 26 bits seconds from CutAt to Until
//
// Whatever does not fit, for being a hold or out of range, is a State of its
// own in the table's overflow: slower and bigger, and right all the same.
//
// A reader that loads both words while they change may see one from before and
// one from after. Both only grow, so it sees a state between the two, which is
// what it could have seen by asking a moment earlier or later. Cut and end have
// one form; a slot goes from there to overflow only, and `when` is written
// first, so neither is ever read by the rules of another form.
const (
	kindOver  = iota // 0 is never published: an index is stored with 1 added
	kindCut          // a cut and nothing else
	kindEnded        // an end, and where it stands

	kindShift  = 62
	epochShift = 50
	seqMask    = 1<<epochShift - 1
	epochMask  = 1<<(kindShift-epochShift) - 1
	untilBits  = 26
	untilMask  = 1<<untilBits - 1
	atMask     = 1<<(64-untilBits) - 1
	// baseBack is how far before the newest cut known then the base of a table
	// lies: half of the range, 4.3 years, since cuts live for 400 days.
	baseBack = 1 << 37
)

// hits is State.Hits for a slot and a stamp that has been clamped already.
func (v *View) hits(t *table, s *slot, clamped Stamp) bool {
	w := atomic.LoadUint64(&s.what)
	switch w >> kindShift {
	case kindCut:
		return clamped.Less(v.cutOf(w))
	case kindEnded:
		return true
	}
	return t.overflow(w).Hits(clamped, v.Epochs())
}

func (v *View) cutOf(w uint64) Stamp {
	numbers := *v.numbers.Load() // loaded after w, so it has w's index
	return Stamp{Epoch: numbers[w>>epochShift&epochMask], Seq: w & seqMask}
}

// load returns the state in a slot.
func (v *View) load(t *table, s *slot) State {
	w := atomic.LoadUint64(&s.what)
	switch w >> kindShift {
	case kindCut, kindEnded:
		when := atomic.LoadUint64(&s.when)
		at := t.base + int64(when>>untilBits)
		return State{
			Cut: v.cutOf(w), CutAt: at, Ended: w>>kindShift == kindEnded,
			Until: at/1000 + int64(when&untilMask),
		}
	}
	return *t.overflow(w)
}

func (t *table) overflow(w uint64) *State { return (*t.over.Load())[w-1].Load() }

// pack returns the words of a state, false if it does not fit. It may add to
// v.numbers and set t.base; the writer's to call.
func (v *View) pack(t *table, s State) (what, when uint64, ok bool) {
	if !s.Held.IsZero() || !s.Released.IsZero() {
		return 0, 0, false
	}
	if s.Cut.IsZero() || s.CutAt < 1 || s.Cut.Seq > seqMask {
		return 0, 0, false
	}
	base := t.base
	if !t.hasCut {
		base = max(0, v.newest-baseBack)
	}
	at, left := s.CutAt-base, s.Until-s.CutAt/1000
	if at < 0 || at > atMask || left < 0 || left > untilMask {
		return 0, 0, false
	}
	i, ok := v.indexOf(s.Cut.Epoch)
	if !ok {
		return 0, 0, false
	}
	if !t.hasCut { // once: readers may be looking at it ever after
		t.base, t.hasCut = base, true
	}
	kind := uint64(kindCut)
	if s.Ended {
		kind = kindEnded
	}
	return kind<<kindShift | uint64(i)<<epochShift | s.Cut.Seq, uint64(at)<<untilBits | uint64(left), true
}

// indexOf returns the index of an epoch in v.numbers, and adds it if there is
// room.
func (v *View) indexOf(epoch uint64) (int, bool) {
	numbers := *v.numbers.Load()
	for i := len(numbers) - 1; i >= 0; i-- {
		if numbers[i] == epoch {
			return i, true
		}
	}
	if len(numbers) > epochMask {
		return 0, false
	}
	grown := append(numbers[:len(numbers):len(numbers)], epoch)
	v.numbers.Store(&grown)
	return len(numbers), true
}

// spill puts a state into the overflow and returns the word that names it.
func (t *table) spill(s State) uint64 {
	if over := t.over.Load(); over == nil || t.nOver == len(*over) {
		grown := make([]atomic.Pointer[State], max(4, 2*t.nOver))
		if over != nil {
			for i := range *over {
				grown[i].Store((*over)[i].Load())
			}
		}
		t.over.Store(&grown)
	}
	(*t.over.Load())[t.nOver].Store(&s)
	t.nOver++
	return uint64(t.nOver)
}
