// Package e2e holds the promises of the design, one test file each, and the
// story of a credential from its birth to its refusal. Everything runs against
// the built command line: real processes, an embedded nats-server with
// JetStream on disk, a real redis-server where Redis is at stake, real HTTP.
//
// Each promise is shown to fail when its fault is planted; see the package
// faults below it.
package e2e
