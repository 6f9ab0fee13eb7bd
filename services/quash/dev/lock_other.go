//go:build !unix

package dev

import (
	"errors"
	"os"
)

// TryLock has no lock here that ends with the process, whose end is what lets
// the guards of a former process be declared out.
func TryLock(*os.File) error {
	return errors.New("this needs a system with flock: Linux, macOS or a BSD")
}
