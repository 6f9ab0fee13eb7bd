// Package keyform is the written form of the secrets that Quash gives out: API
// keys, client secrets and refresh tokens.
//
//	quash_key_ | quash_secret_ | quash_refresh_   what it is, for scanners and people
//	43 characters of base62                       32 random bytes
//	 6 characters of base62                       CRC-32 (IEEE) over all before
//
// The checksum tells a mistyped or made-up secret from a real one without asking
// anybody; it protects nothing. The text is its own and only spelling: two texts
// are never the same secret. It needs nothing but the standard library, so that a
// resource server can know a key when it sees one.
package keyform

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/big"
	"math/bits"
	"net/url"
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

// common is what every prefix begins with.
const common = "quash_"

var prefixes = [kindEnd]string{Key: common + "key_", Secret: common + "secret_", Refresh: common + "refresh_"}

// Kinds returns all of them.
func Kinds() []Kind { return []Kind{Key, Secret, Refresh} }

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
		return strings.TrimSuffix(strings.TrimPrefix(p, common), "_")
	}
	return "invalid"
}

const (
	alphabet  = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	randomLen = 43 // the base62 digits of 32 bytes
	sumLen    = 6  // the base62 digits of 4 bytes
	bodyLen   = randomLen + sumLen

	// IDLen is the length of an ID: the base62 digits of 16 bytes.
	IDLen = 22
)

// Generate makes the text of a new secret from 32 bytes of rand.
func Generate(rand io.Reader, k Kind) (string, error) {
	if k.Prefix() == "" {
		return "", errors.New("no such kind of secret")
	}
	var b [32]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("random bytes for a secret: %w", err)
	}
	s := k.Prefix() + Base62(b[:], randomLen)
	return s + sum(s), nil
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
		if len(digits) != bodyLen || !isBase62(digits) {
			return Invalid, ErrForm
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

// Find returns the secrets in a text that are whole, as Parse takes them.
func Find(text string) (secrets []string) {
	for {
		i := strings.Index(text, common)
		if i < 0 {
			return secrets
		}
		text = text[i:]
		n := whole(text)
		if n > 0 {
			secrets = append(secrets, text[:n])
		}
		text = text[max(n, len(common)):]
	}
}

// whole returns the length of the secret with which a text begins; 0 for none.
func whole(text string) int {
	for _, prefix := range prefixes[Key:] {
		end := len(prefix) + bodyLen
		if !strings.HasPrefix(text, prefix) || len(text) < end {
			continue
		}
		if _, err := Parse(text[:end]); err == nil {
			return end
		}
	}
	return 0
}

// maxInURL is how many secrets of one URL are found.
const maxInURL = 4

// FindInURL is Find within the path and the query of a URL, however they are
// escaped.
func FindInURL(u *url.URL) []string {
	found := append(Find(u.Path), Find(u.RawQuery)...)
	if len(found) == 0 && strings.Contains(u.RawQuery, "%") {
		// Pair by pair: one that is badly escaped hides no other.
		for text := range strings.FieldsFuncSeq(u.RawQuery, func(r rune) bool { return r == '&' || r == '=' || r == ';' }) {
			if plain, err := url.QueryUnescape(text); err == nil {
				found = append(found, Find(plain)...)
			}
		}
	}
	return found[:min(len(found), maxInURL)]
}

// idSalt keeps ID apart from the hash that is stored of a secret: neither tells
// the other.
const idSalt = "quash key id\x00"

// ID returns the public id of a secret: 22 letters and digits, 128 bits of a
// hash of its own. It names the secret (key:ID) and is no help in guessing it.
func ID(text string) string {
	h := sha256.Sum256([]byte(idSalt + text))
	return Base62(h[:16], IDLen)
}

// importSalt keeps the ids of imported secrets apart from those of ours.
const importSalt = "quash imported key id\x00"

// ImportedID returns the id of a secret of another system, of which only the SHA-256
// hash was ever known to Quash: the same hash is the same id.
func ImportedID(hash [sha256.Size]byte) string {
	h := sha256.Sum256(append([]byte(importSalt), hash[:]...))
	return Base62(h[:16], IDLen)
}

// IsID reports whether s has the form of an ID.
func IsID(s string) bool { return len(s) == IDLen && isBase62(s) }

var largest = func() string {
	b := make([]byte, 32)
	for i := range b {
		b[i] = 0xff
	}
	return Base62(b, randomLen)
}()

func isBase62(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

func sum(s string) string {
	c := crc32.ChecksumIEEE([]byte(s))
	return Base62([]byte{byte(c >> 24), byte(c >> 16), byte(c >> 8), byte(c)}, sumLen)
}

// Base62 writes b, a big-endian number, as exactly n base62 digits.
func Base62(b []byte, n int) string {
	out := make([]byte, n)
	if len(b) <= 16 {
		base62Small(b, out)
		return string(out)
	}
	num, base, mod := new(big.Int).SetBytes(b), big.NewInt(62), new(big.Int)
	for i := n - 1; i >= 0; i-- {
		num.DivMod(num, base, mod)
		out[i] = alphabet[mod.Int64()]
	}
	return string(out)
}

// base62Small is Base62 of at most 128 bits, without big numbers: ids are made on every
// exchange.
func base62Small(b, out []byte) {
	var num [16]byte
	copy(num[len(num)-len(b):], b)
	high, low := binary.BigEndian.Uint64(num[:8]), binary.BigEndian.Uint64(num[8:])
	for i := len(out) - 1; i >= 0; i-- {
		var rest uint64
		high, rest = high/62, high%62
		low, rest = bits.Div64(rest, low, 62)
		out[i] = alphabet[rest]
	}
}
