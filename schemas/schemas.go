// Package schemas has the contracts of Quash in the forms that every language
// reads: JSON Schema 2020-12, samples, and vectors. README.md says what each
// file is.
package schemas

import (
	"embed"
	"io/fs"
)

// Base is what the ids of all schemas begin with.
const Base = "https://quash.dev/schemas/"

//go:embed *.json samples pages
var files embed.FS

// FS returns all files, read-only.
func FS() fs.FS { return files }
