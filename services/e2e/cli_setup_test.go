package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/quash-project/quash/shared/guard/keys"
)

// TestWhatIsMadeOnceIsMadeByCommandsAndNeverReplaced: identities, and what the
// services keep secret.
func TestWhatIsMadeOnceIsMadeByCommandsAndNeverReplaced(t *testing.T) {
	q := &quash{t: t}
	dir := t.TempDir()
	identities, secrets := filepath.Join(dir, "nats"), filepath.Join(dir, "secrets")

	var made struct {
		Config string            `json:"server_config"`
		Creds  map[string]string `json:"creds"`
	}
	q.json(&made, "nats", "init", "--out", identities)
	options, err := server.ProcessConfigFile(made.Config)
	if err != nil || len(options.TrustedOperators) != 1 {
		t.Errorf("a server does not take its configuration: %v", err)
	}
	var guard struct{ Creds string }
	q.json(&guard, "nats", "user", "add", "guard", "orders-api", "--dir", identities)
	for name, path := range map[string]string{"revocation": made.Creds["revocation"], "issuer": made.Creds["issuer"], "orders-api": guard.Creds} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("credentials of %s: %v, %v; want a file of mode 0600", name, info, err)
		}
	}

	var secret struct{ Kek, Identity, Trust string }
	q.json(&secret, "secrets", "init", "--out", secrets)
	if _, err := keys.ParseTrust(secret.Trust); err != nil {
		t.Errorf("trust %q: %v", secret.Trust, err)
	}
	if again := strings.TrimSpace(q.ok("secrets", "trust", secret.Identity)); again != secret.Trust {
		t.Errorf("said again it is %q, not %q", again, secret.Trust)
	}
	before, err := os.ReadFile(secret.Kek)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"nats", "init", "--out", identities},
		{"nats", "init"},
		{"secrets", "init", "--out", secrets},
		{"secrets", "init"},
		{"nats", "user", "add", "guard", "issuer", "--dir", identities},
		{"nats", "user", "add", "guard", "../x", "--dir", identities},
		{"nats", "user", "add", "guard", "orders", "--dir", dir},
		{"secrets", "trust", secret.Kek},
	} {
		if r := q.run("", args...); r.code != 2 || r.err == "" {
			t.Errorf("quash %s: exit code %d, want 2 and why\n%s", strings.Join(args, " "), r.code, r.err)
		}
	}
	if after, err := os.ReadFile(secret.Kek); err != nil || string(after) != string(before) {
		t.Errorf("the key-encryption key was replaced: %v", err)
	}
}
