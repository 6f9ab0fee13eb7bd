package rotator

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/guard/keys"
	"github.com/quash-project/quash/shared/signing"
)

func TestIdentityIsPrivateAndNeverReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.pem")
	pub, err := CreateIdentity(path, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v: want 0600", st.Mode(), err)
	}
	private, err := LoadIdentity(path)
	if err != nil || !pub.Equal(private.Public()) {
		t.Fatalf("loaded another key: %v", err)
	}
	before, _ := os.ReadFile(path)
	if _, err := CreateIdentity(path, rand.Reader); !errors.Is(err, fs.ErrExist) {
		t.Errorf("again: got %v, want fs.ErrExist", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the file was replaced")
	}
	if parsed, err := keys.ParseTrust(signing.TrustString(pub)); err != nil || !parsed.Equal(pub) {
		t.Errorf("trust string: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable by others: got %v", err)
	}
}

func TestFileThatIsNoIdentityIsRefusedWithoutRepeatingIt(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "no PEM": "SECRETSECRET",
		"another block": "-----BEGIN RSA PRIVATE KEY-----\nU0VDUkVU\n-----END RSA PRIVATE KEY-----\n",
		"no key":        "-----BEGIN PRIVATE KEY-----\nU0VDUkVU\n-----END PRIVATE KEY-----\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "identity.pem")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadIdentity(path); err == nil || strings.Contains(err.Error(), "SECRET") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A stranger's key signs nothing that a reader believes.
func TestStateSignedByAStrangerIsNotBelieved(t *testing.T) {
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set := signing.Set{Tenant: tenant, Issuer: "http://issuer"}
	jws, err := signing.SignState(stranger, set.StateOf(&signing.Key{ID: "k", State: signing.Signing}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readState(jws, own); err == nil {
		t.Error("it was believed")
	}
}
