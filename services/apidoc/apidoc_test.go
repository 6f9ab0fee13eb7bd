package apidoc_test

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/quash-project/quash/services/apidoc"
)

var update = flag.Bool("update", false, "rewrite schemas/openapi.json")

func TestTheKeptDocumentIsWhatTheServicesRegister(t *testing.T) {
	doc, err := apidoc.Document()
	if err != nil {
		t.Fatal(err)
	}
	got, err := apidoc.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	const path = "../../schemas/openapi.json"
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the services have other routes than %s says; if that is meant, run go test ./services/apidoc -update and review the change", path)
	}
}
