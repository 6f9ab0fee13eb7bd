package commit

import "github.com/quash-project/quash/shared/guard/wire"

// KeyRequest asks for one key message: the state of a signing key, signed by
// the rotator's identity key. Each request is its own message, since messages
// about one key merge by the greatest state: sending it again is harmless.
type KeyRequest struct {
	Tenant string `json:"tenant"`
	KeyID  string `json:"kid"`
	JWS    string `json:"jws"`   // over a wire.KeyState
	Until  int64  `json:"until"` // Unix seconds: the key's end + slack
}

// KeySuffix follows the service's commit subject for a KeyRequest.
const KeySuffix = ".key"

// KeySubject is where the rotator sends a KeyRequest; the answer is an Answer,
// of which ID is the message's id.
func KeySubject(service string) string { return wire.CommitPrefix + service + KeySuffix }
