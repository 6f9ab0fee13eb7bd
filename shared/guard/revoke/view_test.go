package revoke

import (
	"encoding/binary"
	"maps"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// said is one thing merged.
type said struct {
	key   Key
	state State
}

// model is the fold as the design has it, without any of the view's tricks.
type model map[Key]State

func (m model) merge(s said) {
	if s.state != (State{}) {
		m[s.key] = m[s.key].Merge(s.state)
	}
}

// collide makes keys that meet: few groups, few tags, few shards.
func collide(n int) Key {
	return keyOf(uint64(n)<<24|uint64(n%3)<<8|uint64(n%2), uint64(n%5))
}

func randomState(r *rand.Rand) State {
	seqs := []uint64{0, 1, 2, 77, seqMask, seqMask + 1, math.MaxUint64}
	epochs := []uint64{0, 1, benchEpoch, benchEpoch + 1, math.MaxUint64}
	ats := []int64{0, 1, 999, 1000, benchEpoch, benchEpoch + 1, benchEpoch + 1<<37, benchEpoch + 1<<38, 1 << 46}
	left := []int64{0, 1, 4800, untilMask, untilMask + 1}
	stamp := func() Stamp { return Stamp{epochs[r.IntN(len(epochs))], seqs[r.IntN(len(seqs))]} }
	var s State
	if r.IntN(3) > 0 {
		s.Cut, s.CutAt = stamp(), ats[r.IntN(len(ats))]
		s.Until = s.CutAt/1000 + left[r.IntN(len(left))]
	}
	switch r.IntN(8) {
	case 0:
		s.Ended, s.Until = true, benchEpoch/1000+int64(r.IntN(9))
	case 1:
		s.Held = stamp()
	case 2:
		s.Released = stamp()
	}
	return s
}

func checkSame(t *testing.T, v *View, m model) {
	t.Helper()
	if got := maps.Collect(v.All); !maps.Equal(got, m) {
		t.Fatalf("got  %v\nwant %v", got, m)
	}
	if v.Len() != len(m) {
		t.Fatalf("Len is %d of %d", v.Len(), len(m))
	}
	for k, s := range m {
		if got := v.State(k); got != s {
			t.Fatalf("State(%s)\ngot  %+v\nwant %+v", k, got, s)
		}
	}
}

func checkHits(t *testing.T, r *rand.Rand, v *View, m model, keys []Key) {
	t.Helper()
	es := v.Epochs()
	for range 20 {
		stamp := randomState(r).Cut
		first := -1
		for i, k := range keys {
			s := m[k]
			want := s.Hits(stamp, es)
			if want && first < 0 {
				first = i
			}
			if got := v.Hit(k, stamp); got != want {
				t.Fatalf("Hit(%s, %s) = %t with %+v", k, stamp, got, s)
			}
			if got := v.Blocked(k); got != s.Blocked(es) {
				t.Fatalf("Blocked(%s) = %t with %+v", k, got, s)
			}
			if got := v.HitAt(k, benchEpoch, 300_000); got != s.HitsAt(benchEpoch, 300_000, es) {
				t.Fatalf("HitAt(%s) = %t with %+v", k, got, s)
			}
		}
		if i, hit := v.HitAny(keys, stamp); hit != (first >= 0) || hit && i != first {
			t.Fatalf("HitAny = %d, %t; the first that hits is %d", i, hit, first)
		}
	}
}

func TestViewIsTheFoldInAnyOrderAndRepetition(t *testing.T) {
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 1))
		var all []said
		for range 1 + r.IntN(200) {
			k := collide(r.IntN(60))
			if r.IntN(2) == 0 {
				k = benchKeys(1, uint64(r.IntN(60)))[0]
			}
			all = append(all, said{k, randomState(r)})
		}
		m, keys := model{}, []Key{}
		for _, s := range all {
			m.merge(s)
		}
		for i := range 75 {
			keys = append(keys, collide(i), benchKeys(1, uint64(i))[0])
		}
		for range 3 {
			r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			v := NewView()
			for e := range uint64(r.IntN(4)) {
				v.MergeEpoch(Epoch{Number: benchEpoch + e, D: Stamp{Epoch: 1, Seq: 9 - e}})
			}
			for i, s := range all {
				v.Merge(s.key, s.state)
				if i%3 == 0 {
					again := all[r.IntN(i+1)]
					v.Merge(again.key, again.state)
				}
			}
			checkSame(t, v, m)
			checkHits(t, r, v, m, keys)
		}
	}
}

