package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/guard/wire"
)

// answering is a Quash that takes every commit, and counts them.
type answering struct {
	url      string
	commits  [][]string
	previews []api.Preview // answered in turn
	selected []string
	refuseAt int // the commit that is refused, from 1
}

func newAnswering(t *testing.T) *answering {
	q := &answering{}
	mux := http.NewServeMux()
	say := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		say(w, map[string]any{"issuer": q.url, "token_endpoint": q.url + "/token", "quash_revocation_endpoints": []string{q.url + "/v1/revocations"}})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		say(w, map[string]any{"access_token": "t", "expires_in": 3600})
	})
	mux.HandleFunc("POST /v1/revocations", func(w http.ResponseWriter, r *http.Request) {
		var c api.Commit
		_ = json.NewDecoder(r.Body).Decode(&c)
		if len(q.commits)+1 == q.refuseAt {
			w.WriteHeader(http.StatusConflict)
			return
		}
		q.commits = append(q.commits, c.Targets)
		say(w, api.Entry{ID: fmt.Sprintf("id-%d", len(q.commits)), Op: api.EntryOp(c.Op), CommittedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Epoch: 1, Sequence: 1})
	})
	mux.HandleFunc("POST /v1/previews", func(w http.ResponseWriter, _ *http.Request) {
		next := q.previews[0]
		q.previews = q.previews[1:]
		say(w, next)
	})
	mux.HandleFunc("GET /v1/targets", func(w http.ResponseWriter, _ *http.Request) {
		items := []map[string]string{}
		for _, s := range q.selected {
			items = append(items, map[string]string{"target": s})
		}
		say(w, map[string]any{"items": items})
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	q.url = s.URL
	return q
}

// run runs one command; a terminal that answers is there if typed says something.
func (q *answering) run(t *testing.T, in, typed string, args ...string) (code int, out, errs string) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("k"), 0o600); err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{"QUASH_URL": q.url, "QUASH_KEY_FILE": key, "XDG_CONFIG_HOME": filepath.Dir(key)}
	var o, e bytes.Buffer
	code = Run(context.Background(), args, Env{
		In: strings.NewReader(in + typed), Out: &o, Err: &e, Getenv: func(s string) string { return vars[s] }, Now: time.Now, HTTP: http.DefaultClient,
		Terminal: func() bool { return typed != "" },
	})
	return code, o.String(), e.String()
}

