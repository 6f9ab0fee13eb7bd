package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Promise 3: merging is commutative and idempotent. Any entries in any order,
// any number of times, by whatever way they come, give the same state. Revoked
// is final; held can be released.

// history is a random log, with what it must mean worked out the slow way.
type history struct {
	rnd      *rand.Rand
	messages []wire.Stored // all that was ever committed
	log      []wire.Stored // what the log has of it now: the rest was lost with its history
	keys     []revoke.Key
	epochs   []revoke.Epoch
}

func newHistory(seed uint64) *history {
	h := &history{rnd: rand.New(rand.NewPCG(seed, 3))}
	for i := range 6 {
		t, err := revoke.NewTarget("default", revoke.Own, revoke.KindPrincipal, fmt.Sprintf("p%d", i))
		if err != nil {
			panic(err)
		}
		h.keys = append(h.keys, t.Key())
	}
	number, seq := uint64(1764000000000), uint64(0)
	for e := range 1 + h.rnd.IntN(3) {
		d := revoke.Stamp{}
		if e > 0 {
			// The newest that both histories share lies somewhere before.
			h.log = h.log[:1+h.rnd.IntN(len(h.log))]
			d = h.log[len(h.log)-1].Position().Stamp
			number += 1 + h.rnd.Uint64N(5)
			seq = d.Seq
		}
		h.epochs = append(h.epochs, revoke.Epoch{Number: number, D: d})
		seq++
		h.add(seq, wire.Message{Kind: wire.KindEpoch, Epoch: number, D: &d})
		for range 3 + h.rnd.IntN(12) {
			seq += 1 + h.rnd.Uint64N(3) // ticks in between
			h.entry(seq, number)
		}
	}
	return h
}

func (h *history) add(seq uint64, m wire.Message) {
	m.ID = fmt.Sprintf("%020dAA", len(h.messages))
	stored := wire.Stored{Sequence: seq, Time: int64(seq), Message: m}
	h.messages, h.log = append(h.messages, stored), append(h.log, stored)
}

// entry adds a random entry; its targets stand under one op each.
func (h *history) entry(seq, epoch uint64) {
	m := wire.Message{Kind: wire.KindEntry, Epoch: epoch, At: 1764000000000 + h.rnd.Int64N(1000), Until: 1800000000 + h.rnd.Int64N(1000)}
	for _, i := range h.rnd.Perm(len(h.keys))[:1+h.rnd.IntN(3)] {
		k := h.keys[i]
		switch h.rnd.IntN(8) {
		case 0, 1:
			m.Cut = append(m.Cut, k)
		case 2:
			m.End = append(m.End, k)
		case 3, 4:
			m.Hold = append(m.Hold, k)
			if h.rnd.IntN(3) == 0 { // committed again: it stands at its first position
				h.put(&m.First, k)
			}
		default:
			h.put(&m.Release, k)
		}
	}
	if len(m.Cut) > 0 && len(m.Hold)+len(m.Release)+len(m.End) == 0 && h.rnd.IntN(4) == 0 {
		if at := h.some(); at.Epoch < epoch {
			m.Recommitted = &at
		}
	}
	h.add(seq, m)
}

func (h *history) put(m *map[revoke.Key]revoke.Stamp, k revoke.Key) {
	if *m == nil {
		*m = map[revoke.Key]revoke.Stamp{}
	}
	(*m)[k] = h.some()
}

// some returns a position of the log so far.
func (h *history) some() revoke.Stamp {
	return h.messages[h.rnd.IntN(len(h.messages))].Position().Stamp
}

// stamps are what something may have been born at.
func (h *history) stamps() []revoke.Stamp {
	out := []revoke.Stamp{{}}
	for _, m := range h.messages {
		s := m.Position().Stamp
		out = append(out, s, revoke.Stamp{Epoch: s.Epoch, Seq: s.Seq + 1})
	}
	return out
}

// clamp is the design's "every stamp and every released of an older epoch above
// D counts as D, and every epoch's D applies", word by word.
func clamp(s revoke.Stamp, epochs []revoke.Epoch) revoke.Stamp {
	least := s
	for _, e := range epochs {
		if s.Epoch < e.Number && before(e.D, least) {
			least = e.D
		}
	}
	return least
}

func before(a, b revoke.Stamp) bool {
	return a.Epoch < b.Epoch || a.Epoch == b.Epoch && a.Seq < b.Seq
}

