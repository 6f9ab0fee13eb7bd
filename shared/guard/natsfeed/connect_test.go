package natsfeed

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/guard/wire"
)

// creds decorates a token with these claims as a credentials file does.
func creds(claims string) []byte {
	enc := base64.RawURLEncoding.EncodeToString
	token := enc([]byte(`{"typ":"JWT","alg":"ed25519-nkey"}`)) + "." + enc([]byte(claims)) + "." + enc([]byte("signature"))
	return []byte("-----BEGIN NATS USER JWT-----\n" + token + "\n------END NATS USER JWT------\n\n" +
		"-----BEGIN USER NKEY SEED-----\nSUSECRETSECRETSECRET\n------END USER NKEY SEED------\n")
}

func TestUserNameIsThatOfTheJWT(t *testing.T) {
	for name, c := range map[string]struct {
		creds []byte
		want  string // empty: refused
	}{
		"a guard":          {creds(`{"name":"orders","sub":"UABC"}`), "orders"},
		"no name":          {creds(`{"sub":"UABC"}`), ""},
		"a subject":        {creds(`{"name":"orders.>"}`), ""},
		"a wildcard":       {creds(`{"name":"*"}`), ""},
		"not JSON":         {creds(`name`), ""},
		"of another type":  {creds(`{"name":7}`), ""},
		"nothing":          {nil, ""},
		"no decoration":    {[]byte("SUSECRETSECRETSECRET"), ""},
		"two parts":        {[]byte("-----BEGIN NATS USER JWT-----\na.b\n------END NATS USER JWT------\n"), ""},
		"no base64 inside": {[]byte("-----BEGIN NATS USER JWT-----\na.!.c\n------END NATS USER JWT------\n"), ""},
	} {
		got, err := UserName(c.creds)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestCredentialsNeverShowInErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.creds")
	if err := os.WriteFile(path, creds(`{"name":"a.b"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Connect("nats://user:hunter2@127.0.0.1:1", path, "a test", nil); err == nil || strings.Contains(err.Error(), "SECRET") {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(path, creds(`{"name":"orders"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Connect("nats://user:hunter2@[::1", path, "a test", nil); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
	if _, err := New(nil, "a.b"); err == nil {
		t.Error("took a user that is two tokens of a subject")
	}
}

func FuzzUserName(f *testing.F) {
	f.Add(creds(`{"name":"orders"}`))
	f.Add([]byte("a.b.c"))
	f.Fuzz(func(t *testing.T, data []byte) {
		name, err := UserName(data)
		if err == nil && wire.CheckInstance(name) != nil {
			t.Errorf("%q can't stand in a subject", name)
		}
		if err != nil && err != errNoUser { //nolint:errorlint // its text must be a fixed one
			t.Errorf("%v may show what the file holds", err)
		}
	})
}
