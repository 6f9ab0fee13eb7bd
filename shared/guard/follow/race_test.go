//go:build race

package follow_test

// raced says that the race detector watches: simulations are shorter then, since
// it makes them twenty times as slow.
const raced = true
