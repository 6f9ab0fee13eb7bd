package signing

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/seal"
)

// Bucket is the bucket of the Sets; the key of a record is the tenant's name.
const Bucket = "signing_keys"

// BucketConfig is how the rotator creates the bucket. Every step of a rotation
// is one revision; the audit follower reads them from the history.
func BucketConfig(replicas int) jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket: Bucket, History: 64, Storage: jetstream.FileStorage, Replicas: replicas,
		Description: "signing keys, one record a tenant; private keys are sealed",
	}
}

// The states of a key, in order; see wire.KeyStates.
const (
	Planned   = "planned"   // it is in the record, and nobody has been told
	Published = "published" // everyone is told, so that it can sign soon
	Signing   = "signing"   // the one that signs
	Retiring  = "retiring"  // signs no more; its tokens live on
	Gone      = "gone"      // its last token has expired
	Revoked   = "revoked"   // its tokens are refused; final
)

// The algorithms that a key can have.
const (
	ES256 = "ES256"
	EdDSA = "EdDSA"
)

// CheckAlg tells whether alg is one that Quash signs with.
func CheckAlg(alg string) error {
	if alg != ES256 && alg != EdDSA {
		return fmt.Errorf("alg %.20q: want ES256 or EdDSA", alg)
	}
	return nil
}

// Meta says who last changed something, why and when.
type Meta struct {
	Actor  string `json:"actor"`
	Reason string `json:"reason"`
	At     int64  `json:"at"` // Unix milliseconds
	// Incident is under which it was done, and Request the id of the request, where there were.
	Incident string `json:"incident,omitempty"`
	Request  string `json:"request,omitempty"`
}

// Set is the record of a tenant: all its keys, oldest first.
type Set struct {
	Tenant string `json:"tenant"`
	Issuer string `json:"iss"` // the URL for whose tokens the keys are
	// Alg is what new keys are made with, once somebody has asked for one; empty:
	// as the rotator is configured.
	Alg string `json:"alg,omitempty"`
	// Born counts the keys ever made; Key.Number is from it.
	Born int   `json:"born"`
	Keys []Key `json:"keys"`
	Meta Meta  `json:"meta"`
	// CreatedAt is in Unix milliseconds, 0 of a record of an older version. It tells the keys
	// of a tenant from those of one that had the same name.
	CreatedAt int64 `json:"created_at,omitempty"`
}

// Key is one signing key. Times are Unix milliseconds, 0 for not yet.
type Key struct {
	ID     string            `json:"kid"` // RFC 7638 thumbprint of JWK: random, as the key is
	Number int               `json:"number"`
	Alg    string            `json:"alg"`
	JWK    map[string]string `json:"jwk"`
	Sealed *seal.Box         `json:"sealed,omitempty"` // PKCS #8; dropped once it can't sign any more
	State  string            `json:"state"`            // what has been decided; Sent is what was told
	End    int64             `json:"end"`              // Unix seconds; fixed at birth

	BornAt      int64 `json:"born_at"`
	PublishedAt int64 `json:"published_at,omitempty"` // commit of its first message
	SigningAt   int64 `json:"signing_at,omitempty"`   // decided; it signs once issuers have the message
	StoppedAt   int64 `json:"stopped_at,omitempty"`   // retiring, gone or revoked decided

	// Sent is the newest message about it in the log, nil for none.
	Sent *Sent `json:"sent,omitempty"`
	// EndedBy is the entry that ends its target, of a revoked key.
	EndedBy *Sent `json:"ended_by,omitempty"`

	Previous string `json:"previous,omitempty"` // the key that it took over from
	Rotation string `json:"rotation,omitempty"` // the rotation that made it sign
	Meta     Meta   `json:"meta"`
}

// Sent is a message in the log.
type Sent struct {
	State    string `json:"state"`
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	At       int64  `json:"at"` // of its commit, Unix milliseconds
}

// Stamp returns where the message stands.
func (s *Sent) Stamp() revoke.Stamp {
	if s == nil {
		return revoke.Stamp{}
	}
	return revoke.Stamp{Epoch: s.Epoch, Seq: s.Sequence}
}

// Told reports whether the log has the key's present state.
func (k *Key) Told() bool { return k.Sent != nil && k.Sent.State == k.State }

// EndTime returns End as a time.
func (k *Key) EndTime() time.Time { return time.Unix(k.End, 0) }

// Target returns what revoking the key means.
func Target(tenant, kid string) (revoke.Target, error) {
	return revoke.NewTarget(tenant, revoke.Own, revoke.KindSigningKey, kid)
}

// Find returns the key with this id, nil if there is none.
func (s *Set) Find(kid string) *Key {
	for i := range s.Keys {
		if s.Keys[i].ID == kid {
			return &s.Keys[i]
		}
	}
	return nil
}

// In returns the newest key in a state, nil if there is none.
func (s *Set) In(state string) *Key {
	for i := len(s.Keys) - 1; i >= 0; i-- {
		if s.Keys[i].State == state {
			return &s.Keys[i]
		}
	}
	return nil
}

// Clone returns a copy that shares nothing which is ever changed.
func (s Set) Clone() Set {
	s.Keys = append([]Key(nil), s.Keys...)
	return s
}
