package revoke

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// View is the fold of the log: the state of every target that anything is
// known of. One writer at a time; any number of readers at any time, who never
// wait for the writer and allocate nothing.
//
// A million entries must cost one token about nine look-ups, most of them
// misses, on every request of every resource server: hence the tables of
// table.go instead of a map. They are spread over shards by the first byte of
// the key, so that growing one copies little, and what it replaces is garbage
// as soon as the last reader has left it.
//
// A reader sees what had been merged when its call began, and may or may not
// see what is merged while it runs.
type View struct {
	shards [nShards]atomic.Pointer[table]
	epochs atomic.Pointer[Epochs]
	// numbers are the epochs that packed cuts name by index. Only appended to, and
	// always before a word with the new index is published.
	numbers atomic.Pointer[[]uint64]
	seed    uint64 // odd; so that nobody can choose ids whose keys meet in one place

	_      [64]byte // what follows is written at each merge; keep it out of the readers' cache line
	count  atomic.Int64
	mu     sync.Mutex // held by the writer
	newest int64      // the latest CutAt; owned by mu
}

const nShards = 256

// NewView returns an empty view.
func NewView() *View {
	v := &View{seed: rand.Uint64() | 1}
	v.epochs.Store(&Epochs{})
	v.numbers.Store(&[]uint64{})
	return v
}

// words splits a key into the two words of a slot. The first byte chooses the
// shard, the next one is the tag; the second word chooses the group.
func words(k *Key) (k0, k1 uint64) {
	return binary.LittleEndian.Uint64(k[:8]), binary.LittleEndian.Uint64(k[8:])
}

func keyOf(k0, k1 uint64) (k Key) {
	binary.LittleEndian.PutUint64(k[:8], k0)
	binary.LittleEndian.PutUint64(k[8:], k1)
	return k
}

// find returns the slot of k and the table that it is in, nil for none.
func (v *View) find(k *Key) (*table, *slot) {
	k0, k1 := words(k)
	t := v.shards[k0&0xff].Load()
	if t == nil {
		return nil, nil
	}
	return t, t.find(k0, k1, v.seed)
}

// Epochs returns the known histories; the caller must not change them.
func (v *View) Epochs() Epochs { return *v.epochs.Load() }

// State returns what is known of a target, the zero State if nothing is.
func (v *View) State(k Key) State {
	if t, s := v.find(&k); s != nil {
		return v.load(t, s)
	}
	return State{}
}

// Hit reports whether something with this stamp is refused because of the
// target k.
func (v *View) Hit(k Key, stamp Stamp) bool {
	t, s := v.find(&k)
	return s != nil && v.hits(t, s, v.Epochs().Clamp(stamp))
}

// HitAt is Hit for a token of a foreign issuer; see State.HitsAt.
func (v *View) HitAt(k Key, issuedAt, skew int64) bool {
	t, s := v.find(&k)
	return s != nil && v.load(t, s).HitsAt(issuedAt, skew, v.Epochs())
}

// Blocked reports whether the target is held or ended: all that counts for
// what has no stamp and no iat (a principal, client or tenant itself).
func (v *View) Blocked(k Key) bool {
	t, s := v.find(&k)
	return s != nil && v.load(t, s).Blocked(v.Epochs())
}

// batch is how many keys HitAny looks up at once: a token has about nine. A power
// of two.
const batch = 16

// probe is a look-up of HitAny that may end with a slot.
type probe struct {
	t     *table
	group uint64
	maybe *slot  // the first slot whose tag matches, nil for none
	k0    uint64 // the first word of its key
	index int    // of the key
}

// HitAny reports whether any of the keys refuses something with this stamp,
// and which one is the first of those. It is faster than as many calls of Hit:
// it asks memory for all of them before it looks at any, so that the waits
// overlap.
func (v *View) HitAny(keys []Key, stamp Stamp) (int, bool) {
	stamp = v.Epochs().Clamp(stamp)
	var probes [batch]probe
	for from := 0; from < len(keys); from += batch {
		n := 0 // mostly it stays 0: nothing is known of any
		for i := from; i < min(from+batch, len(keys)); i++ {
			if v.begin(&probes[n&(batch-1)], &keys[i]) {
				probes[n&(batch-1)].index = i
				n++
			}
		}
		ps := probes[:n]
		for i := range ps {
			if s := ps[i].maybe; s != nil {
				ps[i].k0 = s.k0
			}
		}
		for i := range ps {
			p := &ps[i]
			if s := v.finish(p, &keys[p.index]); s != nil && v.hits(p.t, s, stamp) {
				return p.index, true
			}
		}
	}
	return 0, false
}

// begin reads the tags of a key's group, but no slot. It returns whether the
// key may be there, and fills p if so.
func (v *View) begin(p *probe, k *Key) bool {
	k0, k1 := words(k)
	t := v.shards[k0&0xff].Load()
	if t == nil {
		return false
	}
	g := t.groupOf(k1, v.seed)
	tags := atomic.LoadUint64(&t.tags[g])
	m := matches(tags, tagOf(k0))
	if m|tags&overOf(k0) == 0 {
		return false
	}
	p.t, p.group, p.maybe = t, g, nil
	if m != 0 {
		p.maybe = &t.groups[g][lane(m)]
	}
	return true
}

// finish returns the key's slot, nil if there is none.
func (v *View) finish(p *probe, k *Key) *slot {
	k0, k1 := words(k)
	if s := p.maybe; s != nil && p.k0 == k0 && s.k1 == k1 {
		return s
	}
	return p.t.findFrom(p.group, k0, k1)
}

// Len returns the number of targets of which something is known.
func (v *View) Len() int { return int(v.count.Load()) }

// All calls yield for every target until it returns false. What is merged
// meanwhile may or may not be seen; what was there before is. It holds up
// nobody, and yield may call anything.
func (v *View) All(yield func(Key, State) bool) {
	for i := range v.shards {
		t := v.shards[i].Load()
		if t == nil {
			continue
		}
		for s := range t.all() {
			if !yield(keyOf(s.k0, s.k1), v.load(t, s)) {
				return
			}
		}
	}
}
