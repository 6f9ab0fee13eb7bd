package deployment

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/engine/enginetest"
)

var source = filepath.Join("..", "..")

// programs is where what all deployments of the tests run is built, once: linking
// takes longer than starting.
var (
	programs string
	build    = sync.OnceValue(func() error { return Build(context.Background(), source, programs) })
)

func TestMain(m *testing.M) {
	var err error
	if programs, err = os.MkdirTemp("", "quash-programs"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(programs)
	os.Exit(code)
}

// running is a deployment in a directory of the test, as scripts/up starts it.
type running struct {
	t   testing.TB
	dir string
	env []string
	out bytes.Buffer
}

func up(t testing.TB, dir string, way Redis) *running {
	t.Helper()
	r := &running{t: t, dir: dir}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	t.Cleanup(func() {
		if err := Down(context.Background(), dir); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("%s\n%s", r.out.String(), r.logs())
		}
	})
	if err := build(); err != nil {
		t.Fatal(err)
	}
	if err := Up(ctx, dir, Options{Source: source, Redis: way, Programs: programs}, &r.out); err != nil {
		t.Fatalf("%v\n%s", err, r.logs())
	}
	text, err := os.ReadFile(filepath.Join(dir, environmentFile))
	if err != nil {
		t.Fatal(err)
	}
	r.env = os.Environ()
	for line := range strings.Lines(string(text)) {
		r.env = append(r.env, strings.ReplaceAll(strings.TrimSpace(line), "'", "")) // nothing in it needs its quotes
	}
	return r
}

func (r *running) logs() string {
	var b strings.Builder
	files, _ := filepath.Glob(filepath.Join(r.dir, "logs", "*.log"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		fmt.Fprintf(&b, "== %s\n%s\n", filepath.Base(file), text[max(0, len(text)-4000):])
	}
	return b.String()
}

// quash runs the command line.
func (r *running) quash(stdin string, args ...string) (out string, code int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(r.dir, "bin", "quash"), args...)
	cmd.Env, cmd.Stdin = r.env, strings.NewReader(stdin)
	var text, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	if code = cmd.ProcessState.ExitCode(); code != 0 {
		r.t.Logf("quash %s: exit code %d\n%s", strings.Join(args, " "), code, errs.String())
	}
	return text.String(), code
}

// json runs a command that must succeed, and decodes its answer.
func (r *running) json(into any, args ...string) {
	r.t.Helper()
	out, code := r.quash("", append(args, "-o", "json")...)
	if code != 0 {
		r.t.Fatalf("quash %s: exit code %d", strings.Join(args, " "), code)
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		r.t.Fatalf("quash %s: %v", strings.Join(args, " "), err)
	}
}

// token makes a key and exchanges it.
func (r *running) token(owner string) string {
	r.t.Helper()
	var key struct{ Secret string }
	// A leader of the records may just be replaced: then it is answered with 503.
	enginetest.Eventually(r.t, "a key is made", func() error {
		out, code := r.quash("", "key", "create", "--owner", owner, "--scope", "orders:read", "-o", "json")
		if code != 0 {
			return fmt.Errorf("exit code %d", code)
		}
		return json.Unmarshal([]byte(out), &key)
	})
	var token string
	enginetest.Eventually(r.t, "the key is exchanged", func() error {
		out, code := r.quash(key.Secret, "token", "--key-file", "-")
		if token = strings.TrimSpace(out); code != 0 {
			return fmt.Errorf("exit code %d", code)
		}
		return nil
	})
	return token
}

func (r *running) process(name string) Process {
	r.t.Helper()
	list, err := Processes(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(p Process) bool { return p.Name == name })
	if i < 0 {
		r.t.Fatalf("there is no process %s", name)
	}
	return list[i]
}

// fsck wants everything to agree once it is quiet. The audit trail may take half a minute
// to notice that a source is another one.
func (r *running) fsck() {
	r.t.Helper()
	enginetest.Eventually(r.t, "nothing differs", func() error {
		out, code := r.quash("", Fsck(r.dir)...)
		if code != 0 {
			return fmt.Errorf("quash fsck: exit code %d\n%s", code, out)
		}
		return nil
	})
}

// kill ends a process as a crash does.
func (r *running) kill(name string) {
	r.t.Helper()
	p := r.process(name)
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
	enginetest.Eventually(r.t, name+" has ended", func() error {
		if p.Runs() {
			return errors.New("it runs")
		}
		return nil
	})
}

