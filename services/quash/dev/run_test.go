package dev_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/denylist"
)

// TestPastedLinesShowATokenLiveAndDie pastes what the banner says to paste, in a
// directory whose name needs quoting.
func TestPastedLinesShowATokenLiveAndDie(t *testing.T) {
	p := start(t, filepath.Join(t.TempDir(), "it's here"))
	_, story, ok := strings.Cut(p.banner, "to paste in another terminal:\n\n")
	story, _, ok2 := strings.Cut(story, "\nYou see")
	if !ok || !ok2 {
		t.Fatalf("the banner has nothing to paste:\n%s", p.banner)
	}
	if strings.Contains(story, "#") {
		t.Error("a comment is among the lines to paste: interactive zsh takes it for a command")
	}
	for _, shell := range []string{"sh", "bash"} {
		out, ok := p.shell(shell, story)
		before, after, _ := strings.Cut(out, "\n")
		if !ok || before != "200" || !strings.HasSuffix(strings.TrimSpace(after), "\n401") || !strings.Contains(after, "demo") {
			t.Errorf("%s: pasted lines gave, want 200, then demo's confirmation, then 401:\n%s", shell, out)
		}
	}
}

func TestEnvironmentFileIsCompletePrivateAndAbsolute(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "q")
	p := start(t, dir)
	env := p.env()
	for _, name := range []string{
		"QUASH_URL", "QUASH_DEMO_URL", "QUASH_KEY_FILE", "QUASH_NATS_URL", "QUASH_NATS_CREDS", "QUASH_REDIS_URL", "QUASH_TRUST",
	} {
		if env[name] == "" {
			t.Errorf("dev.env has no %s", name)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "dev.env"), env["QUASH_KEY_FILE"], env["QUASH_NATS_CREDS"], filepath.Join(dir, "kek.json"), filepath.Join(dir, "quash.log")} {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if !filepath.IsAbs(path) || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v, want an absolute path that only its owner can read", path, st.Mode())
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "dev.env"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		if name, value, _ := strings.Cut(line, "="); strings.Contains(name, " ") || value[0] != '\'' {
			t.Errorf("line %q: want NAME='value'", line)
		}
	}
	secret, err := os.ReadFile(env["QUASH_KEY_FILE"])
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"banner": p.banner, "log": p.log()} {
		if strings.Contains(text, strings.TrimSpace(string(secret))) {
			t.Errorf("the operator's key is in the %s", where)
		}
	}
}

// TestGuardsOfOnesOwnJoin makes the two kinds of guard that dev.env is for: one
// over NATS, and one that has Redis alone.
func TestGuardsOfOnesOwnJoin(t *testing.T) {
	p := start(t, filepath.Join(t.TempDir(), "q"))
	env := p.env()
	var key struct{ ID, Secret string }
	p.json(&key, "key", "create", "--owner", "alice", "--scope", "orders:read")
	token := p.run(key.Secret, "token", "--key-file", "-")

	d, err := denylist.Open(env["QUASH_REDIS_URL"], denylist.Config{})
	if err != nil {
		t.Fatal(err)
	}
	issuer := guard.Issuer{URL: env["QUASH_URL"], Trust: []string{env["QUASH_TRUST"]}}
	overRedis := issuer
	overRedis.Trust, overRedis.JWKSURL = nil, env["QUASH_URL"]+"/oauth/jwks"
	for name, g := range map[string]*guard.Guard{
		"nats":  newGuard(t, issuer, guard.WithNATS(env["QUASH_NATS_URL"], env["QUASH_NATS_CREDS"])),
		"redis": newGuard(t, overRedis, guard.WithRedis(d)),
	} {
		if dec := g.Decide(t.Context(), token, guard.Requirement{Scopes: []string{"orders:read"}}); !dec.Allowed() {
			t.Errorf("%s: a good token is refused: %s: %s", name, dec.Check, dec.Reason)
		}
		t.Cleanup(func() {
			if dec := g.Decide(context.Background(), token, guard.Requirement{}); dec.Allowed() || dec.Check != guard.CheckTargets {
				t.Errorf("%s: after the revocation: %s: %s", name, dec.Check, dec.Reason)
			}
		})
	}
	var r struct {
		Complete  bool
		Confirmed []struct{ Name string }
	}
	p.json(&r, "revoke", "key:"+key.ID, "--reason", "test", "--wait", "60s")
	names := map[string]bool{}
	for _, c := range r.Confirmed {
		names[c.Name] = true
	}
	if !r.Complete || !names["app"] || !names["demo"] {
		t.Errorf("confirmed by %v, complete %v: want app and demo, complete", names, r.Complete)
	}
}

func newGuard(t *testing.T, issuer guard.Issuer, opt guard.Option) *guard.Guard {
	t.Helper()
	g, err := guard.New([]guard.Issuer{issuer}, opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	eventually(t, "the guard is ready", g.Ready)
	return g
}

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
		time.Sleep(5 * time.Millisecond) // between two looks
	}
}

