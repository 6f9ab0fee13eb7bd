// Package deployment runs Quash as separate processes on one machine: three
// nats-servers in a cluster, a redis-server, two replicas of each service and two
// guarded demo servers, each with the identity and the configuration that it has
// in production (deploy/), over TLS by an authority of its own. It is for
// operators who want to see a whole Quash before they run one, and for the tests
// of what holds between processes.
//
// What runs stands in processes.json, by which Down ends just those. Everything
// is kept in one directory, and survives Down and Up again: ports, since the
// issuer's URL stands in every token; identities; data.
package deployment
