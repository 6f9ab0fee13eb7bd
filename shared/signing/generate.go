package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/quash-project/quash/shared/seal"
)

// sealPurpose and sealVersion are bound into every sealed signing key.
const (
	sealPurpose = "signing-key"
	sealVersion = 1
)

func sealContext(tenant, kid string) seal.Context {
	return seal.Context{KeyID: kid, Tenant: tenant, Purpose: sealPurpose, Version: sealVersion}
}

// Generate makes a key pair and seals the private half for this tenant. The
// caller fills in number, state and times.
func Generate(rand io.Reader, kek tink.AEAD, tenant, alg string) (Key, error) {
	var private crypto.Signer
	var err error
	switch alg {
	case ES256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand)
	case EdDSA:
		_, private, err = ed25519.GenerateKey(rand)
	default:
		err = CheckAlg(alg)
	}
	if err != nil {
		return Key{}, fmt.Errorf("make a signing key: %w", err)
	}
	jwk, kid, err := PublicJWK(private.Public())
	if err != nil {
		return Key{}, fmt.Errorf("make a signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return Key{}, fmt.Errorf("make a signing key: %w", err)
	}
	box, err := seal.Seal(kek, der, sealContext(tenant, kid))
	clear(der)
	if err != nil {
		return Key{}, fmt.Errorf("seal signing key %s: %w", kid, err)
	}
	return Key{ID: kid, Alg: alg, JWK: jwk, Sealed: &box, State: Planned}, nil
}

// PublicJWK returns the JWK of a public key, and its RFC 7638 thumbprint as kid.
func PublicJWK(pub crypto.PublicKey) (jwk map[string]string, kid string, err error) {
	b64 := base64.RawURLEncoding.EncodeToString
	var alg string
	switch p := pub.(type) {
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() {
			return nil, "", fmt.Errorf("curve %s: want P-256", p.Curve.Params().Name)
		}
		raw, err := p.Bytes() // 4, X, Y
		if err != nil {
			return nil, "", err
		}
		alg = ES256
		jwk = map[string]string{"kty": "EC", "crv": "P-256", "x": b64(raw[1:33]), "y": b64(raw[33:])}
	case ed25519.PublicKey:
		alg = EdDSA
		jwk = map[string]string{"kty": "OKP", "crv": "Ed25519", "x": b64(p)}
	default:
		return nil, "", fmt.Errorf("public key of type %T: want P-256 or Ed25519", pub)
	}
	// RFC 7638, section 3: the required members only, in lexicographic order,
	// without white space: just what Marshal makes of a map of plain strings.
	canonical, err := json.Marshal(jwk)
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(canonical)
	kid = b64(sum[:])
	jwk["kid"], jwk["alg"], jwk["use"] = kid, alg, "sig"
	return jwk, kid, nil
}

// Check tells whether the private half of a key can be opened and is the key's
// own; the error is one of package seal's where it can't.
func Check(kek tink.AEAD, tenant string, k *Key) error {
	_, err := unseal(kek, tenant, k)
	return err
}

// unseal opens a key's private half and proves that it belongs to the record's
// public half: a record can't make an issuer sign with a key that nobody knows.
func unseal(kek tink.AEAD, tenant string, k *Key) (crypto.Signer, error) {
	if k.Sealed == nil {
		return nil, fmt.Errorf("signing key %s: the record holds no private key", k.ID)
	}
	der, err := seal.Open(kek, *k.Sealed, sealContext(tenant, k.ID))
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", k.ID, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	clear(der)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: what was sealed is no private key", k.ID)
	}
	private, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("signing key %s: private key of type %T can't sign", k.ID, parsed)
	}
	jwk, kid, err := PublicJWK(private.Public())
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", k.ID, err)
	}
	if kid != k.ID || jwk["alg"] != k.Alg {
		return nil, fmt.Errorf("signing key %s: the sealed key is another one", k.ID)
	}
	return private, nil
}