// TestKilledProcessGoesOnWhereItWas kills it, and wants URL, keys and tokens of
// before, and the guards of the former instance out.
func TestKilledProcessGoesOnWhereItWas(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "q")
	p := start(t, dir)
	best := p.took
	env := p.env()
	var key struct{ ID, Secret string }
	p.json(&key, "key", "create", "--owner", "alice", "--scope", "orders:read")
	token := p.run(key.Secret, "token", "--key-file", "-")
	for range 2 {
		p.kill()
		p = start(t, dir)
		best = min(best, p.took)
		for name, was := range env {
			if is := p.env()[name]; is != was {
				t.Errorf("%s was %s, is %s", name, was, is)
			}
		}
		if got := orders(t, env["QUASH_DEMO_URL"], token); got != http.StatusOK {
			t.Errorf("a token of before: status %d, want 200", got)
		}
		p.run(key.Secret, "token", "--key-file", "-")
		var fleet struct {
			Items []struct{ Name, Instance, State string }
		}
		p.json(&fleet, "fleet")
		joined := map[string]int{}
		for _, g := range fleet.Items {
			if g.State != "out" {
				joined[g.Name]++
			}
		}
		for _, name := range []string{"revocation", "rotator", "issuer", "demo"} {
			if joined[name] != 1 {
				t.Errorf("%d instances of %s are in the fleet, want 1", joined[name], name)
			}
		}
	}
	if best > prompt {
		t.Errorf("ready after %s at best: it waits for something", best)
	}
}

// prompt tells what works from what waits for a deadline, on a machine that has much else to
// do. How fast it is says BenchmarkDev.
const prompt = 10 * time.Second

// BenchmarkDev starts a Quash that was there before, and ends it while somebody watches.
// On a machine that does nothing else both take less than 2 s.
func BenchmarkDev(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "q")
	start(b, dir).end(syscall.SIGINT)
	var ready, ended time.Duration
	for b.Loop() {
		p := start(b, dir)
		ready += p.took
		p.watched()
		ended += p.end(syscall.SIGINT)
	}
	b.ReportMetric(ready.Seconds()/float64(b.N), "s-to-ready")
	b.ReportMetric(ended.Seconds()/float64(b.N), "s-to-end")
}

func orders(t *testing.T, demo, token string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, demo+"/orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestInterruptEndsIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "q")
	p := start(t, dir)
	p.watched()
	if took := p.end(syscall.SIGINT); took > prompt {
		t.Errorf("ended after %s: it waits for something", took)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if _, err := os.Stat(filepath.Join(dir, "dev.env")); err == nil {
		t.Error("dev.env is still there: it speaks of nothing that runs")
	}
}

// watched opens a stream that shows what is revoked, and leaves it open.
func (p *devProcess) watched() {
	p.t.Helper()
	watch := command(p.t, "watch")
	for k, v := range p.env() {
		watch.Env = append(watch.Env, k+"="+v)
	}
	out, err := watch.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = watch.Process.Kill()
		_ = watch.Wait()
	})
	streams := make(chan struct{})
	go func() {
		var b [1]byte
		_, _ = out.Read(b[:]) // what watch shows of the revocations below
		close(streams)
	}()
	eventually(p.t, "the stream is open", func() error {
		p.run("", "revoke", "token:x", "--reason", "test")
		select {
		case <-streams:
			return nil
		default:
			return os.ErrDeadlineExceeded
		}
	})
}

// TestRoutesOfAllServicesAreThere asks each service something that only it knows.
func TestRoutesOfAllServicesAreThere(t *testing.T) {
	p := start(t, filepath.Join(t.TempDir(), "q"))
	base := p.env()["QUASH_URL"]
	for path, want := range map[string]int{
		"/v1/principals": 401, "/v1/keys": 401, "/v1/clients": 401, "/v1/roles": 401, "/v1/bindings": 401, "/oauth/jwks": 200,
		"/.well-known/oauth-authorization-server": 200, "/.well-known/openid-configuration": 200,
		"/v1/fleet": 401, "/v1/slo": 401, "/v1/revocations/x": 401, "/v1/feed": 401, "/v1/decisions": 405, "/v1/revocations": 405, "/v1/lookups": 405,
		"/v1/rotations/x": 401, "/v1/rotations": 405, "/v1/signing-keys": 401, "/oauth/token": 405, "/": 404, "/v1": 404,
		"/openapi/issuer.json": 200, "/openapi/rotator.json": 200, "/openapi/revocation.json": 200,
		"/openapi/issuer-3.0.json": 200, "/openapi/rotator-3.0.json": 200, "/openapi/revocation-3.0.json": 200,
		"/openapi.json": 200, "/openapi-3.0.json": 200, "/docs": 200, "/docs/swagger-ui-bundle.js": 200, "/docs/start.js": 200, "/docs/x": 404,
	} {
		resp, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		body := read(t, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s: status %d, want %d: %s", path, resp.StatusCode, want, body)
		}
		if want >= 400 && !json.Valid([]byte(body)) {
			t.Errorf("GET %s: the refusal is no document: %s", path, body)
		}
	}
}
