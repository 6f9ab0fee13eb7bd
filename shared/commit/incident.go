package commit

import (
	"fmt"
	"regexp"
)

// incident is the form of an incident's id: when it was opened, so that ids are in that
// order, and 40 random bits.
var incident = regexp.MustCompile(`^inc_[0-9]{14}_[a-z2-7]{8}$`)

// CheckIncident tells whether a text can be the id of an incident.
func CheckIncident(id string) error {
	if incident.MatchString(id) {
		return nil
	}
	return fmt.Errorf("%.60q: want the id of an incident, as inc_20260131120000_k3v7xq2m", id)
}

// maxRequestID bounds the id of a request.
const maxRequestID = 64

// CheckRequestID tells whether a text can be the id of a request, or is none.
func CheckRequestID(id string) error {
	if len(id) > maxRequestID {
		return fmt.Errorf("has %d bytes: %d at most", len(id), maxRequestID)
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' {
			return fmt.Errorf("%.60q: want printable ASCII", id)
		}
	}
	return nil
}
