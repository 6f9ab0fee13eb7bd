// Package audit says what the audit trail is: a chain of pages over everything that
// happens, the bodies of the log and each change of a record in any bucket.
//
// A Page has some items, the SHA-256 of the page before, and up to where every source
// stands. Values of records are in it as digests alone. A Verifier holds a chain
// against itself, a Checkpoint keeps what it was at some time, and Search finds in it.
// None of them knows where the pages are: package natstrail keeps them.
//
// Nothing in a chain proves its end: who can rewrite the whole stream can make another
// one. What is in a page that somebody has seen, or has a checkpoint of, can't be
// changed unnoticed.
package audit
