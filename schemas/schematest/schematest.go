// Package schematest holds what a test has made against the schemas.
package schematest

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/quash-project/quash/schemas"
)

// Schemas are all schemas, ready to be asked.
type Schemas struct{ c *jsonschema.Compiler }

// Load reads every schema.
func Load(t testing.TB) Schemas {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	names, err := fs.Glob(schemas.FS(), "*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Read(t, name)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if m, ok := doc.(map[string]any); !ok || m["$schema"] == nil {
			continue // vectors
		}
		if err := c.AddResource(schemas.Base+name, doc); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return Schemas{c}
}

// Read returns a file of schemas/.
func Read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := fs.ReadFile(schemas.FS(), name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Vectors reads a file of schemas/ into v; members that v has no place for are
// faults.
func Vectors(t testing.TB, name string, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(Read(t, name)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// Check returns what a schema says of a JSON text. The schema is named by its
// file, perhaps with a definition: "message.json", "requests.json#/$defs/sync".
func (s Schemas) Check(t testing.TB, schema string, text []byte) error {
	t.Helper()
	sch, err := s.c.Compile(schemas.Base + schema)
	if err != nil {
		t.Fatalf("schema %s: %v", schema, err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return sch.Validate(doc)
}

// Valid fails the test if the schema refuses the JSON text.
func (s Schemas) Valid(t testing.TB, schema string, text []byte) {
	t.Helper()
	if err := s.Check(t, schema, text); err != nil {
		t.Errorf("%s refuses %.2000s\n%v", schema, text, err)
	}
}

// recordOf are the definitions of records.json by bucket.
var recordOf = map[string]string{
	"tenants": "tenant", "users": "principal", "keys": "key", "uses": "use", "deliveries": "delivery", "clients": "client", "roles": "role", "bindings": "binding",
	"signing_keys": "signing_key_set", "rotations": "rotation", "schedules": "schedule",
	"receipts": "receipt", "proof_keys": "proof_key_set", "attempts": "attempts", "running": "running", // all in the bucket receipts
	"incidents": "incident", "pending": "pending",
}

// SchemaOf returns the schema that a sample is of, by its name:
// "message-tick.json" is of message.json, "request-sync_answer-tail.json" of
// requests.json#/$defs/sync_answer, "record-keys-marked.json" of what a record in
// the bucket keys is.
func SchemaOf(sample string) string {
	kind, rest, _ := strings.Cut(strings.TrimSuffix(sample, ".json"), "-")
	def, _, _ := strings.Cut(rest, "-")
	switch {
	case kind == "request":
		return "requests.json#/$defs/" + def
	case kind == "commit":
		return "commit.json#/$defs/" + def
	case kind == "token":
		return "token.json#/$defs/" + def
	case kind == "issuer":
		return "issuer-event.json"
	case kind == "record":
		return "records.json#/$defs/" + recordOf[def]
	case sample == "key-state.json":
		return sample
	}
	return kind + ".json"
}
