package deployment

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/quash-project/quash/shared/engine/enginetest"
)

// endServices ends revocation, rotator and issuer, and returns their names.
func (r *running) endServices() (names []string) {
	r.t.Helper()
	list, err := Processes(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	var services []Process
	for _, p := range list {
		switch kind(p.Name) {
		case "revocation", "rotator", "issuer":
			services, names = append(services, p), append(names, p.Name)
		}
	}
	end(r.t.Context(), services)
	return names
}

// TestBackupIsRestored on a cluster: what was revoked before stays so, what was
// revoked after it comes back from Redis, and what was made in what is lost escapes
// no cut.
func TestBackupIsRestored(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts thirteen processes")
	}
	t.Parallel()
	r := up(t, t.TempDir(), Single)
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, secret := filepath.Join(dir, "quash.backup"), filepath.Join(dir, "age.key")
	if err := os.WriteFile(secret, []byte(key.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	kept, before := r.token("kept"), r.token("before")
	r.revoke("principal:before", before)
	broker := []string{"--identities", filepath.Join(r.dir, "identities")}
	var made struct {
		Streams []struct {
			Name         string
			LastSequence uint64 `json:"last_sequence"`
		}
	}
	r.json(&made, append([]string{"backup", file, "--recipient", key.Recipient().String()}, broker...)...)
	if last := made.Streams[len(made.Streams)-1]; last.Name != "QUASH_LOG" || len(made.Streams) < 9 {
		t.Errorf("saved %+v: want all, the log last", made.Streams)
	}
	if text, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(text), "age-encryption.org/") {
		t.Errorf("the backup is not encrypted: %v", err)
	}
	after, lost := r.token("after"), r.token("lost")
	first := r.revoke("principal:after", after)

	restore := append([]string{"restore", file, "--key-file", secret, "--reason", "a test"}, broker...)
	if _, code := r.quash("", append(restore, "--replace")...); code != 1 {
		t.Errorf("restore under running services: exit code %d, want 1", code)
	}
	ended := r.endServices()
	if _, code := r.quash("", restore...); code != 2 {
		t.Errorf("restore over what is there, without --replace: exit code %d, want 2", code)
	}
	var done struct {
		Epoch uint64
		Kept  []string
	}
	r.json(&done, append(restore, "--replace")...)
	if done.Epoch <= first.Epoch || len(done.Kept) != 1 {
		t.Errorf("restored into epoch %d after %d, kept %q", done.Epoch, first.Epoch, done.Kept)
	}
	for _, name := range ended {
		if err := Restart(r.dir, name); err != nil {
			t.Fatal(err)
		}
	}
	enginetest.Eventually(t, "the services are back", func() error {
		if _, code := r.quash(kept, "check", "-"); code != 0 {
			return fmt.Errorf("exit code %d", code)
		}
		return nil
	})
	// The services have no memory of before: this is from Redis.
	if out, code := r.quash(after, "check", "-"); code != 1 {
		t.Errorf("what was revoked after the backup: exit code %d of check, want 1\n%s", code, out)
	}
	r.want(kept, http.StatusOK)
	r.want(before, http.StatusUnauthorized)
	r.want(after, http.StatusUnauthorized)
	if _, code := r.quash("", "revoke", "principal:lost", "--reason", "its token is of what is lost"); code != 0 {
		t.Errorf("revoke after the restore: exit code %d", code)
	}
	r.want(lost, http.StatusUnauthorized)
	var rotated struct{ Kid string }
	r.json(&rotated, "rotate", "signing-key", "--reason", "a test", "--wait", "1m")
	r.want(r.token("fresh"), http.StatusOK)
	enginetest.Eventually(t, "nothing is wrong", func() error {
		if _, code := r.quash("", "doctor"); code != 0 {
			return fmt.Errorf("exit code %d", code)
		}
		return nil
	})
	r.fsck()
}
