package proof

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

// Set is the record: all keys, oldest first.
type Set struct {
	Keys []Key        `json:"keys"`
	Meta signing.Meta `json:"meta"`
}

// Key is one of them. Times are Unix milliseconds.
type Key struct {
	ID     string            `json:"kid"` // RFC 7638 thumbprint of JWK
	JWK    map[string]string `json:"jwk"`
	Sealed *seal.Box         `json:"sealed,omitempty"` // PKCS #8; dropped once it signs no more
	From   int64             `json:"valid_from"`
	Until  int64             `json:"valid_until,omitempty"` // 0: it signs
}

// sealPurpose, sealTenant and sealVersion are bound into every sealed key. It is
// that of the installation, and no tenant's.
const (
	sealPurpose = "proof-key"
	sealTenant  = "-"
	sealVersion = 1
)

func sealContext(kid string) seal.Context {
	return seal.Context{KeyID: kid, Tenant: sealTenant, Purpose: sealPurpose, Version: sealVersion}
}

func generate(rand io.Reader, kek tink.AEAD, now time.Time) (Key, error) {
	public, private, err := ed25519.GenerateKey(rand)
	if err != nil {
		return Key{}, fmt.Errorf("make a proof key: %w", err)
	}
	jwk, kid, err := signing.PublicJWK(public)
	if err != nil {
		return Key{}, fmt.Errorf("make a proof key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return Key{}, fmt.Errorf("make a proof key: %w", err)
	}
	box, err := seal.Seal(kek, der, sealContext(kid))
	clear(der)
	if err != nil {
		return Key{}, fmt.Errorf("seal proof key %s: %w", kid, err)
	}
	return Key{ID: kid, JWK: jwk, Sealed: &box, From: now.UnixMilli()}, nil
}

// current is the newest key that signs; nil: none does.
func (r *Set) current() *Key {
	for i := len(r.Keys) - 1; i >= 0; i-- {
		if r.Keys[i].Until == 0 && r.Keys[i].Sealed != nil {
			return &r.Keys[i]
		}
	}
	return nil
}

// unseal opens the private half, and proves that it belongs to the public one.
func (k *Key) unseal(kek tink.AEAD) (ed25519.PrivateKey, error) {
	der, err := seal.Open(kek, *k.Sealed, sealContext(k.ID))
	if err != nil {
		return nil, fmt.Errorf("proof key %s: %w", k.ID, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	clear(der)
	private, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("proof key %s: what was sealed is no Ed25519 key", k.ID)
	}
	public, ok := private.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("proof key %s: what was sealed is no Ed25519 key", k.ID)
	}
	if _, kid, err := signing.PublicJWK(public); err != nil || kid != k.ID {
		return nil, errors.Join(err, fmt.Errorf("proof key %s: the sealed key is another one", k.ID))
	}
	return private, nil
}

// public is a key as it is published.
func (k *Key) public() PublicKey {
	p := PublicKey{
		KeyType: k.JWK["kty"], Curve: k.JWK["crv"], X: k.JWK["x"], KeyID: k.ID, Use: "sig", Alg: signing.EdDSA,
		ValidFrom: time.UnixMilli(k.From).UTC(),
	}
	if k.Until != 0 {
		until := time.UnixMilli(k.Until).UTC()
		p.ValidUntil = &until
	}
	return p
}

// PublicKey is a JWK (RFC 8037) with the time in which it signed.
type PublicKey struct {
	KeyType    string     `json:"kty"`
	Curve      string     `json:"crv"`
	X          string     `json:"x"`
	KeyID      string     `json:"kid"`
	Use        string     `json:"use"`
	Alg        string     `json:"alg"`
	ValidFrom  time.Time  `json:"valid_from"`
	ValidUntil *time.Time `json:"valid_until,omitempty"` // nil: it signs
}

// KeySet is what is published, and kept by whoever wants to verify later: a JWK
// Set (RFC 7517, section 5).
type KeySet struct {
	Keys []PublicKey `json:"keys"`
}

// Ed25519 returns the key, if it is one.
func (p *PublicKey) Ed25519() (ed25519.PublicKey, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(p.X)
	if p.KeyType != "OKP" || p.Curve != "Ed25519" || err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("the key %.60q is no Ed25519 key: want kty OKP, crv Ed25519 and x of 32 bytes", p.KeyID)
	}
	public := ed25519.PublicKey(raw)
	// The thumbprint binds the id to the key: a set in which another key stands
	// under a known id is a forged one.
	if _, kid, err := signing.PublicJWK(public); err != nil || kid != p.KeyID {
		return nil, errors.Join(err, fmt.Errorf("the key %.60q has another thumbprint than its kid (RFC 7638)", p.KeyID))
	}
	return public, nil
}
