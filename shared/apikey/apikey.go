// Package apikey is the form of the secrets that Quash gives out: API keys,
// client secrets and refresh tokens.
//
//	quash_key_ | quash_secret_ | quash_refresh_   what it is, for scanners and people
//	43 characters of base62                       32 random bytes
//	 6 characters of base62                       CRC-32 (IEEE) over all before
//
// The checksum tells a mistyped or made-up secret from a real one without
// asking anybody; it protects nothing. The text is its own and only spelling:
// two texts are never the same secret.
//
// A secret is stored as its Hash. Its ID is made from it too, by another hash:
// so whoever finds a leaked key can name it (key:ID) with nothing but this
// package, and a look-up by secret is a look-up by id and one comparison.
package apikey

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/big"
	"strings"
)

// Kind is what a secret is good for. The zero Kind is invalid.
type Kind uint8

// The kinds.
const (
	Invalid Kind = iota
	Key          // an API key
	Secret       // a client secret
	Refresh      // a refresh token
	kindEnd
)

var prefixes = [kindEnd]string{Key: "quash_key_", Secret: "quash_secret_", Refresh: "quash_refresh_"}

// Prefix returns what every secret of the kind begins with.
func (k Kind) Prefix() string {
	if k == Invalid || k >= kindEnd {
		return ""
	}
	return prefixes[k]
}

// String returns "key", "secret", "refresh" or "invalid".
func (k Kind) String() string {
	if p := k.Prefix(); p != "" {
		return strings.TrimSuffix(strings.TrimPrefix(p, "quash_"), "_")
	}
	return "invalid"
}

const (
	alphabet  = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	randomLen = 43 // the base62 digits of 32 bytes
	sumLen    = 6  // the base62 digits of 4 bytes
	idLen     = 22 // the base62 digits of 16 bytes
)

// Text is a secret in the clear. It prints as "[redacted]" whichever way it is
// formatted or marshalled; Reveal gives the text to the one who may see it.
type Text struct{ s string }

// Reveal returns the secret itself.
func (t Text) Reveal() string { return t.s }

// String hides the secret.
func (Text) String() string { return "[redacted]" }

// GoString hides the secret from %#v.
func (Text) GoString() string { return "[redacted]" }

// Format hides the secret from every other verb.
func (Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

// MarshalText hides the secret in JSON.
func (Text) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// Generate makes a new secret from 32 bytes of rand.
func Generate(rand io.Reader, k Kind) (Text, error) {
	if k.Prefix() == "" {
		return Text{}, errors.New("apikey: no such kind")
	}
	var b [32]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return Text{}, fmt.Errorf("random bytes for a secret: %w", err)
	}
	s := k.Prefix() + encode(b[:], randomLen)
	return Text{s + sum(s)}, nil
}

// ErrForm is the error of every text that is no secret of ours. It has nothing
// of the text in it.
var ErrForm = errors.New("not a Quash key: want quash_key_, quash_secret_ or quash_refresh_ and 49 letters and digits, the last 6 a checksum of the rest")

// Parse tells what a text is. It takes exactly what Generate makes; whether the
// secret exists is another question.
func Parse(text string) (Kind, error) {
	for k := Key; k < kindEnd; k++ {
		digits, ok := strings.CutPrefix(text, prefixes[k])
		if !ok {
			continue
		}
		if len(digits) != randomLen+sumLen {
			return Invalid, ErrForm
		}
		for i := 0; i < len(digits); i++ {
			if !isDigit(digits[i]) {
				return Invalid, ErrForm
			}
		}
		// 43 digits hold a little more than 32 bytes: those values are no secrets.
		if digits[:randomLen] > largest {
			return Invalid, ErrForm
		}
		cut := len(text) - sumLen
		if text[cut:] != sum(text[:cut]) {
			return Invalid, ErrForm
		}
		return k, nil
	}
	return Invalid, ErrForm
}

// Hash is what is stored of a secret. A plain SHA-256 is enough: there are 256
// random bits in it, so that nothing can be guessed.
type Hash [sha256.Size]byte

// HashOf returns the hash of a secret's text.
func HashOf(text string) Hash { return sha256.Sum256([]byte(text)) }

// Equal compares in constant time.
func (h Hash) Equal(o Hash) bool { return subtle.ConstantTimeCompare(h[:], o[:]) == 1 }

// MarshalText returns unpadded base64url.
func (h Hash) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, h[:]), nil
}

// UnmarshalText is the inverse of MarshalText.
func (h *Hash) UnmarshalText(b []byte) error {
	if len(b) != base64.RawURLEncoding.EncodedLen(len(h)) {
		return errors.New("apikey: a hash has 43 characters of base64url")
	}
	if _, err := base64.RawURLEncoding.Strict().Decode(h[:], b); err != nil {
		return errors.New("apikey: a hash has 43 characters of base64url")
	}
	return nil
}

// idSalt keeps ID apart from Hash: neither tells the other.
const idSalt = "quash key id\x00"

// ID returns the public id of a secret: 22 letters and digits, 128 bits of a
// hash of its own. It names the secret and is no help in guessing it.
func ID(text string) string {
	h := sha256.Sum256([]byte(idSalt + text))
	return encode(h[:16], idLen)
}

// IsID reports whether s has the form of an ID.
func IsID(s string) bool {
	if len(s) != idLen {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !isDigit(s[i]) {
			return false
		}
	}
	return true
}

// RandomID returns 22 random letters and digits: the form of an ID, for things
// that have no secret.
func RandomID(rand io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("random bytes for an id: %w", err)
	}
	return encode(b[:], idLen), nil
}

var largest = func() string {
	b := make([]byte, 32)
	for i := range b {
		b[i] = 0xff
	}
	return encode(b, randomLen)
}()

func isDigit(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

func sum(s string) string {
	c := crc32.ChecksumIEEE([]byte(s))
	return encode([]byte{byte(c >> 24), byte(c >> 16), byte(c >> 8), byte(c)}, sumLen)
}

// encode writes b, a big-endian number, as exactly n base62 digits.
func encode(b []byte, n int) string {
	out := make([]byte, n)
	if len(b) <= 16 {
		encodeSmall(b, out)
		return string(out)
	}
	num, base, mod := new(big.Int).SetBytes(b), big.NewInt(62), new(big.Int)
	for i := n - 1; i >= 0; i-- {
		num.DivMod(num, base, mod)
		out[i] = alphabet[mod.Int64()]
	}
	return string(out)
}

// encodeSmall is encode by schoolbook division, without big numbers: ids are
// made on every exchange.
func encodeSmall(b, out []byte) {
	var num [16]byte
	d := num[:len(b)]
	copy(d, b)
	for i := len(out) - 1; i >= 0; i-- {
		rest := 0
		for j := range d {
			v := rest<<8 | int(d[j])
			d[j], rest = byte(v/62), v%62
		}
		out[i] = alphabet[rest]
	}
}
