package keyform

import (
	"bytes"
	"crypto/rand"
	"math/big"
	"net/url"
	"strings"
	"testing"
)

func TestSecretIsFoundWhereverItStandsInAURL(t *testing.T) {
	key, err := Generate(rand.Reader, Key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := Generate(rand.Reader, Secret)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"/orders":                                    "",
		"/orders?key=" + key:                         key,
		"/orders/" + key + "/items":                  key,
		"/orders?a=b&" + key:                         key,
		"/orders?key=quash%5Fkey%5F" + key[10:]:      key,
		"/orders/quash%5Fkey_" + key[10:]:            key,
		"/orders?a=%zz&key=quash%5Fkey_" + key[10:]:  key,
		"/?q=quash_key_" + secret:                    secret,
		"/?q=quash_quash_quash_key_x" + key:          key,
		"/?key=" + key[:len(key)-1]:                  "",
		"/" + key + "/" + secret + "?k=" + key + key: key + " " + secret + " " + key + " " + key,
		"/?" + strings.Repeat(key, 9):                strings.TrimSpace(strings.Repeat(key+" ", 4)),
		"/docs/quash_key_":                           "",
		"/?key=" + key[:len(key)-1] + "_":            "",
		"/?key=" + strings.ToUpper(key):              "",
	} {
		u, err := url.Parse(text)
		if err != nil && strings.Contains(text, "%zz") {
			t.Fatal(err)
		}
		if got := strings.Join(FindInURL(u), " "); got != want {
			t.Errorf("%d bytes, %.14s: found %d bytes, want %d", len(text), text, len(got), len(want))
		}
	}
}

// FuzzFind: what is found stands there, and is whole.
func FuzzFind(f *testing.F) {
	f.Add("quash_key_quash_key_00000000000000000000000000000000000000000004b914W")
	f.Add("quash_")
	f.Fuzz(func(t *testing.T, text string) {
		secrets := Find(text)
		if _, err := Parse(text); err == nil && len(secrets) != 1 {
			t.Errorf("%d secrets in one", len(secrets))
		}
		for _, s := range secrets {
			if _, err := Parse(s); err != nil || !strings.Contains(text, s) {
				t.Errorf("found what is none: %v", err)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("quash_key_0000000000000000000000000000000000000000000")
	f.Add("quash_secret_")
	f.Fuzz(func(t *testing.T, text string) {
		kind, err := Parse(text)
		if err != nil {
			if err != ErrForm {
				t.Errorf("error = %v: only ErrForm is sure to have nothing of the text in it", err)
			}
			return
		}
		// What parses is exactly what Generate makes of the same bytes.
		digits := text[len(kind.Prefix()) : len(text)-sumLen]
		num := new(big.Int)
		for i := range digits {
			num.Mul(num, big.NewInt(62)).Add(num, big.NewInt(int64(strings.IndexByte(alphabet, digits[i]))))
		}
		b := make([]byte, 32)
		num.FillBytes(b)
		again, err := Generate(bytes.NewReader(b), kind)
		if err != nil || again != text {
			t.Errorf("%q is not what Generate makes: %v", text, err)
		}
	})
}

func FuzzEncodeAgrees(f *testing.F) {
	f.Add([]byte("0123456789abcdef"))
	f.Add(bytes.Repeat([]byte{0xff}, 16))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}) // as many as a checksum has
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 16 {
			return
		}
		num, out := new(big.Int).SetBytes(b), make([]byte, IDLen)
		for i := range out {
			mod := new(big.Int)
			num.DivMod(num, big.NewInt(62), mod)
			out[IDLen-1-i] = alphabet[mod.Int64()]
		}
		if got := Base62(b, IDLen); got != string(out) {
			t.Errorf("Base62(%x) = %s, want %s", b, got, out)
		}
	})
}

// BenchmarkID: every exchange makes the id of a secret.
func BenchmarkID(b *testing.B) {
	text, err := Generate(rand.Reader, Key)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		ID(text)
	}
}
