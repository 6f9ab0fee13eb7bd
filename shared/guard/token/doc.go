// Package token decodes access tokens, and nothing else: it trusts nothing in
// them and checks no signature.
//
// It is strict where JSON Web Token libraries are not (each of these was tried
// with golang-jwt 5.3.1): members that stand twice, names that differ in case
// only, an exp that is a string, CR and LF within a segment, crit and b64. What
// it accepts reads the same for every JSON parser; so a proxy, a gateway and the
// guard can't be made to see different things in one token.
//
// No error holds any part of the token's text.
package token
