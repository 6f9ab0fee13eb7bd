package schemas_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/quash-project/quash/schemas"
	"github.com/quash-project/quash/schemas/schematest"
)

func TestSamplesAreWhatTheSchemasSay(t *testing.T) {
	all := schematest.Load(t)
	samples, err := fs.Glob(schemas.FS(), "samples/v1/*.json")
	if err != nil || len(samples) < 30 {
		t.Fatalf("%d samples, %v", len(samples), err)
	}
	for _, path := range samples {
		name := strings.TrimPrefix(path, "samples/v1/")
		t.Run(name, func(t *testing.T) {
			all.Valid(t, schematest.SchemaOf(name), schematest.Read(t, path))
		})
	}
}

// What could be read once must be read for ever: a sample that is changed or
// removed would let a reader forget it in silence. A new form is a new sample, and
// a new line at the end of the list.
func TestFrozenSamplesAreNeverChangedNorRemoved(t *testing.T) {
	const dir, list = "samples/v1", "SHA256SUMS"
	var listed []string
	for line := range strings.Lines(string(schematest.Read(t, dir+"/"+list))) {
		sum, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok || slices.Contains(listed, name) {
			t.Errorf("%s: line %q: want HASH, two spaces and a name, each once", list, line)
			continue
		}
		listed = append(listed, name)
		text, err := fs.ReadFile(schemas.FS(), dir+"/"+name)
		if err != nil {
			t.Errorf("a frozen sample is gone: %v", err)
			continue
		}
		if got := sha256.Sum256(text); hex.EncodeToString(got[:]) != sum {
			t.Errorf("%s was changed: it is frozen; write a new sample", name)
		}
	}
	files, err := fs.ReadDir(schemas.FS(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() != list && !slices.Contains(listed, f.Name()) {
			t.Errorf("%s is not in %s: freeze it", f.Name(), list)
		}
	}
}

// A schema that takes everything would pass every other test.
func TestSchemasRefuseWhatIsWrong(t *testing.T) {
	all := schematest.Load(t)
	for sample, changes := range map[string][]map[string]any{
		"message-tick.json":          {{"kind": "later"}, {"id": "short"}, {"epoch": 0}, {"cut": []string{}}, {"epoch": nil}, {"jws": "a.b.c"}, {"optional": false}},
		"message-entry-cut.json":     {{"ops": []string{"end"}}, {"ops": []string{}}, {"cut": nil}, {"until": 1.5}, {"at": "now"}, {"first": map[string]any{}}, {"name": "x"}, {"recommitted": "1"}},
		"message-entry-hold.json":    {{"hold_end": nil}, {"then": "nothing"}, {"hold": nil}},
		"message-entry-release.json": {{"release": map[string]any{"x": "1.1"}}, {"release": map[string]any{}}, {"hold_end": 5}},
		"message-epoch-first.json":   {{"d": nil}, {"d": "01.1"}, {"limit_ms": 5}},
		"message-key.json":           {{"jws": "a.b"}, {"kid": ""}, {"until": nil}},
		"message-join.json":          {{"past": "open"}, {"limit_ms": 0}, {"instance": "a.b"}, {"by": "self"}},
		"message-out.json":           {{"by": nil}, {"past": "deny"}},
		"request-sync.json":          {{"limit": 5}, {"instance": nil}, {"position": map[string]any{}}},
		"request-probe.json":         {{"urgent": "yes"}},
		"request-heard.json":         {{"heard": []any{}}, {"heard": nil}, {"later": true}},
		"request-page.json":          {{"page": -1}, {"page": 65536}},
		"commit-request.json":        {{"op": "cut"}, {"targets": []any{}}, {"reason": ""}, {"extra": 1}},
		"event-entry.json":           {{"specversion": "0.3"}, {"type": "dev.quash.log.later"}, {"time": "2025-11-24"}, {"data": map[string]any{}}},
		"problem.json":               {{"type": "about:blank"}, {"status": 200}},
		"key-state.json":             {{"state": "lost"}, {"end": 0}},
	} {
		for _, change := range changes {
			var doc map[string]any
			if err := json.Unmarshal(schematest.Read(t, "samples/v1/"+sample), &doc); err != nil {
				t.Fatal(err)
			}
			for name, v := range change {
				if doc[name] = v; v == nil {
					delete(doc, name)
				}
			}
			b, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			if all.Check(t, schematest.SchemaOf(sample), b) == nil {
				t.Errorf("%s with %v is taken: %s", sample, change, b)
			}
		}
	}
}
