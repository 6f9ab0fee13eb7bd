package ledger

import (
	"slices"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// fold is what the log itself says, read from its beginning: of each target all of its
// entries together, and, where they end at different times, each of them by itself. A
// state has one end for all of its parts: it does not tell that its newest cut comes
// from an entry that ends soon, and its end from another one.
type fold struct {
	view *revoke.View
	each map[revoke.Key][]revoke.State
	// reach is how far the releases of each target are known to speak: up to which hold
	// they are known to be later. One that was committed again speaks no further than who
	// did that knew, whatever position it has.
	reach map[revoke.Key]revoke.Stamp
}

func newFold() *fold {
	return &fold{view: revoke.NewView(), each: map[revoke.Key][]revoke.State{}, reach: map[revoke.Key]revoke.Stamp{}}
}

// take adds a message that was placed.
func (f *fold) take(s wire.Stored) {
	for k, st := range s.Message.States(s.Position().Stamp) {
		f.add(k, st)
	}
	if e, ok := s.Message.EpochState(); ok {
		f.view.MergeEpoch(e)
	}
	for k, named := range s.Message.Release {
		// Somebody asked for it: every hold of an older epoch was made before, and of this
		// one those up to what it names.
		upTo := named.Max(revoke.Stamp{Epoch: s.Message.Epoch})
		if r := s.Message.Recommitted; r != nil {
			upTo = *r
		}
		f.reach[k] = f.reach[k].Max(upTo)
	}
}

func (f *fold) add(k revoke.Key, st revoke.State) {
	together := f.view.State(k)
	f.view.Merge(k, st)
	each := f.each[k]
	if each == nil {
		if together == (revoke.State{}) || together.Until == st.Until {
			return
		}
		each = []revoke.State{together}
	}
	// What another one says as well, for as long, is not kept.
	if slices.ContainsFunc(each, func(x revoke.State) bool { return x.Merge(st) == x }) {
		return
	}
	each = slices.DeleteFunc(each, func(x revoke.State) bool { return st.Merge(x) == st })
	f.each[k] = append(each, st)
}

// says reports whether an entry of a target says something for as long as until.
func (f *fold) says(k revoke.Key, until int64, what func(revoke.State) bool) bool {
	says := func(s revoke.State) bool { return s.Until >= until && what(s) }
	if each := f.each[k]; each != nil {
		return slices.ContainsFunc(each, says)
	}
	return says(f.view.State(k))
}
