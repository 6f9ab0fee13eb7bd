package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// TestResponderSeesThenCutsThenUndoes goes the way of a responder by the command line.
func TestResponderSeesThenCutsThenUndoes(t *testing.T) {
	q := start(t, t.TempDir())
	first := q.newKey("alice", "--scope", "orders:read", "--label", "ci=yes", "--label", "env=prod")
	q.newKey("alice", "--scope", "orders:read")
	bob := q.newKey("bob", "--scope", "orders:read", "--label", "env=prod")

	var p struct {
		Keys struct {
			Count int
			Exact bool
		} `json:"api_keys"`
		Targets    []string
		CutsCaller bool `json:"cuts_caller"`
		Plan       string
	}
	see := func(args ...string) {
		t.Helper()
		p.Targets = nil
		q.json(&p, append([]string{"revoke", "--dry-run"}, args...)...)
	}
	see("principal:alice")
	if p.Keys.Count != 2 || !p.Keys.Exact || p.CutsCaller || p.Plan == "" {
		t.Errorf("alice: %+v", p)
	}
	plan := p.Plan
	for text, want := range map[string]int{
		"keys where owner=alice": 2, "keys where label=env=prod": 2, "keys where label=ci and owner=alice": 1, "keys where creator=operator and label=env": 2,
		"keys where unused>1d and owner=alice": 0, "keys where made>=2020-01-01 and owner=bob": 1, "keys where made<2020-01-01": 0, "keys where ends<100d and owner=bob": 1,
		"keys where state=revoked": 0, "principals where name=alice": 1,
	} {
		r := q.run("", "revoke", "--dry-run", "--select", text, "-o", "json")
		if want == 0 {
			if r.code != 1 || !strings.Contains(r.err, "nothing fits") {
				t.Errorf("%s: exit code %d, %s", text, r.code, r.err)
			}
			continue
		}
		p.Targets = nil
		if err := json.Unmarshal([]byte(r.out), &p); err != nil || len(p.Targets) != want {
			t.Errorf("%s: %q, %v %s", text, p.Targets, err, r.err)
		}
	}
	if r := q.run("", "revoke", "--select", "keys where ownr=alice", "--reason", "r"); r.code != 2 || !strings.Contains(r.err, "at character 12") {
		t.Errorf("a selector with a mistake: exit code %d, %s", r.code, r.err)
	}
	if r := q.run("", "revoke", "principal:alice", "--reason", "r", "--confirm", "alic"); r.code != 2 || !strings.Contains(r.err, "nothing was done") {
		t.Errorf("another name: exit code %d, %s", r.code, r.err)
	}
	q.newKey("alice", "--scope", "orders:read")
	if r := q.run("", "revoke", "principal:alice", "--reason", "r", "--plan", plan); r.code != 1 || !strings.Contains(r.err, "has grown") {
		t.Errorf("after it has grown: exit code %d, %s", r.code, r.err)
	}

	var held, cut struct{ ID, Code string }
	q.json(&held, "hold", "key:"+bob.ID, "--reason", "r", "--wait", "10s")
	if _, status := q.tryExchange(bob.Secret); status == 200 {
		t.Error("a held key is taken")
	}
	// Another one holds it too, and that is not undone with the first.
	bobs := held.ID
	q.json(&held, "hold", "key:"+bob.ID, "--reason", "I saw it too")
	if r := q.run("", "undo", bobs, "--reason", "it was bob himself"); r.code != 1 || !strings.Contains(r.err, "a newer one holds them") {
		t.Errorf("undo of a hold while another one stands: exit code %d, %s", r.code, r.err)
	}
	var shown struct{ State string }
	if q.json(&shown, "key", "show", bob.ID); shown.State != "held" {
		t.Errorf("after the undo of one of two holds: %s, want held", shown.State)
	}
	q.ok("undo", held.ID, "--reason", "it was bob himself")
	eventually(t, "bob's key is taken again", func() error {
		if _, status := q.tryExchange(bob.Secret); status != 200 {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	see("--select", "keys where owner=alice")
	q.json(&cut, "revoke", "--select", "keys where owner=alice", "--plan", p.Plan, "--confirm", "3", "--code", "keyCompromise", "--reason", "r", "--wait", "10s")
	if cut.Code != "keyCompromise" {
		t.Errorf("the code is %q", cut.Code)
	}
	if r := q.run("", "undo", cut.ID, "--reason", "r"); r.code != 1 || !strings.Contains(r.err, "quash key create --owner alice --scope orders:read") || !strings.Contains(r.err, first.ID) {
		t.Errorf("undo of a revocation: exit code %d, %s", r.code, r.err)
	}
	if r := q.run("", "revoke", "key:"+bob.ID, "--reason", "r", "--code", "boredom"); r.code != 2 {
		t.Errorf("an unknown code: exit code %d, %s", r.code, r.err)
	}
}

// A file is cut once, whoever is killed on the way.
func TestBulkGoesOnWhereItWasKilled(t *testing.T) {
	q := start(t, t.TempDir())
	const parts = 60
	file := filepath.Join(t.TempDir(), "targets")
	var text strings.Builder
	for i := range parts * wire.MaxTargets {
		fmt.Fprintf(&text, "token:t-%06d\n", i)
		if i%wire.MaxTargets == 7 {
			text.WriteString("# a remark\n\n")
		}
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := func() int {
		data, _ := os.ReadFile(file + ".journal")
		return bytes.Count(data, []byte("\n"))
	}
	begin := func() *exec.Cmd {
		cmd := command(context.Background(), t, "revoke", "--file", file, "--reason", "bulk")
		cmd.Env = os.Environ()
		for k, v := range q.env {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	kill := func(cmd *exec.Cmd, at int, also ...func()) {
		t.Helper()
		eventually(t, "a part of the file is done", func() error {
			if n := lines(); n < at {
				return fmt.Errorf("%d lines", n)
			}
			return nil
		})
		for _, do := range also {
			do()
		}
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
	}
	kill(begin(), 4)
	kill(begin(), 10, q.kill)
	if n := lines(); n > parts {
		t.Fatalf("it was done before anybody was killed, with %d lines: have a longer file", n)
	}
	// What a crash has left of a line counts for nothing.
	j, err := os.OpenFile(file+".journal", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.WriteString(`{"first":1,"la`); err != nil {
		t.Fatal(err)
	}
	_ = j.Close()
	q.start()
	var last receipt
	q.json(&last, "revoke", "--file", file, "--reason", "bulk")
	// Once all of it is done the same command may mean another cut: it does not say that it was made.
	if r := q.run("", "revoke", "--file", file, "--reason", "bulk"); r.code != 1 || !strings.Contains(r.err, "all 60000 lines were committed (last 2") {
		t.Errorf("all of it again: exit code %d, %s", r.code, r.err)
	}
	if lines() != parts+1 || last.ID == "" {
		t.Errorf("the journal has %d lines, the last entry is %q", lines(), last.ID)
	}
	if r := q.run("", "revoke", "--file", file, "--reason", "another"); r.code != 2 || !strings.Contains(r.err, "journal") {
		t.Errorf("another reason with the journal: exit code %d, %s", r.code, r.err)
	}
	entries, targets := 0, map[string]int{}
	each(t, q.admin(identity.Log), wire.Stream, func(m *jetstream.RawStreamMsg) {
		var e struct {
			Data struct {
				Reason  string
				Targets []struct{ ID string }
			}
		}
		if json.Unmarshal(m.Data, &e) != nil || e.Data.Reason != "bulk" {
			return
		}
		entries++
		for _, x := range e.Data.Targets {
			targets[x.ID]++
		}
	})
	if entries != parts || len(targets) != parts*wire.MaxTargets {
		t.Errorf("%d entries of %d targets, want %d of %d", entries, len(targets), parts, parts*wire.MaxTargets)
	}
	if r := q.run("token:a\nkye:b\n", "revoke", "--file", "-", "--reason", "r"); r.code != 2 || !strings.Contains(r.err, "line 2") {
		t.Errorf("a bad line: exit code %d, %s", r.code, r.err)
	}
}
