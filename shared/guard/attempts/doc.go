// Package attempts counts, within bounds, who still tries with what was cut or held.
//
// Nothing is counted of what is allowed. What is refused costs a look-up in a map under a
// mutex. Memory is bounded whatever comes: some counts, some networks of each, the oldest
// network forgotten first; every attempt still stands in the sum of its count. What is
// told is told at most every few seconds, and always as sums: see wire.AttemptsReport.
package attempts
