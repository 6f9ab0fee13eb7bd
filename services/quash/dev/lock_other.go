//go:build !unix

package dev

import (
	"errors"
	"os"
)

// tryLock has no lock here that ends with the process, whose end is what lets
// the guards of a former process be declared out.
func tryLock(*os.File) error {
	return errors.New("quash dev needs a system with flock: Linux, macOS or a BSD")
}
