// Package simulation runs the real protocol (ledger, fleet, holds, Redis writer and
// reader, followers, and the issuer with its marks) over a log, a feed, a record store
// and Redis servers in memory, in virtual time, while everything goes wrong that can:
// messages lost, late and doubled, acknowledgements lost and late, writes that land
// long after they were given up, copies of records that stall, crashes between any two
// steps, cut-offs, the log going back and giving sequences out twice, Redis flushed,
// fallen back and failed over, clocks off, and a night in which entries come to their
// end while nothing runs. Every choice comes from a seed that is printed.
//
// What is true is kept apart from what the protocol believes: by the true time of
// what was asked and answered, and never by stamps. See truth.
//
//	go test ./services/simulation -seeds 300            as the test command does
//	go test ./services/simulation -first 17 -seeds 1 -v  one seed again
package simulation
