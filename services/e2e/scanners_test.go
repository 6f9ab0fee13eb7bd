package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/apikey"
)

const (
	gitleaksRules  = "../../deploy/scanners/gitleaks.toml"
	secretlintRule = "@quash-project/secretlint-rule-quash"
)

// gitleaks builds the scanner, at the version in scripts/tools/go.mod, and
// returns its path.
var gitleaks = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "tool", "-n", "gitleaks")
	cmd.Dir = filepath.Join("..", "..", "scripts", "tools")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build of gitleaks: %w\n%s", err, errOut.String())
	}
	return strings.TrimSpace(string(out)), nil
})

// runGitleaks scans a directory ("dir") or a history ("git") and returns the
// rule by which each secret was found.
func runGitleaks(t *testing.T, what, dir string) map[string]string {
	t.Helper()
	path, err := gitleaks()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, what, "--no-banner", "--config", gitleaksRules, "--report-format", "json", "--report-path", "-", "--exit-code", "0", dir)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gitleaks: %v\n%s", err, errOut.String())
	}
	var leaks []struct{ RuleID, Secret string }
	if err := json.Unmarshal(out, &leaks); err != nil {
		t.Fatalf("gitleaks: %v in %.200s", err, out)
	}
	found := map[string]string{}
	for _, l := range leaks {
		if strings.HasPrefix(l.RuleID, "quash-") { // its own rules guess, too
			found[l.Secret] = l.RuleID
		}
	}
	return found
}

var namedKey = regexp.MustCompile(`found (an API key|a client secret|a refresh token) of Quash, id ([0-9A-Za-z]{22}): quash revoke `)

// secretlint scans a text, as a file of the project where it is installed (it
// takes no others) or as standard input, and returns the ids that it names with
// what they are.
func secretlint(t *testing.T, text string, asFile bool) map[string]string {
	t.Helper()
	args := []string{"--format", "unix", "--secretlintrcJSON", `{"rules":[{"id":"` + secretlintRule + `"}]}`}
	if asFile {
		dir, err := node()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "notes.txt")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file)
		text, args = "", append(args, "**/*.txt")
	} else {
		args = append(args, "--stdinFileName=history")
	}
	out, code := runNode(t, strings.NewReader(text), nil, "node_modules/.bin/secretlint", args...)
	found := map[string]string{}
	for _, m := range namedKey.FindAllStringSubmatch(out, -1) {
		found[m[2]] = m[1]
	}
	if want := min(len(found), 1); code != want {
		t.Fatalf("secretlint: exit code %d, want %d:\n%s", code, want, tail(out, 2000))
	}
	return found
}

// leak is a file with secrets as people leave them, and what a scanner is to say
// of each.
type leak struct {
	text             string
	ids, rules       map[string]string // of the good ones, by id and by secret
	typos, malformed []string          // of the right length, and of a wrong one
}

func newLeak(t *testing.T) leak {
	t.Helper()
	l := leak{ids: map[string]string{}, rules: map[string]string{}}
	var b strings.Builder
	for kind, names := range map[apikey.Kind][2]string{
		apikey.Key:     {"an API key", "quash-api-key"},
		apikey.Secret:  {"a client secret", "quash-client-secret"},
		apikey.Refresh: {"a refresh token", "quash-refresh-token"},
	} {
		for _, form := range []string{"KEY=%s\n", "key: %s # mine\n", "{\"key\":\"%s\"}\n", "curl -H 'Authorization: Bearer %s'\n", "https://example.com/?a%%3D%s%%26b\n", "`%s`.\n"} {
			s, err := apikey.Generate(rand.Reader, kind)
			if err != nil {
				t.Fatal(err)
			}
			text := s.Reveal()
			l.ids[apikey.ID(text)], l.rules[text] = names[0], names[1]
			typos := typos(text)
			l.typos = append(l.typos, typos...)
			l.malformed = append(l.malformed, text[:len(text)-1], text[1:], strings.ToUpper(text))
			for _, one := range slices.Concat([]string{text}, typos, l.malformed[len(l.malformed)-3:]) {
				fmt.Fprintf(&b, form, one)
			}
		}
	}
	b.WriteString("quash_key_" + strings.Repeat("X", 49) + " is a placeholder\n")
	l.text = b.String()
	return l
}

// typos are those of a person: a wrong digit, two in the wrong order, another case.
func typos(text string) []string {
	wrong := []byte(text)
	at := len(text) - 20
	wrong[at] = '0' + (wrong[at]+1)%10
	if wrong[at] == text[at] {
		wrong[at] = 'x'
	}
	swapped := []byte(text)
	for i := at; ; i-- {
		if swapped[i] != swapped[i-1] {
			swapped[i], swapped[i-1] = swapped[i-1], swapped[i]
			break
		}
	}
	digits := text[strings.LastIndexByte(text, '_')+1:]
	cased := strings.TrimSuffix(text, digits) + strings.ToLower(digits)
	return []string{string(wrong), string(swapped), cased}
}

// TestScannersFindSecretsAndNoMistypedOnes leaks secrets into a file and into a
// history from which they were removed, and has two scanners look, unmodified,
// with the rules that people get.
func TestScannersFindSecretsAndNoMistypedOnes(t *testing.T) {
	l := newLeak(t)
	repo := t.TempDir()
	if err := os.WriteFile(filepath.Join(repo, "notes.txt"), []byte(l.text), 0o600); err != nil {
		t.Fatal(err)
	}
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", repo, "-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	git("init", "-q")
	git("add", "notes.txt")
	git("commit", "-q", "-m", "Note")

	// A pattern can't tell a typo; what is no secret by its length it can.
	matched := maps.Clone(l.rules)
	for _, typo := range l.typos {
		matched[typo] = l.rules[typo]
	}
	byPattern := func(what string) {
		t.Helper()
		found := runGitleaks(t, what, repo)
		for secret, rule := range l.rules {
			if found[secret] != rule {
				t.Errorf("gitleaks %s: a secret was found by %q, want %s", what, found[secret], rule)
			}
		}
		for secret := range found {
			if _, ok := matched[secret]; !ok {
				t.Errorf("gitleaks %s reports what is no secret, of %d characters", what, len(secret))
			}
		}
	}
	byPattern("dir")
	byPattern("git")
	if found := secretlint(t, l.text, true); !maps.Equal(found, l.ids) {
		t.Errorf("secretlint names %v, want %v", found, l.ids)
	}

	git("rm", "-q", "notes.txt")
	git("commit", "-q", "-m", "Remove the notes")
	if found := runGitleaks(t, "dir", repo); len(found) > 0 {
		t.Errorf("gitleaks dir finds %d secrets after their removal", len(found))
	}
	byPattern("git")
	if found := secretlint(t, git("log", "-p", "--all"), false); !maps.Equal(found, l.ids) {
		t.Errorf("secretlint names in the history %v, want %v", found, l.ids)
	}
	if found := secretlint(t, strings.Join(slices.Concat(l.typos, l.malformed), "\n"), false); len(found) > 0 {
		t.Errorf("secretlint names what is mistyped: %v", found)
	}
}