// targetsFile is one of as many tokens, one a line.
func targetsFile(t *testing.T, n int) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "F")
	if err := os.WriteFile(name, []byte(strings.Join(tokens(n), "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func tokens(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("token:t-%d", i)
	}
	return out
}

func TestAFileThatWasDoneIsNotSaidToBeDoneAgain(t *testing.T) {
	q := newAnswering(t)
	file := targetsFile(t, wire.MaxTargets+2)
	args := []string{"revoke", "--file", file, "--reason", "r"}
	if code, _, errs := q.run(t, "", "", args...); code != 0 || len(q.commits) != 2 {
		t.Fatalf("exit code %d, %d commits, %s", code, len(q.commits), errs)
	}
	code, out, errs := q.run(t, "", "", args...)
	if code != 1 || out != "" || !strings.Contains(errs, "all 1002 lines were committed (last 2026-01-02T03:04:05.000Z)") || !strings.Contains(errs, "move "+file+".journal away") {
		t.Errorf("exit code %d, %q, %s", code, out, errs)
	}
	if err := os.Rename(file+".journal", file+".was"); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := q.run(t, "", "", args...); code != 0 || len(q.commits) != 4 {
		t.Errorf("with the journal away: exit code %d, %d commits, %s", code, len(q.commits), errs)
	}
}

func TestOneRunAtATimeHasTheJournal(t *testing.T) {
	q := newAnswering(t)
	file := targetsFile(t, 2)
	j, err := openJournal(file+".journal", journalHead{Key: "k", Op: "revoke", Digest: "d"})
	if err != nil {
		t.Fatal(err)
	}
	defer j.file.Close()
	code, _, errs := q.run(t, "", "", "revoke", "--file", file, "--reason", "r")
	if code != 1 || len(q.commits) != 0 || !strings.Contains(errs, "another run is at it: "+file+".journal") {
		t.Errorf("exit code %d, %d commits, %s", code, len(q.commits), errs)
	}
	// Whoever writes there all the same is not written over.
	other, err := os.OpenFile(j.file.Name(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = other.WriteString("of another\n")
	if err := errors.Join(err, other.Close(), j.write(outcomeOf{ID: "mine"})); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(j.file.Name())
	if err != nil || !bytes.Contains(text, []byte("of another\n")) || !bytes.Contains(text, []byte(`"mine"`)) {
		t.Errorf("%s %v", text, err)
	}
}

func TestALineOfAFileIsNoStandardInput(t *testing.T) {
	q := newAnswering(t)
	file := targetsFile(t, 1)
	if err := os.WriteFile(file, []byte("token:a\n# b\n - \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, errs := q.run(t, "", "", "revoke", "--file", file, "--reason", "r")
	if code != 2 || len(q.commits) != 0 || !strings.Contains(errs, "line 3 is -") {
		t.Errorf("exit code %d, %d commits, %s", code, len(q.commits), errs)
	}
}

func TestASelectorIsOfTheOwnIssuer(t *testing.T) {
	q := newAnswering(t)
	q.selected = []string{"key:a"}
	code, _, errs := q.run(t, "", "", "revoke", "--select", "keys where owner=alice", "--issuer", "okta", "--reason", "r")
	if code != 2 || len(q.commits) != 0 || !strings.Contains(errs, `"okta"`) {
		t.Errorf("exit code %d, %d commits, %s", code, len(q.commits), errs)
	}
	if code, _, errs := q.run(t, "", "", "revoke", "--select", "keys where owner=alice", "--issuer", "own", "--reason", "r"); code != 0 || len(q.commits) != 1 {
		t.Errorf("own: exit code %d, %d commits, %s", code, len(q.commits), errs)
	}
}

func TestPartsDontTellOfTheLastAdmin(t *testing.T) {
	q := newAnswering(t)
	file := targetsFile(t, wire.MaxTargets+1)
	for _, c := range []struct {
		name   string
		second api.Preview
		known  bool
	}{
		{"no part alone", api.Preview{MoreClients: 3}, false},
		{"one part alone", api.Preview{CutsLastAdmin: true, MoreClients: 3}, true},
	} {
		first := api.Preview{ByClient: []api.ClientHits{{ClientID: "a", Keys: 2}}}
		q.previews = []api.Preview{first, c.second}
		_, out, errs := q.run(t, "", "", "revoke", "--dry-run", "--file", file, "-o", "json")
		var got map[string]any
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%s: %v %s", c.name, err, errs)
		}
		said, is := got["cuts_last_admin"]
		if got["cuts_last_admin_exact"] != c.known || is != c.known || is && said != true || got["by_client_exact"] != false || got["more_clients"] != 3.0 {
			t.Errorf("%s: %s", c.name, out)
		}
		q.previews = []api.Preview{first, c.second}
		code, _, errs := q.run(t, "", "no\n", "revoke", "--file", file, "--reason", "r")
		if code != 1 || strings.Contains(errs, "not known: it was judged part by part") == c.known || strings.Contains(errs, "nobody would be left") != c.known || !strings.Contains(errs, "at least a (2)") {
			t.Errorf("%s at a terminal: exit code %d, %s", c.name, code, errs)
		}
	}
	q.previews = []api.Preview{{CutsLastAdmin: false}}
	if _, out, _ := q.run(t, "", "", "revoke", "--dry-run", "token:a"); strings.Contains(out, "not known") {
		t.Errorf("one part: %s", out)
	}
}

func TestEveryPartCanBeUndone(t *testing.T) {
	q := newAnswering(t)
	q.selected = tokens(2*wire.MaxTargets + 1)
	args := []string{"hold", "--select", "keys where owner=alice", "--reason", "r"}
	_, out, errs := q.run(t, "", "", append(args, "-o", "json")...)
	var got struct {
		ID  string   `json:"id"`
		IDs []string `json:"ids"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.ID != "id-3" || strings.Join(got.IDs, " ") != "id-1 id-2 id-3" {
		t.Errorf("%v, %s %s", err, out, errs)
	}
	if _, out, _ := q.run(t, "", "", args...); !strings.Contains(out, "id-4\n") || !strings.Contains(out, "id-5\n") || !strings.Contains(out, "id-6\n") {
		t.Errorf("for people: %s", out)
	}
	q.refuseAt = 8
	if code, _, errs := q.run(t, "", "", args...); code != 1 || !strings.Contains(errs, "committed: id-7") {
		t.Errorf("the second part was refused: exit code %d, %s", code, errs)
	}
}
