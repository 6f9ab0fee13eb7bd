// Package revocation is what incident responders ask for: revoke, hold and
// release, tell how far it has come, who is in the fleet, and whether a token
// would be taken and why. It knows no transport; package ledger keeps the log
// under it, package fleet knows who has confirmed.
package revocation
