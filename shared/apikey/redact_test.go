package apikey

import (
	"crypto/rand"
	"strings"
	"testing"
)

func TestRedactTakesSecretsOut(t *testing.T) {
	made, err := Generate(rand.Reader, Key)
	if err != nil {
		t.Fatal(err)
	}
	key := made.Reveal()
	random := key[len("quash_key_"):]
	token := "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
	for name, c := range map[string]struct{ text, want string }{
		"nothing":          {"role a/b: want letters", "role a/b: want letters"},
		"names":            {ErrForm.Error(), ErrForm.Error()},
		"a key":            {"target \"" + key + "\": want", "target \"quash_key_[redacted]\": want"},
		"cut short":        {key[:30], "quash_key_[redacted]"},
		"lengthened":       {key + "x!", "quash_key_[redacted]!"},
		"in another case":  {strings.ToUpper(key), "QUASH_KEY_[redacted]"},
		"two":              {key + " " + key, "quash_key_[redacted] quash_key_[redacted]"},
		"a client secret":  {"quash_secret_" + random, "quash_secret_[redacted]"},
		"with wide digits": {"quash_key_１２３４５６７８", "quash_key_[redacted]"},
		"a token":          {"sub=" + token + "&", "sub=eyJ[redacted]&"},
		"eyJ":              {"eyJ is how tokens begin", "eyJ is how tokens begin"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Redact(c.text); got != c.want {
				t.Errorf("Redact(%q) = %q, want %q", c.text, got, c.want)
			}
			if got := In(c.text); got != (c.text != c.want) {
				t.Errorf("In(%q) = %v", c.text, got)
			}
		})
	}
}

// FuzzRedact holds that what is left has no secret in it, whatever stood around.
func FuzzRedact(f *testing.F) {
	f.Add("a", "b")
	f.Add("quash_", "eyJ")
	f.Add("QUASH_SECRET_", ".")
	const random = "0123456789abcdefghijABCDEFGHIJ0123456789abc"
	f.Fuzz(func(t *testing.T, before, after string) {
		got := Redact(before + "quash_key_" + random + after)
		if strings.Contains(got, random) {
			t.Errorf("%q is left", got)
		}
	})
}
