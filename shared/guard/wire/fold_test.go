package wire

import (
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/guard/revoke"
)

func TestMessageFoldsAtItsPosition(t *testing.T) {
	pos := revoke.Stamp{Epoch: testEpoch, Seq: 40}
	all := samples()
	until := all["cut"].Until
	lost := *all["recommitted"].Recommitted
	heldAgain := all["again"]
	heldAgain.Recommitted = &lost
	for name, c := range map[string]struct {
		m    Message
		want map[revoke.Key]revoke.State
	}{
		"cut": {all["cut"], map[revoke.Key]revoke.State{
			key(1): {Cut: pos, CutAt: testEpoch + 5, Until: until}, key(2): {Cut: pos, CutAt: testEpoch + 5, Until: until},
		}},
		"end":  {all["end"], map[revoke.Key]revoke.State{key(1): {Cut: pos, CutAt: testEpoch + 5, Ended: true, Until: until}}},
		"hold": {all["hold"], map[revoke.Key]revoke.State{key(1): {Held: pos, Until: until}}},
		"release": {all["release"], map[revoke.Key]revoke.State{
			key(1): {Released: *at(testEpoch, 4), Until: until}, key(2): {Until: until},
		}},
		"a hold again stands at its first position": {all["again"], map[revoke.Key]revoke.State{
			key(1): {Held: pos, Until: until}, key(2): {Held: *at(testEpoch, 4), Until: until},
		}},
		"recommitted stands where it stood": {all["recommitted"], map[revoke.Key]revoke.State{
			key(1): {Cut: lost, CutAt: testEpoch + 5, Until: until}, key(2): {Cut: lost, CutAt: testEpoch + 5, Ended: true, Until: until},
		}},
		"a hold again, recommitted": {heldAgain, map[revoke.Key]revoke.State{
			key(1): {Held: lost, Until: until}, key(2): {Held: *at(testEpoch, 4), Until: until},
		}},
		"tick": {all["tick"], map[revoke.Key]revoke.State{}},
		"key":  {all["key"], map[revoke.Key]revoke.State{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := maps.Collect(c.m.States(pos)); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
			for range c.m.States(pos) {
				break // a reader may stop at any target
			}
		})
	}
	if e, ok := all["epoch"].EpochState(); !ok || e != (revoke.Epoch{Number: testEpoch, D: *at(testEpoch-1, 7), Restore: true}) {
		t.Errorf("%+v, %t", e, ok)
	}
	if _, ok := all["cut"].EpochState(); ok {
		t.Error("an entry began an epoch")
	}
}

// What a lost history said must hit what was made in it, and leave alone what
// was made since, even of a position that has a greater sequence.
func TestRecommittedCutSparesWhatWasMadeSince(t *testing.T) {
	v := revoke.NewView()
	v.MergeEpoch(revoke.Epoch{Number: testEpoch - 1})
	v.MergeEpoch(revoke.Epoch{Number: testEpoch, D: *at(testEpoch-1, 2)})
	for k, s := range samples()["recommitted"].States(*at(testEpoch, 90)) {
		v.Merge(k, s)
	}
	for stamp, want := range map[revoke.Stamp]bool{
		*at(testEpoch-1, 1): true,
		*at(testEpoch-1, 9): true, // made after the cut, in the part that was lost
		*at(testEpoch, 3):   false,
	} {
		if got := v.Hit(key(1), stamp); got != want {
			t.Errorf("%s: hit %t", stamp, got)
		}
	}
}

func TestLastSequenceOfTheHeaderCounts(t *testing.T) {
	body := string(mustEncode(t, samples()["cut"]))
	header := func() map[string][]string {
		return map[string][]string{
			Header: {body}, "Nats-Sequence": {"7", "41"}, "Nats-Stream": {Stream},
			"Nats-Time-Stamp": {"2025-11-24T16:00:00.123456789Z"},
		}
	}
	got, err := FromHeader(header())
	if err != nil || got.Sequence != 41 || got.Time != 1764000000123 || got.Message.ID != testID {
		t.Fatalf("%+v, %v", got, err)
	}
	if p := got.Position(); p.Stamp != *at(testEpoch, 41) || p.ID != testID {
		t.Errorf("position %+v", p)
	}
	for name, change := range map[string]func(map[string][]string){
		"no sequence":        func(h map[string][]string) { delete(h, "Nats-Sequence") },
		"sequence 0":         func(h map[string][]string) { h["Nats-Sequence"] = []string{"41", "0"} },
		"sequence of words":  func(h map[string][]string) { h["Nats-Sequence"] = []string{"x"} },
		"no time":            func(h map[string][]string) { delete(h, "Nats-Time-Stamp") },
		"time of words":      func(h map[string][]string) { h["Nats-Time-Stamp"] = []string{"now"} },
		"no wire part":       func(h map[string][]string) { delete(h, Header) },
		"two wire parts":     func(h map[string][]string) { h[Header] = []string{body, body} },
		"another spelling":   func(h map[string][]string) { h["quash"] = h[Header]; delete(h, Header) },
		"a broken wire part": func(h map[string][]string) { h[Header] = []string{body[1:]} },
	} {
		t.Run(name, func(t *testing.T) {
			h := header()
			change(h)
			if s, err := FromHeader(h); !errors.Is(err, ErrMalformed) {
				t.Errorf("got %+v, %v", s, err)
			}
		})
	}
	h := header()
	h[Header] = []string{strings.Replace(body, `"kind":"entry"`, `"kind":"later"`, 1)}
	s, err := FromHeader(h)
	if !errors.Is(err, ErrUnknownKind) || s.Sequence != 41 || s.Message.ID != testID {
		t.Errorf("of an unknown kind the place is known all the same: %+v, %v", s, err)
	}
}
