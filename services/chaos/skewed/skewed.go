// Package skewed is the wall clock of services whose clock is to be wrong: one can't
// set that of one process without that of all others on the machine. It is compiled
// into the services of a deployment that package chaos starts, in place of time.Now,
// and into nothing else.
package skewed

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"
)

// every is how often a process looks whether its clock is wrong by now.
const every = 5 * time.Millisecond

var (
	began  = time.Now() // its monotonic reading counts
	looked atomic.Int64 // since began
	off    atomic.Int64
)

// File is where it stands by how much the clock of a process is wrong, below the
// directory in which that runs.
func File(pid int) string { return filepath.Join("clocks", strconv.Itoa(pid)) }

// Now is the time by this process's clock.
func Now() time.Time {
	since := int64(time.Since(began))
	if last := looked.Load(); (last == 0 || since-last > int64(every)) && looked.CompareAndSwap(last, since) {
		text, _ := os.ReadFile(File(os.Getpid())) // none: it is right
		by, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		off.Store(by)
	}
	return wrong(time.Now(), time.Duration(off.Load()))
}

// wrong returns what a machine whose wall clock is wrong by so much reads at t. Its
// monotonic clock, which nobody can set, is as it was: what compares two readings
// of one process by that may rely on it. A time.Time has no method for this; its
// second word is the monotonic reading.
func wrong(t time.Time, by time.Duration) time.Time {
	t = t.Add(by)
	words := (*[2]int64)(unsafe.Pointer(&t))
	words[1] -= int64(by)
	return t
}
