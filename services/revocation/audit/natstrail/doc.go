// Package natstrail keeps the audit trail in a JetStream stream. Each message of it is a
// page, appended by compare-and-set on the stream's last sequence, so that any number of
// replicas follow and each item stands in the chain once; whoever starts reads from the
// last page where to go on. A Follower writes it, a Reader reads it.
package natstrail
