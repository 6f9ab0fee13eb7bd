//go:build unix

package dev

import (
	"errors"
	"os"
	"syscall"
)

// TryLock locks a file against other processes; the lock ends with the process,
// however that ends.
func TryLock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}
