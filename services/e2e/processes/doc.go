// Package processes runs the tests of one Quash (package e2e) once more, on what
// scripts/up starts instead of quash dev: separate processes, two replicas of each
// service, a NATS cluster of three, TLS everywhere. One suite, two deployments.
package processes
