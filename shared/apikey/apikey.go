// Package apikey is the secrets that Quash gives out: API keys, client secrets
// and refresh tokens. Their written form is that of package keyform.
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
	"io"

	"github.com/quash-project/quash/shared/guard/keyform"
)

// Kind is what a secret is good for. The zero Kind is invalid.
type Kind = keyform.Kind

// The kinds.
const (
	Invalid = keyform.Invalid
	Key     = keyform.Key     // an API key
	Secret  = keyform.Secret  // a client secret
	Refresh = keyform.Refresh // a refresh token
)

const idLen = keyform.IDLen

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
	s, err := keyform.Generate(rand, k)
	if err != nil {
		return Text{}, fmt.Errorf("apikey: %w", err)
	}
	return Text{s}, nil
}

// ErrForm is the error of every text that is no secret of ours. It has nothing
// of the text in it.
var ErrForm = keyform.ErrForm

// Parse tells what a text is. It takes exactly what Generate makes; whether the
// secret exists is another question.
func Parse(text string) (Kind, error) { return keyform.Parse(text) }

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

// ID returns the public id of a secret: 22 letters and digits, 128 bits of a
// hash of its own. It names the secret and is no help in guessing it.
func ID(text string) string { return keyform.ID(text) }

// ImportedID returns the id of a secret of another system, of which only the hash was
// ever known here: the same hash is the same id.
func ImportedID(h Hash) string { return keyform.ImportedID(h) }

// IsID reports whether s has the form of an ID.
func IsID(s string) bool { return keyform.IsID(s) }

// RandomID returns 22 random letters and digits: the form of an ID, for things
// that have no secret.
func RandomID(rand io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("random bytes for an id: %w", err)
	}
	return keyform.Base62(b[:], idLen), nil
}
