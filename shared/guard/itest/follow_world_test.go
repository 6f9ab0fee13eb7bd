package itest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/services/revocation/natsapi"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// world is a real broker with the real log and its service before it.
type world struct {
	t     *testing.T
	nats  *enginetest.NATSServer
	log   *ledger.Ledger
	fleet *fleet.Fleet
	stop  func() // of the service

	mu   sync.Mutex
	made []entry
	n    int
}

// entry is one that was acknowledged before the time at.
type entry struct {
	key  revoke.Key
	at   time.Time
	seq  uint64
	when revoke.Stamp
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, nats: enginetest.NATS(t)}
	w.serve()
	return w
}

// serve starts the revocation service.
func (w *world) serve() {
	w.t.Helper()
	nc := w.nats.Dial(w.t, "revocation")
	l, err := ledger.New(ledger.Config{
		NATS: nc, SyncAlways: true, OrdinaryGather: 100 * time.Millisecond, EpochGap: time.Millisecond, SnapshotLife: time.Millisecond,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.log, w.fleet = l, fleet.New(fleet.Config{Log: l})
	l.Observe(w.fleet)
	api := &natsapi.Server{NATS: nc, Ledger: l, Fleet: w.fleet, Log: zap.NewNop()}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = l.Run(ctx) })
	running.Go(func() { _ = api.Run(ctx) })
	w.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	w.t.Cleanup(w.stop)
	enginetest.Eventually(w.t, "the service is ready", l.Ready)
}

// end commits an entry with a target of its own.
func (w *world) end() entry {
	w.t.Helper()
	w.mu.Lock()
	w.n++
	id := fmt.Sprintf("token-%d", w.n)
	w.mu.Unlock()
	target, err := revoke.NewTarget("default", "", revoke.KindToken, id)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	e := entry{key: target.Key()}
	a, err := w.log.Commit(ctx, commit.Request{
		Key: id, Tenant: "default", Op: commit.Revoke, Reason: "a test", Actor: "alice",
		Targets: []commit.Target{{Kind: revoke.KindToken, ID: id}},
	}, "test")
	if err != nil {
		w.t.Fatalf("commit: %v", err)
	}
	e.when, e.seq, e.at = a.Stamp(), a.Sequence, time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made = append(w.made, e)
	return e
}

// member is a reader as a guard has it, over a line that can be cut.
type member struct {
	*follow.Reader
	line *line
	stop func()
}

func (w *world) member(name string, change func(*follow.Config)) *member {
	w.t.Helper()
	u, err := url.Parse(w.nats.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	m := &member{line: newLine(w.t, u.Host)}
	nc, user, err := natsfeed.Connect("nats://"+m.line.addr(), w.nats.Creds(w.t, name), "a test", nil, nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0))
	if err != nil {
		w.t.Fatal(err)
	}
	if user != name {
		w.t.Fatalf("the credentials of %s are of user %q", name, user)
	}
	w.t.Cleanup(nc.Close)
	link, err := natsfeed.New(nc, user)
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := follow.Config{Source: link, Feed: link, Limit: 2 * time.Second}
	if change != nil {
		change(&cfg)
	}
	if m.Reader, err = follow.New(cfg); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	w.t.Cleanup(m.stop)
	return m
}

// accepts returns nil if a guard that denies past its limit would accept.
func (m *member) accepts() error {
	staleness, err := m.Check()
	if err == nil && staleness > m.Status().Limit {
		err = fmt.Errorf("%s stale", staleness)
	}
	return err
}

func (w *world) ready(ms ...*member) {
	w.t.Helper()
	for _, m := range ms {
		enginetest.Eventually(w.t, "the reader accepts", m.accepts)
	}
}

// truthful fails if the reader claims to be fresher than it is.
func (w *world) truthful(m *member) {
	w.t.Helper()
	now := time.Now() // before the claim: what was acknowledged longer ago than claimed must be there
	staleness, err := m.Check()
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.made {
		if age := now.Sub(e.at); age > staleness && !m.View().State(e.key).Ended {
			w.t.Fatalf("an entry of %s ago, at %d, is not in a view that claims to be %s old at most", age, e.seq, staleness)
		}
	}
}

// has reports what a reader lacks of all that was acknowledged.
func (w *world) has(m *member) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.made {
		if !m.View().State(e.key).Ended {
			return fmt.Errorf("lacks %d, at %s", e.seq, m.Position().Stamp)
		}
	}
	return nil
}

func (w *world) caughtUp(ms ...*member) {
	w.t.Helper()
	for _, m := range ms {
		enginetest.Eventually(w.t, "the reader has everything", func() error { return w.has(m) })
	}
}

// line is a TCP connection through which nothing may come for a while.
type line struct {
	l  net.Listener
	to string

	mu     sync.Mutex
	open   chan struct{} // closed while bytes may pass
	conns  map[net.Conn]struct{}
	closed bool
}

func newLine(t *testing.T, to string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &line{l: l, to: to, open: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(p.open)
	var running sync.WaitGroup
	running.Go(func() { p.accept(&running) })
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		_ = l.Close()
		p.cut()
		p.thaw()
		running.Wait()
	})
	return p
}

func (p *line) addr() string { return p.l.Addr().String() }

func (p *line) accept(running *sync.WaitGroup) {
	for {
		in, err := p.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.conns[in], p.conns[out] = struct{}{}, struct{}{}
		closed := p.closed
		p.mu.Unlock()
		if closed {
			p.cut()
		}
		running.Go(func() { p.copy(in, out) })
		running.Go(func() { p.copy(out, in) })
	}
}

func (p *line) copy(to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		open := p.open
		p.mu.Unlock()
		<-open
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// freeze lets nothing through; nobody is told.
func (p *line) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default:
	}
}

func (p *line) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

// cut ends the connections that there are.
func (p *line) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
		delete(p.conns, c)
	}
}

func streamFiles(n *enginetest.NATSServer) string { return filepath.Join(n.Dir, "jetstream") }
