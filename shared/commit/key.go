package commit

import (
	"context"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// KeyRequest asks for one key message: the state of a signing key, signed by
// the rotator's identity key. Each request is its own message, since messages
// about one key merge by the greatest state: sending it again is harmless.
type KeyRequest struct {
	Tenant string `json:"tenant"`
	KeyID  string `json:"kid"`
	JWS    string `json:"jws"`   // over a wire.KeyState
	Until  int64  `json:"until"` // Unix seconds: the key's end + slack
	// Actor and Reason are for the audit.
	Actor  string `json:"actor,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// What follows the service's commit subject for a KeyRequest and for a
// LackingRequest.
const (
	KeySuffix     = ".key"
	LackingSuffix = ".lacking"
)

// KeySubject is where the rotator sends a KeyRequest; the answer is an Answer,
// of which ID is the message's id.
func KeySubject(service string) string { return wire.CommitPrefix + service + KeySuffix }

// LackingSubject is where the rotator sends a LackingRequest; the answer is a
// LackingAnswer.
func LackingSubject(service string) string { return wire.CommitPrefix + service + LackingSuffix }

// LackingRequest asks which joined guards are not known to have applied the
// message at a position. With WaitMS the service answers as soon as nobody
// lacks it, and otherwise after so many milliseconds (10 s at most).
type LackingRequest struct {
	Epoch       uint64 `json:"epoch"`
	Sequence    uint64 `json:"sequence"`
	CommittedAt int64  `json:"committed_at"` // Unix milliseconds, as the Answer told
	WaitMS      int64  `json:"wait_ms,omitempty"`
	// Name asks about the guards of this identity only; empty: about all.
	Name string `json:"name,omitempty"`
}

// Stamp returns the position in question.
func (r LackingRequest) Stamp() revoke.Stamp {
	return revoke.Stamp{Epoch: r.Epoch, Seq: r.Sequence}
}

// LackingAnswer names every joined guard that is not known to have it.
type LackingAnswer struct {
	Lacking []Lacking `json:"lacking"`
}

// Lacking is one of them. Past FencedBy it decides no more from a view that
// lacks the message, unless it is Open: then it allows and says so.
type Lacking struct {
	Name     string `json:"name"`
	Instance string `json:"instance"`
	FencedBy int64  `json:"fenced_by,omitempty"` // Unix milliseconds: CommittedAt + its limit
	// Fenced says that this moment has passed, by the service's own judgement: the
	// clock of whoever reads FencedBy may be minutes off.
	Fenced bool `json:"fenced,omitempty"`
	Open   bool `json:"open,omitempty"`
}

// KeyCommitter is what the rotator asks of the revocation service beside
// entries. It is safe for concurrent use.
type KeyCommitter interface {
	// CommitKey commits one key message; see KeyRequest for repetitions.
	CommitKey(ctx context.Context, r KeyRequest) (Answer, error)
	Lacking(ctx context.Context, r LackingRequest) (LackingAnswer, error)
}
