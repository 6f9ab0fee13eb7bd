package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheDrillComesOutAsItsDocumentSays runs scripts/drill, and compares what it prints with
// docs/drill.md.
func TestTheDrillComesOutAsItsDocumentSays(t *testing.T) {
	t.Parallel() // it has a Quash of its own
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	quash, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join(root, "docs", "drill.md"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(root, "scripts", "drill"))
	cmd.Env = append(os.Environ(), "QUASH="+quash, "TMPDIR="+t.TempDir())
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends the Quash that it has started
	cmd.WaitDelay = deadline
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	t.Logf("the drill printed\n%s%s", out.String(), errOut.String())
	if err != nil {
		t.Fatal(err)
	}
	if line := mismatch(strings.Join(fenced(string(doc), "text"), ""), out.String()); line != "" {
		t.Errorf("the document and what the drill prints differ at %q", line)
	}
}
