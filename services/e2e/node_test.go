package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// nodeDir is where the tests' packages of npm are pinned, with the scripts that
// use them.
const nodeDir = "services/e2e/testdata/node"

// node installs those packages, once a test run and only if a test needs them,
// and returns the directory. It has copies of all that the lock names by a path,
// in the same places, so that no test writes into the source.
var node = sync.OnceValues(func() (string, error) {
	root := filepath.Join(buildDir, "npm")
	for _, from := range []string{"deploy/scanners/secretlint", nodeDir} {
		to := filepath.Join(root, from)
		if err := os.MkdirAll(to, 0o700); err != nil {
			return "", err
		}
		files, err := filepath.Glob(filepath.Join("..", "..", from, "*.*"))
		if err != nil {
			return "", err
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			if err := os.WriteFile(filepath.Join(to, filepath.Base(file)), data, 0o600); err != nil {
				return "", err
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	dir := filepath.Join(root, nodeDir)
	// Nothing of a package runs while it is installed.
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci (scripts/test installs npm): %w\n%s", err, out)
	}
	return dir, nil
})

// runNode runs a script or a program of testdata/node, and returns what it
// printed and its exit code.
func runNode(t *testing.T, stdin io.Reader, env []string, name string, args ...string) (out string, code int) {
	t.Helper()
	dir, err := node()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	if filepath.Ext(name) == ".mjs" {
		cmd = exec.CommandContext(ctx, "node", append([]string{name}, args...)...)
	}
	cmd.Dir, cmd.Stdin = dir, stdin
	cmd.Env = append(append(os.Environ(), "NO_COLOR=1"), env...)
	text, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}
