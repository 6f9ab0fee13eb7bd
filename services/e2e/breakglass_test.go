package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// glass asks with the break-glass identity.
func (q *quash) glass(args ...string) result {
	q.t.Helper()
	found, err := filepath.Glob(filepath.Join(q.dir, "*", "creds", "break-glass.creds"))
	if err != nil || len(found) != 1 {
		q.t.Fatalf("credentials of break-glass: %q, %v", found, err)
	}
	return q.run("", append([]string{"break-glass", "--creds", found[0], "--reason", "alice, on call: nobody can sign in"}, args...)...)
}

// lockedOut waits until the operator can do nothing.
func (q *quash) lockedOut() {
	q.t.Helper()
	eventually(q.t, "the operator is locked out", func() error {
		if r := q.run("", "key", "list"); r.code != 4 {
			return fmt.Errorf("exit code %d, want 4\n%s", r.code, r.err)
		}
		return nil
	})
}

func (q *quash) letIn() {
	q.t.Helper()
	eventually(q.t, "the operator is let in", func() error {
		if r := q.run("", "key", "list"); r.code != 0 {
			return fmt.Errorf("exit code %d\n%s", r.code, r.err)
		}
		return nil
	})
}

// held lists the targets that break-glass is shown.
func (q *quash) held() []string {
	q.t.Helper()
	r := q.glass("holds", "-o", "json")
	var list struct {
		Items []struct{ Target, Actor, Reason string }
	}
	if err := json.Unmarshal([]byte(r.out), &list); r.code != 0 || err != nil {
		q.t.Fatalf("break-glass holds: exit code %d, %v\n%s%s", r.code, err, r.out, r.err)
	}
	var out []string
	for _, h := range list.Items {
		if h.Actor == "" || h.Reason == "" {
			q.t.Errorf("hold without actor or reason: %+v", h)
		}
		out = append(out, h.Target)
	}
	return out
}

func TestBreakGlassOpensAHeldTenant(t *testing.T) {
	q := start(t, t.TempDir())
	tok := q.token(q.newKey("gina", "--scope", "orders:read"))
	q.ok("hold", "tenant:default", "--reason", "a mistake")
	q.lockedOut()
	if got := q.held(); !slices.Contains(got, "tenant:default") {
		t.Fatalf("held: %q, want tenant:default", got)
	}
	file := filepath.Join(t.TempDir(), "operator.key")
	if r := q.glass("operator", "--out", file); r.code != 1 || !strings.Contains(r.err, "release it first") {
		t.Errorf("an operator's key in a held tenant: exit code %d, want 1 and to be told to release it\n%s", r.code, r.err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a file without a key was left")
	}
	if r := q.glass("release", "tenant:default"); r.code != 0 {
		t.Fatalf("release: exit code %d\n%s", r.code, r.err)
	}
	q.letIn()
	eventually(t, "tokens of the tenant are good again", func() error {
		if s := q.orders(tok); s != http.StatusOK {
			return &statusError{s}
		}
		return nil
	})
	if r := q.glass("release", "tenant:default"); r.code != 1 || !strings.Contains(r.err, "nothing to release") {
		t.Errorf("release of what is not held: exit code %d, want 1\n%s", r.code, r.err)
	}
}

func TestBreakGlassOpensAHeldRole(t *testing.T) {
	q := start(t, t.TempDir())
	q.ok("hold", "role:operator", "--reason", "a mistake")
	q.lockedOut()
	i := slices.IndexFunc(q.held(), func(s string) bool { return strings.HasPrefix(s, "role:") })
	if i < 0 {
		t.Fatalf("held: %q, want a role", q.held())
	}
	if r := q.glass("release", q.held()[i]); r.code != 0 {
		t.Fatalf("release: exit code %d\n%s", r.code, r.err)
	}
	q.letIn()
}

// TestBreakGlassMakesAnOperator where the role was cut, and the operator with it.
func TestBreakGlassMakesAnOperator(t *testing.T) {
	q := start(t, t.TempDir())
	q.ok("revoke", "principal:operator", "role:operator", "--reason", "all of it")
	q.lockedOut()
	file := filepath.Join(t.TempDir(), "operator.key")
	r := q.glass("operator", "--out", file, "-o", "json")
	if r.code != 0 {
		t.Fatalf("break-glass operator: exit code %d\n%s", r.code, r.err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the key's file: %v, %v, want mode 0600", info, err)
	}
	if strings.Contains(r.out+r.err, "quash_key_") {
		t.Error("the secret was printed too")
	}
	shared := q.env["QUASH_KEY_FILE"]
	defer func() { // for whoever shares this Quash
		secret, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(shared, secret, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}()
	q.env["QUASH_KEY_FILE"] = file
	q.letIn()
	if r := q.glass("operator", "--out", file); r.code != 2 {
		t.Errorf("a key over a file that is there: exit code %d, want 2", r.code)
	}
}

func TestBreakGlassPromotesAKey(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("hugo", "--scope", "orders:read")
	var first struct{ Kid string }
	q.json(&first, "rotate", "signing-key", "--reason", "to know its name", "--wait", "60s")
	q.ok("revoke", "signing-key:"+first.Kid, "--reason", "stolen")
	r := q.glass("promote", "-o", "json")
	var second struct{ Kid, Previous, State string }
	if err := json.Unmarshal([]byte(r.out), &second); r.code != 0 || err != nil || second.State != "signing" || second.Kid == first.Kid {
		t.Fatalf("break-glass promote: exit code %d, %v, %+v after %s\n%s", r.code, err, second, first.Kid, r.err)
	}
	q.letIn()
	fresh := q.token(key)
	q.wantOrders(fresh, http.StatusOK)
	parsed, _, err := jwt.NewParser().ParseUnverified(fresh, jwt.MapClaims{})
	if err != nil || parsed.Header["kid"] == first.Kid {
		t.Errorf("signed by %v, which is revoked: %v", parsed.Header["kid"], err)
	}
}

func TestBreakGlassIsForItsIdentityAlone(t *testing.T) {
	q := start(t, t.TempDir())
	r := q.run("", "break-glass", "holds", "--reason", "x", "--creds", q.env["QUASH_NATS_CREDS"])
	if r.code != 4 || !strings.Contains(r.err, "break-glass") {
		t.Errorf("a guard as break-glass: exit code %d, want 4 and to be told why\n%s%s", r.code, r.out, r.err)
	}
	for _, args := range [][]string{
		{"break-glass", "holds", "--creds", q.env["QUASH_NATS_CREDS"]},
		{"break-glass", "holds", "--reason", "x"},
		{"break-glass", "operator", "--reason", "x", "--creds", q.env["QUASH_NATS_CREDS"]},
	} {
		if r := q.run("", args...); r.code != 2 {
			t.Errorf("quash %s: exit code %d, want 2", strings.Join(args, " "), r.code)
		}
	}
}
