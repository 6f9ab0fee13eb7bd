// Package seal keeps private keys unreadable at rest. A Box is sealed with an
// AEAD and bound to what it is for (Context): it can't be opened as the key of
// another tenant, under another kid, or for another purpose.
//
// tink.AEAD is the seam: KEK reads one from a file; one that asks a key
// management service fits as well.
package seal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/tink"
)

// Context is what a Box is for.
type Context struct {
	KeyID   string
	Tenant  string
	Purpose string
	Version int
}

// Box is something sealed. The context beside the ciphertext is only there to
// say what is wrong when a box was moved; the binding is in the ciphertext.
type Box struct {
	KeyID      string `json:"kid"`
	Tenant     string `json:"tenant"`
	Purpose    string `json:"purpose"`
	Version    int    `json:"version"`
	Ciphertext []byte `json:"ciphertext"`
}

// Why a Box can't be opened.
var (
	ErrMoved    = errors.New("the sealed key was made for something else")
	ErrWrongKEK = errors.New("sealed under another key-encryption key")
	ErrTampered = errors.New("the sealed key was altered, or sealed under another key-encryption key")
	ErrEmpty    = errors.New("an empty key can't be sealed or opened")
)

// Seal seals a secret. The secret is never empty.
func Seal(kek tink.AEAD, secret []byte, c Context) (Box, error) {
	if len(secret) == 0 {
		return Box{}, ErrEmpty
	}
	if c.KeyID == "" || c.Tenant == "" || c.Purpose == "" || c.Version <= 0 {
		return Box{}, errors.New("seal: the context must have a key id, a tenant, a purpose and a version")
	}
	ct, err := kek.Encrypt(secret, c.associated())
	if err != nil {
		return Box{}, fmt.Errorf("seal: %w", err)
	}
	return Box{KeyID: c.KeyID, Tenant: c.Tenant, Purpose: c.Purpose, Version: c.Version, Ciphertext: ct}, nil
}

// Open returns the secret of a box that was sealed for c under kek. It never
// returns an empty one.
func Open(kek tink.AEAD, b Box, c Context) ([]byte, error) {
	if have := (Context{b.KeyID, b.Tenant, b.Purpose, b.Version}); have != c {
		return nil, fmt.Errorf("%w: for %s, and %s is wanted", ErrMoved, have, c)
	}
	if len(b.Ciphertext) == 0 {
		return nil, ErrEmpty
	}
	if k, ok := kek.(*KEK); ok {
		if err := k.holds(b.Ciphertext); err != nil {
			return nil, err
		}
	}
	secret, err := kek.Decrypt(b.Ciphertext, c.associated())
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", ErrTampered, c)
	}
	if len(secret) == 0 {
		return nil, ErrEmpty
	}
	return secret, nil
}

func (c Context) String() string {
	return fmt.Sprintf("%s %q of tenant %q, version %d", c.Purpose, c.KeyID, c.Tenant, c.Version)
}

// associated has each part with its length before it, so that no two contexts
// have one spelling.
func (c Context) associated() []byte {
	b := binary.BigEndian.AppendUint32([]byte("quash seal 1"), uint32(c.Version))
	for _, part := range [...]string{c.Purpose, c.Tenant, c.KeyID} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}
