package deployment

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/identity"
)

// BenchmarkSizing prints the rows of the sizing table in docs/operations.md: what
// the processes of scripts/up take with so many guards, revocations a second and
// live entries. Run it with -benchtime 1x.
func BenchmarkSizing(b *testing.B) {
	for b.Loop() {
		s := newSizing(b)
		fmt.Println("| guards | revocations a second | live entries | revocation | a guard's process | issuer | Redis | a NATS node | disk of a NATS node | messages a second at a revocation process |")
		s.row(0)
		s.row(20)
		s.entries(100_000)
		s.row(0)
		s.row(20)
		s.guards(100)
		s.row(0)
		s.row(20)
		s.end()
	}
}

type sizing struct {
	b    *testing.B
	r    *running
	l    *load
	live int
	many int // guards
	stop []func()
}

func newSizing(b *testing.B) *sizing {
	s := &sizing{b: b, r: up(b, b.TempDir(), Single), many: 8} // both of each service and both demo servers
	l, stop, err := begin(s.r, 0)
	if err != nil {
		b.Fatal(err)
	}
	stop() // only its operator is wanted
	s.l = l
	return s
}

func (s *sizing) end() {
	for _, stop := range s.stop {
		stop()
	}
}

// revoke commits one entry.
func (s *sizing) revoke(targets ...string) {
	a, err := s.l.call(context.Background(), "/v1/revocations", fmt.Sprintf("sizing-%d", s.live), map[string]any{
		"op": "revoke", "targets": targets, "reason": "a measurement",
	}, s.l.revokers...)
	if err != nil || a.status != http.StatusCreated {
		s.b.Fatalf("status %d, %v: %.300s", a.status, err, a.body)
	}
	s.live += len(targets)
}

func (s *sizing) entries(n int) {
	for left := n; left > 0; left -= 1000 {
		targets := make([]string, min(left, 1000))
		for i := range targets {
			targets[i] = fmt.Sprintf("principal:user-%d", s.live+i)
		}
		s.revoke(targets...)
	}
}

// guards starts more guards, in this process.
func (s *sizing) guards(n int) {
	ids, err := identity.Load(filepath.Join(s.r.dir, "identities"))
	if err != nil {
		s.b.Fatal(err)
	}
	env := func(name string) (value string) {
		for _, v := range s.r.env {
			if found, ok := strings.CutPrefix(v, name+"="); ok {
				value = found
			}
		}
		return value
	}
	s.b.Setenv("SSL_CERT_FILE", env("SSL_CERT_FILE"))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	var all []*guard.Guard
	for i := range n {
		creds, err := ids.AddGuard(fmt.Sprintf("sizing-%d", i))
		if err != nil {
			s.b.Fatal(err)
		}
		g, err := guard.New([]guard.Issuer{{URL: env("QUASH_URL"), Trust: []string{env("QUASH_TRUST")}}},
			guard.WithNATS(env("QUASH_NATS_URL"), creds), guard.WithLogger(zap.NewNop()))
		if err != nil {
			s.b.Fatal(err)
		}
		running.Go(func() { _ = g.Run(ctx) })
		all = append(all, g)
	}
	s.stop = append(s.stop, func() { cancel(); running.Wait() })
	for _, g := range all {
		enginetest.Eventually(s.b, "a guard is ready", g.Ready)
	}
	s.many += n
}

// row measures for ten seconds, after the processes had three to settle.
func (s *sizing) row(rate int) {
	const settle, measured = 3 * time.Second, 10 * time.Second
	begun := time.Now()
	var before uint64
	for i := 0; time.Since(begun) < settle+measured; i++ {
		if before == 0 && time.Since(begun) >= settle {
			before = s.messages()
		}
		if rate == 0 {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		s.revoke(fmt.Sprintf("principal:user-%d", s.live))
		time.Sleep(time.Until(begun.Add(time.Duration(i+1) * time.Second / time.Duration(rate))))
	}
	perSecond := float64(s.messages()-before) / time.Since(begun.Add(settle)).Seconds()
	fmt.Printf("| %d | %d | %d | %s | %s | %s | %s | %s | %s | %.0f |\n", s.many, rate, s.live,
		s.memory("revocation-1"), s.memory("demo-1"), s.memory("issuer-1"), s.memory("redis-1"), s.memory("nats-1"), s.disk("nats-1"), perSecond)
}

// messages are those of the busier revocation process, in and out, as the broker
// counts them.
func (s *sizing) messages() (most uint64) {
	list, err := Processes(s.r.dir)
	if err != nil {
		s.b.Fatal(err)
	}
	for _, p := range list {
		if kind(p.Name) != "nats" {
			continue
		}
		var out struct {
			Connections []struct {
				Name string `json:"name"`
				In   uint64 `json:"in_msgs"`
				Out  uint64 `json:"out_msgs"`
			} `json:"connections"`
		}
		if err := getJSON(s.b.Context(), http.DefaultClient, p.Addresses[2]+"/connz?limit=2000", &out); err != nil {
			s.b.Fatal(err)
		}
		for _, c := range out.Connections {
			if c.Name == "quash-revocation" {
				most = max(most, c.In+c.Out)
			}
		}
	}
	if most == 0 {
		s.b.Fatal("no connection of a revocation process")
	}
	return most
}

// memory is what a process has resident.
func (s *sizing) memory(name string) string {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.r.process(name).PID))
	if err != nil {
		s.b.Fatal(err)
	}
	for line := range bytes.Lines(status) {
		if f := strings.Fields(string(line)); len(f) > 1 && f[0] == "VmRSS:" {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				s.b.Fatal(err)
			}
			return fmt.Sprintf("%d MiB", kib>>10)
		}
	}
	s.b.Fatalf("%s has no VmRSS", name)
	return ""
}

// disk is what the files of a node take on it.
func (s *sizing) disk(name string) string {
	var blocks int64
	err := filepath.WalkDir(filepath.Join(s.r.dir, name), func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it went meanwhile
		}
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				blocks += st.Blocks
			}
		}
		return nil
	})
	if err != nil {
		s.b.Fatal(err)
	}
	return fmt.Sprintf("%.1f MiB", float64(blocks)*512/(1<<20))
}
