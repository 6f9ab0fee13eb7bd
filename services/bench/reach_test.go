package bench

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// cuts is how many single revocations are interleaved with as many bare ones.
const cuts = 300

// BenchmarkReach: from a revocation being sent until the last guard refuses a
// token that it has taken before. The peer is a synced publish, and then a bare
// core fan-out to as many connections. Garbage is collected between the
// measurements of both: a collection that marks the memory of 1,000 guards is
// what no guard in a process of its own has.
func BenchmarkReach(b *testing.B) {
	for _, guards := range []int{100, 1000} {
		b.Run(fmt.Sprintf("guards=%d", guards), func(b *testing.B) { reach(b, guards) })
	}
}

type tracker struct {
	mu    sync.Mutex
	token string
	want  int
	last  time.Time
	done  chan struct{}
}

func (t *tracker) arm(token string, want int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.token, t.want, t.done = token, want, make(chan struct{})
}

func (t *tracker) one() {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.want--; t.want == 0 {
		t.last = now
		close(t.done)
	}
}

func (t *tracker) current() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.token
}

func (t *tracker) wait(b *testing.B) time.Time {
	b.Helper()
	select {
	case <-t.done:
		return t.last
	case <-time.After(20 * time.Second):
		b.Fatalf("%d guards did not see it in 20 s", t.want)
		return time.Time{}
	}
}

func reach(b *testing.B, guards int) {
	w := newWorld(b)
	js := w.bareStream(b)
	req := guard.Requirement{Scopes: []string{"orders:read"}}
	var quash, bare tracker
	readers := make([]*reader, guards)
	for i := range readers {
		readers[i] = w.guard(b, fmt.Sprintf("g%d", i%10), func(g *guard.Guard, s wire.Stored) {
			if token := quash.current(); token != "" && len(s.Message.End) > 0 {
				if d := g.Decide(context.Background(), token, req); !d.Allowed() {
					quash.one()
				}
			}
		})
	}
	for _, r := range readers {
		enginetest.Eventually(b, "all guards are ready", r.guard.Ready)
	}
	pub := w.nats.Admin(b, "LOG")
	for range guards {
		c := w.nats.Admin(b, "LOG")
		if _, err := c.Subscribe("bench.fan", func(*nats.Msg) { bare.one() }); err != nil {
			b.Fatal(err)
		}
		if err := c.Flush(); err != nil {
			b.Fatal(err)
		}
	}
	payload := make([]byte, 400)
	var ours, theirs []time.Duration
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for b.Loop() {
		ours, theirs = nil, nil
		for i := range cuts {
			if i%10 == 0 {
				runtime.GC()
			}
			jti := fmt.Sprintf("t%d-%d", b.N, i)
			token := w.token(b, jti)
			for _, r := range readers {
				if d := r.guard.Decide(context.Background(), token, req); !d.Allowed() {
					b.Fatalf("before the cut: %s", d.Reason)
				}
			}
			quash.arm(token, guards)
			t0 := time.Now()
			w.cut(b, revoke.KindToken, jti)
			ours = append(ours, quash.wait(b).Sub(t0))

			bare.arm("", guards)
			t0 = time.Now()
			if _, err := js.Publish(context.Background(), "bench.log.x", payload); err != nil {
				b.Fatal(err)
			}
			if err := pub.Publish("bench.fan", payload); err != nil {
				b.Fatal(err)
			}
			theirs = append(theirs, bare.wait(b).Sub(t0))
		}
	}
	reportQuantiles(b, ours, theirs)
}
