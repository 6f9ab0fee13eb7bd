// Package bench measures Quash beside what bounds it: each benchmark runs the
// bare engine or the peer in the same run, interleaved where times are compared,
// and reports the ratio. scripts/bench runs them all and prints each beside its
// goal.
//
// Those whose names begin with Deployment measure what scripts/up starts: separate
// processes, three synced nodes of NATS, TLS. scripts/bench --deployment runs them.
package bench
