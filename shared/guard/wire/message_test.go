package wire

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/guard/revoke"
)

const (
	testID    = "AAAAAAAAAAAAAAAAAAAAAA"
	testEpoch = 1764000000000
)

func key(n int) revoke.Key {
	var k revoke.Key
	k[0], k[1], k[15] = byte(n), byte(n>>8), 1
	return k
}

func at(epoch, seq uint64) *revoke.Stamp { return &revoke.Stamp{Epoch: epoch, Seq: seq} }

// samples has a message of every kind and op.
func samples() map[string]Message {
	head := func(kind string) Message { return Message{Kind: kind, ID: testID, Epoch: testEpoch} }
	entry := func(change func(*Message)) Message {
		m := head(KindEntry)
		m.At, m.Until = testEpoch+5, testEpoch/1000+4200
		change(&m)
		return m
	}
	epoch, k, join, out := head(KindEpoch), head(KindKey), head(KindJoin), head(KindOut)
	epoch.D, epoch.Restore = at(testEpoch-1, 7), true
	k.KeyID, k.JWS, k.Until, k.At = "kid \"1\" <é>", "eyJh.eyJi.c2ln", testEpoch/1000, testEpoch
	join.Name, join.Instance, join.LimitMS, join.Past = "orders", "inst-1", 15000, PastDeny
	out.Name, out.Instance, out.By = "orders", "inst-1", BySelf
	first := head(KindEpoch)
	first.D = &revoke.Stamp{}
	optional := head(KindTick)
	optional.Optional, optional.At = true, testEpoch
	return map[string]Message{
		"tick": head(KindTick), "epoch": epoch, "first epoch": first, "key": k, "join": join, "out": out, "optional": optional,
		"cut":     entry(func(m *Message) { m.Cut = []revoke.Key{key(1), key(2)} }),
		"end":     entry(func(m *Message) { m.End = []revoke.Key{key(1)} }),
		"hold":    entry(func(m *Message) { m.Hold, m.HoldEnd, m.Then = []revoke.Key{key(1)}, testEpoch+9, ThenRevoke }),
		"release": entry(func(m *Message) { m.Release = map[revoke.Key]revoke.Stamp{key(1): *at(testEpoch, 4), key(2): {}} }),
		"again": entry(func(m *Message) {
			m.Hold, m.First = []revoke.Key{key(1), key(2)}, map[revoke.Key]revoke.Stamp{key(2): *at(testEpoch, 4)}
		}),
		"recommitted": entry(func(m *Message) {
			m.Cut, m.End, m.Recommitted = []revoke.Key{key(1)}, []revoke.Key{key(2)}, at(testEpoch-1, 4)
		}),
	}
}

func mustEncode(t testing.TB, m Message) []byte {
	t.Helper()
	b, err := Encode(m)
	if err != nil {
		t.Fatalf("Encode(%+v): %v", m, err)
	}
	return b
}

func TestEncodedMessageDecodesToItself(t *testing.T) {
	for name, m := range samples() {
		t.Run(name, func(t *testing.T) {
			b := mustEncode(t, m)
			if !json.Valid(b) {
				t.Fatalf("not JSON: %s", b)
			}
			got, err := Decode(b)
			if err != nil {
				t.Fatalf("Decode(%s): %v", b, err)
			}
			m.Ops = got.Ops // filled by Encode
			if m.Kind == KindEntry && len(got.Ops) == 0 {
				t.Error("an entry does not name its ops")
			}
			if !reflect.DeepEqual(got, m) {
				t.Errorf("got  %+v\nwant %+v", got, m)
			}
			if again := mustEncode(t, got); !bytes.Equal(again, b) {
				t.Errorf("encodes again as\n%s\nwas\n%s", again, b)
			}
		})
	}
}

