package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// person is somebody with a home of their own, and nothing in the environment.
func person(t *testing.T) (home string, env map[string]string) {
	t.Helper()
	home = t.TempDir()
	return home, map[string]string{"XDG_CONFIG_HOME": home, "QUASH_URL": "", "QUASH_KEY_FILE": "", "QUASH_CONTEXT": ""}
}

func with(env map[string]string, more map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range []map[string]string{env, more} {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

// TestLoginKeepsAContext that commands then need no flag for, that nobody else can read,
// and that has no secret in it.
func TestLoginKeepsAContext(t *testing.T) {
	q := start(t, t.TempDir())
	home, env := person(t)
	issuer, keyFile := q.env["QUASH_URL"], q.env["QUASH_KEY_FILE"]
	want := func(code int, text string, env map[string]string, args ...string) result {
		t.Helper()
		r := q.runEnv(env, "", args...)
		if r.code != code || !strings.Contains(r.out+r.err, text) {
			t.Errorf("quash %s: exit code %d, want %d and %q\n%s%s", strings.Join(args, " "), r.code, code, text, r.out, r.err)
		}
		return r
	}
	want(2, "quash login", env, "key", "list")
	want(0, "prod", env, "login", "--issuer", issuer, "--key-file", keyFile, "--name", "prod")
	file := filepath.Join(home, "quash", "contexts.json")
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v: want a file of mode 0600", info, err)
	}
	secret, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile(file); err != nil || strings.Contains(string(kept), strings.TrimSpace(string(secret))) {
		t.Errorf("%v: the file has the key itself", err)
	}
	want(0, "operator", env, "role", "list")
	want(0, "exchanged for a token", env, "doctor", "-o", "yaml")
	want(0, "eyJ", env, "token")

	// By its host if no name is given; that is then in use.
	want(0, strings.TrimPrefix(issuer, "http://"), env, "login", "--url", issuer, "--key-file", keyFile)
	var list struct {
		Items []struct {
			Name, Issuer string
			KeyFile      string `json:"key_file"`
			Current      bool
		}
	}
	r := want(0, "", env, "context", "list", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &list); err != nil || len(list.Items) != 2 || list.Items[0].Current == list.Items[1].Current {
		t.Errorf("%v %+v: want two, one of them in use", err, list)
	}
	want(0, "prod", env, "context", "use", "prod")
	want(0, issuer, env, "context", "show")
	want(0, "prod", env, "__complete", "context", "use", "")
	want(0, "prod", env, "__complete", "key", "list", "--context", "")
	want(2, "no context", env, "context", "use", "test")
	want(2, "no context", env, "key", "list", "--context", "test")

	// Flags and environment go before it.
	away := "http://127.0.0.1:1"
	want(1, away, with(env, map[string]string{"QUASH_URL": away, "QUASH_KEY_FILE": keyFile}), "key", "list")
	want(2, "secret", with(env, map[string]string{"QUASH_KEY_FILE": "/nonexistent"}), "key", "list")
	want(0, "operator", with(env, map[string]string{"QUASH_URL": issuer + "/"}), "role", "list")
	want(0, "operator", with(env, map[string]string{"QUASH_URL": away, "QUASH_KEY_FILE": "/nonexistent"}), "role", "list", "--context", "prod")

	want(0, "deleted", env, "context", "delete", "prod")
	want(2, "quash login", env, "key", "list")
}

// TestTheKeyOfAContextGoesToItsIssuerAlone: whoever gets somebody to give another URL
// does not get the key.
func TestTheKeyOfAContextGoesToItsIssuerAlone(t *testing.T) {
	q := start(t, t.TempDir())
	_, env := person(t)
	if r := q.runEnv(env, "", "login", "--issuer", q.env["QUASH_URL"], "--key-file", q.env["QUASH_KEY_FILE"], "--name", "prod"); r.code != 0 {
		t.Fatal(r.err)
	}
	other := start(t, t.TempDir()).env["QUASH_URL"]
	if other == q.env["QUASH_URL"] {
		t.Skip("one deployment serves all tests")
	}
	if r := q.runEnv(env, "", "key", "list", "--url", other); r.code != 4 || !strings.Contains(r.err, "not signed in at "+other) {
		t.Errorf("exit code %d, %s: want that nobody is signed in there", r.code, r.err)
	}
	if r := q.runEnv(env, "", "key", "list", "--url", other, "--context", "prod"); r.code != 2 {
		t.Errorf("exit code %d, %s: want one of the two", r.code, r.err)
	}
}

// TestLoginRefuses what would give a key away or keep what is of no use.
func TestLoginRefuses(t *testing.T) {
	q := start(t, t.TempDir())
	home, env := person(t)
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, err := os.ReadFile(q.env["QUASH_KEY_FILE"])
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimSpace(string(good))
	for _, c := range []struct {
		name, key, url, as string
		want               int
	}{
		{"a file that others read", file("open", secret, 0o640), "", "", 2},
		{"the key itself", secret, "", "", 2},
		{"standard input", "-", "", "", 2},
		{"no file", "", "", "", 2},
		{"a file that is not there", filepath.Join(dir, "none"), "", "", 2},
		{"an empty file", file("empty", "", 0o600), "", "", 2},
		{"a key that is not good", file("bad", "quash_key_nope", 0o600), "", "", 4},
		{"a name with a line in it", q.env["QUASH_KEY_FILE"], "", "a\nb", 2},
		{"what is no issuer", q.env["QUASH_KEY_FILE"], "ftp://x", "", 2},
		{"nobody there", q.env["QUASH_KEY_FILE"], "http://127.0.0.1:1", "", 1},
	} {
		url := c.url
		if url == "" {
			url = q.env["QUASH_URL"]
		}
		r := q.runEnv(env, secret, "login", "--issuer", url, "--key-file", c.key, "--name", c.as)
		if r.code != c.want || r.err == "" || strings.Contains(r.out+r.err, secret) {
			t.Errorf("%s: exit code %d, want %d and why, without the key\n%s%s", c.name, r.code, c.want, r.out, r.err)
		}
	}
	kept := filepath.Join(home, "quash", "contexts.json")
	if _, err := os.Stat(kept); !os.IsNotExist(err) {
		t.Errorf("%v: something was kept", err)
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		t.Fatal(err)
	}
	for text, mode := range map[string]os.FileMode{`{"contexts":{}}`: 0o644, `{"contexts":`: 0o600, `{"more":1}`: 0o600} {
		_ = os.Remove(kept)
		if err := os.WriteFile(kept, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"context", "list"}, {"key", "list"}} {
			if r := q.runEnv(env, "", args...); r.code != 2 || !strings.Contains(r.err, kept) {
				t.Errorf("contexts %s of mode %o: quash %s: exit code %d, %s", text, mode, strings.Join(args, " "), r.code, r.err)
			}
		}
	}
}

