package redisview

import (
	"context"
	"fmt"
	"sync"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// defaultRecorded is how many changes of targets are remembered: with more since
// its last write a view is written anew.
const defaultRecorded = 1 << 18

type change struct {
	at  revoke.Stamp // the highest position applied by then
	key revoke.Key
}

// recorder remembers which targets the last entries were about, in the order of
// their arrival. A place in it counts all that ever arrived, so that whatever
// comes late, out of its order, is written all the same.
type recorder struct {
	mu      sync.Mutex
	limit   int
	changes []change
	first   uint64        // place of changes[0]
	base    revoke.Stamp  // all changes above it are here, if at or below last
	last    wire.Position // of the newest message
	stamp   revoke.Stamp  // of the newest entry or epoch
	cut     bool          // changes were dropped: base is the last of them
	moved   chan struct{} // closed when last grows; nil: nobody waits
}

// add takes in a message after it was applied.
func (r *recorder) add(s wire.Stored) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := s.Position()
	if r.last.Stamp.Less(p.Stamp) {
		r.last = p
		if r.moved != nil {
			close(r.moved)
			r.moved = nil
		}
	}
	if s.Message.Kind == wire.KindEntry || s.Message.Kind == wire.KindEpoch {
		r.stamp = r.stamp.Max(p.Stamp)
	}
	for k := range s.Message.States(p.Stamp) {
		r.changes = append(r.changes, change{r.last.Stamp, k})
	}
	if n := len(r.changes); n > r.limit {
		// Half of it goes at once, so that the copying is paid once in a while.
		drop := n - r.limit/2
		r.base, r.cut = r.changes[drop-1].at, true
		r.first += uint64(drop)
		r.changes = append([]change(nil), r.changes[drop:]...)
	}
}

// restart forgets everything: the log is read again from its beginning.
func (r *recorder) restart() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.first += uint64(len(r.changes))
	r.changes = nil
	r.base, r.cut, r.last, r.stamp = revoke.Stamp{}, false, wire.Position{}, revoke.Stamp{}
}

// end returns the place after the newest change.
func (r *recorder) end() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.first + uint64(len(r.changes))
}

// observed waits until everything up to a position was added: the ledger tells
// its observers a moment after it says that it has applied something.
func (r *recorder) observed(ctx context.Context, p revoke.Stamp) error {
	for {
		r.mu.Lock()
		if !r.last.Stamp.Less(p) {
			r.mu.Unlock()
			return nil
		}
		if r.moved == nil {
			r.moved = make(chan struct{})
		}
		moved := r.moved
		r.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to be observed: %w", p, context.Cause(ctx))
		}
	}
}

// news is what came since a place.
type news struct {
	keys  []revoke.Key // the targets changed, each once
	end   uint64       // the place after them
	at    wire.Position
	stamp revoke.Stamp // the newest entry or epoch at or below at
}

// since returns what came from a place on; ok is false when some of it was
// dropped.
func (r *recorder) since(place uint64) (n news, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = news{end: r.first + uint64(len(r.changes)), at: r.last, stamp: r.stamp}
	if place < r.first || place > n.end {
		return n, false
	}
	seen := map[revoke.Key]bool{}
	for _, c := range r.changes[place-r.first:] {
		if !seen[c.key] {
			seen[c.key] = true
			n.keys = append(n.keys, c.key)
		}
	}
	return n, true
}

// after returns the place of the first change above a position; ok is false when
// there may have been some that are not here any more.
func (r *recorder) after(p revoke.Stamp) (place uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut && p.Less(r.base) || r.last.Stamp.Less(p) {
		return 0, false
	}
	for i, c := range r.changes {
		if p.Less(c.at) {
			return r.first + uint64(i), true
		}
	}
	return r.first + uint64(len(r.changes)), true
}
