package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// cloned is what a newcomer's clone has of the code and the documents, copied once
// a test run: what is built there once is built for all.
var cloned = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(buildDir, "clone")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	for _, part := range []string{"deploy", "docs", "schemas", "services", "shared", "go.work", "go.work.sum", "README.md"} {
		if out, err := exec.Command("cp", "-r", filepath.Join("..", "..", part), dir).CombinedOutput(); err != nil {
			return "", fmt.Errorf("copy of %s: %w\n%s", part, err, out)
		}
	}
	return dir, nil
})

// clone returns a clone of which no Quash has run, so that the commands of the
// documents run as they stand and touch nothing else.
func clone(t *testing.T) string {
	t.Helper()
	dir, err := cloned()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, ".quash")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// block returns the first fenced block of a language after a marker.
func block(t *testing.T, readme, marker, language string) string {
	t.Helper()
	_, rest, ok := strings.Cut(readme, marker)
	if !ok {
		t.Fatalf("the document has no %q", marker)
	}
	blocks := fenced(rest, language)
	if len(blocks) == 0 {
		t.Fatalf("the document has no block of %s after %q", language, marker)
	}
	return blocks[0]
}

// TestReadmeStoryRunsAsItStands pastes the README's story into a shell.
func TestReadmeStoryRunsAsItStands(t *testing.T) {
	dir := clone(t)
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	start(t, filepath.Join(dir, ".quash")) // as the first command does, on free ports
	paste := exec.Command("sh", "-e")
	paste.Dir = dir
	paste.Stdin = strings.NewReader(block(t, string(readme), "<!-- story -->", "sh"))
	out, err := paste.CombinedOutput()
	if err != nil {
		t.Fatalf("the story: %v\n%s", err, out)
	}
	want := regexp.MustCompile(`(?s)^.*\b200\n.*complete +yes.*confirmed +demo .*\b401\n.*refused.*exit code 1: refused`)
	if !want.Match(out) {
		t.Errorf("the story printed\n%s\nwant 200, who confirmed, 401, and why", out)
	}
}

// TestReadmeGuardCompiles compiles the ten lines for a resource server.
func TestReadmeGuardCompiles(t *testing.T) {
	dir := clone(t)
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	code := `package main

import (
	"context"
	"net/http"
	"os"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardhttp"
)

func main() { _ = run(context.Background(), http.NotFoundHandler()) }

func run(ctx context.Context, orders http.Handler) error {
` + block(t, string(readme), "embed the guard", "go") + `
	return nil
}
`
	pkg := filepath.Join(dir, "services", "snippet")
	if err := os.MkdirAll(pkg, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(pkg, "main.go"), []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	vet := exec.Command("go", "vet", "./services/snippet")
	vet.Dir = dir
	if out, err := vet.CombinedOutput(); err != nil {
		t.Fatalf("the README's Go: %v\n%s", err, out)
	}
}
