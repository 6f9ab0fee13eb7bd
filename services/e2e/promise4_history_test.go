package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/quash-project/quash/shared/guard"
)

// ownGuard starts a guard that joins this Quash as anybody's resource server does.
func (q *quash) ownGuard(opts ...guard.Option) *resource {
	q.t.Helper()
	g, err := guard.New([]guard.Issuer{{URL: q.env["QUASH_URL"], Trust: []string{q.env["QUASH_TRUST"]}}},
		append([]guard.Option{guard.WithNATS(q.env["QUASH_NATS_URL"], q.env["QUASH_NATS_CREDS"])}, opts...)...)
	return startGuard(q.t, g, err)
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// The log of a Quash is put back to what it was a while ago, or is emptied. A
// guard that had read what is gone notices it, keeps what it knew, accepts
// nothing until there is a new epoch, and then goes on; one that comes later
// goes on at once.
func TestPromise4ReaderKnowsThatTheLogWentBack(t *testing.T) {
	t.Parallel()
	for name, back := range map[string]func(t *testing.T, jetstream, old string){
		"restored from a copy": func(t *testing.T, jetstream, old string) { copyDir(t, old, jetstream) },
		"emptied": func(t *testing.T, jetstream, _ string) {
			t.Helper()
			logs, err := filepath.Glob(filepath.Join(jetstream, "*", "streams", "QUASH_LOG"))
			if err != nil || len(logs) != 1 {
				t.Fatalf("the log's files: %q, %v", logs, err)
			}
			if err := os.RemoveAll(logs[0]); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			q := start(t, dir)
			key := q.newKey("alice", "--scope", "orders:read")
			token := q.token(key)
			other := q.newKey("bob", "--scope", "orders:read")
			files, old := filepath.Join(dir, "jetstream"), filepath.Join(t.TempDir(), "old")
			q.stop()
			copyDir(t, files, old)
			q.start()

			g := q.ownGuard()
			g.ready()
			g.until(token, http.StatusOK)
			var before struct{ Epoch uint64 }
			r := q.revoke("key:" + key.ID)
			before.Epoch = r.Epoch
			g.until(token, http.StatusUnauthorized)
			q.stop()
			back(t, files, old)
			q.start()

			// What it had heard stands, whatever the log says now.
			eventually(t, "the guard goes on in a new epoch", func() error {
				if d := g.decide(token); d.Status != http.StatusUnauthorized && d.Status != http.StatusServiceUnavailable {
					t.Fatalf("what it knew is forgotten: %d", d.Status)
				}
				if err := g.Ready(); err != nil {
					return err
				}
				if e := g.Reader().Position().Epoch; e <= before.Epoch {
					return fmt.Errorf("epoch %d, as before", e)
				}
				return nil
			})
			g.until(token, http.StatusUnauthorized)
			var alive string
			eventually(t, "tokens are issued in the new epoch", func() error {
				var status int
				if alive, status = q.tryExchange(other.Secret); status != http.StatusOK {
					return &statusError{status}
				}
				return nil
			})
			g.until(alive, http.StatusOK)
			late := q.ownGuard()
			late.ready()
			late.until(alive, http.StatusOK)
			if p := late.Reader().Position(); p.Epoch <= before.Epoch {
				t.Errorf("a new reader is at %s, in the old epoch", p.Stamp)
			}
			q.fsck()
		})
	}
}
