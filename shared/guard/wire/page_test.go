package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/guard/revoke"
)

func sampleSnapshot(n int) (Snapshot, map[revoke.Key]revoke.State) {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	states := map[revoke.Key]revoke.State{}
	stamp := func() revoke.Stamp { return revoke.Stamp{Epoch: 1 + r.Uint64N(MaxEpoch), Seq: r.Uint64()} }
	for i := range n {
		s := revoke.State{Until: r.Int64N(maxMillis / 1000)}
		if i&1 != 0 {
			s.Cut, s.CutAt = stamp(), r.Int64N(maxMillis)
		}
		s.Ended = i&2 != 0
		if i&4 != 0 {
			s.Held = stamp()
		}
		if i&8 != 0 {
			s.Released = stamp()
		}
		states[key(i)] = s
	}
	jws := strings.Repeat("e", 300) + ".eyJi.c2ln"
	return Snapshot{
		ID: testID, States: maps.All(states),
		Epochs: revoke.Epochs{{Number: 5}, {Number: testEpoch, D: *at(5, 7), Restore: true}},
		Keys:   []KeyMessage{{"k1", testEpoch / 1000, jws}, {"ключ \"2\"", testEpoch / 1000, jws}},
	}, states
}

func TestWholeStateComesBackFromItsPages(t *testing.T) {
	for _, n := range []int{0, 1, 16, 40_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			snap, want := sampleSnapshot(n)
			pages, err := EncodePages(snap)
			if err != nil || len(pages) == 0 || n > 30_000 && len(pages) < 2 {
				t.Fatalf("%d pages, %v", len(pages), err)
			}
			got, epochs, keys := map[revoke.Key]revoke.State{}, revoke.Epochs(nil), []KeyMessage(nil)
			for i, b := range pages {
				if len(b) > MaxPage {
					t.Fatalf("page %d has %d bytes", i, len(b))
				}
				p, err := DecodePage(b)
				if err != nil || p.Number != i || p.Pages != len(pages) || p.Snapshot != testID {
					t.Fatalf("page %d of %d of %s, %v", p.Number, p.Pages, p.Snapshot, err)
				}
				for _, s := range p.States {
					got[s.Key] = s.State
				}
				epochs, keys = append(epochs, p.Epochs...), append(keys, p.Keys...)
			}
			if !maps.Equal(got, want) || !slices.Equal(epochs, snap.Epochs) || !slices.Equal(keys, snap.Keys) {
				t.Errorf("%d states of %d, epochs %v, keys %v", len(got), len(want), epochs, keys)
			}
		})
	}
}

// seal gives changed bytes a right checksum.
func seal(b []byte) []byte {
	b = slices.Clone(b)
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.ChecksumIEEE(b[:len(b)-4]))
	return b
}

