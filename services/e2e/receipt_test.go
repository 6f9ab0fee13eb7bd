package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAReceiptIsKeptAndVerifiedOffline: made by a revocation, printed, listed and waited
// for; verified with kept keys where nobody can be asked; refused when one letter differs.
func TestAReceiptIsKeptAndVerifiedOffline(t *testing.T) {
	q := start(t, t.TempDir())
	cut := q.revoke("principal:mallory")
	dir := t.TempDir()
	keep := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	jws := q.ok("receipt", "show", cut.ID)
	if strings.Count(jws, ".") != 2 || strings.Count(jws, "\n") != 1 {
		t.Fatalf("receipt show: %q: want the compact JWS alone", jws)
	}
	keys, file := keep("keys.json", q.ok("receipt", "keys")), keep("receipt.jws", jws)
	var shown struct {
		ID, Reason, JWS string
		Complete        bool
		Confirmed       []struct{ Name string }
	}
	q.json(&shown, "receipt", "wait", cut.ID)
	if shown.ID != cut.ID || shown.Reason != "test" || !shown.Complete || len(shown.Confirmed) == 0 {
		t.Errorf("receipt wait: %+v", shown)
	}
	eventually(t, "it is listed", func() error {
		if !strings.Contains(q.ok("receipt", "list"), cut.ID) {
			return os.ErrNotExist
		}
		return nil
	})
	if page := q.ok("receipt", "show", cut.ID, "-o", "html"); !strings.HasPrefix(page, "<!doctype html>") || !strings.Contains(page, "<svg") || strings.Contains(page, "<script") {
		t.Errorf("receipt show -o html: %.200s", page)
	}
	if out := q.ok("receipt", "verify", file); !strings.Contains(out, "principal:mallory") {
		t.Errorf("verify: %s", out)
	}

	// From here on nobody can be asked.
	away := map[string]string{"QUASH_URL": "http://127.0.0.1:1", "QUASH_KEY_FILE": "", "QUASH_CONFIG_DIR": dir}
	r := q.runEnv(away, "", "receipt", "verify", file, "--keys", keys)
	for _, said := range []string{"genuine", "complete", "revoked principal:mallory", "test"} {
		if r.code != 0 || !strings.Contains(r.out, said) {
			t.Errorf("verify offline: exit code %d, want 0 and %q\n%s%s", r.code, said, r.out, r.err)
		}
	}
	if r := q.runEnv(away, jws, "receipt", "verify", "-", "--keys", keys, "-o", "json"); r.code != 0 || json.Unmarshal([]byte(r.out), &shown) != nil || shown.ID != cut.ID {
		t.Errorf("verify of standard input: exit code %d\n%s%s", r.code, r.out, r.err)
	}
	letter := len(jws) / 2
	other := "A"
	if jws[letter] == 'A' {
		other = "B"
	}
	for name, c := range map[string]struct {
		text, keys string
		code       int
	}{
		"one letter differs": {jws[:letter] + other + jws[letter+1:], keys, 1},
		"no receipt":         {"hello", keys, 1},
		"no key set":         {jws, file, 2},
		"no such key set":    {jws, filepath.Join(dir, "none"), 2},
		"another key set":    {jws, keep("other.json", `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","valid_from":"2026-01-01T00:00:00Z"}]}`), 1},
	} {
		if r := q.runEnv(away, c.text, "receipt", "verify", "-", "--keys", c.keys); r.code != c.code {
			t.Errorf("%s: exit code %d, want %d\n%s%s", name, r.code, c.code, r.out, r.err)
		}
	}
	for code, args := range map[int][]string{1: {"show", strings.Repeat("A", 43)}, 2: {"show", cut.ID, "-o", "pdf"}} {
		if r := q.run("", append([]string{"receipt"}, args...)...); r.code != code {
			t.Errorf("quash receipt %v: exit code %d, want %d\n%s%s", args, r.code, code, r.out, r.err)
		}
	}
}
