package apidoc_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

func TestEveryProblemTypeIsInTheSchemas(t *testing.T) {
	var file struct {
		About    string `json:"about"`
		Problems []struct {
			Name, Type, Title, OAuth, Do string
			Status                       int
		} `json:"problems"`
	}
	schematest.Vectors(t, "problems.json", &file)
	for i, k := range problem.Kinds() {
		if i >= len(file.Problems) {
			t.Errorf("problems.json lacks %s", k.Name())
			continue
		}
		p, doc := file.Problems[i], problem.DocumentOf(problem.New(k, "x"), "")
		if p.Name != k.Name() || p.Type != doc.Type || p.Title != doc.Title || p.Status != k.Status() || p.OAuth != k.OAuth() || p.Do == "" {
			t.Errorf("problems.json has %+v in the place of %s", p, k.Name())
		}
	}
	if len(file.Problems) != len(problem.Kinds()) {
		t.Errorf("problems.json has %d types, the code %d", len(file.Problems), len(problem.Kinds()))
	}
}

func TestEveryEventTypeIsInTheSchemas(t *testing.T) {
	var schema struct {
		Properties struct{ Type struct{ Enum []string } }
	}
	if err := json.Unmarshal(schematest.Read(t, "event.json"), &schema); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, kind := range []string{wire.KindEpoch, wire.KindEntry, wire.KindKey, wire.KindJoin, wire.KindOut, wire.KindTick} {
		want = append(want, ledger.EventPrefix+kind)
	}
	slices.Sort(want)
	slices.Sort(schema.Properties.Type.Enum)
	if !slices.Equal(schema.Properties.Type.Enum, want) {
		t.Errorf("event.json has the types %q, the log %q", schema.Properties.Type.Enum, want)
	}
}
