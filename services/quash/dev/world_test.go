package dev_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quash-project/quash/services/quash/cli"

	"github.com/quash-project/quash/shared/engine/enginetest"
)

// asCLI makes this test binary be the command line: its path is what a process
// of it prints as its own.
const asCLI = "QUASH_TEST_AS_CLI"

func TestMain(m *testing.M) {
	if os.Getenv(asCLI) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:], cli.System())
	stop()
	os.Exit(code)
}

// deadline bounds every wait: other tests and the race detector share the machine.
var deadline = enginetest.Patience()

// devProcess is a running quash dev.
type devProcess struct {
	t      testing.TB
	dir    string
	cmd    *exec.Cmd
	done   chan struct{}
	banner string
	took   time.Duration // until it said that it is ready
}

func command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), asCLI+"=1", "NO_COLOR=1")
	return cmd
}

// lastLine ends the banner.
const lastLine = "Ctrl-C stops Quash."

// start starts one and waits for its banner.
func start(t testing.TB, dir string) *devProcess {
	t.Helper()
	p := &devProcess{t: t, dir: dir, done: make(chan struct{})}
	p.cmd = command(t, "dev", "--data", dir, "--listen", "127.0.0.1:0", "--demo-listen", "127.0.0.1:0")
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = os.Stderr
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	ready := make(chan string, 1)
	go func() {
		var text strings.Builder
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			text.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), lastLine) {
				ready <- text.String()
			}
		}
		_ = p.cmd.Wait()
		close(p.done)
	}()
	select {
	case p.banner = <-ready:
		p.took = time.Since(began)
	case <-p.done:
		t.Fatalf("quash dev ended at once; its log:\n%s", p.log())
	case <-time.After(deadline):
		t.Fatalf("quash dev is not ready after %s; its log:\n%s", deadline, p.log())
	}
	return p
}

func (p *devProcess) log() string {
	data, _ := os.ReadFile(filepath.Join(p.dir, "quash.log"))
	return string(data)
}

func (p *devProcess) kill() { p.end(syscall.SIGKILL) }

// end sends a signal and returns how long it took to end.
func (p *devProcess) end(sig syscall.Signal) time.Duration {
	began := time.Now()
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(deadline):
		_ = p.cmd.Process.Kill()
		p.t.Errorf("quash dev did not end on %s", sig)
	}
	return time.Since(began)
}

// shell runs a text as it stands, in a shell that knows nothing of this Quash.
func (p *devProcess) shell(shell, text string) (out string, ok bool) {
	p.t.Helper()
	cmd := exec.Command(shell)
	cmd.Stdin = strings.NewReader(text)
	cmd.Dir = p.t.TempDir()
	cmd.Env = append(os.Environ(), asCLI+"=1", "NO_COLOR=1")
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err := cmd.Run()
	return b.String(), err == nil
}

// env reads dev.env as a shell does.
func (p *devProcess) env() map[string]string {
	p.t.Helper()
	out, ok := p.shell("sh", "set -a; . "+quote(filepath.Join(p.dir, "dev.env"))+"; set +a; env -0")
	if !ok {
		p.t.Fatalf("dev.env: %s", out)
	}
	env := map[string]string{}
	for _, kv := range strings.Split(out, "\x00") {
		if k, v, found := strings.Cut(kv, "="); found && strings.HasPrefix(k, "QUASH_") && k != asCLI {
			env[k] = v
		}
	}
	return env
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// run runs a command of the command line with the environment of dev.env.
func (p *devProcess) run(stdin string, args ...string) string {
	p.t.Helper()
	cmd := command(p.t, args...)
	for k, v := range p.env() {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.Stdin = strings.NewReader(stdin)
	var errText bytes.Buffer
	cmd.Stderr = &errText
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("quash %s: %v\n%s%s", strings.Join(args, " "), err, out, errText.String())
	}
	return strings.TrimSpace(string(out))
}

func (p *devProcess) json(v any, args ...string) {
	p.t.Helper()
	if out := p.run("", append(args, "-o", "json")...); json.Unmarshal([]byte(out), v) != nil {
		p.t.Fatalf("quash %s answered %s", strings.Join(args, " "), out)
	}
}

func read(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
