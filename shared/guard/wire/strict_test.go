package wire

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/guard/revoke"
)

const goodPosition = `{"epoch":5,"sequence":9,"id":"` + testID + `"}`

func TestRequestsAreReadStrictly(t *testing.T) {
	good := `{"instance":"i-1","position":` + goodPosition + `,"urgent":true,"recent":[` + goodPosition + `]}`
	want := PositionJSON{Epoch: 5, Sequence: 9, ID: testID}
	got, err := DecodeRequest[ProbeRequest]([]byte(good))
	if err != nil || !reflect.DeepEqual(got, ProbeRequest{Instance: "i-1", Position: want, Urgent: true, Recent: []PositionJSON{want}}) {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, text := range map[string]string{
		"nothing":              ``,
		"null":                 `null`,
		"an array":             `[` + good + `]`,
		"trailing":             good + ` 1`,
		"unknown member":       strings.Replace(good, `"urgent"`, `"limit"`, 1),
		"unknown member below": strings.Replace(good, `"epoch"`, `"age":1,"epoch"`, 1),
		"capitals":             strings.Replace(good, `"urgent"`, `"Urgent"`, 1),
		"capitals below":       strings.Replace(good, `"epoch"`, `"EPOCH"`, 1),
		"twice":                strings.Replace(good, `"urgent":true`, `"urgent":true,"urgent":false`, 1),
		"twice, escaped":       strings.Replace(good, `"urgent":true`, `"urgent":true,"urg\u0065nt":false`, 1),
		"twice below":          strings.Replace(good, `"epoch":5`, `"epoch":5,"epoch":6`, 1),
		"null member":          strings.Replace(good, `true`, `null`, 1),
		"wrong type":           strings.Replace(good, `true`, `"yes"`, 1),
		"fraction":             strings.Replace(good, `"epoch":5`, `"epoch":5.5`, 1),
		"negative":             strings.Replace(good, `"epoch":5`, `"epoch":-5`, 1),
		"half a position":      strings.Replace(good, `"id":"`+testID+`"`, `"id":""`, 1),
		"no instance":          strings.Replace(good, `i-1`, ``, 1),
		"instance with dots":   strings.Replace(good, `i-1`, `a.b`, 1),
		"instance of stars":    strings.Replace(good, `i-1`, `*`, 1),
		"empty proof":          strings.Replace(good, `[`+goodPosition+`]`, `[{"epoch":0,"sequence":0,"id":""}]`, 1),
		"long proof":           strings.Replace(good, `[`+goodPosition, `[`+strings.Repeat(goodPosition+",", MaxRecent)+goodPosition, 1),
		"deep":                 strings.Replace(good, `true`, strings.Repeat(`[`, 9999)+strings.Repeat(`]`, 9999), 1),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := DecodeRequest[ProbeRequest]([]byte(text)); !errors.Is(err, ErrInvalid) || !reflect.ValueOf(got).IsZero() {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestRequestsOutOfRangeAreRefused(t *testing.T) {
	refused := func(v Checker) {
		t.Helper()
		if err := v.Check(); err == nil {
			t.Errorf("%T %+v was taken", v, v)
		}
	}
	refused(JoinRequest{Instance: "i", LimitMS: 0, Past: PastDeny})
	refused(JoinRequest{Instance: "i", LimitMS: 1, Past: "whatever"})
	refused(JoinRequest{LimitMS: 1, Past: PastDeny})
	refused(OutRequest{Instance: strings.Repeat("x", 65)})
	refused(PageRequest{Snapshot: "short"})
	refused(PageRequest{Snapshot: testID, Page: -1})
	refused(Report{Instance: "i", Position: PositionJSON{Epoch: 1}})
	refused(SyncRequest{Instance: ">"})
	for _, v := range []Checker{
		JoinRequest{Instance: "i", LimitMS: 1, Past: PastAllow},
		OutRequest{Instance: "i"},
		PageRequest{Snapshot: testID},
		Report{Instance: "i"},
		SyncRequest{Instance: "i"},
	} {
		if err := v.Check(); err != nil {
			t.Errorf("%T %+v: %v", v, v, err)
		}
	}
}

func TestAnswersMayBeNewer(t *testing.T) {
	m := samples()["release"]
	b, err := json.Marshal(SyncAnswer{Tail: []Stored{{Sequence: 3, Time: 4, Message: m}}, Stamp: *at(5, 6)})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), `"head"`, `"later":{"head":[1]},"head"`, 1)
	got, err := DecodeAnswer[SyncAnswer]([]byte(text))
	if err != nil || got.Stamp != *at(5, 6) || len(got.Tail) != 1 || !reflect.DeepEqual(got.Tail[0].Message.Release, m.Release) {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, text := range map[string]string{
		"twice":               strings.Replace(text, `"head":{"e`, `"head":{},"head":{"e`, 1),
		"capitals":            strings.Replace(text, `"head":{"e`, `"HEAD":{"e`, 1),
		"capitals, long s":    strings.Replace(text, `"stamp":`, `"ſtamp":`, 1),
		"capitals in message": strings.Replace(text, `"release":{`, `"Release":{`, 1),
		"trailing":            text + "{}",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := DecodeAnswer[SyncAnswer]([]byte(text)); err == nil {
				t.Errorf("got %+v", got)
			}
		})
	}
	unknown := strings.Replace(text, `"kind":"entry"`, `"kind":"later"`, 1)
	if _, err := DecodeAnswer[SyncAnswer]([]byte(unknown)); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("a tail with an unknown kind: %v", err)
	}
}

func TestPositionKeepsItsID(t *testing.T) {
	p := Position{Stamp: revoke.Stamp{Epoch: 5, Seq: 9}, ID: testID}
	b, err := json.Marshal(map[string]Position{"p": p})
	if err != nil || string(b) != `{"p":`+goodPosition+`}` {
		t.Fatalf("%s, %v", b, err)
	}
	var back map[string]Position
	if err := json.Unmarshal(b, &back); err != nil || back["p"] != p || p.JSON().Position() != p {
		t.Errorf("%+v, %v", back, err)
	}
}

// FuzzRequest: what is taken is what encoding/json reads of it, and comes back
// as the same.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"instance":"i-1","position":` + goodPosition + `,"urgent":true,"recent":[` + goodPosition + `]}`))
	f.Add([]byte(`{"instance":"\ud83d\ude00","Position":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeRequest[ProbeRequest](data)
		if err != nil {
			return
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodeRequest[ProbeRequest](b)
		if err != nil || len(r.Recent)+len(again.Recent) > 0 && !reflect.DeepEqual(again, r) {
			t.Fatalf("%s: %+v, %v", data, again, err)
		}
	})
}

// FuzzHeard: what another replica passes on is taken within its bounds only, and
// comes back as the same.
func FuzzHeard(f *testing.F) {
	f.Add([]byte(`{"heard":[{"name":"orders","instance":"i-1","position":` + goodPosition + `}]}`))
	f.Add([]byte(`{"heard":[]}`))
	f.Add([]byte(`{"heard":[{"name":"a.b","instance":"i","position":{}}],"later":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeRequest[HeardBatch](data)
		if err != nil {
			return
		}
		if len(r.Heard) == 0 || len(r.Heard) > MaxHeard {
			t.Fatalf("%d positions were taken", len(r.Heard))
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := DecodeRequest[HeardBatch](b); err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%s: %+v, %v", data, again, err)
		}
	})
}
