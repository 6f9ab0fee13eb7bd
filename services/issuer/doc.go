// Package issuer turns long-lived credentials into short-lived tokens, and
// keeps the records that they are made from: principals, API keys, clients and
// their secrets, roles and bindings.
//
// Two ideas carry it, and each is one piece of code that every path uses.
//
// The stamp comes first (making.go): whoever makes anything reads the stamp of
// its view before it reads what the thing is made of, then checks each record by
// its own targets and stamp, and puts that first stamp on what it makes. So an
// issuer that lags makes what the cut hits, and one that does not lag refuses:
// there is no moment in between, and no clock in it.
//
// Mark, log, finish (ending.go, shared/endings): what takes something away
// marks the record, commits the entry, and only then removes or rewrites it. A
// crash between any two steps leaves a mark that every replica goes on with.
//
// The package knows neither NATS nor HTTP: records come through Table, the log
// through Reader and commit.Committer, signatures through Signers.
package issuer
