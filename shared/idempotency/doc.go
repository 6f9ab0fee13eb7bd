// Package idempotency remembers for a day what was asked under an
// Idempotency-Key (draft-ietf-httpapi-idempotency-key-header) and what was
// answered, so that a request which is sent again is done once.
//
// A request is noted before it is worked on, by one write that only one of all
// replicas can make. Each note has a random seed: whatever its request makes at
// random it makes from that, so that a try after a crash goes on with what the
// one before began. What was answered is noted too; a secret never is.
//
// Commits to the log and rotations need none of this: their ids are derived from
// the key, and the entry or the record itself tells what was asked.
package idempotency
