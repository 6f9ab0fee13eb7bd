package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// The reader of docs/readers is what resource servers in other languages copy.
const readersDir = "../../docs/readers"

func python(t *testing.T, stdin string, env []string, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "python3", args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(cmd.Environ(), env...)
	cmd.Env = append(cmd.Env, "PYTHONDONTWRITEBYTECODE=1")
	text, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatalf("python3 (scripts/test installs it): %v", err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

func TestReaderInAnotherLanguageKeepsTheVectors(t *testing.T) {
	if out, code := python(t, "", nil, "testdata/reader_vectors.py", readersDir, "../../schemas"); code != 0 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// TestReaderInAnotherLanguageRefusesWhatIsRevoked has nothing but Redis, with a
// reader's rights, and each kind of target that a token from a key has.
func TestReaderInAnotherLanguageRefusesWhatIsRevoked(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("a/b%c", "--scope", "orders:read", "--role", "auditor")
	tok := q.token(key)
	ask := func() (string, int) {
		return python(t, tok, []string{"QUASH_REDIS_URL=" + q.env["QUASH_REDIS_URL"]}, readersDir+"/quash_redis.py")
	}
	if out, code := ask(); code != 0 {
		t.Fatalf("a living token: exit code %d\n%s", code, out)
	}
	client := "key_" + key.ID
	for _, target := range []string{
		"principal:a%2Fb%25c", "client:" + client, "grant:a%2Fb%25c/" + client, "role:auditor", "binding:a%2Fb%25c/auditor", "key:" + key.ID,
	} {
		q.ok("hold", target, "--reason", "test", "--wait", "60s")
		if out, code := ask(); code != 1 {
			t.Errorf("%s is held: exit code %d, want 1\n%s", target, code, out)
		}
		q.ok("release", target, "--reason", "test", "--wait", "60s")
	}
	if out, code := ask(); code != 0 {
		t.Errorf("all is released: exit code %d\n%s", code, out)
	}
	q.revoke("key:" + key.ID)
	if out, code := ask(); code != 1 {
		t.Errorf("the key is revoked: exit code %d, want 1\n%s", code, out)
	}
}
