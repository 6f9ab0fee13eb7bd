// Package slo measures how fast revocations take effect, all the time: by canaries,
// which the issuers issue and cut every few seconds, and which go the way of any
// revocation. A run is one canary: how long after it was asked for each guard was
// known to refuse it, and the Redis view to have it.
//
// What one replica measures it keeps in its memory, for a day. Each replica
// measures the canaries that it has committed itself: so all times are by one clock.
package slo
