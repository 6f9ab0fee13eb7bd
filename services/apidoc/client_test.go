package apidoc_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestTheClientIsWhatTheDocumentGives runs the generator at the version that is pinned
// in scripts/tools.
func TestTheClientIsWhatTheDocumentGives(t *testing.T) {
	const client = "../../shared/client/api/api.gen.go"
	made := filepath.Join(t.TempDir(), "api.gen.go")
	generate := exec.Command("go", "tool", "oapi-codegen",
		"-config", "../../shared/client/api/generate/config.yaml", "-o", made, "../../schemas/openapi.json")
	generate.Dir = "../../scripts/tools"
	generate.Env = append(os.Environ(), "GOWORK=off")
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("oapi-codegen: %v\n%s", err, out)
	}
	got, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	kept(t, client, got, "what schemas/openapi.json gives")
}
