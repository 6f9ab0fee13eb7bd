package wire

import (
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// Header is the name of the NATS header that carries a Message as JSON.
const Header = "Quash"

// The kinds of messages in the log.
const (
	KindEpoch = "epoch" // a new history of the log begins
	KindEntry = "entry" // cuts, ends, holds or releases targets
	KindKey   = "key"   // the public half and state of a signing key
	KindJoin  = "join"  // a guard is part of the fleet from here on
	KindOut   = "out"   // a guard is not any more
	KindTick  = "tick"  // nothing more: proof of the log's head
)

// Limits of the protocol.
const (
	// MaxTargets is how many targets one entry may have.
	MaxTargets = 1000
	// Slack is what clocks may be wrong by: added to every end.
	Slack = 10 * time.Minute
	// MaxTokenLife is the longest life of an access token of ours.
	MaxTokenLife = time.Hour
	// MaxCredentialLife is the longest life of anything else.
	MaxCredentialLife = 400 * 24 * time.Hour
	// MaxVia is how many targets a token's claim via may have.
	MaxVia = 64
	// JoinLife is how long a join counts; it is renewed daily.
	JoinLife = 48 * time.Hour
	// DefaultLimit and MaxLimit bound a reader's staleness.
	DefaultLimit = 15 * time.Second
	MaxLimit     = 60 * time.Second
)

// Message is the wire part of a message in the log: what every reader sees.
// Which members are set depends on Kind.
type Message struct {
	Kind  string `json:"kind"`
	ID    string `json:"id"`    // 22 characters of base64url, random: the identity of the message
	Epoch uint64 `json:"epoch"` // the epoch that its publisher was in; of an epoch message the new one

	// Optional marks a message of a kind that a reader may skip if it does not know it.
	Optional bool `json:"optional,omitempty"`

	// Of an entry: target keys by op. A target stands under one op only.
	Cut     []revoke.Key                `json:"cut,omitempty"`
	End     []revoke.Key                `json:"end,omitempty"`
	Hold    []revoke.Key                `json:"hold,omitempty"`
	Release map[revoke.Key]revoke.Stamp `json:"release,omitempty"` // to the position of the hold that it ends
	// Unknown is set by Decode when an op that it does not know is among
	// "ops"; such a message makes a reader incomplete.
	Ops   []string `json:"ops,omitempty"`   // the ops in this entry, by name: lets an old reader notice a new op
	At    int64    `json:"at,omitempty"`    // wall time of the commit by its service's clock, Unix milliseconds
	Until int64    `json:"until,omitempty"` // Unix seconds; see revoke.State.Until. Of a key: its end + slack

	// Of a hold.
	HoldEnd int64                       `json:"hold_end,omitempty"` // Unix milliseconds at which the service ends it; 0: never
	Then    string                      `json:"then,omitempty"`     // "release" (default) or "revoke": what comes at HoldEnd
	First   map[revoke.Key]revoke.Stamp `json:"first,omitempty"`    // of a hold committed again: its first position

	// Recommitted is the position at which this entry stood in a history that was
	// lost: it counts as that position for holds and cuts, never as its own. Of a release
	// it is the newest hold that is known to have been made before.
	Recommitted *revoke.Stamp `json:"recommitted,omitempty"`

	// Of an epoch: D and Restore; its Number is Epoch.
	D       *revoke.Stamp `json:"d,omitempty"`
	Restore bool          `json:"restore,omitempty"`

	// Of a key.
	KeyID string `json:"kid,omitempty"`
	JWS   string `json:"jws,omitempty"` // compact JWS by the rotator's identity key over a KeyState

	// Of a join or out.
	Name     string `json:"name,omitempty"`     // the guard's identity (its NATS user)
	Instance string `json:"instance,omitempty"` // random, one a process
	LimitMS  int64  `json:"limit_ms,omitempty"` // the largest staleness that any of its routes allows
	Past     string `json:"past,omitempty"`     // what it does past it: "deny", "redis" or "allow"
	By       string `json:"by,omitempty"`       // of an out: "self", "operator" or "proof"
}

// What a guard does past its limit.
const (
	PastDeny  = "deny"
	PastRedis = "redis"
	PastAllow = "allow"
)

// KeyState is the signed part of a key message: what a reader may believe
// about a signing key. Messages about one key merge by the greatest State.
type KeyState struct {
	Tenant string `json:"tenant"`
	Issuer string `json:"iss"` // the issuer URL for whose tokens the key is good
	KeyID  string `json:"kid"`
	// JWK is the public key as a JWK with kty, crv, x, (y,) kid, alg, use=sig.
	JWK   map[string]string `json:"jwk"`
	State string            `json:"state"` // see KeyStates
	End   int64             `json:"end"`   // Unix seconds; fixed at its birth: no reader uses the key past it
}

// KeyStates are the states of a signing key in the order in which they follow.
// Revoked comes from anywhere and is final.
var KeyStates = []string{"planned", "published", "signing", "retiring", "gone", "revoked"}

// KeyStateType is the typ header of the JWS of a KeyState.
const KeyStateType = "quash-key+jwt"

// Position names a place in the log so that it can be checked: it counts only
// where the other's log has a message with this id there.
type Position struct {
	revoke.Stamp
	ID string
}
