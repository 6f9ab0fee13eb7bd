// Package audit chains everything that happens into one stream: the bodies of
// the log, and each change of a record in any bucket.
//
// Each message of the stream is a Page: some items, the SHA-256 of the page
// before, and up to where every source stands. It is appended by
// compare-and-set on the stream's last sequence, so that any number of replicas
// follow and each item stands in the chain once; whoever starts reads from the
// last page where to go on. Values of records are in it as digests alone.
//
// Nothing proves the end of a chain: who can rewrite the whole stream can make
// another one. What is in a page that somebody has seen can't be changed
// unnoticed.
package audit
