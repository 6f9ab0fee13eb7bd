package identity

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/quash-project/quash/shared/guard/natsfeed"
)

func TestIdentitiesSurviveAndArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nats")
	made, err := Ensure(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := made.AddGuard("orders"); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(made.Creds("orders"))
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := Ensure(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, account := range accountNames() {
		a, _ := made.AccountKey(account)
		b, _ := loaded.AccountKey(account)
		if a != b {
			t.Errorf("account %s changed its key", account)
		}
	}
	if _, err := loaded.AddGuard("orders"); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(loaded.Creds("orders")); err != nil || string(after) != string(before) {
		t.Errorf("a guard's credentials changed: %v", err)
	}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestGuardNamesCannotMeetServicesOrSubjects(t *testing.T) {
	s, err := Create(filepath.Join(t.TempDir(), "nats"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "issuer", "rotator", "revocation", "control-reader", "monitor", "break-glass", "a.b", "*", ">", "../x", "A", "a b", string(make([]byte, 64))} {
		if _, err := s.AddGuard(name); err == nil {
			t.Errorf("%q became a guard", name)
		}
	}
}

// TestNewRoleIsAddedToOldIdentities: a directory of a version that had no
// monitor gets one, and everything else stays.
func TestNewRoleIsAddedToOldIdentities(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nats")
	old, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(old.Creds(Issuer))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, rolePrefix+Monitor+".nk"), old.Creds(Monitor)} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Ensure(dir)
	if err != nil {
		t.Fatal(err)
	}
	creds, err := os.ReadFile(s.Creds(Monitor))
	if err != nil {
		t.Fatal(err)
	}
	if name, err := natsfeed.UserName(creds); err != nil || name != Monitor {
		t.Errorf("the new role's user is %q, %v", name, err)
	}
	if is, err := os.ReadFile(s.Creds(Issuer)); err != nil || string(is) != string(kept) {
		t.Errorf("another user's credentials changed: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, Log+".nk")); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(dir); err == nil {
		t.Error("a lost account key was replaced: its log would be another account's")
	}
}
