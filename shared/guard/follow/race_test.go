//go:build race

package follow_test

// raced says that the race detector watches: simulations are shorter then, since
// it makes them twenty times as slow, and crashes itself after many timers in virtual
// time (golang/go#78156). scripts/test runs them whole without it.
const raced = true
