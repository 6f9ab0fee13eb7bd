// Package chaos proves Quash's promises on a deployment of processes: clients issue,
// exchange, use, revoke, hold and release under load while processes, links, disks,
// clocks, the log and Redis fail at random, from a seed that is printed. What was
// asked and answered is recorded by one clock, and a checker that believes no service
// holds it against the promises. See scripts/chaos.
//
// A round is some seconds of load with a few faults, then quiet, then the check. A
// short round is some two to three seconds: see pace. The choices of a round come
// from its seed and number alone, and from whether disks can be filled, which takes
// the right to mount, and packets lost, which takes a network of its own (see Enclose);
// what the machine's scheduling makes of them differs from run to run.
//
// What is left to others: the clocks of NATS and of Redis, which can't be set without
// that of the machine, and Redis as a Cluster or behind Sentinels (a failover here is
// that of an address, to a server that follows). For a minute after the log went
// back nothing is called complete, so that rounds soon after that don't try what a
// complete revocation promises.
package chaos
