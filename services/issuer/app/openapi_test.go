package app_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite schemas/openapi/issuer.json")

// TestOpenAPIIsTheContract holds what is served against the document in
// schemas/: a route that is missing there fails, and so does one that changed.
func TestOpenAPIIsTheContract(t *testing.T) {
	w := newWorld(t)
	req, err := http.NewRequest("GET", w.http.URL+"/openapi/issuer.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	a := w.do(req)
	var served bytes.Buffer
	if err := json.Indent(&served, a.body, "", "  "); err != nil {
		t.Fatalf("status %d, %s: %v", a.status, a.body, err)
	}
	served.WriteByte('\n')
	path := filepath.Join("..", "..", "..", "schemas", "openapi", "issuer.json")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, served.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, served.Bytes()) {
		t.Errorf("the service's OpenAPI document differs from %s; if that is meant, run this test with -update and review the change", path)
	}
}
