// Package attempts keeps who still tries with what was cut, for each receipt: at which
// server, from which network, how often, since when and until when.
//
// Guards count, and tell sums that only grow, each for its own name; so a report that is
// lost, repeated or late changes nothing that the next one does not set right, and a guard
// that lies lies of its own server alone. Each replica gathers what it hears and merges it
// into one record of the receipt by compare-and-set, a few seconds apart; the record's
// first version is the event. Everything is bounded, whoever sends whatever.
package attempts
