// Package revoke holds the words of revocation: what can be revoked (Target),
// when something was made (Stamp), what is known of a target (State) and the
// fold of all that into one View.
//
// The one idea needed to read it: what a cut hits is decided by stamps, that
// is by positions in the log, and never by wall clocks. A credential carries
// the stamp of its birth; a cut of its user, client or tenant refuses whatever
// carries a lower one, and leaves alone what was made afterwards.
//
// Merging is commutative, associative and idempotent: any entries in any
// order, any number of times, give the same state (promise 3).
//
// The package imports the standard library only and knows neither transport
// nor storage.
package revoke
