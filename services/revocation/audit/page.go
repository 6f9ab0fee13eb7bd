package audit

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// The stream of the chain, and the subject of its pages.
const (
	Stream   = "QUASH_AUDIT"
	Subjects = "quash.audit.>"
	Subject  = "quash.audit.page"
)

// Page is one link of the chain.
type Page struct {
	Number   uint64 `json:"number"`   // from 1: also its sequence in the stream
	Previous Digest `json:"previous"` // of the page before, as it is stored
	// Upto is where each source stands after this page.
	Upto  map[string]Place `json:"upto"`
	Items []Item           `json:"items"`
}

// Place is up to where a source was read.
type Place struct {
	Made     time.Time `json:"made"` // when the source stream was made: it is another one if that changes
	Sequence uint64    `json:"sequence"`
	// Stored is when the message there was stored: if it has another time there, the
	// stream went back and has grown again. Zero in pages of older versions.
	Stored time.Time `json:"stored,omitzero"`
}

// The types of items besides those of the log's events.
const (
	TypePut     = "dev.quash.record.put"
	TypeRemove  = "dev.quash.record.remove"
	TypeRestart = "dev.quash.source.restart" // a source went back, or was made anew
)

// Item is one thing that happened.
type Item struct {
	Source   string    `json:"source"` // the stream that it was read from
	Sequence uint64    `json:"sequence"`
	Stored   time.Time `json:"stored"` // by the broker's clock
	Type     string    `json:"type"`
	Actor    string    `json:"actor"`
	Reason   string    `json:"reason"`
	At       time.Time `json:"at"` // by the clock of whoever did it
	// Digest is over what was stored: its subject, its header Quash and its body,
	// each with its length before it.
	Digest Digest `json:"digest"`
	// Event is the body of a message of the log.
	Event json.RawMessage `json:"event,omitempty"`
	// Bucket and Key name a record; its value is not here.
	Bucket string `json:"bucket,omitempty"`
	Key    string `json:"key,omitempty"`
	// Request is the id of the request that changed a record; an event has its own.
	Request string `json:"request,omitempty"`
	// Incident is under which a record of the bucket pending was made; an event has its own.
	Incident string `json:"incident,omitempty"`
}

// Digest is a SHA-256; as text, 43 characters of base64url.
type Digest [sha256.Size]byte

func (d Digest) String() string { return base64.RawURLEncoding.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) error {
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) != len(d) {
		return fmt.Errorf("digest %.60q: want 43 characters of base64url", text)
	}
	copy(d[:], b)
	return nil
}
