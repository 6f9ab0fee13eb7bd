package seal

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

func kek(t testing.TB) *KEK {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek.json")
	if err := CreateKEK(path); err != nil {
		t.Fatal(err)
	}
	k, err := LoadKEK(path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func context() Context {
	return Context{KeyID: "k1", Tenant: "default", Purpose: "signing-key", Version: 1}
}

func TestSealedOpensForTheSameContextOnly(t *testing.T) {
	k := kek(t)
	secret := []byte("a private key")
	box, err := Seal(k, secret, context())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(box.Ciphertext, secret) {
		t.Fatal("the secret stands in the ciphertext")
	}
	if got, err := Open(k, box, context()); err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("got %q, %v", got, err)
	}
	for name, change := range map[string]func(*Context){
		"other kid":     func(c *Context) { c.KeyID = "k2" },
		"other tenant":  func(c *Context) { c.Tenant = "acme" },
		"other purpose": func(c *Context) { c.Purpose = "receipt" },
		"other version": func(c *Context) { c.Version = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			c := context()
			change(&c)
			if _, err := Open(k, box, c); !errors.Is(err, ErrMoved) {
				t.Errorf("opened as it stands: got %v, want ErrMoved", err)
			}
			moved := box
			moved.KeyID, moved.Tenant, moved.Purpose, moved.Version = c.KeyID, c.Tenant, c.Purpose, c.Version
			if _, err := Open(k, moved, c); !errors.Is(err, ErrTampered) {
				t.Errorf("with its label changed: got %v, want ErrTampered", err)
			}
		})
	}
}

func TestLengthsKeepContextsApart(t *testing.T) {
	k := kek(t)
	a := Context{KeyID: "bc", Tenant: "a", Purpose: "p", Version: 1}
	b := Context{KeyID: "c", Tenant: "ab", Purpose: "p", Version: 1}
	box, err := Seal(k, []byte("x"), a)
	if err != nil {
		t.Fatal(err)
	}
	box.KeyID, box.Tenant = b.KeyID, b.Tenant
	if _, err := Open(k, box, b); !errors.Is(err, ErrTampered) {
		t.Errorf("got %v, want ErrTampered", err)
	}
}

func TestEveryChangedBitIsNoticed(t *testing.T) {
	k := kek(t)
	box, err := Seal(k, []byte("a private key"), context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range box.Ciphertext {
		bad := box
		bad.Ciphertext = bytes.Clone(box.Ciphertext)
		bad.Ciphertext[i] ^= 1
		if _, err := Open(k, bad, context()); !errors.Is(err, ErrTampered) && !errors.Is(err, ErrWrongKEK) {
			t.Errorf("byte %d: got %v", i, err)
		}
	}
	for n := range box.Ciphertext {
		bad := box
		bad.Ciphertext = box.Ciphertext[:n]
		if _, err := Open(k, bad, context()); err == nil {
			t.Errorf("cut to %d bytes: it opens", n)
		}
	}
}

func TestWrongKEKIsNamed(t *testing.T) {
	box, err := Seal(kek(t), []byte("x"), context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(kek(t), box, context()); !errors.Is(err, ErrWrongKEK) {
		t.Errorf("got %v, want ErrWrongKEK", err)
	}
}

func TestEmptyKeyIsNeverSealedOrOpened(t *testing.T) {
	k := kek(t)
	if _, err := Seal(k, nil, context()); !errors.Is(err, ErrEmpty) {
		t.Errorf("Seal: got %v, want ErrEmpty", err)
	}
	c := context()
	ct, err := k.Encrypt(nil, c.associated())
	if err != nil {
		t.Fatal(err)
	}
	box := Box{KeyID: c.KeyID, Tenant: c.Tenant, Purpose: c.Purpose, Version: c.Version, Ciphertext: ct}
	if _, err := Open(k, box, c); !errors.Is(err, ErrEmpty) {
		t.Errorf("Open of a sealed nothing: got %v, want ErrEmpty", err)
	}
	box.Ciphertext = nil
	if _, err := Open(k, box, c); !errors.Is(err, ErrEmpty) {
		t.Errorf("Open of nothing: got %v, want ErrEmpty", err)
	}
	for _, c := range []Context{{}, {KeyID: "k", Tenant: "t", Purpose: "p"}, {KeyID: "k", Tenant: "t", Version: 1}} {
		if _, err := Seal(k, []byte("x"), c); err == nil {
			t.Errorf("Seal for %+v: it was taken", c)
		}
	}
}

// Another AEAD, as one that asks a key management service, fits the seam.
func TestAnyAEADFits(t *testing.T) {
	h, err := keyset.NewHandle(aead.AES256GCMSIVKeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	a, err := aead.New(h)
	if err != nil {
		t.Fatal(err)
	}
	box, err := Seal(a, []byte("x"), context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Open(a, box, context()); err != nil || string(got) != "x" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := Open(kek(t), box, context()); !errors.Is(err, ErrWrongKEK) {
		t.Errorf("under another: got %v", err)
	}
}

func TestKEKFileIsPrivateAndNeverReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	if err := CreateKEK(path); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v: want 0600", st.Mode(), err)
	}
	before, _ := os.ReadFile(path)
	if err := CreateKEK(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("again: got %v, want fs.ErrExist", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the file was replaced")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".secret-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKEK(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable by others: got %v", err)
	}
}

func TestFileThatIsNoKEKIsRefusedWithoutRepeatingIt(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "no JSON": "SECRETSECRET", "no keys": `{"primaryKeyId":1,"key":[]}`, "another JSON": `{"SECRETSECRET":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kek.json")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadKEK(path)
			if err == nil || strings.Contains(err.Error(), "SECRET") {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := LoadKEK(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
}

// FuzzOpen: whatever a record holds, nothing opens but what was sealed.
func FuzzOpen(f *testing.F) {
	k := kek(f)
	box, err := Seal(k, []byte("a private key"), context())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(box.Ciphertext)
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, ct []byte) {
		b := box
		b.Ciphertext = ct
		if got, err := Open(k, b, context()); err == nil && (!bytes.Equal(ct, box.Ciphertext) || len(got) == 0) {
			t.Errorf("%x opens as %q", ct, got)
		}
	})
}
