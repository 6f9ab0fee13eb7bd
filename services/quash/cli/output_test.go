package cli

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestYAMLKeepsWhatTheAPIWrote: names, numbers, and texts that look like something else.
func TestYAMLKeepsWhatTheAPIWrote(t *testing.T) {
	text, err := encode(json.RawMessage(`{"id":"1","at":"2026-01-31T12:00:00.000Z","sequence":18446744073709551615,"open":false,"none":null,"items":[],"yes":"no"}`), asYAML)
	if err != nil {
		t.Fatal(err)
	}
	want := "at: \"2026-01-31T12:00:00.000Z\"\nid: \"1\"\nitems: []\nnone: null\nopen: false\nsequence: 18446744073709551615\n\"yes\": \"no\"\n"
	if string(text) != want {
		t.Errorf("%s\nwant\n%s", text, want)
	}
}

// FuzzYAMLSaysTheSameAsJSON of texts that others have chosen.
func FuzzYAMLSaysTheSameAsJSON(f *testing.F) {
	for _, s := range []string{"", "~", "1e3", "a: b", "- x", "\u2028\u0085", "😀 \t\r\n", "<a&b>", "\x00\x7f", strings.Repeat("long ", 99)} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		name, value = strings.ToValidUTF8(name, "?"), strings.ToValidUTF8(value, "?")
		data := map[string]any{"k" + name: value, "list": []any{value, true}}
		for _, form := range []string{asJSON, asYAML} {
			text, err := encode(data, form)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]any{}
			if form == asYAML {
				err = yaml.NewDecoder(bytes.NewReader(text)).Decode(&got)
			} else {
				err = json.Unmarshal(text, &got)
			}
			if err != nil || !reflect.DeepEqual(got, data) {
				t.Errorf("%s of %q: %v, %v\n%s", form, data, got, err, text)
			}
		}
	})
}
