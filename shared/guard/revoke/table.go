package revoke

import (
	"iter"
	"math/bits"
	"sync/atomic"
)

// table is one shard: open addressing in groups of seven slots. Each group has a
// word apart from its slots: seven tags, a byte a slot, and a byte of overflow
// bits. A look-up reads that word, which is mostly in the cache, and goes to
// memory for a slot only if its tag matches, that is (but for 2 in 100) only if
// the key is there. When a group is full its further keys stand in the next one
// with room, and each sets one of the eight overflow bits, chosen by the key, in
// the groups that it passed: who does not find its bit looks no further. (The
// scheme is that of boost::unordered_flat_map, with smaller groups, so that one
// atomic word is enough.)
//
// Readers use no lock. A slot is filled first and its tag published last, by an
// atomic store; a slot is never emptied or given to another key: dropping makes
// a new table. The two words that change afterwards are written by atomic
// stores, each is greater than before by itself, and no reader needs both from
// the same moment (see pack.go).
type table struct {
	tags   []uint64
	groups []group
	// base is what the times of packed cuts count from. It is set before the first
	// of them is published, and never again.
	base int64
	over atomic.Pointer[[]atomic.Pointer[State]] // states that do not fit into a slot

	// Owned by the writer.
	used   int
	nOver  int
	hasCut bool
}

type group [lanes]slot

type slot struct {
	k0, k1 uint64 // the key; fixed once the tag is published
	what   uint64 // see pack.go
	when   uint64
}

const (
	lanes = 7
	ones  = 0x0001010101010101
	highs = 0x0080808080808080
	lows  = 0x007f7f7f7f7f7f7f
	// overShift is where the overflow bits of a word of tags begin.
	overShift = 56
)

// tagOf returns the tag of a key in each of seven bytes. A tag is never 0, which
// says that the slot is empty.
func tagOf(k0 uint64) uint64 {
	t := k0 >> 8 & 0xff
	t += (t - 1) >> 63 // 0 becomes 1
	return t * ones
}

// overOf returns the overflow bit of a key.
func overOf(k0 uint64) uint64 { return 1 << overShift << (k0 >> 16 & 7) }

// matches has the high bit of each byte set that equals the tag, and no other:
// the usual shorter form would now and then name an empty slot too, which may be
// half written.
func matches(tags, tag uint64) uint64 {
	x := (tags ^ tag) & (lows | highs)
	return ^((x&lows + lows) | x | ^uint64(highs))
}

// empties has the high bit set of the first empty slot, perhaps with others
// above, and is 0 if there is none.
func empties(tags uint64) uint64 { return (tags&(lows|highs) - ones) & ^tags & highs }

// lane returns the number of the slot of the lowest bit in m.
func lane(m uint64) int { return bits.TrailingZeros64(m) >> 3 % lanes }

func newTable(groups int) *table {
	return &table{tags: make([]uint64, groups), groups: make([]group, groups)}
}

// groupsFor returns how many groups hold n entries, six of seven slots in use.
func groupsFor(n int) int { return max(1, (n+maxLoad-1)/maxLoad) }

// maxLoad is how many slots of a group are in use, on average, when a table is
// made anew.
const maxLoad = 6

func (t *table) groupOf(k1, seed uint64) uint64 {
	g, _ := bits.Mul64(k1*seed, uint64(len(t.tags)))
	return g
}

func (t *table) find(k0, k1, seed uint64) *slot {
	return t.findFrom(t.groupOf(k1, seed), k0, k1)
}

// findFrom ends since a table is never full.
func (t *table) findFrom(g, k0, k1 uint64) *slot {
	tag, over := tagOf(k0), overOf(k0)
	for {
		tags := atomic.LoadUint64(&t.tags[g])
		for m := matches(tags, tag); m != 0; m &= m - 1 {
			if s := &t.groups[g][lane(m)]; s.k0 == k0 && s.k1 == k1 {
				return s
			}
		}
		if tags&over == 0 {
			return nil
		}
		if g++; g == uint64(len(t.tags)) {
			g = 0
		}
	}
}

// put fills a slot for a key that is not there, and publishes it: last, so that
// readers who find it find it whole. The table must have room.
func (t *table) put(s slot, seed uint64) {
	g := t.groupOf(s.k1, seed)
	for {
		tags := t.tags[g]
		if m := empties(tags); m != 0 {
			at := lane(m)
			t.groups[g][at] = s
			t.used++
			atomic.StoreUint64(&t.tags[g], tags|tagOf(s.k0)&(0xff<<(8*at)))
			return
		}
		if over := overOf(s.k0); tags&over == 0 {
			atomic.StoreUint64(&t.tags[g], tags|over)
		}
		if g++; g == uint64(len(t.tags)) {
			g = 0
		}
	}
}

// all yields every slot in use.
func (t *table) all() iter.Seq[*slot] {
	return func(yield func(*slot) bool) {
		for g := range t.tags {
			tags := atomic.LoadUint64(&t.tags[g])
			for i := range lanes {
				if tags>>(8*i)&0xff != 0 && !yield(&t.groups[g][i]) {
					return
				}
			}
		}
	}
}
