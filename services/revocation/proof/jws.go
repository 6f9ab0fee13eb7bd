package proof

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/quash-project/quash/shared/guard/token"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/signing"
)

// MaxJWS is how many bytes a JWS may have that is verified: 1,000 targets and
// 10,000 guards fit.
const MaxJWS = 8 << 20

// header is that of a JWS, its members in this order.
type header struct {
	Alg string `json:"alg"`
	Typ string `json:"typ"`
	Kid string `json:"kid"`
}

func sign(kid string, signer crypto.Signer, typ string, payload []byte) (string, error) {
	head, err := json.Marshal(header{signing.EdDSA, typ, kid})
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding
	text := enc.EncodeToString(head) + "." + enc.EncodeToString(payload)
	signature, err := jwt.SigningMethodEdDSA.Sign(text, signer)
	if err != nil {
		return "", err
	}
	return text + "." + enc.EncodeToString(signature), nil
}

// Signed is what a JWS says, and who has signed it.
type Signed struct {
	Key     PublicKey
	Payload []byte // JSON that reads the same for every parser
	At      time.Time
}

// Why a JWS is not taken.
var (
	ErrForm      = errors.New("this is no JWS of a receipt: want three parts of base64url with dots between, as quash receipt show prints it")
	ErrType      = errors.New("it is signed for something else")
	ErrKey       = errors.New("its key is not in the key set")
	ErrSignature = errors.New("its signature is wrong: it was altered, or is not of this service")
	ErrTime      = errors.New("its key did not sign at the time that it names")
)

// Verify checks a compact JWS of a type by a key set. It is as strict as guards
// are with tokens: one way to read it, one algorithm, and no key but those given.
func Verify(jws, typ string, set KeySet) (Signed, error) {
	if len(jws) > MaxJWS {
		return Signed{}, fmt.Errorf("%w; it has more than %d bytes", ErrForm, MaxJWS)
	}
	parts := strings.Split(jws, ".")
	if len(parts) != 3 {
		return Signed{}, ErrForm
	}
	var raw [3][]byte
	for i, part := range parts {
		var err error
		if raw[i], err = token.DecodeBytes(part); err != nil {
			return Signed{}, ErrForm
		}
	}
	kid, err := readHeader(raw[0], typ)
	if err != nil {
		return Signed{}, err
	}
	if token.CheckJSON(string(raw[1])) != nil {
		return Signed{}, ErrForm
	}
	k, err := set.find(kid)
	if err != nil {
		return Signed{}, err
	}
	public, err := k.Ed25519()
	if err != nil {
		return Signed{}, fmt.Errorf("%w: %w", ErrKey, err)
	}
	if jwt.SigningMethodEdDSA.Verify(parts[0]+"."+parts[1], raw[2], public) != nil {
		return Signed{}, ErrSignature
	}
	out := Signed{Key: *k, Payload: raw[1]}
	out.At, err = issuedAt(raw[1])
	if err != nil {
		return Signed{}, err
	}
	if out.At.Before(k.ValidFrom.Add(-wire.Slack)) || k.ValidUntil != nil && out.At.After(k.ValidUntil.Add(wire.Slack)) {
		return Signed{}, ErrTime
	}
	return out, nil
}

// readHeader returns the kid. Members that it does not know could change what
// the rest means (RFC 7515, section 4.1.11), so that none may be there.
func readHeader(raw []byte, typ string) (string, error) {
	var h map[string]any
	if token.CheckJSON(string(raw)) != nil || json.Unmarshal(raw, &h) != nil {
		return "", ErrForm
	}
	kid, _ := h["kid"].(string)
	switch {
	case h["typ"] != typ:
		return "", fmt.Errorf("%w: its typ is not %s", ErrType, typ)
	case h["alg"] != signing.EdDSA:
		return "", fmt.Errorf("%w: its alg is not %s", ErrType, signing.EdDSA)
	case kid == "" || len(h) != 3:
		return "", ErrForm
	}
	return kid, nil
}

func (s KeySet) find(kid string) (*PublicKey, error) {
	var found *PublicKey
	for i := range s.Keys {
		if s.Keys[i].KeyID != kid {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: it stands there twice", ErrKey)
		}
		found = &s.Keys[i]
	}
	if found == nil {
		return nil, fmt.Errorf("%w: kid %.60q; fetch the set again, or give the one that was kept", ErrKey, kid)
	}
	return found, nil
}

// issuedAt reads when it was signed (RFC 7519, section 4.1.6).
func issuedAt(payload []byte) (time.Time, error) {
	var members map[string]json.RawMessage // by exact name: a struct would take "IAT" too
	var iat int64
	if json.Unmarshal(payload, &members) != nil || json.Unmarshal(members["iat"], &iat) != nil || iat <= 0 || iat > 1<<53 {
		return time.Time{}, ErrForm
	}
	return time.Unix(iat, 0), nil
}