func TestThousandTargetsOfAnyOpFitIntoAHeader(t *testing.T) {
	far := revoke.Stamp{Epoch: MaxEpoch, Seq: math.MaxUint64}
	ks, pos := []revoke.Key{}, map[revoke.Key]revoke.Stamp{}
	for i := range MaxTargets {
		ks = append(ks, key(i))
		pos[key(i)] = far
	}
	m := Message{Kind: KindEntry, ID: testID, Epoch: MaxEpoch, At: maxMillis, Until: maxMillis / 1000}
	for name, set := range map[string]func(*Message){
		"cut":     func(m *Message) { m.Cut = ks },
		"end":     func(m *Message) { m.End = ks },
		"hold":    func(m *Message) { m.Hold, m.HoldEnd, m.Then = ks, maxMillis, ThenRelease },
		"again":   func(m *Message) { m.Hold, m.First, m.HoldEnd, m.Then = ks, pos, maxMillis, ThenRelease },
		"release": func(m *Message) { m.Release = pos },
		"of a lost history": func(m *Message) {
			m.Hold, m.First, m.Recommitted = ks, pos, at(MaxEpoch-1, math.MaxUint64)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := m
			set(&m)
			b := mustEncode(t, m)
			got, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(maps.Collect(got.States(*at(MaxEpoch, 9)))); n != MaxTargets {
				t.Errorf("%d targets came back of %d", n, MaxTargets)
			}
			t.Logf("%d bytes", len(b))
		})
	}
	m.Cut = append(slices.Clone(ks), key(MaxTargets))
	if b, err := Encode(m); err == nil {
		t.Errorf("Encode took 1001 targets (%d bytes)", len(b))
	}
}

