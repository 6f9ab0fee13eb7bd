package itest

import (
	"bytes"
	"encoding/binary"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// genMessage draws any message that can be sent.
func genMessage(t *rapid.T) wire.Message {
	word := rapid.StringMatching(`[A-Za-z0-9_-]{1,20}`)
	far := rapid.Uint64Range(1, wire.MaxEpoch)
	epoch := far.Draw(t, "epoch")
	stamp := rapid.Custom(func(t *rapid.T) revoke.Stamp {
		return revoke.Stamp{Epoch: rapid.Uint64Range(0, epoch-1).Draw(t, "e"), Seq: rapid.Uint64Min(1).Draw(t, "s")}
	})
	key := rapid.Custom(func(t *rapid.T) (k revoke.Key) {
		binary.BigEndian.PutUint64(k[:], rapid.Uint64().Draw(t, "key"))
		return k
	})
	m := wire.Message{Epoch: epoch, ID: key.Draw(t, "id").String()}
	m.Kind = rapid.SampledFrom([]string{wire.KindEpoch, wire.KindEntry, wire.KindKey, wire.KindJoin, wire.KindOut, wire.KindTick}).Draw(t, "kind")
	m.At, m.Until = rapid.Int64Range(1, 1<<46-1).Draw(t, "at"), rapid.Int64Range(1, 1<<36).Draw(t, "until")
	switch m.Kind {
	case wire.KindEpoch:
		d := stamp.Draw(t, "d")
		m.D, m.Restore = &d, rapid.Bool().Draw(t, "restore")
	case wire.KindKey:
		m.KeyID, m.JWS = rapid.StringMatching(`[^\x00-\x1f\x7f-\x9f]{1,30}`).Draw(t, "kid"), "e30.e30."+word.Draw(t, "sig")
	case wire.KindJoin:
		m.Name, m.Instance, m.LimitMS = word.Draw(t, "name"), word.Draw(t, "instance"), rapid.Int64Range(1, 60000).Draw(t, "limit")
		m.Past = rapid.SampledFrom([]string{wire.PastDeny, wire.PastRedis, wire.PastAllow}).Draw(t, "past")
	case wire.KindOut:
		m.Name, m.Instance = word.Draw(t, "name"), word.Draw(t, "instance")
		m.By = rapid.SampledFrom([]string{wire.BySelf, wire.ByOperator, wire.ByProof}).Draw(t, "by")
	case wire.KindEntry:
		drawEntry(t, &m, rapid.SliceOfNDistinct(key, 1, 30, rapid.ID[revoke.Key]).Draw(t, "keys"), stamp)
	}
	return m
}

func drawEntry(t *rapid.T, m *wire.Message, keys []revoke.Key, stamp *rapid.Generator[revoke.Stamp]) {
	for _, k := range keys {
		switch rapid.IntRange(0, 4).Draw(t, "op") {
		case 0:
			m.Cut = append(m.Cut, k)
		case 1:
			m.End = append(m.End, k)
		case 2:
			m.Hold = append(m.Hold, k)
		case 3:
			m.Hold = append(m.Hold, k)
			if m.First == nil {
				m.First = map[revoke.Key]revoke.Stamp{}
			}
			m.First[k] = stamp.Draw(t, "first")
		case 4:
			if m.Release == nil {
				m.Release = map[revoke.Key]revoke.Stamp{}
			}
			m.Release[k] = stamp.Draw(t, "release")
		}
	}
	if len(m.Hold) > 0 && rapid.Bool().Draw(t, "ends") {
		m.HoldEnd, m.Then = m.At, wire.ThenRelease
	}
	if rapid.IntRange(0, 3).Draw(t, "lost") == 0 {
		at := stamp.Draw(t, "recommitted")
		m.Recommitted = &at
	}
}

func TestEveryMessageIsWhatTheSchemaSaysAndComesBack(t *testing.T) {
	all := schematest.Load(t)
	rapid.Check(t, func(r *rapid.T) {
		m := genMessage(r)
		b, err := wire.Encode(m)
		if err != nil {
			r.Fatalf("Encode(%+v): %v", m, err)
		}
		if err := all.Check(t, "message.json", b); err != nil {
			r.Fatalf("%s\n%v", b, err)
		}
		got, err := wire.Decode(b)
		if err != nil {
			r.Fatalf("Decode(%s): %v", b, err)
		}
		pos := revoke.Stamp{Epoch: m.Epoch, Seq: 1}
		if x, y := maps.Collect(m.States(pos)), maps.Collect(got.States(pos)); !maps.Equal(x, y) {
			r.Fatalf("folds as %v, was %v", y, x)
		}
		for _, sortable := range []*[]revoke.Key{&got.Hold, &m.Hold} {
			slices.SortFunc(*sortable, func(a, b revoke.Key) int { return bytes.Compare(a[:], b[:]) })
		}
		m.Ops = got.Ops
		if !reflect.DeepEqual(got, m) {
			r.Fatalf("got  %+v\nwant %+v", got, m)
		}
	})
}

// Promise 3, by messages of all kinds: any order, any repetition, one state.
func TestMessagesInAnyOrderAndRepetitionAreOneState(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		type placed struct {
			m  wire.Message
			at revoke.Stamp
		}
		var log []placed
		for i := range rapid.IntRange(1, 12).Draw(r, "messages") {
			m := genMessage(r)
			// Few targets, so that they meet.
			for _, ks := range [][]revoke.Key{m.Cut, m.End, m.Hold} {
				for j := range ks {
					if _, first := m.First[ks[j]]; !first {
						ks[j] = revoke.Key{byte(j % 5)}
					}
				}
			}
			log = append(log, placed{m, revoke.Stamp{Epoch: m.Epoch, Seq: uint64(i + 1)}})
		}
		fold := func(order []placed) map[revoke.Key]revoke.State {
			v := revoke.NewView()
			for _, p := range order {
				if e, ok := p.m.EpochState(); ok {
					v.MergeEpoch(e)
				}
				for k, s := range p.m.States(p.at) {
					v.Merge(k, s)
				}
			}
			return maps.Collect(v.All)
		}
		want := fold(log)
		again := append(slices.Clone(log), rapid.SliceOf(rapid.SampledFrom(log)).Draw(r, "again")...)
		if got := fold(rapid.Permutation(again).Draw(r, "order")); !maps.Equal(got, want) {
			r.Fatalf("got  %v\nwant %v", got, want)
		}
	})
}
