package strictjson

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/problem"
)

type inner struct {
	ID   string `json:"id"`
	Kind string `json:"kind,omitempty"`
}

type shared struct {
	Reason string `json:"reason"`
}

type request struct {
	shared
	Owner   string           `json:"owner"`
	Scopes  []string         `json:"scopes"`
	Targets []inner          `json:"targets"`
	Count   int              `json:"count"`
	Labels  map[string]inner `json:"labels"`
	Maybe   *string          `json:"maybe"`
	Any     any              `json:"any"`
	Raw     json.RawMessage  `json:"raw"`
	Hidden  string           `json:"-"`
}

func TestOddJSONIsRefusedWithItsField(t *testing.T) {
	for name, c := range map[string]struct{ text, field string }{
		"empty":              {``, ""},
		"trailing":           {`{} {}`, ""},
		"trailing comma":     {`{"owner":"a",}`, ""},
		"duplicate":          {`{"owner":"a","owner":"b"}`, "owner"},
		"duplicate escaped":  {`{"owner":"a","\u006fwner":"b"}`, "owner"},
		"duplicate deep":     {`{"any":{"x":[{"y":1,"y":2}]}}`, "any.x[0].y"},
		"case":               {`{"Owner":"a"}`, "Owner"},
		"long s":             {`{"ſcopes":["a"]}`, "ſcopes"},
		"unknown":            {`{"owner":"a","more":1}`, "more"},
		"unknown deep":       {`{"targets":[{"id":"a"},{"id":"a","x":1}]}`, "targets[1].x"},
		"unknown in a map":   {`{"labels":{"l":{"ID":"a"}}}`, "labels.l.ID"},
		"hidden":             {`{"Hidden":"a"}`, "Hidden"},
		"dash":               {`{"-":"a"}`, "-"},
		"null":               {`{"owner":null}`, "owner"},
		"type":               {`{"owner":4711}`, "owner"},
		"type deep":          {`{"targets":[{"id":["geheim"]}]}`, "targets.id"},
		"fraction":           {`{"count":1.5}`, "count"},
		"overflow":           {`{"count":99999999999999999999}`, "count"},
		"leading zero":       {`{"count":01}`, ""},
		"control":            {`{"owner":"a\u0000b"}`, "owner"},
		"raw control":        {"{\"owner\":\"a\x01b\"}", "owner"},
		"delete":             {"{\"owner\":\"a\x7fb\"}", "owner"},
		"lone surrogate":     {`{"owner":"\ud800"}`, "owner"},
		"reversed surrogate": {`{"owner":"\udc00\ud800"}`, "owner"},
		"invalid UTF-8":      {"{\"owner\":\"\xff\"}", ""},
		"deep":               {strings.Repeat(`[`, 10000), ""},
		"deep objects":       {strings.Repeat(`{"any":`, 10000), ""},
		"not an object":      {`["owner"]`, ""},
		"byte order mark":    {"\uFEFF{}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var r request
			err := Decode([]byte(c.text), &r)
			p := problem.From(err)
			if err == nil || p.Kind != problem.Invalid {
				t.Fatalf("Decode gave %v, want an Invalid problem", err)
			}
			if name == "deep objects" {
				return
			}
			if p.Field != c.field {
				t.Errorf("field %q, want %q (%v)", p.Field, c.field, err)
			}
			for _, secret := range []string{"4711", "geheim"} {
				if strings.Contains(p.Detail, secret) {
					t.Errorf("detail repeats the value: %s", p.Detail)
				}
			}
		})
	}
}

func TestGoodJSONIsDecoded(t *testing.T) {
	const text = ` {"owner":"a\n\ud83d\ude00\"\\\/","scopes":["x","y"],"targets":[{"id":"1"}],"count":-3,
		"labels":{"Any Name":{"id":"2"}},"maybe":null,"any":{"X":1,"x":[1e3,true,null]},"raw":{"Z":1},"reason":"r"} `
	var got, want request
	if err := Decode([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// FuzzDecode: what is accepted, encoding/json accepts with the same result, and
// encoding it again is accepted too.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{}`, `{"owner":"a","targets":[{"id":"1"}]}`, `{"any":[1,2.5e-3,"\u00e4"]}`, `[`, `{"owner":"\ud800"}`, `{"raw": 1 }`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want request
		if Decode(data, &got) != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("accepted what encoding/json calls invalid: %q", data)
		}
		d := json.NewDecoder(strings.NewReader(string(data)))
		d.DisallowUnknownFields()
		if err := d.Decode(&want); err != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: got %+v, encoding/json %+v", data, got, want)
		}
	})
}