func TestUnreadableMessageIsNeverPassedOver(t *testing.T) {
	const head = `"kind":"entry","id":"` + testID + `","epoch":1764000000000`
	const tail = `"at":1764000000000,"until":1764000000`
	k, k2 := key(1).String(), key(2).String()
	cut := `,"ops":["cut"],"cut":["` + k + `"],`
	for name, c := range map[string]struct {
		json string
		want error
	}{
		"empty":                    {``, ErrMalformed},
		"not an object":            {`[]`, ErrMalformed},
		"trailing":                 {`{` + head + cut + tail + `}x`, ErrMalformed},
		"no kind":                  {`{"id":"` + testID + `","epoch":1}`, ErrMalformed},
		"unknown kind":             {`{"kind":"purge","id":"` + testID + `","epoch":1,"cut":{"any":1}}`, ErrUnknownKind},
		"unknown kind without id":  {`{"kind":"purge","epoch":1}`, ErrMalformed},
		"unknown op":               {`{` + head + `,"ops":["cut","fence"],"cut":["` + k + `"],"fence":{},` + tail + `}`, ErrUnknownOp},
		"only an unknown op":       {`{` + head + `,"ops":["fence"],"fence":{},` + tail + `}`, ErrUnknownOp},
		"kind in capitals":         {`{"KIND":"tick","kind":"tick","id":"` + testID + `","epoch":1}`, ErrMalformed},
		"kind with a kelvin sign":  {`{"\u212aind":"tick","kind":"tick","id":"` + testID + `","epoch":1}`, ErrMalformed},
		"kind twice":               {`{"kind":"tick","kind":"entry","id":"` + testID + `","epoch":1}`, ErrMalformed},
		"kind twice, once escaped": {`{"kind":"tick","k\u0069nd":"entry","id":"` + testID + `","epoch":1}`, ErrMalformed},
		"cut twice":                {`{` + head + cut + cut[14:] + tail + `}`, ErrMalformed},
		"a target in two ops":      {`{` + head + `,"ops":["cut","end"],"cut":["` + k + `"],"end":["` + k + `"],` + tail + `}`, ErrMalformed},
		"a target twice":           {`{` + head + `,"ops":["cut"],"cut":["` + k + `","` + k + `"],` + tail + `}`, ErrMalformed},
		"no ops":                   {`{` + head + `,"cut":["` + k + `"],` + tail + `}`, ErrMalformed},
		"ops without their member": {`{` + head + `,"ops":["cut","end"],"cut":["` + k + `"],` + tail + `}`, ErrMalformed},
		"a member without its op":  {`{` + head + `,"ops":["cut"],"cut":["` + k + `"],"end":["` + k2 + `"],` + tail + `}`, ErrMalformed},
		"no targets":               {`{` + head + `,"ops":[],` + tail + `}`, ErrMalformed},
		"empty cut":                {`{` + head + `,"ops":["cut"],"cut":[],` + tail + `}`, ErrMalformed},
		"null cut":                 {`{` + head + `,"ops":["cut"],"cut":null,` + tail + `}`, ErrMalformed},
		"short key":                {`{` + head + `,"ops":["cut"],"cut":["AAAA"],` + tail + `}`, ErrMalformed},
		"key with loose bits":      {`{` + head + `,"ops":["cut"],"cut":["AAAAAAAAAAAAAAAAAAAAAB"],` + tail + `}`, ErrMalformed},
		"no until":                 {`{` + head + cut + `"at":1}`, ErrMalformed},
		"until as text":            {`{` + head + cut + `"at":1,"until":"9"}`, ErrMalformed},
		"until with a fraction":    {`{` + head + cut + `"at":1,"until":9.5}`, ErrMalformed},
		"until below zero":         {`{` + head + cut + `"at":1,"until":-9}`, ErrMalformed},
		"a tick that cuts":         {`{"kind":"tick","id":"` + testID + `","epoch":1` + cut + tail + `}`, ErrMalformed},
		"epoch 0":                  {`{"kind":"tick","id":"` + testID + `","epoch":0}`, ErrMalformed},
		"short id":                 {`{"kind":"tick","id":"AAAA","epoch":1}`, ErrMalformed},
		"epoch without d":          {`{"kind":"epoch","id":"` + testID + `","epoch":5}`, ErrMalformed},
		"epoch with d in itself":   {`{"kind":"epoch","id":"` + testID + `","epoch":5,"d":"5.1"}`, ErrMalformed},
		"first of another target":  {`{` + head + `,"ops":["cut"],"cut":["` + k + `"],"first":{"` + k + `":"1.1"},` + tail + `}`, ErrMalformed},
		"first of zero":            {`{` + head + `,"ops":["hold"],"first":{"` + k + `":"0.0"},` + tail + `}`, ErrMalformed},
		"release of the future":    {`{` + head + `,"ops":["release"],"release":{"` + k + `":"1764000000001.1"},` + tail + `}`, ErrMalformed},
		"hold end without hold":    {`{` + head + cut + `"hold_end":5,` + tail + `}`, ErrMalformed},
		"unknown then":             {`{` + head + `,"ops":["hold"],"hold":["` + k + `"],"hold_end":5,"then":"x",` + tail + `}`, ErrMalformed},
		"recommitted in its epoch": {`{` + head + cut + `"recommitted":"1764000000000.4",` + tail + `}`, ErrMalformed},
		"join of no limit":         {`{"kind":"join","id":"` + testID + `","epoch":1,"name":"a","instance":"b","past":"deny"}`, ErrMalformed},
		"join that does whatever":  {`{"kind":"join","id":"` + testID + `","epoch":1,"name":"a","instance":"b","limit_ms":1,"past":"x"}`, ErrMalformed},
		"join with a dot":          {`{"kind":"join","id":"` + testID + `","epoch":1,"name":"a","instance":"b.c","limit_ms":1,"past":"deny"}`, ErrMalformed},
		"out by nobody":            {`{"kind":"out","id":"` + testID + `","epoch":1,"name":"a","instance":"b"}`, ErrMalformed},
		"key without a signature":  {`{"kind":"key","id":"` + testID + `","epoch":1,"until":5,"kid":"a"}`, ErrMalformed},
		"key with half of one":     {`{"kind":"key","id":"` + testID + `","epoch":1,"until":5,"kid":"a","jws":"a.b"}`, ErrMalformed},
		"invalid UTF-8":            {"{\"kind\":\"tick\",\"id\":\"" + testID + "\",\"epoch\":1,\"x\":\"\xff\"}", ErrMalformed},
		"half a surrogate":         {`{"kind":"tick","id":"` + testID + `","epoch":1,"x":"\ud800"}`, ErrMalformed},
		"deep":                     {`{"kind":"tick","id":"` + testID + `","epoch":1,"x":` + strings.Repeat("[", 10000) + strings.Repeat("]", 10000) + `}`, ErrMalformed},
		"long":                     {`{"kind":"tick","id":"` + testID + `","epoch":1,"x":"` + strings.Repeat("x", MaxHeader) + `"}`, ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Decode([]byte(c.json))
			if !errors.Is(err, c.want) {
				t.Fatalf("Decode(%.300s)\ngot  %+v, %v\nwant %v", c.json, m, err, c.want)
			}
			if !errors.Is(err, ErrMalformed) && m.ID != testID {
				t.Errorf("the id is lost: %+v", m)
			}
		})
	}
}

