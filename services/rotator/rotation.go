package rotator

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/signing"
)

// KindSigningKey is the kind of a rotation of signing keys.
const KindSigningKey = "signing-key"

// The states of a rotation. It is waiting until issuers sign with the new key.
const (
	Waiting = "waiting"
	Signs   = "signing"
)

// noKey stands for the key that signs where there is none. No kid is so short.
const noKey = "none"

// maxReason is how long a reason may be, in bytes.
const maxReason = 1024

// automatic is the actor of rotations that nobody asked for.
const automatic = "rotator"

// Request asks for a rotation. The same Key of the same actor and tenant is the
// same request.
type Request struct {
	Key       string // idempotency key
	Tenant    string
	Actor     string
	Kind      string
	Reason    string
	Emergency bool   // revoke the key that signs, and let the next one sign at once
	Alg       string // of the new key; empty: as the tenant's keys are
	replaces  string // see Rotation.Replaces
	// Incident is under which it is done, and Request the id of the request, both for the audit.
	Incident, Request string
}

func (r Request) validate() error {
	if r.Kind != KindSigningKey {
		return problem.FieldError("kind", "%.40q can't be rotated: want %q", r.Kind, KindSigningKey)
	}
	if r.Reason == "" || len(r.Reason) > maxReason || !utf8.ValidString(r.Reason) {
		return problem.FieldError("reason", "want 1 to %d bytes of text: it stands in the audit trail", maxReason)
	}
	if err := problem.NoSecret("reason", r.Reason); err != nil {
		return err
	}
	if r.Alg != "" {
		if err := signing.CheckAlg(r.Alg); err != nil {
			return problem.FieldError("alg", "want ES256 or EdDSA")
		}
	}
	if err := revoke.CheckID("idempotency key", r.Key); err != nil {
		return problem.FieldError("Idempotency-Key", "%v", err)
	}
	if err := revoke.CheckName("tenant", r.Tenant); err != nil {
		return problem.FieldError("tenant", "%v", err)
	}
	if r.Incident != "" {
		if err := commit.CheckIncident(r.Incident); err != nil {
			return problem.FieldError("incident", "%v", err)
		}
	}
	return nil
}

// Rotation is the record of one rotation. Times are Unix milliseconds, 0 for
// not yet.
type Rotation struct {
	ID        string `json:"id"`
	Tenant    string `json:"tenant"`
	Kind      string `json:"kind"`
	Reason    string `json:"reason"`
	Emergency bool   `json:"emergency"`
	Alg       string `json:"alg,omitempty"`
	Actor     string `json:"actor"`
	CreatedAt int64  `json:"created_at"`
	// Replaces is the key that a rotation which nobody asked for is about, or
	// noKey: it has nothing to do once that key signs no more. A replica that
	// begins one may have read the keys before another has replaced them.
	Replaces string `json:"replaces,omitempty"`
	// Incident and Request are as in the Request.
	Incident string `json:"incident,omitempty"`
	Request  string `json:"request,omitempty"`

	State string `json:"state"`
	// KeyID is the key that signs from now on, Previous the one that did; both
	// empty until it is decided.
	KeyID    string `json:"kid,omitempty"`
	Previous string `json:"previous,omitempty"`
	// NotBefore is the end of the lead time that it waits for.
	NotBefore int64 `json:"not_before,omitempty"`
	// Lacking are the guards that it waits for, as NAME/INSTANCE; in an
	// emergency those that did not have the key when it began to sign.
	Lacking []string `json:"lacking,omitempty"`
	// SignsAt is when every issuer that still issued had applied the message
	// "signing", by the clock of this service: no token by the previous key is
	// made after it.
	SignsAt int64        `json:"signs_at,omitempty"`
	Meta    signing.Meta `json:"meta"`
}

// rotationID is a hash of what makes a request the same request.
func rotationID(tenant, actor, key string) string {
	var b []byte
	for _, part := range [...]string{"quash rotation", tenant, actor, key} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// isRotationID reports whether s has the form of what rotationID returns.
func isRotationID(s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == sha256.Size && !strings.ContainsAny(s, "\r\n")
}

func newRotation(r Request, at int64) Rotation {
	return Rotation{
		ID: rotationID(r.Tenant, r.Actor, r.Key), Tenant: r.Tenant, Kind: r.Kind, Reason: r.Reason,
		Emergency: r.Emergency, Alg: r.Alg, Actor: r.Actor, CreatedAt: at, Replaces: r.replaces, State: Waiting,
		Incident: r.Incident, Request: r.Request,
		Meta: signing.Meta{Actor: r.Actor, Reason: r.Reason, At: at, Request: r.Request},
	}
}

// asks reports whether the record is of this very request.
func (r *Rotation) asks(q Request) bool {
	return r.Kind == q.Kind && r.Reason == q.Reason && r.Emergency == q.Emergency && r.Alg == q.Alg
}

// byUrgency orders rotations: emergencies first, then the older.
func byUrgency(rs []Rotation) {
	slices.SortFunc(rs, func(a, b Rotation) int {
		if a.Emergency != b.Emergency {
			if a.Emergency {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.CreatedAt, b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
}
