package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

type fault struct {
	why, file, pkg, test string
	args                 []string // of the test
	old, new             string
}

func parse(t *testing.T, path string) fault {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(data), "--- replace\n")
	var f fault
	f.old, f.new, _ = strings.Cut(rest, "--- with\n")
	for _, line := range strings.Split(head, "\n") {
		if why, ok := strings.CutPrefix(line, "# "); ok {
			f.why += why + " "
		}
		if file, ok := strings.CutPrefix(line, "file: "); ok {
			f.file = file
		}
		if test, ok := strings.CutPrefix(line, "test: "); ok {
			f.pkg, f.test, _ = strings.Cut(test, " ")
		}
		if args, ok := strings.CutPrefix(line, "args: "); ok {
			f.args = strings.Fields(args)
		}
		if other, ok := strings.CutPrefix(line, "as: "); ok {
			like := parse(t, filepath.Join(filepath.Dir(path), other+".fault"))
			f.why, f.file, f.old, f.new = like.why, like.file, like.old, like.new
		}
	}
	if f.why == "" || f.file == "" || f.pkg == "" || f.test == "" || f.old == "" || f.old == f.new {
		t.Fatalf("%s: want # why, file:, --- replace, --- with, or as: another fault; test: PACKAGE NAME, args: (if any)", path)
	}
	return f
}

// source returns the file that is to be changed, which has to have the lines once.
func (f fault) source(t *testing.T, root string) (file, text string) {
	t.Helper()
	file = filepath.Join(root, f.file)
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(src), f.old); n != 1 {
		t.Fatalf("the lines to replace stand %d times in %s, want once: move the fault along with the code", n, f.file)
	}
	return file, string(src)
}

// overlay writes the changed file and the description that go test reads.
func (f fault) overlay(t *testing.T, root string) string {
	t.Helper()
	file, src := f.source(t, root)
	dir := t.TempDir()
	changed := filepath.Join(dir, "changed.go")
	if err := os.WriteFile(changed, []byte(strings.Replace(src, f.old, f.new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	desc, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(out, desc, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestEveryFaultIsCaught plants each fault and wants its test to fail.
func TestEveryFaultIsCaught(t *testing.T) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/faults/*.fault")
	if err != nil || len(files) == 0 {
		t.Fatalf("no faults in testdata/faults: %v", err)
	}
	for _, path := range files { // also of those that are not planted this time
		parse(t, path).source(t, root)
	}
	// All of them take minutes of two processors: the test command plants a tenth, another
	// one each time.
	if os.Getenv("QUASH_FAULTS") == "tenth" {
		first := rand.IntN(10)
		t.Logf("every tenth one, from number %d on", first)
		n := -1
		files = slices.DeleteFunc(files, func(string) bool { n++; return n%10 != first })
	}
	// Half of the time of each goes by while its test waits for what does not come.
	atOnce := make(chan struct{}, 2)
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".fault"), func(t *testing.T) {
			t.Parallel()
			atOnce <- struct{}{}
			defer func() { <-atOnce }()
			f := parse(t, path)
			overlay := f.overlay(t, root)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "go", "test", "-vet=off", "-count=1", "-timeout", "150s", "-run", "^"+f.test+"$", f.pkg)
			cmd.Args = append(cmd.Args, f.args...)
			cmd.Dir = root
			// The overlay goes by GOFLAGS so that a test which builds the command
			// line builds it with the fault too.
			cmd.Env = append(os.Environ(), "QUASH_TEST_PATIENCE=8s", "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay))
			cmd.WaitDelay = 10 * time.Second
			out, err := cmd.CombinedOutput()
			name, _, _ := strings.Cut(f.test, "/")
			if err == nil || !strings.Contains(string(out), "--- FAIL: "+name) {
				t.Errorf("planted: %s\nin %s\n%s %s did not fail by its own judgement: %v\n%s", f.why, f.file, f.pkg, f.test, err, last(string(out)))
			}
		})
	}
}

func last(s string) string {
	if n := 3000; len(s) > n {
		return fmt.Sprintf("…%s", s[len(s)-n:])
	}
	return s
}
