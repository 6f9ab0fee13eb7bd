package enginetest

import (
	"path/filepath"
	"testing"

	"github.com/quash-project/quash/shared/seal"
)

// KEK returns a file with a new key-encryption key, which is gone after the test.
func KEK(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kek")
	if err := seal.CreateKEK(file); err != nil {
		t.Fatal(err)
	}
	return file
}
