//go:build unix

package dev

import (
	"errors"
	"os"
	"syscall"
)

// tryLock locks a file against other processes; the lock ends with the process,
// however that ends.
func tryLock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errLocked
	}
	return err
}