func TestDroppingForgetsTheEndedAndNothingElse(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		v, m := NewView(), model{}
		for range 3 {
			for range 300 {
				s := said{collide(r.IntN(200)), randomState(r)}
				v.Merge(s.key, s.state)
				m.merge(s)
			}
			now := int64(benchEpoch/1000 + r.IntN(9))
			want := 0
			for k, s := range m {
				if s.Until < now {
					delete(m, k)
					want++
				}
			}
			if got := v.Drop(now); got != want {
				t.Fatalf("dropped %d of %d", got, want)
			}
			checkSame(t, v, m)
		}
	}
}

func TestBigViewLosesNothing(t *testing.T) {
	const n = 60_000
	keys := benchKeys(n, 7)
	v := NewView()
	for i, k := range keys {
		v.Merge(k, benchCut(i))
	}
	for i, k := range keys {
		if got := v.State(k); got != benchCut(i) {
			t.Fatalf("entry %d of %d: got %+v", i, n, got)
		}
	}
	for _, k := range benchKeys(n, 8) {
		if got := v.State(k); got != (State{}) {
			t.Fatalf("%s, which nobody has merged, is %+v", k, got)
		}
	}
}

// The base of a table moves when time has gone on; what is packed must not.
func TestYearsLaterNothingHasShifted(t *testing.T) {
	v, m := NewView(), model{}
	for year := range int64(30) {
		for i := range 40 {
			at := benchEpoch + year*365*86_400_000
			s := said{collide(int(year)*40 + i), State{Cut: Stamp{benchEpoch, uint64(at)}, CutAt: at, Until: at/1000 + 34_000_000}}
			v.Merge(s.key, s.state)
			m.merge(s)
		}
		checkSame(t, v, m)
	}
}

func TestMoreEpochsThanAWordCanName(t *testing.T) {
	v, m := NewView(), model{}
	for i := range epochMask + 10 {
		s := said{collide(i), State{Cut: Stamp{uint64(i), 1}, CutAt: benchEpoch, Until: benchEpoch / 1000}}
		v.Merge(s.key, s.state)
		m.merge(s)
	}
	checkSame(t, v, m)
}

// Whoever has seen that something was merged must find it, while the tables
// grow, are dropped from and change under their hands. Run with -race.
func TestReadersNeverMissWhatWasMergedBefore(t *testing.T) {
	const n = 10_000
	keys := benchKeys(n, 9)
	state := func(i int) State {
		s := benchCut(i)
		switch i % 5 {
		case 0:
			s = State{Ended: true, Until: s.Until}
		case 1:
			s.Held = s.Cut
		}
		return s
	}
	v := NewView()
	var merged atomic.Int64
	var readers sync.WaitGroup
	for seed := range uint64(2) {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(seed, 3))
			for merged.Load() < n {
				upTo := int(merged.Load())
				if upTo == 0 {
					continue
				}
				i := r.IntN(upTo)
				if !v.Hit(keys[i], Stamp{}) {
					t.Errorf("entry %d of %d is not there", i, upTo)
					return
				}
				if at, hit := v.HitAny([]Key{{9}, keys[i], {8}}, Stamp{}); !hit || at != 1 {
					t.Errorf("entry %d of %d: HitAny %d, %t", i, upTo, at, hit)
					return
				}
				got, want := v.State(keys[i]), state(i)
				if got != got.Merge(want) || got.CutAt > want.CutAt+1 {
					t.Errorf("entry %d of %d\ngot  %+v\nwant %+v or the next", i, upTo, got, want)
					return
				}
			}
		})
	}
	readers.Go(func() {
		for merged.Load() < n {
			upTo, seen := int(merged.Load()), 0
			for range v.All {
				seen++
			}
			if seen < upTo {
				t.Errorf("All saw %d of %d", seen, upTo)
				return
			}
		}
	})
	for i, k := range keys {
		v.Merge(k, state(i))
		merged.Store(int64(i + 1))
		more := state(i / 2)
		if !more.Ended {
			more.Cut.Seq++
			more.CutAt++
			v.Merge(keys[i/2], more)
		}
		if i%2000 == 0 {
			v.Merge(Key{7, byte(i)}, State{Ended: true, Until: 1})
			v.MergeEpoch(Epoch{Number: benchEpoch + uint64(i), D: Stamp{benchEpoch, math.MaxUint64}})
			if got := v.Drop(2); got != 1 {
				t.Errorf("dropped %d", got)
			}
		}
	}
	readers.Wait()
}

