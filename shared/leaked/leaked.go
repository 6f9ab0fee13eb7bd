// Package leaked is how the revocation service and the rotator tell the issuer of secrets that
// stood in the URL of a request to them: what is in a URL stays in logs and histories, so that
// it counts as leaked. Only ids and hashes travel.
package leaked

import (
	"net/netip"

	"github.com/quash-project/quash/shared/apikey"
)

// Operation is where a Request is sent, after wire.RecordsIssuer.
const Operation = "leaked"

// MaxSecrets is how many a Request may name.
const MaxSecrets = 64

// Request says that somebody has shown secrets. What is none of the issuer's is none, and
// nothing is told of it.
type Request struct {
	Where   string     `json:"where"`
	From    netip.Addr `json:"from,omitzero"` // of who showed them; zero: not known
	Secrets []Secret   `json:"secrets"`
}

// Secret is one, as the issuer knows it again.
type Secret struct {
	ID   string      `json:"id"`
	Hash apikey.Hash `json:"sha256"`
	// Kind is what its form says; empty: it has none of ours, and can only be an API key that
	// was imported from another system.
	Kind string `json:"kind,omitempty"`
}

// Answer says that it was dealt with.
type Answer struct{}

// Of returns what can be told of a text.
func Of(text string) Secret {
	kind, err := apikey.Parse(text)
	if err != nil {
		h := apikey.HashOf(text)
		return Secret{ID: apikey.ImportedID(h), Hash: h}
	}
	return Secret{ID: apikey.ID(text), Hash: apikey.HashOf(text), Kind: kind.String()}
}
