// Package backup saves the log and all buckets of a Quash in one file, and
// restores them. The streams are taken as the broker keeps them, so that every
// message has its sequence again; the log last, so that it has every revocation
// that the records of the buckets have seen.
//
// A file is a tar: of each stream its data in parts, then what it is (config.json),
// and at the end a manifest with the digests of all. Encryption is the caller's:
// there are sealed private keys and hashes of secrets in it.
//
// What was written after the backup is lost by a restore. So a restore begins a new
// epoch of the log (see ledger.BeginRestored): stamps of what is lost count as those
// of the backup, and sign-ins of before are void. What only Redis or a running guard
// remembers is committed again when the service starts.
package backup
