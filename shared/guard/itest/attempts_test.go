package itest

import (
	"encoding/json"
	"testing"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/shared/guard/wire"
)

// FuzzAttempts: a report of attempts that is taken is what the schema says, and says the
// same again.
func FuzzAttempts(f *testing.F) {
	f.Add(schematest.Read(f, "samples/v1/request-attempts.json"))
	f.Add([]byte(`{"instance":"a","attempts":[{"at":"1.1","target":"AQEBAQEBAQEBAQEBAQEBAQ","began":1,"first":1,"last":1,"count":1,"from":[{"network":"::ffff:1.2.3.4","first":1,"last":1,"count":1}]}]}`))
	all := schematest.Load(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := wire.DecodeRequest[wire.AttemptsReport](data)
		if err != nil {
			return
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		all.Valid(t, "requests.json#/$defs/attempts", b)
		if _, err := wire.DecodeRequest[wire.AttemptsReport](b); err != nil {
			t.Errorf("%s is taken, and again %v", data, err)
		}
	})
}
