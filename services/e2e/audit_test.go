package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/mod/sumdb/note"

	"github.com/quash-project/quash/services/quash/cli"
	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/signing"
)

// TestAuditIsReadByTheCommandLine: what was just done is found, exported and verified.
func TestAuditIsReadByTheCommandLine(t *testing.T) {
	q := start(t, t.TempDir())
	key := q.newKey("alice", "--scope", "orders:read")
	q.ok("revoke", "principal:mallory", "session:s1", "--reason", "seen in a paste")
	var found struct {
		Items []struct {
			ID, Actor, Reason, Op string
			Targets               []string
		}
		More bool
	}
	q.json(&found, "audit", "search", "--target", "principal:mallory")
	if len(found.Items) != 1 || found.Items[0].Reason != "seen in a paste" || found.Items[0].Actor != "operator" || found.Items[0].Op != "revoke" || found.More {
		t.Errorf("%+v", found)
	}
	id := found.Items[0].ID
	for args, want := range map[string]string{
		"--actor operator --since 1h":                             "principal:mallory session:s1 of default",
		"--record keys/default." + key.ID:                         "record.put",
		"--type dev.quash.log.entry --oldest":                     "seen in a paste",
		"--tenant default --until 2099-01-01T00:00:00Z --limit 0": "operator",
		"-o yaml --target session:s1":                             "id: " + id,
	} {
		if out := q.ok(append([]string{"audit", "search"}, strings.Fields(args)...)...); !strings.Contains(out, want) || strings.Contains(out, key.Secret) {
			t.Errorf("quash audit search %s: want %q and no secret:\n%s", args, want, out)
		}
	}
	if out := q.ok("audit", "search", "--until", "1h"); strings.Contains(out, "mallory") {
		t.Errorf("an hour ago:\n%s", out)
	}
	for args, want := range map[string]string{"search --since yesterday": "--since", "search --target mallory": "target", "export -o yaml": "JSON Lines", "verify --keys x": "--checkpoint", "search --limit -1": "--limit"} {
		if r := q.run("", append([]string{"audit"}, strings.Fields(args)...)...); r.code != 2 || !strings.Contains(r.err, want) {
			t.Errorf("quash audit %s: exit code %d, %s", args, r.code, r.err)
		}
	}
	var targets []string
	for line := range strings.Lines(q.ok("audit", "export", "--type", "dev.quash.log.entry")) {
		var it struct{ Reason, Target string }
		if err := json.Unmarshal([]byte(line), &it); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if it.Reason == "seen in a paste" {
			targets = append(targets, it.Target)
		}
	}
	if want := []string{"principal:mallory", "session:s1"}; !slices.Equal(targets, want) {
		t.Errorf("exported %q, want %q", targets, want)
	}
	var whole struct {
		OK           bool
		Pages, Items uint64
	}
	if q.json(&whole, "audit", "verify"); !whole.OK || whole.Items < 10 {
		t.Errorf("%+v", whole)
	}
	q.shippedOn()
}

// shippedOn follows the trail as a log shipper does.
func (q *quash) shippedOn() {
	q.t.Helper()
	out := &logBuffer{}
	ctx, cancel := context.WithCancel(q.t.Context())
	ship := command(ctx, q.t, "audit", "export", "--follow", "--target", "principal:shipped")
	ship.Env = os.Environ()
	for k, v := range q.env {
		ship.Env = append(ship.Env, k+"="+v)
	}
	ship.Stdout, ship.Stderr = out, out
	if err := ship.Start(); err != nil {
		q.t.Fatal(err)
	}
	defer func() { cancel(); _ = ship.Wait() }()
	for n := 1; n < 3; n++ {
		q.ok("hold", "principal:shipped", "--reason", "odd traffic")
		eventually(q.t, "the line comes", func() error {
			if got := strings.Count(out.String(), `"target":"principal:shipped"`); got != n {
				return fmt.Errorf("%d lines, want %d: %s", got, n, out.String())
			}
			return nil
		})
	}
}

// auditor runs commands in this process, as the operator.
func (s *services) auditor(args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	return s.command(s.operator, args...)
}

// command runs a command in this process, as whoever has a key.
func (s *services) command(secret string, args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		s.t.Fatal(err)
	}
	var out, errs bytes.Buffer
	env := map[string]string{"QUASH_URL": s.url, "QUASH_KEY_FILE": file}
	code = cli.Run(s.t.Context(), args, cli.Env{
		In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(name string) string { return env[name] }, Now: time.Now, HTTP: &http.Client{},
	})
	return code, out.String(), errs.String()
}

// trailOf has every right about the trail.
type trailOf struct {
	*services
	js  jetstream.JetStream
	cfg jetstream.StreamConfig
}

func (s *services) trail() *trailOf {
	s.t.Helper()
	js, err := jetstream.New(s.nats.Admin(s.t, identity.Log))
	if err != nil {
		s.t.Fatal(err)
	}
	st, err := js.Stream(s.t.Context(), audit.Stream)
	if err != nil {
		s.t.Fatal(err)
	}
	return &trailOf{s, js, st.CachedInfo().Config}
}

func (tr *trailOf) pages() (out [][]byte) {
	tr.t.Helper()
	each(tr.t, tr.nats.Admin(tr.t, identity.Log), audit.Stream, func(m *jetstream.RawStreamMsg) { out = append(out, m.Data) })
	return out
}

