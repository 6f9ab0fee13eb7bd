package itest

import (
	"io/fs"
	"testing"

	"github.com/quash-project/quash/schemas"
	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/shared/guard/wire"
)

// FuzzEnvelope: what decodes is, encoded again, what the schema says.
func FuzzEnvelope(f *testing.F) {
	paths, err := fs.Glob(schemas.FS(), "samples/v1/message-*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		f.Add(schematest.Read(f, path))
	}
	all := schematest.Load(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := wire.Decode(data)
		if err != nil {
			return
		}
		b, err := wire.Encode(m)
		if err != nil {
			return // an optional message of a kind that nobody knows
		}
		all.Valid(t, "message.json", b)
	})
}
