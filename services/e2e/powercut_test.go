package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/ports"
)

const clusterNodes = 3

// syncAlways is the line of the shipped configuration on which durability stands.
const syncAlways = "sync_interval: always"

// brokers are three nats-servers as processes, each with its files on a file system of
// its own on a loop device.
type brokers struct {
	t          *testing.T
	dir        string
	program    string
	config     string // the shipped one, maybe without syncAlways
	identities *identity.Set
	clients    []string
	routes     []string
	images     [clusterNodes]string
	disks      [clusterNodes]string // where they are mounted
	running    [clusterNodes]*exec.Cmd
	mounts     int
}

func newBrokers(t *testing.T, config string) *brokers {
	t.Helper()
	b := &brokers{t: t, dir: t.TempDir(), config: config}
	b.program = filepath.Join(b.dir, "nats-server")
	sh(t, "go", "build", "-o", b.program, "github.com/nats-io/nats-server/v2")
	var err error
	if b.identities, err = identity.Create(filepath.Join(b.dir, "identities")); err != nil {
		t.Fatal(err)
	}
	var held []net.Listener
	for range 2 * clusterNodes {
		l, err := ports.Choose("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l)
	}
	for i, l := range held {
		if addr := l.Addr().String(); i < clusterNodes {
			b.clients = append(b.clients, addr)
		} else {
			b.routes = append(b.routes, addr)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for n := range clusterNodes {
		b.images[n] = filepath.Join(b.dir, fmt.Sprintf("image-%d", n+1))
		sh(t, "truncate", "-s", "128M", b.images[n])
		sh(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", b.images[n])
	}
	t.Cleanup(b.kill)
	return b
}

// start mounts the images and starts a server on each.
func (b *brokers) start() {
	b.t.Helper()
	b.mounts++
	for n := range clusterNodes {
		b.disks[n] = filepath.Join(b.dir, fmt.Sprintf("disk-%d-%d", n+1, b.mounts))
		mount(b.t, b.images[n], b.disks[n])
		b.startNode(n)
	}
}

// startNode starts one server on its disk.
func (b *brokers) startNode(n int) {
	b.t.Helper()
	accounts, err := b.identities.ServerConfig()
	if err != nil {
		b.t.Fatal(err)
	}
	const store = `store_dir: "/var/lib/nats/jetstream"`
	if !strings.Contains(b.config, store) {
		b.t.Fatalf("the shipped configuration has no line %s", store)
	}
	text := strings.Replace(b.config, store, fmt.Sprintf("store_dir: %q", b.disks[n]), 1) + fmt.Sprintf(
		"\nserver_name: nats-%d\nlisten: %q\ncluster: { name: quash, listen: %q, routes: [ %s ] }\n",
		n+1, b.clients[n], b.routes[n], "nats://"+strings.Join(b.routes, ", nats://")) + accounts
	file := filepath.Join(b.dir, fmt.Sprintf("nats-%d.conf", n+1))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(b.dir, fmt.Sprintf("nats-%d.log", n+1)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(b.program, "-c", file)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	_ = log.Close()
	b.running[n] = cmd
}

// signal reaches all servers, as fast as can be.
func (b *brokers) signal(s syscall.Signal) {
	for _, cmd := range b.running {
		if cmd != nil {
			_ = cmd.Process.Signal(s)
		}
	}
}

func (b *brokers) kill() {
	b.signal(syscall.SIGKILL)
	for n, cmd := range b.running {
		if cmd != nil {
			_ = cmd.Wait()
		}
		b.running[n] = nil
	}
}

// cutPower takes all three servers away, with everything that had not reached the disk:
// what goes on is a copy of the images without the dirty pages above them. They stand
// still while they are copied, so that the copies are of one moment.
func (b *brokers) cutPower() {
	b.t.Helper()
	b.signal(syscall.SIGSTOP)
	for n := range clusterNodes {
		cut := b.images[n] + ".cut"
		sh(b.t, "cp", "--sparse=always", b.images[n], cut)
		b.images[n] = cut
	}
	b.kill()
}

func (b *brokers) connect() *nats.Conn {
	b.t.Helper()
	nc, _, err := natsfeed.Connect("nats://"+strings.Join(b.clients, ",nats://"), b.identities.Creds(identity.Revocation), "a test", nil,
		nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(nc.Close)
	return nc
}

// keep runs a ledger on the servers until the returned function is called.
func (b *brokers) keep(always bool) (*ledger.Ledger, func()) {
	b.t.Helper()
	l, err := ledger.New(ledger.Config{NATS: b.connect(), Replicas: clusterNodes, SyncAlways: always})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("the ledger: %v", err)
		}
	})
	b.t.Cleanup(stop)
	eventually(b.t, "the ledger is ready", l.Ready)
	return l, stop
}

func cutRequest(key string) commit.Request {
	return commit.Request{
		Key: key, Tenant: "default", Op: commit.Revoke, Targets: []commit.Target{{Kind: revoke.KindSession, ID: key}}, Reason: "a test", Actor: "a test",
	}
}

// commitMany commits until so many are acknowledged, and goes on until it is stopped. It
// returns what was acknowledged at that moment.
func commitMany(t *testing.T, l *ledger.Ledger, want int) (acknowledged func() map[string]commit.Answer, stop func()) {
	t.Helper()
	var mu sync.Mutex
	answers := map[string]commit.Answer{}
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for caller := range 16 {
		callers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("s%d-%d", caller, i)
				if a, err := l.Commit(ctx, cutRequest(key), "test"); err == nil {
					mu.Lock()
					answers[key] = a
					mu.Unlock()
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); callers.Wait() })
	t.Cleanup(stop)
	acknowledged = func() map[string]commit.Answer {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(answers)
	}
	eventually(t, "entries are acknowledged", func() error {
		if n := len(acknowledged()); n < want {
			return fmt.Errorf("%d of %d", n, want)
		}
		return nil
	})
	return acknowledged, stop
}

// lost repeats what was acknowledged, and counts what is another entry now.
func lost(t *testing.T, l *ledger.Ledger, acknowledged map[string]commit.Answer) int {
	t.Helper()
	var n atomic.Int64
	var callers sync.WaitGroup
	room := make(chan struct{}, 64)
	for key, was := range acknowledged {
		room <- struct{}{}
		callers.Go(func() {
			defer func() { <-room }()
			is, err := l.Commit(t.Context(), cutRequest(key), "test")
			if err != nil {
				t.Errorf("repeat %s: %v", key, err)
			} else if is.Stamp() != was.Stamp() || !is.Repeated {
				n.Add(1)
			}
		})
	}
	callers.Wait()
	return int(n.Load())
}

// TestPromise1PowerCutOfACluster cuts the power of three nodes at once: the loss of a
// quorum's memory is the one fault that replicas do not cover. Without the shipped
// setting it loses acknowledged entries, so the test can fail.
func TestPromise1PowerCutOfACluster(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts file systems on loop devices")
	}
	t.Parallel()
	shipped, err := os.ReadFile(filepath.Join("..", "..", "deploy", "nats", "jetstream.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(shipped), syncAlways) != 1 {
		t.Fatalf("the shipped configuration does not say %s", syncAlways)
	}
	for name, always := range map[string]bool{"synced": true, "by default": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait for elections most of their time
			config := string(shipped)
			if !always {
				config = strings.Replace(config, syncAlways, "", 1)
			}
			b := newBrokers(t, config)
			b.start()
			l, end := b.keep(always)
			acknowledged, stop := commitMany(t, l, 200)
			promised := acknowledged() // before the cut
			b.cutPower()
			stop()
			end()

			b.start()
			again, _ := b.keep(always)
			n := lost(t, again, promised)
			t.Logf("%d entries acknowledged before the cut, %d lost", len(promised), n)
			switch {
			case always && n > 0:
				t.Errorf("LOST: %d of %d acknowledged entries", n, len(promised))
			case !always && n == 0:
				t.Errorf("without %s nothing of %d acknowledged entries was lost: this test can't fail", syncAlways, len(promised))
			}
			if r := b.fsck(); !r.OK {
				t.Errorf("the log afterwards: %q", r.Differences)
			}
		})
	}
}
