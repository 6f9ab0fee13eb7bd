// Package wire holds what writers and readers of the log must agree on: the
// header that travels on the feed (Message), the subjects, the requests and
// answers between a reader and the revocation service, the pages of a whole
// state, the signed form of a signing key, and the keys and values in Redis.
//
// The same forms stand in schemas/ for every other language; tests hold the two
// against each other. Readers ignore members that they do not know, but not a
// kind or an op that they do not know: that could be a revocation.
package wire
