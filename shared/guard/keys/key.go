package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// The signature algorithms that can be taken at all: asymmetric ones, each with
// one kind of key.
const (
	ES256 = "ES256"
	ES384 = "ES384"
	EdDSA = "EdDSA"
	RS256 = "RS256"
	PS256 = "PS256"
)

// ForeignAlgs are those taken from a foreign issuer unless it says otherwise,
// OwnAlgs those of an own one.
func ForeignAlgs() []string { return []string{ES256, EdDSA, RS256, PS256, ES384} }

// OwnAlgs: see ForeignAlgs.
func OwnAlgs() []string { return []string{ES256, EdDSA} }

// Why a key can't be used.
var (
	ErrUnknown   = errors.New("the key is not known")
	ErrPlanned   = errors.New("the key is not published yet")
	ErrGone      = errors.New("the key is not published any more")
	ErrRevoked   = errors.New("the key is revoked")
	ErrEnded     = errors.New("the key is past its end")
	ErrState     = errors.New("the key is in a state that this version does not know")
	ErrAlgorithm = errors.New("the key is for another algorithm")
	ErrSignature = errors.New("the signature is not the key's")
)

// Key is the public half of a signing key. It never changes; a Set or Remote
// that learns something else of it has another Key.
type Key struct {
	ID     string
	Public crypto.PublicKey
	Algs   []string // what it may be used with
	State  string   // of wire.KeyStates; "" for a fetched one
	End    int64    // Unix seconds; 0 if there is none

	refusal error // why its state forbids its use; nil if it does not
	// material is shared by the Keys that are one public key in different states.
	material *material
}

// material is what can't change about a key.
type material struct{ jwk jwkset.JWKMarshal }

// Same reports whether both are one public key, maybe in different states.
func (k *Key) Same(o *Key) bool { return o != nil && k.material == o.material }

// Usable returns nil if the key's signatures count at this time.
func (k *Key) Usable(now time.Time) error {
	if k.refusal != nil {
		return k.refusal
	}
	if k.End != 0 && now.Unix() >= k.End {
		return ErrEnded
	}
	return nil
}

// Verify proves that sig is the key's signature over signed. It says nothing
// about whether the key may be used now.
func (k *Key) Verify(alg, signed string, sig []byte) error {
	if !slices.Contains(k.Algs, alg) {
		return ErrAlgorithm
	}
	method := jwt.GetSigningMethod(alg)
	if method == nil || method.Verify(signed, sig, k.Public) != nil {
		return ErrSignature
	}
	return nil
}

const (
	minRSA = 2048
	maxRSA = 8192 // a longer one only makes verifying slow
)

// parse takes a public key for signatures from a JWK, with those of algs that it
// can be used with.
func parse(j jwkset.JWKMarshal, algs []string) (*Key, error) {
	if j.KTY == jwkset.KtyOct || j.K != "" || j.D != "" || j.P != "" || j.Q != "" || j.DP != "" || j.DQ != "" || j.QI != "" || len(j.OTH) > 0 {
		return nil, errors.New("it holds a secret: whoever published it has lost it")
	}
	if err := revoke.CheckID("kid", j.KID); err != nil {
		return nil, err
	}
	if j.USE != "" && j.USE != jwkset.UseSig {
		return nil, errors.New("it is not for signatures")
	}
	if len(j.KEYOPS) > 0 && !slices.Contains(j.KEYOPS, jwkset.KeyOpsVerify) {
		return nil, errors.New("it is not for verifying")
	}
	bare := jwkset.JWKMarshal{KTY: j.KTY, CRV: j.CRV, X: j.X, Y: j.Y, N: j.N, E: j.E} // no certificates: nothing here fetches or trusts them
	jwk, err := jwkset.NewJWKFromMarshal(bare, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return nil, err
	}
	fits, err := algsOf(jwk.Key())
	if err != nil {
		return nil, err
	}
	if j.ALG != "" {
		fits = slices.DeleteFunc(fits, func(a string) bool { return a != j.ALG.String() })
	}
	fits = slices.DeleteFunc(fits, func(a string) bool { return !slices.Contains(algs, a) })
	if len(fits) == 0 {
		return nil, fmt.Errorf("kty %.10q crv %.10q alg %.10q: no algorithm that is taken fits", j.KTY, j.CRV, j.ALG)
	}
	return &Key{ID: j.KID, Public: jwk.Key(), Algs: fits, material: &material{jwk: j}}, nil
}

// algsOf returns the algorithms that a public key can be used with.
func algsOf(public any) ([]string, error) {
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		if _, err := p.ECDH(); err != nil {
			return nil, fmt.Errorf("not a point of its curve: %w", err)
		}
		switch p.Curve.Params().BitSize {
		case 256:
			return []string{ES256}, nil
		case 384:
			return []string{ES384}, nil
		}
		return nil, errors.New("curve is not taken")
	case ed25519.PublicKey:
		if smallOrder(p) {
			return nil, errors.New("a point of small order: anything verifies with it")
		}
		return []string{EdDSA}, nil
	case *rsa.PublicKey:
		if n := p.N.BitLen(); n < minRSA || n > maxRSA || p.E < 3 || p.E&1 == 0 {
			return nil, fmt.Errorf("RSA of %d bits, exponent %d: want %d to %d bits, and odd", n, p.E, minRSA, maxRSA)
		}
		return []string{RS256, PS256}, nil
	}
	return nil, errors.New("kind of key is not taken")
}

// smallOrder reports whether an Ed25519 public key is one of the few points for
// which signatures can be made without a private key; crypto/ed25519 takes them.
// These are their y, without the sign of x (the list is that of libsodium).
func smallOrder(key ed25519.PublicKey) bool {
	y := [32]byte(key)
	y[31] &= 0x7f
	last := func(b byte) (y [32]byte) { // p-1, p and p+1
		for i := range y {
			y[i] = 0xff
		}
		y[0], y[31] = b, 0x7f
		return y
	}
	order8 := [32]byte{
		0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
	}
	order8too := [32]byte{
		0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
	}
	return slices.Contains([][32]byte{{}, {1}, order8, order8too, last(0xec), last(0xed), last(0xee)}, y)
}
