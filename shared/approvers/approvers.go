// Package approvers is how the revocation service asks the issuer who could be the second
// person of a cut: the issuer has the records of who may do what.
package approvers

import "time"

// Operation is where a Request is sent, after wire.RecordsIssuer.
const Operation = "approvers"

// Within bounds the answer: nobody waits for it any longer.
const Within = 5 * time.Second

// MaxSubjects is how many a Request may name.
const MaxSubjects = 8

// Enough is from how many approvers on a cut needs two people, and how far an answer counts.
const Enough = 2

// Request asks who may make cuts in a tenant.
type Request struct {
	Tenant   string   `json:"tenant"`
	Subjects []string `json:"subjects,omitempty"` // of whom it is asked one by one
	// Epoch and Sequence are how far the issuer has to have applied the log before it
	// answers.
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
}

// Answer tells of what is good now: not of what has expired, is held, or was cut.
type Answer struct {
	// Count is how many people have an API key by which they may make cuts, Enough at most.
	// A client that acts for itself is none, and neither is a principal whose record says
	// workload. Who is held, or was cut within a day, counts all the same.
	Count int `json:"count"`
	// May are those of the subjects that may make cuts, clients among them; People those of
	// these that are people.
	May    []string `json:"may,omitempty"`
	People []string `json:"people,omitempty"`
}
