package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The owner of a key registers a recipient and collects what is sealed to it, by the key's own secret
// alone; nothing is given out to who could not open it.
func TestAKeyIsCollectedByTheCommandLine(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	admin := s.token(s.operator)
	old, _ := s.issue(admin, "alice")
	owner, other := newRecipient(t), newRecipient(t)
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	mine, theirs := write("mine", "# of alice\n"+owner.String()+"\n", 0o600), write("theirs", other.String()+"\n", 0o600)
	open, empty := write("open", owner.String(), 0o644), write("empty", "hunter2", 0o600)

	refused := func(secret string, code int, said string, args ...string) {
		t.Helper()
		got, out, errs := s.command(secret, args...)
		if got != code || !strings.Contains(errs, said) {
			t.Errorf("%q: exit code %d, want %d with %q: %s", args, got, code, said, errs)
		}
		if strings.Contains(out+errs, owner.String()) || strings.Contains(out+errs, "hunter2") {
			t.Errorf("%q: it tells the identity: %s %s", args, out, errs)
		}
	}
	refused(old.Secret, 2, "private key", "key", "recipient", "--self", owner.String())
	refused(old.Secret, 2, "SSH", "key", "recipient", old.ID, "ssh-ed25519 AAAA")
	refused(old.Secret, 2, "want an age recipient", "key", "recipient", "--self")
	if code, out, errs := s.command(old.Secret, "key", "recipient", "--self", owner.Recipient().String(), "--reason", "for the agent"); code != 0 || !strings.Contains(out, owner.Recipient().String()) {
		t.Fatalf("recipient: exit code %d: %s %s", code, out, errs)
	}
	s.fire(old.ID, "f1")
	if code, out, _ := s.command(s.operator, "key", "show", old.ID); code != 0 || !strings.Contains(out, "waits to be collected") {
		t.Errorf("show: %s", out)
	}
	for said, file := range map[string]string{"is missing": "", "mode 0644": open, "no age identity": empty, "no such file": filepath.Join(dir, "none"), "is an identity itself": owner.String()} {
		refused(old.Secret, 2, said, "key", "collect", "--self", "--identity", file)
	}
	refused(s.operator, 2, "none of these identities", "key", "collect", old.ID, "--identity", theirs)

	code, out, errs := s.command(old.Secret, "key", "collect", "--self", "--identity", mine, "--idempotency-key", "k1", "-o", "json")
	var got struct{ ID, Secret, Previous, Until, Recipient string }
	if code != 0 || json.Unmarshal([]byte(out), &got) != nil || got.Previous != old.ID || got.Until == "" {
		t.Fatalf("collect: exit code %d: %s", code, errs)
	}
	if _, r := s.tryExchange(got.Secret); r.status != 200 {
		t.Errorf("the new secret: %d", r.status)
	}
	if code, again, _ := s.command(old.Secret, "key", "collect", "--self", "--identity", mine, "--idempotency-key", "k1", "-o", "json"); code != 0 || again != out {
		t.Errorf("the same request again: exit code %d", code)
	}
	refused(old.Secret, 1, "collected by alice", "key", "collect", "--self", "--identity", mine)
	if code, out, _ := s.command(s.operator, "key", "show", old.ID); code != 0 || !strings.Contains(out, "by alice") || strings.Contains(out, got.Secret) {
		t.Errorf("show: %s", out)
	}
	if code, out, errs := s.command(got.Secret, "key", "recipient", "--self", "--none"); code != 0 || strings.Contains(out, "age1") {
		t.Errorf("taken off: exit code %d: %s %s", code, out, errs)
	}
}
