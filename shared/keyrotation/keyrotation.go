// Package keyrotation is how the rotator asks the issuer for what schedules do with API keys and
// client secrets: the issuer has their records, and nobody else writes them. No secret travels.
package keyrotation

import "time"

// The operations, after wire.KeysIssuer.
const (
	OpRotate = "rotate"
	OpMay    = "may-rotate"
	OpAge    = "age"
)

// Within bounds an answer: the rotator asks again.
const Within = 20 * time.Second

// Ref names what is rotated: a key, or whatever has come in its place; or a client by the newest
// of its secrets. One of the two is given.
type Ref struct {
	Tenant string `json:"tenant"`
	Key    string `json:"key,omitempty"`
	Client string `json:"client,omitempty"`
}

// Rotate asks for a rotation whose secret nobody is shown. The same Firing is the same rotation,
// however often it is asked for.
type Rotate struct {
	Ref       Ref    `json:"ref"`
	Firing    string `json:"firing"`
	OverlapMS int64  `json:"overlap_ms,omitempty"` // 0: as the issuer has it
	Actor     string `json:"actor"`
	Reason    string `json:"reason"`
}

// Rotated is what became of it.
type Rotated struct {
	// Outcome is sealed, due or taken-back, as the issuer's UnattendedOutcome.
	Outcome string `json:"outcome"`
	Key     string `json:"key"`                // the old one
	Next    string `json:"next,omitempty"`     // the new one
	UntilMS int64  `json:"until_ms,omitempty"` // when the old one ends, in Unix milliseconds; 0: it has, or does not
}

// The outcomes.
const (
	Sealed    = "sealed"
	Due       = "due"
	TakenBack = "taken-back"
)

// May asks whether somebody may have something rotated by itself. The rotator has proved who it is.
type May struct {
	Ref    Ref      `json:"ref"`
	Actor  string   `json:"actor"`
	Scopes []string `json:"scopes"` // what they hold
}

// Yes is the answer to May; a no is an error.
type Yes struct{}

// Age tells how old something is.
type Age struct {
	// Subject is another one once the key is, and once there is reason to try again to rotate it.
	Subject   string `json:"subject"`
	CreatedMS int64  `json:"created_ms"`
	ExpiresMS int64  `json:"expires_ms"`
}
