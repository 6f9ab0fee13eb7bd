package schedule

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/signing"
)

// Spec is what was asked for. It never changes: another schedule is made.
type Spec struct {
	Rotate string `json:"rotate"` // signing-key, key:ID or client:ID

	// One of these says when.
	Cron         string   `json:"cron,omitempty"`
	Every        Duration `json:"every,omitempty"`
	MaxAge       Duration `json:"max_age,omitempty"`
	BeforeExpiry Duration `json:"before_expiry,omitempty"`

	// TimeZone is that of Cron and of the windows; empty: UTC.
	TimeZone string   `json:"time_zone,omitempty"`
	Jitter   Duration `json:"jitter,omitempty"`
	// Windows are when it may fire, Freezes when it may not.
	Windows []string `json:"windows,omitempty"`
	Freezes []string `json:"freezes,omitempty"`
	// Missed is what becomes of firings for whose time no rotator ran.
	Missed string `json:"missed"`
	// Overlap is how long an old key or secret is good beside the new one; 0: as the issuer has it.
	Overlap Duration `json:"overlap,omitempty"`
	Reason  string   `json:"reason"`
}

// What becomes of missed firings.
const (
	RunOnce = "run-once" // all of them together fire once, as soon as may be
	Skip    = "skip"     // the next one is the first that was not missed
)

// Schedule is the record. Times are Unix milliseconds, 0 for none.
type Schedule struct {
	ID     string `json:"id"` // random: another one of the name is another schedule
	Tenant string `json:"tenant"`
	Name   string `json:"name"`
	Spec
	CreatedAt int64  `json:"created_at"`
	CreatedBy string `json:"created_by"`
	Paused    bool   `json:"paused,omitempty"`
	// DeletedAt is set of one that is deleted: its record stays for a day, for those who repeat
	// their request.
	DeletedAt int64 `json:"deleted_at,omitempty"`

	// Next is what fires next; nil: none, or none that is known yet.
	Next *Firing `json:"next,omitempty"`
	// Claimed is what a replica has begun, and nobody has marked as done.
	Claimed *Claim `json:"claimed,omitempty"`
	Last    *Fired `json:"last,omitempty"`
	// LastMissed is what was skipped last.
	LastMissed *Missed `json:"last_missed,omitempty"`

	// Requests are the last ones with an idempotency key, newest last.
	Requests []Request `json:"requests,omitempty"`
	// Meta says who last changed it, why and when.
	Meta signing.Meta `json:"meta"`

	// Revision of the record as it was read.
	Revision uint64 `json:"-"`
}

// Firing is one time at which a schedule fires.
type Firing struct {
	// Due is the time that the schedule names: it tells firings apart.
	Due int64 `json:"due"`
	// At is when it fires: later by jitter, or moved to where a window allows it.
	At int64 `json:"at"`
	// Subject is the id of what was to be rotated, where its age says when.
	Subject string `json:"subject,omitempty"`
}

func (f Firing) due() time.Time { return time.UnixMilli(f.Due) }

// AtTime returns At as a time.
func (f Firing) AtTime() time.Time { return time.UnixMilli(f.At) }

// Claim is a firing that was claimed.
type Claim struct {
	Firing
	ClaimedAt int64 `json:"claimed_at"`
}

// Fired is a firing and what became of it.
type Fired struct {
	Claim
	// Rotation is the rotation that it began.
	Rotation string `json:"rotation,omitempty"`
	// Next is the key that takes the place of the old one, and Until how long that is good, of API keys and
	// secrets.
	Next  string `json:"next,omitempty"`
	Until int64  `json:"until,omitempty"`
	// Outcome says more of that, for people.
	Outcome string `json:"outcome,omitempty"`
	// Failed is why it could not be done, and will not be tried again.
	Failed string `json:"failed,omitempty"`
}

// Missed are firings that nobody fired.
type Missed struct {
	From int64 `json:"from"` // the first of them was due
	To   int64 `json:"to"`   // it was found then
}

// Request is one that had an idempotency key.
type Request struct {
	Key    string `json:"key"` // a hash of it and its actor
	Digest string `json:"digest"`
	At     int64  `json:"at"`
}

// How many requests a record remembers, and how long.
const (
	maxRequests  = 16
	requestsLife = 24 * time.Hour
)

// asked looks whether a request was made before; same: it was this very one.
func (s *Schedule) asked(q Request) (before, same bool) {
	for _, r := range s.Requests {
		if r.Key == q.Key && q.At-r.At < requestsLife.Milliseconds() {
			return true, r.Digest == q.Digest
		}
	}
	return false, false
}

// remember notes a request, if it has a key, and forgets old ones.
func (s *Schedule) remember(q Request) {
	if q.Key == "" {
		return
	}
	kept := slices.DeleteFunc(slices.Clone(s.Requests), func(r Request) bool {
		return r.Key == q.Key || q.At-r.At >= requestsLife.Milliseconds()
	})
	kept = append(kept, q)
	s.Requests = kept[max(0, len(kept)-maxRequests):]
}

// FiringID names one firing of one schedule, and so the rotation that it begins.
func FiringID(tenant, id string, f Firing) string {
	return "schedule-" + hash("firing", tenant, id, time.UnixMilli(f.Due).UTC().Format(time.RFC3339Nano))
}

// hash is one of the parts, each with its length before it.
func hash(parts ...string) string {
	var b []byte
	for _, part := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Actor names a schedule in records and in the audit.
func (s *Schedule) Actor() string { return "schedule:" + s.Name }