// orders asks a demo server.
func (r *running) orders(demo, token string) (int, error) {
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.process(demo).Addresses[0]+"/orders", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := r.client().Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func (r *running) client() *http.Client {
	c, err := trusting(filepath.Join(r.dir, "tls", "ca.pem"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.CloseIdleConnections)
	return c
}

// want wants a status of both demo servers, in the end.
func (r *running) want(token string, status int) {
	r.t.Helper()
	for n := range replicas {
		demo := fmt.Sprintf("demo-%d", n+1)
		enginetest.Eventually(r.t, fmt.Sprintf("%s answers %d", demo, status), func() error {
			got, err := r.orders(demo, token)
			if err == nil && got != status {
				err = fmt.Errorf("status %d", got)
			}
			return err
		})
	}
}

type receipt struct {
	Epoch                  uint64
	Confirmed, Unconfirmed []struct{ Name, Instance string }
	Complete               bool
}

// revoke revokes and waits until that is complete; at that moment neither demo
// server may take the token any more.
func (r *running) revoke(target, token string) receipt {
	r.t.Helper()
	var answer receipt
	r.json(&answer, "revoke", target, "--reason", "a test", "--wait", "1m")
	if !answer.Complete {
		r.t.Errorf("%s: not complete: %+v", target, answer)
	}
	for n := range replicas {
		if status, err := r.orders(fmt.Sprintf("demo-%d", n+1), token); err == nil && status == http.StatusOK {
			r.t.Errorf("demo-%d takes a token of %s, whose revocation is complete", n+1, target)
		}
	}
	return answer
}

// TestServicesLoseOneReplicaAfterTheOther: with one of each killed, and a node of
// the log, what was promised holds, and everything goes on.
func TestServicesLoseOneReplicaAfterTheOther(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts thirteen processes")
	}
	t.Parallel()
	r := up(t, t.TempDir(), Single)
	r.want(r.token("first"), http.StatusOK)
	if a := r.revoke("principal:first", r.token("first")); len(a.Confirmed) != 8 {
		t.Errorf("confirmed by %d guards, want both of each service and both demo servers: %+v", len(a.Confirmed), a.Confirmed)
	}
	kept := r.token("kept")
	for _, name := range []string{"revocation-1", "rotator-2", "issuer-1", "nats-2"} {
		token := r.token(name)
		r.kill(name)
		// Committed at once; not by all confirmed, since one is gone without a word.
		if _, code := r.quash("", "revoke", "principal:"+name, "--reason", "a test"); code != 0 {
			t.Errorf("without %s: exit code %d", name, code)
		}
		r.want(token, http.StatusUnauthorized)
		r.want(kept, http.StatusOK)
	}
	r.env = append(r.env, "QUASH_NATS_MONITOR_CREDS="+filepath.Join(r.dir, "identities", "creds", "monitor.creds"))
	out, code := r.quash("", "doctor")
	for _, what := range []string{
		"NATS " + strings.TrimPrefix(r.process("nats-2").Addresses[0], "tls://"), "2 of 3 answer", "stream QUASH_LOG",
		"service at " + strings.TrimPrefix(r.process("revocation-1").Addresses[0], "https://"), "service at " + strings.TrimPrefix(r.process("rotator-2").Addresses[0], "https://"),
	} {
		if code != 1 || !strings.Contains(out, what) {
			t.Errorf("doctor with one of each gone: exit code %d, nothing of %s in\n%s", code, what, out)
		}
	}
	// Complete when the limit of those that are gone has passed: they are named.
	if a := r.revoke("principal:second", r.token("second")); len(a.Unconfirmed) != 3 || len(a.Confirmed) != 5 {
		t.Errorf("%+v: want the three that were killed not confirmed, the other five confirmed", a)
	}
	var rotated struct{ Kid string }
	r.json(&rotated, "rotate", "signing-key", "--reason", "a test", "--wait", "1m")
	r.want(kept, http.StatusOK)
	r.want(r.token("last"), http.StatusOK)
	r.fsck()

	// Ended and started again everything is where it was.
	dead := r.token("dead")
	r.revoke("principal:dead", dead)
	before := r.process("issuer-2").Addresses
	list, err := Processes(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := Down(t.Context(), r.dir); err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if p.Runs() {
			t.Errorf("%s runs after scripts/down", p.Name)
		}
	}
	for _, name := range []string{environmentFile, processesFile} {
		if _, err := os.Stat(filepath.Join(r.dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there after scripts/down: %v", name, err)
		}
	}
	again := up(t, r.dir, Single)
	if after := again.process("issuer-2").Addresses; !slices.Equal(before, after) {
		t.Errorf("addresses %v became %v", before, after)
	}
	again.want(dead, http.StatusUnauthorized)
	again.want(kept, http.StatusOK)
	if err := Up(t.Context(), r.dir, Options{Source: source, Programs: programs}, &again.out); err == nil || !strings.Contains(err.Error(), "scripts/down") {
		t.Errorf("a second time in the same directory: %v, want how to end the first", err)
	}
	again.want(kept, http.StatusOK) // and that has ended nothing
	again.fsck()
}

// TestViewOnSentinelAndCluster: with the shipped users and by TLS; a lost primary is
// replaced, and a revocation is complete again.
func TestViewOnSentinelAndCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts many processes")
	}
	t.Parallel()
	for _, way := range []Redis{Sentinel, Cluster} {
		t.Run(string(way), func(t *testing.T) {
			r := up(t, t.TempDir(), way)
			token := r.token("first")
			if a := r.revoke("principal:first", token); !a.Complete {
				t.Errorf("not complete: %+v", a)
			}
			if out, code := r.quash("", "doctor"); code != 0 {
				t.Errorf("doctor: exit code %d\n%s", code, out)
			}
			r.fsck()
			if way == Cluster {
				return
			}
			r.kill("redis-1")
			second := r.token("second")
			if a := r.revoke("principal:second", second); !a.Complete {
				t.Errorf("after the primary was lost, not complete: %+v", a)
			}
			r.fsck()
		})
	}
}
