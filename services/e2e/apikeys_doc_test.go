package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fenced returns the blocks of a language in a document.
func fenced(doc, language string) []string {
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(doc, -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

// mismatch holds what was printed against what a document says, in which … stands
// for anything within a line, and alone on a line for any lines. It returns the
// first line of the document that was not printed, or what was printed after all.
func mismatch(said, printed string) string {
	lines := strings.Split(strings.TrimSpace(printed), "\n")
	skip := false
	for _, want := range strings.Split(strings.TrimSpace(said), "\n") {
		if want == "…" {
			skip = true
			continue
		}
		pattern := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".*") + "$")
		for skip && len(lines) > 0 && !pattern.MatchString(lines[0]) {
			lines = lines[1:]
		}
		if len(lines) == 0 || !pattern.MatchString(lines[0]) {
			return want
		}
		lines, skip = lines[1:], false
	}
	if len(lines) > 0 && !skip {
		return lines[0]
	}
	return ""
}

// TestAPIKeysDocumentRunsAsItStands runs docs/api-keys.md by the line that it
// gives for that, and compares what is printed with what it says.
func TestAPIKeysDocumentRunsAsItStands(t *testing.T) {
	t.Parallel() // for a minute it waits for a key's end
	scanner, err := gitleaks()
	if err != nil {
		t.Fatal(err)
	}
	dir := clone(t)
	data, err := os.ReadFile(filepath.Join(dir, "docs", "api-keys.md"))
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	_, line, ok := strings.Cut(fenced(doc, "console")[0], "$ sed ")
	if !ok {
		t.Fatal("the document does not say how to run all of it")
	}
	start(t, filepath.Join(dir, ".quash")) // as the document has the reader do, on free ports

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+6*deadline) // a key lives for a minute
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", "sed "+line)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(scanner)+string(os.PathListSeparator)+os.Getenv("PATH"),
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	// What it starts in the background ends with it, wherever it fails.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	printed := out.String()
	t.Logf("the document printed\n%s", printed)
	if err != nil {
		t.Fatal(err)
	}
	if line := mismatch(strings.Join(fenced(doc, "text"), ""), printed); line != "" {
		t.Errorf("the document and what it prints differ at %q", line)
	}
}
