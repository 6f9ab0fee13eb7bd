// Package chaos proves Quash's promises on a deployment of processes: clients issue,
// exchange, use, revoke, hold and release under load while processes, links, the log
// and Redis fail at random, from a seed that is printed. What was asked and answered
// is recorded by one clock, and a checker that believes no service holds it against
// the promises. See scripts/chaos.
//
// A round is some seconds of load with one or two faults, then quiet, then the check.
// The choices of a round come from its seed and number alone; what the machine's
// scheduling makes of them differs from run to run.
//
// What is left to others: the clocks of services (only those of guards in this
// process are set wrong; those of other processes would need a machine of their own)
// and a full disk (package simulation has the first, and neither is possible here
// without more rights than a test should have).
package chaos
