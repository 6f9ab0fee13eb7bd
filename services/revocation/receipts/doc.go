// Package receipts keeps how far each revocation, hold and release has come, for
// as long as it lives and 400 days at least: longer than the log has its entry.
//
// The one idea needed to read it: a receipt only ever says what a fleet.Confirmation
// has said, and the log is the list of what needs one. So nothing is written on the
// way of a commit. Every replica follows the log, looks at an entry some moments
// later, and again less and less often until it is complete; whoever is first
// writes, by compare-and-set, and what two of them have heard is merged. After a
// crash, or where the queue was full, the log is read again from a position below
// which everything has its receipt.
//
// Merging never makes a receipt say more than one of its parts: who has confirmed
// has it for good; who has not, what bounds them, and whether all is complete is
// what one replica judged at one moment, in the newest epoch that any of them knew.
package receipts
