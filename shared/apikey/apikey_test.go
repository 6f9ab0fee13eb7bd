package apikey

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestSecretsHaveTheirForm(t *testing.T) {
	forms := map[Kind]*regexp.Regexp{
		Key:     regexp.MustCompile(`^quash_key_[0-9A-Za-z]{49}$`),
		Secret:  regexp.MustCompile(`^quash_secret_[0-9A-Za-z]{49}$`),
		Refresh: regexp.MustCompile(`^quash_refresh_[0-9A-Za-z]{49}$`),
	}
	for kind, form := range forms {
		for range 100 {
			s, err := Generate(rand.Reader, kind)
			if err != nil {
				t.Fatal(err)
			}
			if !form.MatchString(s.Reveal()) {
				t.Fatalf("%s: a secret does not match %s", kind, form)
			}
			if got, err := Parse(s.Reveal()); got != kind || err != nil {
				t.Fatalf("Parse = %v, %v, want %v", got, err, kind)
			}
			if id := ID(s.Reveal()); !IsID(id) {
				t.Fatalf("ID = %q", id)
			}
		}
	}
}

// The vectors are fixed, and those of the documentation: keys that were given out
// must be known for ever, to others too.
func TestFormIsFixed(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		fill     byte
		kind     Kind
		text, id string
	}{
		{0, Key, "quash_key_00000000000000000000000000000000000000000004b914W", "2qDKPcSMjjIwEwbGNqzJo5"},
		{0xff, Secret, "quash_secret_yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp12mOiNK", "3odJtidUm2N6Ascbdd5roL"},
	}
	for _, c := range cases {
		s, err := Generate(bytes.NewReader(bytes.Repeat([]byte{c.fill}, 32)), c.kind)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Reveal(); got != c.text {
			t.Errorf("text = %q, want %q", got, c.text)
		}
		if got := ID(s.Reveal()); got != c.id {
			t.Errorf("id = %q, want %q", got, c.id)
		}
		if row := fmt.Sprintf("| `%s` | `%02x` | `%s` |", c.text, c.fill, c.id); !strings.Contains(string(doc), row) {
			t.Errorf("docs/protocol.md has no row %s", row)
		}
	}
}

func TestEveryChangedCharacterIsNoticed(t *testing.T) {
	s, err := Generate(rand.Reader, Key)
	if err != nil {
		t.Fatal(err)
	}
	text := s.Reveal()
	for i := range text {
		for _, c := range []byte("0aZ_ ü") {
			changed := text[:i] + string(rune(c)) + text[i+1:]
			if changed == text {
				continue
			}
			if k, err := Parse(changed); err == nil {
				t.Fatalf("character %d changed to %q still parses as %s", i, c, k)
			}
		}
	}
	for _, bad := range []string{"", "quash_key_", text + "0", text[1:], strings.ToUpper(text), " " + text, text + "\n"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("a text of %d bytes parses", len(bad))
		}
	}
}

func TestASecretNeverPrints(t *testing.T) {
	s, err := Generate(rand.Reader, Key)
	if err != nil {
		t.Fatal(err)
	}
	j, err := json.Marshal(map[string]any{"s": s, "p": &s})
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprint(s, &s) + fmt.Sprintf("%s %v %+v %#v %q %x %d", s, s, s, s, s, s, s) + string(j)
	core := s.Reveal()[len("quash_key_"):]
	if strings.Contains(all, core) || strings.Contains(all, fmt.Sprintf("%x", core)) {
		t.Errorf("a secret was printed")
	}
}

func TestHashReadsWhatItWrites(t *testing.T) {
	h := HashOf("x")
	b, err := h.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var back Hash
	if err := back.UnmarshalText(b); err != nil || !back.Equal(h) {
		t.Fatalf("%v, %v", back, err)
	}
	for _, bad := range []string{"", string(b) + "A", string(b[:42]) + "\n", strings.Repeat("!", 43)} {
		if back.UnmarshalText([]byte(bad)) == nil {
			t.Errorf("hash %q was taken", bad)
		}
	}
}
