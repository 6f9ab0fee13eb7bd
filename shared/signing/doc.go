// Package signing is what the rotator and the issuer share about signing keys:
// the record in the bucket (Set, Key), the signed public form that travels in
// the log (SignState), and the Keyring from which an issuer signs.
//
// The one idea needed to read it: the record says what has been decided, the
// log says what is known. A key signs only when the issuer's own reader has
// seen its message "signing": by then every guard has had its message
// "published", so no token comes before its key (promise 7).
//
// One record holds all keys of a tenant, so that a rotation (one key begins to
// sign, another stops) is one compare-and-set.
package signing