func TestUnknownMembersAndOptionalMessagesAreIgnored(t *testing.T) {
	k := key(1).String()
	for name, text := range map[string]string{
		"unknown members": `{"kind":"tick","later":{"a":[1.5e3,null,true,"\ud83d\ude00"]},"id":"` + testID + `","epoch":1}`,
		"optional kind":   `{"kind":"news","cut":7,"optional":true,"id":"` + testID + `","epoch":1}`,
		"optional op":     `{"kind":"entry","optional":true,"id":"` + testID + `","epoch":1,"ops":["note","cut"],"note":1,"cut":["` + k + `"],"at":1,"until":2}`,
		"any order, space": ` { "until" : 2 , "at" : 1 , "cut" : [ "` + k + `" ] , "ops" : [ "cut" ] , "epoch" : 1 ,
			"id" : "` + testID + `", "kind" : "entry" } `,
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Decode([]byte(text))
			if err != nil || m.ID != testID || m.Epoch != 1 {
				t.Fatalf("got %+v, %v", m, err)
			}
			if want := strings.Contains(text, `"ops"`); want != (len(m.Cut) == 1) {
				t.Errorf("cut: %v", m.Cut)
			}
		})
	}
}

func TestNewIDIsRandomAndValid(t *testing.T) {
	a, err := NewID(rand.Reader)
	b, err2 := NewID(rand.Reader)
	if err != nil || err2 != nil || a == b || CheckMessageID(a) != nil {
		t.Errorf("%q %v, %q %v", a, err, b, err2)
	}
	if id, err := NewID(strings.NewReader("short")); err == nil {
		t.Errorf("an id %q of too few random bytes", id)
	}
}

// FuzzMessage: what decodes is JSON, encodes again, and comes back the same.
func FuzzMessage(f *testing.F) {
	for _, m := range samples() {
		f.Add(mustEncode(f, m))
	}
	f.Add([]byte(`{"kind":"news","optional":true,"id":"` + testID + `","epoch":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Decode(data)
		if err != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("decoded what is not JSON: %q", data)
		}
		if !knownKind(m.Kind) {
			return
		}
		b, err := Encode(m)
		if err != nil {
			t.Fatalf("decoded, but does not encode: %v\n%s", err, data)
		}
		again, err := Decode(b)
		if err != nil {
			t.Fatalf("does not decode again: %v\n%s", err, b)
		}
		pos := revoke.Stamp{Epoch: m.Epoch, Seq: 1}
		if x, y := maps.Collect(m.States(pos)), maps.Collect(again.States(pos)); !reflect.DeepEqual(x, y) {
			t.Fatalf("folds differently: %v, %v", x, y)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for name, m := range map[string]Message{"kind=tick": samples()["tick"], "kind=cut": samples()["cut"], "kind=hold": samples()["hold"]} {
		data := mustEncode(b, m)
		b.Run(name+"/impl=ours", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
