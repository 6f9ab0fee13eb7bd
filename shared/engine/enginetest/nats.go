// Package enginetest gives tests the real engines: NATS and Redis as they run
// in production, on free ports of 127.0.0.1, with their files in t.TempDir().
// A missing engine fails the test and says how to get it.
package enginetest

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/shared/engine"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/identity"
)

// NATSServer is a running nats-server of a test.
type NATSServer struct {
	Dir        string // JetStream's files are in Dir/jetstream, the identities in Dir/nats
	URL        string
	Identities *identity.Set

	mu     sync.Mutex
	server *engine.NATS
	conns  map[string]*nats.Conn
}

// NATS starts a server with all identities, JetStream on disk and synced.
func NATS(t testing.TB) *NATSServer {
	t.Helper()
	return NATSIn(t, t.TempDir())
}

// NATSIn starts one on files that may be there from before.
func NATSIn(t testing.TB, dir string) *NATSServer {
	t.Helper()
	set, err := identity.Ensure(filepath.Join(dir, "nats"))
	if err != nil {
		t.Fatalf("identities in %s: %v", dir, err)
	}
	n := &NATSServer{Dir: dir, Identities: set, conns: map[string]*nats.Conn{}}
	n.start(t, -1)
	t.Cleanup(func() {
		n.mu.Lock()
		for _, c := range n.conns {
			c.Close()
		}
		n.mu.Unlock()
		n.Stop()
	})
	return n
}

func (n *NATSServer) start(t testing.TB, port int) {
	t.Helper()
	s, err := engine.StartNATS(engine.NATSConfig{
		Dir: n.Dir, Port: port, Identities: n.Identities, SyncAlways: true,
	})
	if err != nil {
		t.Fatalf("start NATS: %v", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.server, n.URL = s, s.URL()
}

// Stop ends the server in order; its files stay. Stopping twice is fine.
func (n *NATSServer) Stop() {
	n.mu.Lock()
	s := n.server
	n.server = nil
	n.mu.Unlock()
	if s != nil {
		s.Shutdown()
	}
}

// Restart stops the server and starts it on the same files and port.
func (n *NATSServer) Restart(t testing.TB) {
	t.Helper()
	n.Stop()
	n.Start(t)
}

// Start starts a stopped server on the same files and port.
func (n *NATSServer) Start(t testing.TB) {
	t.Helper()
	n.start(t, n.port(t))
}

func (n *NATSServer) port(t testing.TB) int {
	t.Helper()
	u, err := url.Parse(n.URL)
	if err != nil {
		t.Fatal(err)
	}
	p, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Creds returns the credentials file of an identity: that of a service, or of
// the guard with this name, which is made if need be.
func (n *NATSServer) Creds(t testing.TB, name string) string {
	t.Helper()
	switch name {
	case identity.Revocation, identity.ControlReader, identity.Issuer, identity.Rotator, identity.Monitor:
		return n.Identities.Creds(name)
	}
	path, err := n.Identities.AddGuard(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Conn returns the one connection of this test as an identity ("revocation",
// "control-reader", "issuer", "rotator", "monitor", or a guard's name). It is
// closed at the end of the test.
func (n *NATSServer) Conn(t testing.TB, name string) *nats.Conn {
	t.Helper()
	n.mu.Lock()
	c := n.conns[name]
	n.mu.Unlock()
	if c != nil {
		return c
	}
	// Not closed by t, which may be a subtest: the server's test does it.
	c = n.dial(t, n.Creds(t, name))
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[name] = c
	return c
}

// Dial returns a new connection as an identity. The caller may close it; the end
// of the test does.
func (n *NATSServer) Dial(t testing.TB, name string, extra ...nats.Option) *nats.Conn {
	t.Helper()
	c := n.dial(t, n.Creds(t, name), extra...)
	t.Cleanup(c.Close)
	return c
}

// Admin returns a connection with every right in an account (identity.Log,
// Control, Guards, Sys): for a test that damages what no service may.
func (n *NATSServer) Admin(t testing.TB, account string) *nats.Conn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin.creds")
	if err := n.Identities.Admin(path, account); err != nil {
		t.Fatal(err)
	}
	c := n.dial(t, path)
	t.Cleanup(c.Close)
	return c
}

func (n *NATSServer) dial(t testing.TB, creds string, extra ...nats.Option) *nats.Conn {
	t.Helper()
	c, _, err := natsfeed.Connect(n.URL, creds, "a test", nil, append([]nats.Option{
		nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectJitter(0, 0), nats.RetryOnFailedConnect(false),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}, extra...)...)
	if err != nil {
		t.Fatalf("connect to NATS with %s: %v", filepath.Base(creds), err)
	}
	return c
}

// Patience is how long a test waits for what must come: a minute, since the race
// detector, two cores and the rest of the tests share the machine. Where it can't
// come, as with a planted fault, QUASH_TEST_PATIENCE says how long is enough.
func Patience() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("QUASH_TEST_PATIENCE")); err == nil {
		return d
	}
	return time.Minute
}

// Eventually waits until ok says nil, for Patience at most; then the test fails
// with its last error.
func Eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(Patience())
	err := fmt.Errorf("never asked")
	for time.Now().Before(deadline) {
		if err = ok(); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("%s: %v", what, err)
}