// TestRecordsAreSaidInEveryForm under the names that the API has.
func TestRecordsAreSaidInEveryForm(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("alice", "--scope", "orders:read")
	q.ok("role", "create", "clerk", "--scope", "orders:read", "--reason", "a test")
	q.ok("role", "bind", "alice", "clerk", "--reason", "a test")
	var client struct {
		ID string `json:"client_id"`
	}
	q.json(&client, "client", "create", "reports", "--scope", "orders:read")
	q.ok("principal", "create", "alice", "--name", "Alice")
	for _, args := range [][]string{
		{"principal", "list"},
		{"principal", "show", "alice"},
		{"key", "list"},
		{"key", "show", key.ID},
		{"client", "list"},
		{"client", "show", client.ID},
		{"role", "list"},
		{"role", "show", "clerk"},
		{"role", "bindings"},
		{"can", "alice", "orders:read"},
		{"fleet"},
		{"context", "list"},
		{"version"},
		{"doctor"},
	} {
		var said [2]any
		table := q.ok(args...)
		for i, form := range []string{"json", "yaml"} {
			out := q.ok(append(args, "-o", form)...)
			read := yaml.Unmarshal
			if form == "json" {
				read = json.Unmarshal
			}
			if err := read([]byte(out), &said[i]); err != nil || out == table || strings.HasPrefix(out, "{") != (form == "json") {
				t.Errorf("quash %s -o %s: %v\n%s", strings.Join(args, " "), form, err, out)
			}
		}
		if a, b := keysOf(said[0]), keysOf(said[1]); a != b {
			t.Errorf("quash %s: JSON has %s, YAML %s", strings.Join(args, " "), a, b)
		}
	}
	if out := q.ok("__complete", "key", "list", "-o", ""); !strings.Contains(out, "table\njson\nyaml\n") {
		t.Errorf("completion of -o: %s", out)
	}
}

// keysOf are the names in what was said, however deep.
func keysOf(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	names := strings.Split(string(text), `"`)
	var out []string
	for i := 1; i+1 < len(names); i += 2 {
		if strings.HasPrefix(names[i+1], ":") {
			out = append(out, names[i])
		}
	}
	return strings.Join(out, " ")
}