func TestLookingUpAllocatesNothing(t *testing.T) {
	v, keys := NewView(), benchKeys(20, 1)
	v.MergeEpoch(Epoch{Number: benchEpoch})
	for i, k := range keys[:10] {
		v.Merge(k, benchCut(i))
	}
	v.Merge(keys[0], State{Held: Stamp{1, 1}, Released: Stamp{1, 1}})
	if n := testing.AllocsPerRun(100, func() {
		v.HitAny(keys, Stamp{benchEpoch, 1 << 40})
		v.Hit(keys[0], Stamp{})
		v.HitAt(keys[1], 1, 1)
		v.Blocked(keys[2])
		v.State(keys[0])
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzSetMerge: any entries in any order, any number of times, are the same
// state as the plain fold.
func FuzzSetMerge(f *testing.F) {
	f.Add([]byte("some entries, 8 bytes each, and more of them"), uint64(1))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		var all []said
		for ; len(data) >= 8 && len(all) < 400; data = data[8:] {
			word := binary.LittleEndian.Uint64(data)
			all = append(all, said{collide(int(word % 40)), randomState(rand.New(rand.NewPCG(word, word)))})
		}
		r := rand.New(rand.NewPCG(seed, seed))
		m, v := model{}, NewView()
		for _, s := range all {
			m.merge(s)
			v.Merge(s.key, s.state)
		}
		checkSame(t, v, m)
		v = NewView()
		for range 3 * len(all) {
			s := all[r.IntN(len(all))]
			v.Merge(s.key, s.state)
		}
		for _, i := range r.Perm(len(all)) {
			v.Merge(all[i].key, all[i].state)
		}
		checkSame(t, v, m)
	})
}

func TestReholdTakesAReleaseBackAndNothingElse(t *testing.T) {
	v := NewView()
	k := Target{Tenant: "default", Issuer: Own, Kind: KindPrincipal, ID: "alice"}.Key()
	v.Merge(k, State{Cut: Stamp{1, 5}, CutAt: 7_000, Held: Stamp{1, 8}, Released: Stamp{1, 8}, Until: 90})
	v.Rehold(k, State{Held: Stamp{1, 8}, Released: Stamp{1, 2}, Until: 100})
	if got, want := v.State(k), (State{Cut: Stamp{1, 5}, CutAt: 7_000, Held: Stamp{1, 8}, Released: Stamp{1, 2}, Until: 100}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if !v.Blocked(k) {
		t.Error("is not held")
	}
	other := Target{Tenant: "default", Issuer: Own, Kind: KindPrincipal, ID: "bob"}.Key()
	v.Rehold(other, State{Held: Stamp{1, 9}, Until: 100})
	if !v.Blocked(other) {
		t.Error("what was not known is not held")
	}
}
