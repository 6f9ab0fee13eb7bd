package signing

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"

	"github.com/quash-project/quash/shared/guard/wire"
)

const trustPrefix = "ed25519:"

// TrustString is how a guard's configuration names the rotator's identity key;
// keys.ParseTrust is its inverse.
func TrustString(pub ed25519.PublicKey) string {
	return trustPrefix + base64.RawURLEncoding.EncodeToString(pub)
}

// SignState returns the compact JWS that travels in a key message.
func SignState(identity ed25519.PrivateKey, st wire.KeyState) (string, error) {
	payload, err := json.Marshal(st)
	if err != nil {
		return "", err
	}
	header := `{"alg":"EdDSA","typ":"` + wire.KeyStateType + `"}`
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString(payload)
	return text + "." + enc.EncodeToString(ed25519.Sign(identity, []byte(text))), nil
}

// StateOf is the public form of a key of this set in its present state.
func (s *Set) StateOf(k *Key) wire.KeyState {
	return wire.KeyState{Tenant: s.Tenant, Issuer: s.Issuer, KeyID: k.ID, JWK: k.JWK, State: k.State, End: k.End}
}