// put makes the trail of these pages, as somebody would who rules the broker.
func (tr *trailOf) put(pages [][]byte) {
	tr.t.Helper()
	if err := tr.js.DeleteStream(tr.t.Context(), audit.Stream); err != nil {
		tr.t.Fatal(err)
	}
	if _, err := tr.js.CreateStream(tr.t.Context(), tr.cfg); err != nil {
		tr.t.Fatal(err)
	}
	for _, p := range pages {
		if _, err := tr.js.Publish(tr.t.Context(), audit.Subject, p); err != nil {
			tr.t.Fatal(err)
		}
	}
}

// rechained writes the pages anew so that each follows from the one before: whole in
// itself, and not what it was.
func rechained(t *testing.T, pages [][]byte) [][]byte {
	t.Helper()
	var last audit.Digest
	for i, body := range pages {
		var p audit.Page
		if err := json.Unmarshal(body, &p); err != nil {
			t.Fatal(err)
		}
		p.Number, p.Previous = uint64(i)+1, last
		for j := range p.Items {
			p.Items[j].Actor = "nobody"
		}
		body, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		pages[i], last = body, sha256.Sum256(body)
	}
	return pages
}

// TestAuditVerifyNamesTheDamage, whatever was done to the trail, and by a checkpoint also
// what leaves a whole one.
func TestAuditVerifyNamesTheDamage(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	tok := s.token(s.operator)
	for i := range 5 { // each in a page of its own
		s.commit(tok, "revoke", fmt.Sprint("principal:p", i))
		if code, out, errs := s.auditor("audit", "search", "--target", fmt.Sprint("principal:p", i)); code != 0 || !strings.Contains(out, fmt.Sprint("principal:p", i)) {
			t.Fatalf("exit code %d: %s%s", code, out, errs)
		}
	}
	if code, out, errs := s.auditor("audit", "verify"); code != 0 || !strings.Contains(errs, "whole") {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	tr := s.trail()
	pages := tr.pages()
	n := len(pages)
	signed, key := checkpointOf(t, pages[n-2], uint64(n-1))
	for name, c := range map[string]struct {
		change     func(p [][]byte) [][]byte
		checkpoint bool
		page       int // that is named; 0: it is whole
	}{
		"nothing": {func(p [][]byte) [][]byte { return p }, true, 0},
		"removed": {func(p [][]byte) [][]byte { return slices.Delete(p, 2, 3) }, false, 3},
		"changed": {func(p [][]byte) [][]byte {
			p[2] = bytes.Replace(p[2], []byte(`"actor":"`), []byte(`"actor":"x`), 1)
			return p
		}, false, 4},
		"swapped":      {func(p [][]byte) [][]byte { p[2], p[3] = p[3], p[2]; return p }, false, 3},
		"inserted":     {func(p [][]byte) [][]byte { return slices.Insert(p, 2, slices.Clone(p[1])) }, false, 3},
		"written anew": {func(p [][]byte) [][]byte { return rechained(t, p) }, true, n - 1},
	} {
		tr.put(c.change(slices.Clone(pages)))
		args := []string{"audit", "verify"}
		if c.checkpoint {
			args = append(args, "--checkpoint", signed, "--keys", key)
		}
		code, out, errs := s.auditor(args...)
		want := fmt.Sprintf("the audit trail is broken at page %d:", c.page)
		if c.page == 0 && code != 0 || c.page > 0 && (code != 1 || !strings.Contains(errs, want)) {
			t.Errorf("%s: exit code %d: %s%s; want page %d", name, code, out, errs, c.page)
		}
	}
	tr.put(pages)
	if code, _, errs := s.auditor("audit", "verify", "--checkpoint", signed, "--keys", key, "--from-checkpoint"); code != 0 {
		t.Errorf("from the checkpoint: exit code %d: %s", code, errs)
	}
	_, stranger := checkpointOf(t, pages[0], 1)
	if code, _, errs := s.auditor("audit", "verify", "--checkpoint", signed, "--keys", stranger); code != 1 {
		t.Errorf("a checkpoint of another key: exit code %d: %s", code, errs)
	}
	// Cut off, it is gone on with: whole in itself, and the checkpoint tells.
	tr.put(pages[:n-3])
	s.commit(tok, "revoke", "principal:after")
	if code, out, errs := s.auditor("audit", "verify"); code != 0 {
		t.Errorf("cut off and gone on with: exit code %d: %s%s", code, out, errs)
	}
	code, out, errs := s.auditor("audit", "verify", "--checkpoint", signed, "--keys", key)
	if code != 1 || !strings.Contains(errs, fmt.Sprintf("broken at page %d:", n-1)) && !strings.Contains(errs, "it was cut off: the checkpoint is of page") {
		t.Errorf("cut off: exit code %d: %s%s", code, out, errs)
	}
}

// checkpointOf writes the checkpoint of a trail that ends with a page, and the key of who
// has signed it.
func checkpointOf(t *testing.T, page []byte, number uint64) (checkpoint, key string) {
	t.Helper()
	private, public, err := note.GenerateKey(rand.Reader, "quash.test/audit")
	if err != nil {
		t.Fatal(err)
	}
	by, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	text, err := audit.CheckpointOf("quash.test/audit", audit.Stored{Number: number, Body: page}).Sign(by)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	checkpoint, key = filepath.Join(dir, "checkpoint"), filepath.Join(dir, "key")
	raw, err := base64.StdEncoding.DecodeString(strings.SplitN(public, "+", 3)[2])
	if err != nil {
		t.Fatal(err)
	}
	jwk, _, err := signing.PublicJWK(ed25519.PublicKey(raw[1:])) // after the algorithm's number
	if err != nil {
		t.Fatal(err)
	}
	keys, err := json.Marshal(map[string]any{"keys": []any{jwk}})
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string][]byte{checkpoint: text, key: keys} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return checkpoint, key
}
