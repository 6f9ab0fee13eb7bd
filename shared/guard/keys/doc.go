// Package keys holds the signing keys that a guard trusts.
//
// A Set learns them from the log: each key message carries a document signed by
// the rotator's identity key, so that who can write the log can't mint tokens.
// A Remote fetches them from a JWKS URL, as any OpenID provider has one. Neither
// ever takes a key from a token.
package keys
