// Package proof has the key by which the revocation service signs what it says
// of itself: receipts, and checkpoints of the audit trail. It is apart from the
// keys that sign tokens: it stands in no JWKS and in no key message of the log,
// so that no guard takes anything signed by it.
//
// Keys are sealed in a record, made once by whichever replica is first, and stay
// there with the times between which they signed: what was signed once can be
// verified as long as somebody has kept the public half.
package proof
