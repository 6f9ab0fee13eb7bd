package seen

import (
	"encoding/binary"
	"math"
	"sync"
	"sync/atomic"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// The size of a filter. A layer that is a quarter full is followed by one twice as large:
// 16 KiB hold 3,100 targets, all five layers 97,000 (496 KiB), and more make it less sure.
// At a quarter a target that is not there is found in a layer once in 17 million times.
const (
	firstBits = 1 << 17
	layers    = 5
	probes    = 12
	fullShare = 4
)

// filter is a Bloom filter that grows. Nothing leaves it.
type filter struct {
	hour  int64
	parts [layers]atomic.Pointer[layer]

	mu sync.Mutex // of whoever adds a layer
}

type layer struct {
	bits []atomic.Uint64
	mask uint64
	set  atomic.Int64 // how many bits are
}

func newFilter(hour int64) *filter {
	f := &filter{hour: hour}
	f.parts[0].Store(newLayer(0))
	return f
}

func newLayer(n int) *layer {
	size := uint64(firstBits) << n
	return &layer{bits: make([]atomic.Uint64, size/64), mask: size - 1}
}

// add puts a target into the newest layer, unless one has it. A key is a hash already: its
// halves are two independent ones, of which all others are made.
func (f *filter) add(k *revoke.Key) {
	last := 0
	for i := range f.parts {
		l := f.parts[i].Load()
		if l == nil {
			break
		}
		if l.has(k) {
			return
		}
		last = i
	}
	l := f.parts[last].Load()
	if l.add(k) && last+1 < layers {
		f.grow(last + 1)
	}
}

func (f *filter) grow(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.parts[n].Load() == nil {
		f.parts[n].Store(newLayer(n))
	}
}

func (f *filter) has(k *revoke.Key) bool {
	for i := range f.parts {
		l := f.parts[i].Load()
		if l == nil {
			return false
		}
		if l.has(k) {
			return true
		}
	}
	return false
}

// wrong is the chance that a target is found which is not there.
func (f *filter) wrong() float64 {
	clean := 1.0
	for i := range f.parts {
		l := f.parts[i].Load()
		if l == nil {
			break
		}
		clean *= 1 - math.Pow(float64(l.set.Load())/float64(l.mask+1), probes)
	}
	return 1 - clean
}

func halves(k *revoke.Key) (at, step uint64) {
	return binary.LittleEndian.Uint64(k[:8]), binary.LittleEndian.Uint64(k[8:]) | 1
}

// bitOf mixes all of a probe's 64 bits into the few that a layer has: by the lowest alone two
// targets whose steps are alike there would share all their bits, far more often than by chance.
func (l *layer) bitOf(at uint64) uint64 {
	at ^= at >> 32
	at *= 0x9e3779b97f4a7c15 // odd, 2^64 divided by the golden ratio (Knuth, TAOCP 3, 6.4)
	at ^= at >> 29
	return at & l.mask
}

func (l *layer) has(k *revoke.Key) bool {
	at, step := halves(k)
	for range probes {
		if bit := l.bitOf(at); l.bits[bit/64].Load()&(1<<(bit%64)) == 0 {
			return false
		}
		at += step
	}
	return true
}

// add reports whether the layer is full now.
func (l *layer) add(k *revoke.Key) (full bool) {
	at, step := halves(k)
	var more int64
	for range probes {
		bit := l.bitOf(at)
		if was := l.bits[bit/64].Or(1 << (bit % 64)); was&(1<<(bit%64)) == 0 {
			more++
		}
		at += step
	}
	if more == 0 {
		return false
	}
	return l.set.Add(more) >= int64(l.mask+1)/fullShare
}
