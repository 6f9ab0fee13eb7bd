package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/engine/enginetest"
)

// binary builds the command line, once a test run and only if a test needs it.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "quash")
	out, err := exec.Command("go", "build", "-o", path, "github.com/quash-project/quash/services/quash").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build of the command line: %w\n%s", err, out)
	}
	return path, nil
})

var buildDir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "quash-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		buildDir = dir
		if os.Getenv(deploymentVariable) == "processes" {
			traces = startCollector()
			defer traces.server.Close()
			if err := os.Setenv(collectorVariable, traces.server.URL); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			down, err := startProcesses(filepath.Join(dir, "up"))
			defer down()
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		return m.Run()
	}())
}

// command is the built command line with these arguments.
func command(ctx context.Context, t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(ctx, path, args...)
}

// deadline bounds every wait: generous, since the race detector and two cores
// share the machine with the rest of the tests.
var deadline = enginetest.Patience()

// eventually waits until ok returns nil.
func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	end := time.Now().Add(deadline)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond) // between two looks at the condition
	}
}

// quash is one running quash dev.
type quash struct {
	t    testing.TB
	dir  string
	env  map[string]string
	cmd  *exec.Cmd
	done chan struct{}
	out  *logBuffer
	args []string
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start starts quash dev in dir and waits until it is ready.
func start(t testing.TB, dir string, args ...string) *quash {
	t.Helper()
	if processes != nil {
		return processes.forTest(t, args)
	}
	q := &quash{t: t, dir: dir, args: args}
	t.Cleanup(func() {
		q.kill()
		if t.Failed() {
			t.Logf("output of quash dev:\n%s", tail(q.out.String(), 8000))
		}
	})
	q.start()
	return q
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

func (q *quash) start() {
	q.t.Helper()
	q.launch()
	q.ready()
}

// launch starts the process and does not wait for it to be ready.
func (q *quash) launch() {
	q.t.Helper()
	if q.out == nil {
		q.out = &logBuffer{}
	}
	// A killed one leaves its file behind, and the new one needs a moment to remove it.
	_ = os.Remove(filepath.Join(q.dir, "dev.env"))
	args := append([]string{"dev", "--data", q.dir, "--listen", "127.0.0.1:0", "--demo-listen", "127.0.0.1:0"}, q.args...)
	q.cmd = command(context.Background(), q.t, args...)
	q.cmd.Stdout, q.cmd.Stderr = q.out, q.out
	q.cmd.Env = append(os.Environ(), "NO_COLOR=1")
	if err := q.cmd.Start(); err != nil {
		q.t.Fatal(err)
	}
	done := make(chan struct{})
	q.done = done
	cmd := q.cmd
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
}

// ready waits for the environment file, which appears when all is ready.
func (q *quash) ready() {
	q.t.Helper()
	file := filepath.Join(q.dir, "dev.env")
	pid := q.cmd.Process.Pid
	eventually(q.t, "quash dev is ready", func() error {
		select {
		case <-q.done:
			q.t.Fatalf("quash dev (%d) ended: %s", pid, tail(q.out.String(), 4000))
		default:
		}
		_, err := os.Stat(file)
		return err
	})
	q.env = readEnv(q.t, file)
}

// readEnv reads the file as a shell does.
func readEnv(t testing.TB, file string) map[string]string {
	t.Helper()
	before := shellEnv(t, "true")
	after := shellEnv(t, fmt.Sprintf("set -a; . '%s'; set +a", file))
	env := map[string]string{}
	for k, v := range after {
		if before[k] != v && strings.HasPrefix(k, "QUASH_") {
			env[k] = v
		}
	}
	return env
}

func shellEnv(t testing.TB, script string) map[string]string {
	t.Helper()
	out, err := exec.Command("sh", "-c", script+"; env -0").Output()
	if err != nil {
		t.Fatalf("sh -c %q: %v", script, err)
	}
	env := map[string]string{}
	for _, kv := range strings.Split(string(out), "\x00") {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	return env
}

// kill ends the process as a crash does, and waits until it is gone.
func (q *quash) kill() { q.end(syscall.SIGKILL) }

// stop ends it as Ctrl-C does.
func (q *quash) stop() { q.end(syscall.SIGINT) }

func (q *quash) end(sig syscall.Signal) {
	if q.cmd == nil || q.cmd.Process == nil {
		return
	}
	_ = q.cmd.Process.Signal(sig)
	select {
	case <-q.done:
	case <-time.After(deadline):
		_ = q.cmd.Process.Kill()
		<-q.done
		q.t.Errorf("quash dev did not end on %s", sig)
	}
}

// result is how a command ended.
type result struct {
	code     int
	out, err string
}

// run runs a command with the environment of this Quash.
func (q *quash) run(stdin string, args ...string) result {
	q.t.Helper()
	return q.runEnv(nil, stdin, args...)
}

func (q *quash) runEnv(more map[string]string, stdin string, args ...string) result {
	q.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*deadline)
	defer cancel()
	cmd := command(ctx, q.t, args...)
	cmd.Env = os.Environ()
	for k, v := range q.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	for k, v := range more {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		q.t.Fatalf("quash %s: %v", strings.Join(args, " "), err)
	}
	return result{code: cmd.ProcessState.ExitCode(), out: out.String(), err: errOut.String()}
}

// ok runs a command that must succeed and returns its standard output.
func (q *quash) ok(args ...string) string {
	q.t.Helper()
	r := q.run("", args...)
	if r.code != 0 {
		q.t.Fatalf("quash %s: exit code %d, want 0\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// json runs a command with -o json and decodes its answer.
func (q *quash) json(v any, args ...string) {
	q.t.Helper()
	out := q.ok(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		q.t.Fatalf("quash %s: %v in %q", strings.Join(args, " "), err, out)
	}
}

// apiKey is what key create answers.
type apiKey struct{ ID, Secret string }

func (q *quash) newKey(owner string, args ...string) apiKey {
	q.t.Helper()
	var k apiKey
	q.json(&k, append([]string{"key", "create", "--owner", owner}, args...)...)
	if k.ID == "" || k.Secret == "" {
		q.t.Fatalf("key create: no id or no secret in the answer")
	}
	return k
}

// token exchanges a key by the command line.
func (q *quash) token(k apiKey) string {
	q.t.Helper()
	r := q.run(k.Secret, "token", "--key-file", "-")
	if r.code != 0 {
		q.t.Fatalf("quash token: exit code %d\n%s", r.code, r.err)
	}
	return strings.TrimSpace(r.out)
}

// receipt is the answer of revoke, hold and release.
type receipt struct {
	ID          string
	Epoch       uint64
	Sequence    uint64
	CommittedAt time.Time `json:"committed_at"`
	Confirmed   []struct {
		Name, Instance string
		At             time.Time
	}
	Redis *struct {
		AppliedAt string `json:"applied_at"`
		FencedBy  string `json:"fenced_by"`
	}
	Unconfirmed []struct {
		Name, Instance string
		FencedBy       string `json:"fenced_by"`
		Open           bool
	}
	Complete bool
}

func (q *quash) revoke(target string, args ...string) receipt {
	q.t.Helper()
	var r receipt
	q.json(&r, append([]string{"revoke", target, "--reason", "test", "--wait", "60s"}, args...)...)
	return r
}

// orders calls the demo resource server and returns the status.
func (q *quash) orders(token string) int {
	q.t.Helper()
	resp := q.get(q.env["QUASH_DEMO_URL"]+"/orders", token)
	return resp.StatusCode
}

func (q *quash) get(u, token string) *http.Response {
	q.t.Helper()
	req, err := http.NewRequest(http.MethodGet, u, nil)
	if err != nil {
		q.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		q.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp
}

// wantOrders fails unless the demo answers with one of the statuses, now.
func (q *quash) wantOrders(token string, want int) {
	q.t.Helper()
	if got := q.orders(token); got != want {
		q.t.Fatalf("GET /orders: status %d, want %d", got, want)
	}
}

// operatorToken exchanges the first operator's key over plain HTTP.
func (q *quash) operatorToken() string {
	q.t.Helper()
	secret, err := os.ReadFile(q.env["QUASH_KEY_FILE"])
	if err != nil {
		q.t.Fatal(err)
	}
	return q.exchange(strings.TrimSpace(string(secret)))
}

// exchange exchanges an API key over plain HTTP.
func (q *quash) exchange(secret string) string {
	q.t.Helper()
	tok, status := q.tryExchange(secret)
	if status != http.StatusOK {
		q.t.Fatalf("exchange: status %d, want 200", status)
	}
	return tok
}

func (q *quash) tryExchange(secret string) (string, int) {
	q.t.Helper()
	resp, err := http.PostForm(q.env["QUASH_URL"]+"/oauth/token", url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token_type": {"urn:quash:token-type:api-key"},
		"subject_token":      {secret},
	})
	if err != nil {
		q.t.Fatal(err)
	}
	defer resp.Body.Close()
	var a struct {
		AccessToken string `json:"access_token"`
	}
	_ = json.NewDecoder(resp.Body).Decode(&a)
	return a.AccessToken, resp.StatusCode
}

// post sends JSON to an API and returns status and body.
func (q *quash) post(path, token string, body any, header ...string) (int, []byte, error) {
	q.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		q.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, q.env["QUASH_URL"]+path, bytes.NewReader(data))
	if err != nil {
		q.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	data, err = io.ReadAll(resp.Body)
	return resp.StatusCode, data, err
}
