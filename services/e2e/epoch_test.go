package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// TestOperatorBeginsANewEpoch: what is revoked stays so, what is made anew is taken.
func TestOperatorBeginsANewEpoch(t *testing.T) {
	q := start(t, t.TempDir())
	old := q.token(q.newKey("ina", "--scope", "orders:read"))
	kept := q.token(q.newKey("jan", "--scope", "orders:read"))
	before := q.revoke("principal:ina")
	var e struct {
		Epoch    uint64
		Restored bool
		Shared   struct{ Epoch, Sequence uint64 }
	}
	q.json(&e, "epoch", "new", "--reason", "the files were restored from a copy")
	if e.Epoch <= before.Epoch || !e.Restored || e.Shared.Epoch > before.Epoch {
		t.Fatalf("%+v after epoch %d", e, before.Epoch)
	}
	eventually(t, "a token that nobody revoked is good", func() error {
		if s := q.orders(kept); s != http.StatusOK {
			return &statusError{s}
		}
		return nil
	})
	q.wantOrders(old, http.StatusUnauthorized)
	// Nothing is called complete until a minute after the epoch began.
	var after receipt
	q.json(&after, "revoke", "principal:jan", "--reason", "test")
	if after.Epoch != e.Epoch || after.Complete {
		t.Errorf("a revocation is in epoch %d, want %d; complete %t at once", after.Epoch, e.Epoch, after.Complete)
	}
	eventually(t, "it is in force", func() error {
		if s := q.orders(kept); s != http.StatusUnauthorized {
			return &statusError{s}
		}
		return nil
	})
	eventually(t, "what is made anew is good", func() error {
		r := q.run(q.newKey("jan", "--scope", "orders:read").Secret, "token", "--key-file", "-")
		if s := q.orders(strings.TrimSpace(r.out)); r.code != 0 || s != http.StatusOK {
			return &statusError{s}
		}
		return nil
	})
	q.fsck()
	for _, args := range [][]string{{"epoch", "new"}, {"epoch", "new", "--reason", "x", "--backup", "yesterday"}, {"epoch", "new", "--reason", "x", "--backup", "2999-01-01T00:00:00Z"}} {
		if r := q.run("", args...); r.code != 2 {
			t.Errorf("quash %q: exit code %d, want 2\n%s", args, r.code, r.err)
		}
	}
}
