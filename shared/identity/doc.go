// Package identity makes and keeps the NATS identities of a Quash: one
// operator, four accounts, and one user for each service and each guard.
//
// The one idea: whoever may create a JetStream consumer can make the server
// publish on any literal subject of its account (nats-server issue 8274). So
// the log has an account of its own, the buckets another, and guards a third
// that has no JetStream at all; what they need of each other crosses by exports
// and imports that are written down here and nowhere else.
//
//	LOG      the log and the audit trail; the user "revocation"
//	CONTROL  the buckets; "issuer", "rotator", and "control-reader", which only reads
//	GUARDS   resource servers; one user each
//	SYS      the server's own; "monitor", which may ask how JetStream is set up
//
// A Set is a directory: seeds in files of mode 0600, users' credentials in creds/
// and guards/. Accounts and their rules are signed anew at each load, so that a
// new version's rules hold for credentials that were given out before. It is safe for concurrent use by one process.
package identity