// hit says by the whole history, message by message, whether a target hits what
// was born at a stamp.
func (h *history) hit(k revoke.Key, born revoke.Stamp) (hit, final bool) {
	var held, released revoke.Stamp
	for _, s := range h.messages {
		m, at := s.Message, s.Position().Stamp
		if m.Recommitted != nil {
			at = *m.Recommitted
		}
		for _, c := range append(append([]revoke.Key{}, m.Cut...), m.End...) {
			final = final || c == k && before(clamp(born, h.epochs), at)
		}
		for _, e := range m.End {
			final = final || e == k
		}
		for _, c := range m.Hold {
			if first, again := m.First[c]; again {
				at = first
			}
			if c == k && before(held, at) {
				held = at
			}
			at = s.Position().Stamp
		}
		if r, ok := m.Release[k]; ok && before(released, r) {
			released = r
		}
	}
	return final || before(clamp(released, h.epochs), held), final
}

// shuffled returns the messages in a random order, some of them several times.
func (h *history) shuffled() []wire.Stored {
	out := append([]wire.Stored(nil), h.messages...)
	for range h.rnd.IntN(len(out)) {
		out = append(out, out[h.rnd.IntN(len(h.messages))])
	}
	h.rnd.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// fold takes one message as a reader does, through the wire.
func fold(t *testing.T, v *revoke.View, s wire.Stored) {
	t.Helper()
	text, err := wire.Encode(s.Message)
	if err != nil {
		t.Fatalf("%+v: %v", s.Message, err)
	}
	m, err := wire.Decode(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	for k, st := range m.States(s.Position().Stamp) {
		v.Merge(k, st)
	}
	if e, ok := m.EpochState(); ok {
		v.MergeEpoch(e)
	}
}

// throughPages merges one view into another as a whole state comes.
func throughPages(t *testing.T, from, into *revoke.View) {
	t.Helper()
	pages, err := wire.EncodePages(wire.Snapshot{ID: "AwMDAwMDAwMDAwMDAwMDAw", Epochs: from.Epochs(), States: from.All})
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range pages {
		p, err := wire.DecodePage(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range p.Epochs {
			into.MergeEpoch(e)
		}
		for _, s := range p.States {
			into.Merge(s.Key, s.State)
		}
	}
}

// throughRedis merges one view into another as its values in Redis say.
func throughRedis(t *testing.T, from, into *revoke.View) {
	t.Helper()
	for k, s := range from.All {
		again, err := wire.ParseRedisState(wire.RedisState(s))
		if err != nil {
			t.Fatal(err)
		}
		into.Merge(k, again)
	}
	for _, e := range from.Epochs() {
		into.MergeEpoch(e)
	}
}

func TestPromise3AnyOrderAndAnyWayGiveTheSameState(t *testing.T) {
	t.Parallel()
	first := uint64(time.Now().UnixNano())
	for i := range uint64(200) {
		seed := first + i
		h := newHistory(seed)
		views := map[string]*revoke.View{"in order": revoke.NewView(), "shuffled": revoke.NewView(), "in parts": revoke.NewView()}
		for _, m := range h.messages {
			fold(t, views["in order"], m)
		}
		for _, m := range h.shuffled() {
			fold(t, views["shuffled"], m)
		}
		part := [2]*revoke.View{revoke.NewView(), revoke.NewView()}
		for _, m := range h.shuffled() {
			fold(t, part[h.rnd.IntN(2)], m)
		}
		throughPages(t, part[0], views["in parts"])
		throughRedis(t, part[1], views["in parts"])
		throughPages(t, part[0], views["in parts"])
		for name, v := range views {
			for _, k := range h.keys {
				if got, want := v.State(k), views["in order"].State(k); got != want {
					t.Fatalf("seed %d: %s: %s is %+v, in order %+v", seed, name, k, got, want)
				}
				for _, born := range h.stamps() {
					want, _ := h.hit(k, born)
					if got := v.Hit(k, born); got != want || v.State(k).Hits(born, v.Epochs()) != want {
						t.Fatalf("seed %d: %s: %s hits what was born at %s: %t, want %t (state %+v, epochs %+v)", seed, name, k, born, got, want, v.State(k), v.Epochs())
					}
				}
			}
		}
	}
}

// However much comes later, what was revoked once stays so.
func TestPromise3RevokedIsFinal(t *testing.T) {
	t.Parallel()
	first := uint64(time.Now().UnixNano())
	for i := range uint64(100) {
		seed := first + i
		h := newHistory(seed)
		v := revoke.NewView()
		type dead struct {
			k    revoke.Key
			born revoke.Stamp
		}
		gone := map[dead]bool{}
		for _, m := range h.shuffled() {
			fold(t, v, m)
			for _, k := range h.keys {
				for _, born := range h.stamps() {
					s, es := v.State(k), v.Epochs()
					if s.Ended || es.Clamp(born).Less(s.Cut) {
						gone[dead{k, born}] = true
					}
					if gone[dead{k, born}] && !v.Hit(k, born) {
						t.Fatalf("seed %d: what was born at %s is alive again: %+v", seed, born, s)
					}
				}
			}
		}
	}
}

// A release undoes the holds that its asker had seen and no newer one, in
// whatever order they come; and once it is there, what it names stays released.
func TestPromise3AReleaseUndoesNoNewerHold(t *testing.T) {
	t.Parallel()
	target, err := revoke.NewTarget("default", revoke.Own, revoke.KindKey, "k")
	if err != nil {
		t.Fatal(err)
	}
	k := target.Key()
	const epoch = 1764000000000
	at := func(seq uint64) revoke.Stamp { return revoke.Stamp{Epoch: epoch, Seq: seq} }
	entry := func(seq uint64, m wire.Message) wire.Stored {
		m.Kind, m.Epoch, m.At, m.Until, m.ID = wire.KindEntry, epoch, epoch, 1800000000, fmt.Sprintf("%020dAA", seq)
		return wire.Stored{Sequence: seq, Time: int64(seq), Message: m}
	}
	messages := []wire.Stored{
		entry(1, wire.Message{Hold: []revoke.Key{k}}),
		entry(2, wire.Message{Hold: []revoke.Key{k}}),
		entry(3, wire.Message{Release: map[revoke.Key]revoke.Stamp{k: at(1)}}), // whoever asked had not seen the second
		entry(4, wire.Message{Hold: []revoke.Key{k}, First: map[revoke.Key]revoke.Stamp{k: at(2)}}),
		entry(5, wire.Message{Release: map[revoke.Key]revoke.Stamp{k: at(2)}}),
		entry(6, wire.Message{Hold: []revoke.Key{k}}),
	}
	held := []uint64{1, 2, 0, 2, 0, 6} // by each, 0 for none
	released := []uint64{0, 0, 1, 0, 2, 0}
	var try func(order []int, rest []int)
	try = func(order, rest []int) {
		v, h, r := revoke.NewView(), uint64(0), uint64(0)
		for _, i := range order {
			fold(t, v, messages[i])
			h, r = max(h, held[i]), max(r, released[i])
		}
		if got := v.Hit(k, at(100)); got != (h > r) {
			t.Fatalf("after %v: held %t, want %t: %+v", order, got, h > r, v.State(k))
		}
		for j, i := range rest {
			others := append(append([]int{}, rest[:j]...), rest[j+1:]...)
			try(append(append([]int{}, order...), i), others)
		}
	}
	try(nil, []int{0, 1, 2, 3, 4, 5})
}

// Held can be released, revoked can't: by the whole product.
func TestPromise3HeldComesBackAndRevokedDoesNot(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	admin := s.token(s.operator)
	g := s.guard(guard.WithNATS(s.nats.URL, s.nats.Creds(t, "orders")))
	g.ready()
	key, token := s.issue(admin, "alice")
	g.until(token, http.StatusOK)
	again := func(op, key string) {
		t.Helper()
		r := s.api(admin, http.MethodPost, "/v1/revocations", map[string]any{"op": op, "targets": []string{"principal:alice"}, "reason": "test"}, "Idempotency-Key", key)
		if r.status/100 != 2 {
			t.Fatalf("%s: %d: %s", op, r.status, r.body)
		}
	}
	again("hold", "h1")
	g.until(token, http.StatusUnauthorized)
	again("release", "r1")
	g.until(token, http.StatusOK)
	again("hold", "h2")
	g.until(token, http.StatusUnauthorized)
	for _, op := range []string{"release", "hold"} { // repeated, as after a lost answer
		again(op, map[string]string{"release": "r1", "hold": "h1"}[op])
		if d := g.Decide(t.Context(), token, guard.Requirement{MaxStale: guard.Probe}); d.Status != http.StatusUnauthorized {
			t.Errorf("the first %s, sent again, undid the second hold: %d", op, d.Status)
		}
	}
	again("release", "r2")
	g.until(token, http.StatusOK)
	again("revoke", "c1")
	g.until(token, http.StatusUnauthorized)
	if r := s.api(admin, http.MethodPost, "/v1/revocations", map[string]any{"op": "release", "targets": []string{"principal:alice"}, "reason": "test"}); r.status/100 == 2 {
		t.Errorf("a release of what is not held: %d", r.status)
	}
	again("hold", "h3")
	again("release", "r3")
	if d := g.Decide(t.Context(), token, guard.Requirement{MaxStale: guard.Probe}); d.Status != http.StatusUnauthorized {
		t.Errorf("revoked, then held and released: %d", d.Status)
	}
	if tok, _ := s.tryExchange(key.Secret); tok != "" {
		t.Error("the key that was cut gives a token again")
	}
}
