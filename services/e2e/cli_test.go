package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func segment(t testing.TB, token string, i int) []byte {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("token has %d parts, want 3", len(parts))
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[i])
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestExitCodes holds every command against the exit codes it promises.
func TestExitCodes(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("alice", "--scope", "orders:read")
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(key.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	weak := map[string]string{"QUASH_KEY_FILE": keyFile}
	nobody := map[string]string{"QUASH_KEY_FILE": ""}
	away := map[string]string{"QUASH_URL": "http://127.0.0.1:1"}
	cases := []struct {
		name  string
		env   map[string]string
		stdin string
		args  []string
		want  int
	}{
		{"version", nil, "", []string{"version"}, 0},
		{"unknown command", nil, "", []string{"revok"}, 2},
		{"unknown flag", nil, "", []string{"key", "list", "--ownr", "x"}, 2},
		{"group without command", nil, "", []string{"key"}, 2},
		{"bad output", nil, "", []string{"key", "list", "-o", "xml"}, 2},
		{"key create without owner", nil, "", []string{"key", "create", "--scope", "a"}, 2},
		{"key create beyond 400 days", nil, "", []string{"key", "create", "--owner", "a", "--scope", "a", "--expires", "9601h"}, 2},
		{"key show unknown", nil, "", []string{"key", "show", "nosuchkeynosuchkeynosu"}, 1},
		{"revoke without reason", nil, "", []string{"revoke", "principal:alice"}, 2},
		{"revoke unknown kind", nil, "", []string{"revoke", "user:alice", "--reason", "r"}, 2},
		{"revoke empty id", nil, "", []string{"revoke", "principal:", "--reason", "r"}, 2},
		{"revoke long id", nil, "", []string{"revoke", "principal:" + strings.Repeat("a", 513), "--reason", "r"}, 2},
		{"revoke unknown role", nil, "", []string{"revoke", "role:nosuch", "--reason", "r"}, 2},
		{"revoke secret as argument", nil, "", []string{"revoke", key.Secret, "--reason", "r"}, 2},
		{"revoke foreign tenant", nil, "", []string{"revoke", "principal:a", "--tenant", "other", "--reason", "r"}, 4},
		{"revoke not signed in", nobody, "", []string{"revoke", "principal:a", "--reason", "r"}, 4},
		{"revoke without the right", weak, "", []string{"revoke", "principal:a", "--reason", "r"}, 4},
		{"revoke nobody there", away, "", []string{"revoke", "principal:a", "--reason", "r"}, 1},
		{"check nobody there", away, "x.y.z", []string{"check"}, 6},
		{"check garbage", nil, "x.y.z", []string{"check"}, 1},
		{"check nothing", nil, "", []string{"check"}, 2},
		{"token bad key", nil, "quash_key_nope", []string{"token", "--key-file", "-"}, 4},
		{"token no such file", nil, "", []string{"token", "--key-file", "/nonexistent"}, 2},
		{"hold for no time", nil, "", []string{"hold", "principal:a", "--reason", "r", "--for", "0s"}, 2},
		{"revoke what is no secret", nil, "hello world", []string{"revoke", "-", "--reason", "r"}, 2},
		{"revoke nothing from standard input", nil, "", []string{"revoke", "-", "--reason", "r"}, 2},
		{"release what is not held", nil, "", []string{"release", "principal:nobody", "--reason", "r"}, 1},
		{"dev for others", nil, "", []string{"dev", "--listen", "0.0.0.0:0", "--data", t.TempDir()}, 2},
		{"dev without a port", nil, "", []string{"dev", "--listen", "localhost", "--data", t.TempDir()}, 2},
		{"dev where one runs", nil, "", []string{"dev", "--listen", "127.0.0.1:0", "--demo-listen", "127.0.0.1:0", "--data", q.dir}, 1},
		{"doctor", nil, "", []string{"doctor"}, 0},
		{"doctor nobody there", away, "", []string{"doctor"}, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := q.runEnv(c.env, c.stdin, c.args...)
			if r.code != c.want {
				t.Errorf("quash %s: exit code %d, want %d\nstdout: %s\nstderr: %s", strings.Join(c.args, " "), r.code, c.want, r.out, r.err)
			}
			if c.want != 0 && r.err == "" && c.args[0] != "check" {
				t.Errorf("quash %s: nothing on standard error", strings.Join(c.args, " "))
			}
			if strings.Contains(r.out+r.err, key.Secret) {
				t.Errorf("quash %s: prints the secret", strings.Join(c.args, " "))
			}
		})
	}
}

// TestPastedSecretIsRecognized revokes a leaked key and a leaked token without
// anybody naming them.
func TestPastedSecretIsRecognized(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("alice", "--scope", "orders:read")
	tok := q.token(key)
	second := q.token(key)
	if r := q.run("Authorization: Bearer "+tok+"\n", "revoke", "-", "--reason", "leaked", "--wait", "60s"); r.code != 0 {
		t.Fatalf("revoke -: exit code %d\n%s", r.code, r.err)
	}
	q.wantOrders(tok, 401)
	q.wantOrders(second, 200)
	if r := q.run(key.Secret, "revoke", "-", "--reason", "leaked", "--wait", "60s"); r.code != 0 || strings.Contains(r.out+r.err, key.Secret) {
		t.Fatalf("revoke -: exit code %d\n%s", r.code, r.err)
	}
	q.wantOrders(second, 401)
}