func TestPageThatIsNotWholeIsRefused(t *testing.T) {
	snap, _ := sampleSnapshot(16)
	pages, err := EncodePages(snap)
	if err != nil {
		t.Fatal(err)
	}
	page := pages[0]
	for i := range len(page) * 8 {
		b := slices.Clone(page)
		b[i/8] ^= 1 << (i % 8)
		if _, err := DecodePage(b); !errors.Is(err, ErrPage) {
			t.Fatalf("bit %d turned: %v", i, err)
		}
	}
	for n := range page {
		if _, err := DecodePage(page[:n]); !errors.Is(err, ErrPage) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
	}
	grow := func(more ...byte) []byte {
		return seal(append(append(slices.Clone(page[:len(page)-4]), more...), 0, 0, 0, 0))
	}
	with := func(at int, b ...byte) []byte { p := slices.Clone(page); copy(p[at:], b); return seal(p) }
	head := pageHead - 12
	record := func(rec ...byte) []byte {
		b := append(slices.Clone(page[:pageHead]), rec...)
		binary.BigEndian.PutUint32(b[pageHead-4:], 1)
		return seal(append(b, 0, 0, 0, 0))
	}
	cut := func(parts byte, rest ...byte) []byte {
		return record(append(append([]byte{recState | parts}, make([]byte, 16)...), rest...)...)
	}
	if _, err := DecodePage(cut(hasCut, 1, 1, 1, 1)); err != nil {
		t.Fatalf("a page of one cut: %v", err)
	}
	for name, b := range map[string][]byte{
		"another version":     with(3, 2),
		"page past the pages": with(head, 0, 0, 0, 9),
		"no pages":            with(head+4, 0, 0, 0, 0),
		"too many pages":      with(head+4, 1, 0, 0, 0),
		"more records":        with(head+8, 0xff, 0xff, 0xff, 0xff),
		"fewer records":       with(head+8, 0, 0, 0, 1),
		"trailing":            grow(0),
		"an unknown record":   record(0x20),
		"a long number":       cut(hasCut, 0x81, 0, 1, 1, 1),
		"a number of 11":      cut(hasCut, bytes.Repeat([]byte{0xff}, 11)...),
		"a cut at nothing":    cut(hasCut, 0, 0, 1, 1),
		"a hold at nothing":   cut(hasHold, 0, 0, 1),
		"a far epoch":         cut(hasHold, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 1),
		"an epoch 0":          record(recEpoch, 0, 0, 0, 0),
		"an epoch in itself":  record(recEpoch, 5, 5, 0, 0),
		"an odd restore":      record(recEpoch, 5, 4, 0, 2),
		"a key without a jws": record(recKey, 5, 1, 'a', 0),
		"oversized":           append(bytes.Clone(page), make([]byte, MaxPage)...),
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := DecodePage(b); !errors.Is(err, ErrPage) || !reflect.ValueOf(p).IsZero() {
				t.Errorf("got %+v, %v", p, err)
			}
		})
	}
}

func TestStateThatCannotTravelIsRefusedAtTheSource(t *testing.T) {
	one := func(s revoke.State) Snapshot {
		return Snapshot{ID: testID, States: maps.All(map[revoke.Key]revoke.State{{}: s})}
	}
	for name, s := range map[string]Snapshot{
		"no id":          {},
		"until below 0":  one(revoke.State{Ended: true, Until: -1}),
		"a far epoch":    one(revoke.State{Held: revoke.Stamp{Epoch: MaxEpoch + 1}}),
		"time of no cut": one(revoke.State{CutAt: 5}),
		"epoch 0":        {ID: testID, Epochs: revoke.Epochs{{}}},
		"a bare key":     {ID: testID, Keys: []KeyMessage{{KeyID: "k"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if pages, err := EncodePages(s); err == nil {
				t.Errorf("%d pages", len(pages))
			}
		})
	}
}

// FuzzPage: what decodes encodes to the same bytes.
func FuzzPage(f *testing.F) {
	for _, n := range []int{0, 1, 16} {
		snap, _ := sampleSnapshot(n)
		pages, err := EncodePages(snap)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(pages[0][:len(pages[0])-4])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = binary.BigEndian.AppendUint32(data, crc32.ChecksumIEEE(data))
		p, err := DecodePage(data)
		if err != nil {
			return
		}
		pages, err := EncodePages(Snapshot{
			ID: p.Snapshot, Epochs: p.Epochs, Keys: p.Keys,
			States: func(yield func(revoke.Key, revoke.State) bool) {
				for _, s := range p.States {
					if !yield(s.Key, s.State) {
						return
					}
				}
			},
		})
		if err != nil || len(pages) != 1 {
			t.Fatalf("decoded, but does not encode: %d pages, %v", len(pages), err)
		}
		again, err := DecodePage(pages[0])
		again.Number, again.Pages = p.Number, p.Pages
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("got  %+v, %v\nwant %+v", again, err, p)
		}
	})
}

func BenchmarkPages(b *testing.B) {
	snap, _ := sampleSnapshot(60_000)
	pages, err := EncodePages(snap)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("op=encode", func(b *testing.B) {
		for b.Loop() {
			if _, err := EncodePages(snap); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("op=decode", func(b *testing.B) {
		for b.Loop() {
			for _, p := range pages {
				if _, err := DecodePage(p); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
