package keys

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/quash-project/quash/shared/guard/token"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Why a key message was not taken.
var (
	// ErrOther says that it is about another tenant's or issuer's key: no fault.
	ErrOther      = errors.New("key message of another issuer")
	ErrIdentity   = errors.New("key message: no trusted identity key signed it")
	ErrForm       = errors.New("key message: malformed")
	ErrConflict   = errors.New("key message: another public key or end under a kid that is known; both are fixed at birth")
	errTrustShape = errors.New(`want "ed25519:" and 43 characters of base64url`)
)

// Set holds the keys of one issuer as the log tells them. Its methods are safe
// for concurrent use; Lookup never waits.
type Set struct {
	tenant, issuer string
	trust          []ed25519.PublicKey
	algs           []string

	mu   sync.Mutex // held by Apply
	keys atomic.Pointer[map[string]*Key]
}

// NewSet returns an empty set. trust are the rotator's identity keys, of which
// one must have signed whatever counts.
func NewSet(tenant, issuer string, trust, algs []string) (*Set, error) {
	s := newSet(tenant, issuer, nil, algs)
	for _, text := range trust {
		key, err := ParseTrust(text)
		if err != nil {
			return nil, err
		}
		s.trust = append(s.trust, key)
	}
	return s, nil
}

// ParseTrust reads an identity key, "ed25519:" and 43 characters of base64url.
func ParseTrust(text string) (ed25519.PublicKey, error) {
	b64, ok := strings.CutPrefix(text, "ed25519:")
	raw, err := token.DecodeBytes(b64)
	if !ok || err != nil || len(raw) != ed25519.PublicKeySize || smallOrder(raw) {
		return nil, fmt.Errorf("trust key %.60q: %w", text, errTrustShape)
	}
	return raw, nil
}

// Lookup returns the key with this id, nil if there is none.
func (s *Set) Lookup(kid string) *Key { return (*s.keys.Load())[kid] }

// Usable returns how many keys could sign a token that counts now.
func (s *Set) Usable(now time.Time) (n int) {
	for _, k := range *s.keys.Load() {
		if k.Usable(now) == nil {
			n++
		}
	}
	return n
}

// Apply takes what a key message says. In any order and any number of times,
// the same messages give the same set: of one key's states the greatest counts.
func (s *Set) Apply(m wire.Message, now time.Time) error {
	state, err := s.open(m)
	if err != nil {
		return err
	}
	next, err := s.parse(state)
	if err != nil {
		return fmt.Errorf("key message of %.80q: %w", state.KeyID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.keys.Load()
	if have := old[state.KeyID]; have != nil {
		if have.End != next.End || !reflect.DeepEqual(have.material.jwk, next.material.jwk) {
			return ErrConflict
		}
		if rank(next.State) <= rank(have.State) {
			return nil
		}
		next.material = have.material
	}
	keys := maps.Clone(old)
	maps.DeleteFunc(keys, func(_ string, k *Key) bool { return k.End+int64(wire.Slack/time.Second) < now.Unix() })
	keys[state.KeyID] = next
	s.keys.Store(&keys)
	return nil
}

// decode returns what a message says, of which nothing is proved.
func decode(m wire.Message) (state wire.KeyState, err error) {
	_, payload, _, err := token.Split(m.JWS)
	if err != nil {
		return state, ErrForm
	}
	body, err := token.DecodeJSON(payload)
	if err != nil || json.Unmarshal(body, &state) != nil {
		return state, ErrForm
	}
	return state, nil
}

// open proves the signature of a message and returns what was signed.
func (s *Set) open(m wire.Message) (wire.KeyState, error) {
	state, err := decode(m)
	if err != nil {
		return state, err
	}
	header, _, signature, err := token.Split(m.JWS)
	if err != nil {
		return state, ErrForm
	}
	if state.Tenant != s.tenant || state.Issuer != s.issuer {
		return state, ErrOther
	}
	head, err := token.DecodeHeader(header)
	if err != nil || head.Alg != EdDSA || head.Type != wire.KeyStateType {
		return state, ErrForm
	}
	sig, err := token.DecodeBytes(signature)
	if err != nil || !s.signed(m.JWS[:strings.LastIndexByte(m.JWS, '.')], sig) {
		return state, ErrIdentity
	}
	if state.KeyID == "" || state.KeyID != m.KeyID || state.End <= 0 {
		return state, ErrForm
	}
	return state, nil
}

func (s *Set) signed(text string, sig []byte) bool {
	return slices.ContainsFunc(s.trust, func(key ed25519.PublicKey) bool {
		return jwt.SigningMethodEdDSA.Verify(text, sig, key) == nil
	})
}

func (s *Set) parse(state wire.KeyState) (*Key, error) {
	j := jwkset.JWKMarshal{
		KTY: jwkset.KTY(state.JWK["kty"]), CRV: jwkset.CRV(state.JWK["crv"]), X: state.JWK["x"], Y: state.JWK["y"],
		N: state.JWK["n"], E: state.JWK["e"], D: state.JWK["d"], K: state.JWK["k"],
		USE: jwkset.USE(state.JWK["use"]), ALG: jwkset.ALG(state.JWK["alg"]), KID: state.JWK["kid"],
	}
	if j.KID != state.KeyID {
		return nil, ErrForm
	}
	k, err := parse(j, s.algs)
	if err != nil {
		return nil, err
	}
	k.State, k.End, k.refusal = state.State, state.End, refusal(state.State)
	return k, nil
}

// rank orders states; one that is not known is above all, since it could mean
// that the key must not be used.
func rank(state string) int {
	if i := slices.Index(wire.KeyStates, state); i >= 0 {
		return i
	}
	return len(wire.KeyStates)
}

func refusal(state string) error {
	switch state {
	case "published", "signing", "retiring":
		// A published one may sign any moment: an emergency promotes at once.
		return nil
	case "planned":
		return ErrPlanned
	case "gone":
		return ErrGone
	case "revoked":
		return ErrRevoked
	}
	return ErrState
}