// TestFindTellsWhatATextHas, and prints none of it; the same text can then be revoked.
func TestFindTellsWhatATextHas(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("alice", "--scope", "orders:read")
	dead := q.newKey("bob", "--scope", "orders:read")
	tok := q.token(key)
	q.revoke("key:" + dead.ID)
	mistyped := key.Secret[:len(key.Secret)-1] + "!"
	forged := tok[:strings.LastIndexByte(tok, '.')] + ".AAAA"
	text := strings.Join([]string{
		"2026-01-02 GET /orders 200", `{"key":"` + key.Secret + `"}`, "again " + key.Secret, "Authorization: Bearer " + tok, mistyped,
		`DEAD="` + dead.Secret + `"`, "forged " + forged,
	}, "\n")
	file := filepath.Join(t.TempDir(), "app.log")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := q.run("", "find", "--file", file, "-o", "json")
	var found []struct {
		Line                       int
		What, Target, State, Owner string
		Scopes                     []string
	}
	if err := json.Unmarshal([]byte(r.out), &found); err != nil || r.code != 0 {
		t.Fatalf("exit code %d: %v\n%s%s", r.code, err, r.out, r.err)
	}
	var got []string
	for _, f := range found {
		target, _, _ := strings.Cut(f.Target, ":")
		got = append(got, fmt.Sprint(f.Line, " ", f.What, " ", target, " ", f.State, " ", f.Owner, " ", f.Scopes))
	}
	want := []string{
		"2 API key key active alice [orders:read]", "4 access token token active alice [orders:read]",
		"6 API key key revoked bob [orders:read]", "7 token  unknown  []",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	table := q.run(text, "find", "-")
	for _, secret := range []string{key.Secret, dead.Secret, tok, forged, mistyped} {
		if strings.Contains(r.out+r.err+table.out+table.err, secret) {
			t.Error("a secret is printed")
		}
	}
	q.wantOrders(tok, 200) // nothing was cut
	whole := strings.Join([]string{"a log with", key.Secret, "and", tok, "in it"}, " ")
	if r := q.run(whole, "revoke", "-", "--reason", "leaked", "--wait", "60s"); r.code != 0 || strings.Contains(r.out+r.err, key.Secret) {
		t.Fatalf("revoke -: exit code %d\n%s", r.code, r.err)
	}
	q.wantOrders(tok, 401)
	// Tokens of others stand in logs too, and must not keep from cutting what is ours.
	next := q.newKey("carol", "--scope", "orders:read")
	const foreign = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwianRpIjoiMSJ9.AAAA"
	if r := q.run("by "+foreign+" and "+next.Secret, "revoke", "-", "--reason", "leaked"); r.code != 0 || !strings.Contains(r.err, "passed over") || strings.Contains(r.err, foreign) {
		t.Errorf("a log with a token of another issuer: exit code %d\n%s", r.code, r.err)
	}
	// Of a list nothing is passed over: what is not known may be a slip.
	if r := q.run(next.Secret+"\nhello\n", "revoke", "-", "--reason", "leaked"); r.code != 2 {
		t.Errorf("a list with what is no secret: exit code %d, want 2\n%s", r.code, r.err)
	}
	for _, c := range []struct{ in, arg string }{{"", "-"}, {"x", "x"}} {
		if r := q.run(c.in, "find", c.arg); r.code != 2 {
			t.Errorf("find %s of %q: exit code %d, want 2", c.arg, c.in, r.code)
		}
	}
	if r := q.run("hello world", "find", "-"); r.code != 0 || !strings.Contains(r.out, "nothing of this Quash") {
		t.Errorf("exit code %d: %s%s", r.code, r.out, r.err)
	}
}

// TestSameRequestIsSameRevocation repeats a request by its idempotency key.
func TestSameRequestIsSameRevocation(t *testing.T) {
	q := start(t, t.TempDir())
	a, b := q.revoke("principal:x", "--idempotency-key", "k1"), q.revoke("principal:x", "--idempotency-key", "k1")
	if a.ID != b.ID || a.Epoch != b.Epoch || a.Sequence != b.Sequence {
		t.Errorf("repeat: %s at %d.%d, want %s at %d.%d", b.ID, b.Epoch, b.Sequence, a.ID, a.Epoch, a.Sequence)
	}
	if r := q.run("", "revoke", "principal:y", "--reason", "test", "--idempotency-key", "k1"); r.code != 1 || !strings.Contains(r.err, "idempotency") {
		t.Errorf("another request under the same key: exit code %d, want 1\n%s", r.code, r.err)
	}
}

// TestEveryTargetKindIsTaken commits one of each kind by the command line.
func TestEveryTargetKindIsTaken(t *testing.T) {
	q := start(t, t.TempDir())
	for _, target := range []string{
		"principal:p1", "sign-ins:p1", "key:0123456789abcdefghijkl", "client:client_1", "token:j1", "session:s1",
		"grant:p1/client_1", "signing-key:k1", "role:viewer", "binding:p1/viewer", "issuer:elsewhere",
		"principal:a%2Fb%25c", "principal:ünïcode 😀",
	} {
		r := q.run("", "hold", target, "--reason", "test", "-o", "json")
		if target == "role:viewer" || target == "binding:p1/viewer" {
			continue // looked up at the issuer; roles made there have a test of their own
		}
		var got receipt
		if r.code != 0 || json.Unmarshal([]byte(r.out), &got) != nil || got.Sequence == 0 {
			t.Errorf("hold %s: exit code %d\n%s%s", target, r.code, r.out, r.err)
		}
	}
	if r := q.run("", "hold", "issuer:own", "--reason", "test"); r.code != 0 {
		t.Errorf("hold issuer:own: exit code %d\n%s", r.code, r.err)
	}
}
