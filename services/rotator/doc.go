// Package rotator makes signing keys and decides which of them signs.
//
// The one idea needed to read it: a state machine (Policy.Todo) is asked with a
// time and says what is to be done next; each step is one message in the log or
// one compare-and-set of a record, and can be repeated. So any number of
// replicas work on the same records without a leader, and whoever comes after a
// crash goes on from what is recorded.
//
// A key goes planned → published → signing → retiring → gone, or revoked. Next
// to the one that signs there is always one that is published and that every
// guard knows, so that a rotation needs no waiting in an emergency. An issuer
// signs with a key once its own reader has seen the message "signing", and it
// is committed only after every guard has applied "published" (promise 7).
package rotator
