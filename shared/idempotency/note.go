package idempotency

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"time"
)

// Life is for how long a request is known after it was first made.
const Life = 24 * time.Hour

// Note is what is known of one request.
type Note struct {
	Digest string `json:"digest"` // of the request: another one under the same key is refused
	Seed   string `json:"seed"`   // 22 letters and digits, the same for every try
	// Until is when the try that is under way is given up, in Unix milliseconds.
	Until int64 `json:"until"`
	// Makes names, as kind:id, what a try was about to make whose secret can't be
	// shown twice.
	Makes string `json:"makes,omitempty"`
	// Status and Answer are set once it is done.
	Status int             `json:"status,omitempty"`
	Answer json.RawMessage `json:"answer,omitempty"`
}

// Done reports whether the request was answered.
func (n *Note) Done() bool { return n.Status != 0 }

// Notes keeps them. Errors are problem.Errors of kind Unavailable. It is safe
// for concurrent use.
type Notes interface {
	// Begin writes n unless there is a note of this name, and returns the one that
	// stands there and its revision.
	Begin(ctx context.Context, name string, n Note) (stands Note, revision uint64, err error)
	// Write writes over a revision. problem.Conflict: somebody else has.
	Write(ctx context.Context, name string, n Note, revision uint64) (uint64, error)
	// Drop removes a note at a revision, if it is still that one.
	Drop(ctx context.Context, name string, revision uint64) error
}

// NameOf returns the name of a request's note: nobody else's request, of another
// tenant or actor, has it.
func NameOf(tenant, actor, key string) string {
	return tenant + "." + hashOf("quash request", tenant, actor, key)
}

// DigestOf returns what repetitions are compared by.
func DigestOf(parts ...string) string { return hashOf(parts...) }

// hashOf is SHA-256 over the parts, each with its length before it.
func hashOf(parts ...string) string {
	var b []byte
	for _, p := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
