package revoke

import "sync"

// View is the fold of the log: the state of every target that anything is
// known of. One writer at a time; any number of readers at any time, who never
// wait for the writer.
type View struct {
	mu     sync.RWMutex
	states map[Key]State
	epochs Epochs
}

// NewView returns an empty view.
func NewView() *View { return &View{states: map[Key]State{}} }

// Merge adds what is said of a target to what is known of it.
func (v *View) Merge(k Key, s State) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.states[k] = v.states[k].Merge(s)
}

// MergeEpoch adds a history.
func (v *View) MergeEpoch(e Epoch) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.epochs = v.epochs.With(e)
}

// Epochs returns the known histories; the caller must not change them.
func (v *View) Epochs() Epochs {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.epochs
}

// State returns what is known of a target, the zero State if nothing is.
func (v *View) State(k Key) State {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.states[k]
}

// Hit reports whether something with this stamp is refused because of the
// target k. It allocates nothing.
func (v *View) Hit(k Key, stamp Stamp) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	s, ok := v.states[k]
	return ok && s.Hits(stamp, v.epochs)
}

// HitAt is Hit for a token of a foreign issuer; see State.HitsAt.
func (v *View) HitAt(k Key, issuedAt, skew int64) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	s, ok := v.states[k]
	return ok && s.HitsAt(issuedAt, skew, v.epochs)
}

// Blocked reports whether the target is held or ended: all that counts for
// what has no stamp and no iat (a principal, client or tenant itself).
func (v *View) Blocked(k Key) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	s, ok := v.states[k]
	return ok && s.Blocked(v.epochs)
}

// Len returns the number of targets of which something is known.
func (v *View) Len() int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return len(v.states)
}

// All calls yield for every target until it returns false. What is merged
// meanwhile may or may not be seen; what was there before is.
func (v *View) All(yield func(Key, State) bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for k, s := range v.states {
		if !yield(k, s) {
			return
		}
	}
}

// Drop forgets the targets whose Until is before now (Unix seconds) and
// returns how many. It is the writer's to call.
func (v *View) Drop(now int64) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for k, s := range v.states {
		if s.Until < now {
			delete(v.states, k)
			n++
		}
	}
	return n
}
