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
		return []string{EdDSA}, nil
	case *rsa.PublicKey:
		if n := p.N.BitLen(); n < minRSA || n > maxRSA || p.E < 3 || p.E&1 == 0 {
			return nil, fmt.Errorf("RSA of %d bits, exponent %d: want %d to %d bits, and odd", n, p.E, minRSA, maxRSA)
		}
		return []string{RS256, PS256}, nil
	}
	return nil, errors.New("kind of key is not taken")
}
