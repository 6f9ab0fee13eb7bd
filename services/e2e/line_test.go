package e2e

import (
	"errors"
	"net"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	issuerapp "github.com/quash-project/quash/services/issuer/app"
	"github.com/quash-project/quash/shared/identity"
)

// line is a service's way to the broker. A test can have it fail just after a
// message that it picks: the message arrives, and its acknowledgement does not.
type line struct {
	mu    sync.Mutex
	match func(sent []byte) bool
	dies  bool          // for good, as the process does; otherwise the connection is lost once
	hit   chan struct{} // closed when it has happened
	dead  bool
	now   *lineConn
}

var errLine = errors.New("the line is dead")

// Dial implements nats.CustomDialer.
func (l *line) Dial(network, address string) (net.Conn, error) {
	l.mu.Lock()
	dead := l.dead
	l.mu.Unlock()
	if dead {
		return nil, errLine
	}
	c, err := net.DialTimeout(network, address, deadline)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = &lineConn{Conn: c, l: l}
	return l.now, nil
}

// arm waits for a message that matches; hit is closed then.
func (l *line) arm(dies bool, match func(sent []byte) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.match, l.dies, l.hit = match, dies, make(chan struct{})
}

// revive lets a replica come back that was dead.
func (l *line) revive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		l.dead = false
		_ = l.now.Close()
	}
}

type lineConn struct {
	net.Conn
	l    *line
	mute bool // under l.mu: what comes and goes from now on is lost
}

func (c *lineConn) Write(p []byte) (int, error) {
	c.l.mu.Lock()
	if c.mute || c.l.dead {
		c.l.mu.Unlock()
		return len(p), nil
	}
	if c.l.match != nil && c.l.match(p) {
		c.l.match, c.l.dead, c.mute = nil, c.l.dies, true
		close(c.l.hit)
		if !c.l.dies {
			// Closed at once it might take the message along with it.
			time.AfterFunc(100*time.Millisecond, func() { _ = c.Close() })
		}
	}
	c.l.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *lineConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		c.l.mu.Lock()
		lost := c.mute || c.l.dead
		c.l.mu.Unlock()
		if err != nil || !lost {
			return n, err
		}
	}
}

// anotherIssuer starts one more replica of the issuer, at the end of a line.
func (s *services) anotherIssuer(l *line) *httptest.Server {
	s.t.Helper()
	iss, err := issuerapp.New(s.t.Context(), issuerapp.Config{URL: s.url, Trust: s.trust, KEKFile: s.kek},
		issuerapp.Deps{Log: zap.NewNop(), NATS: s.nats.Dial(s.t, identity.Issuer, nats.SetCustomDialer(l))})
	if err != nil {
		s.t.Fatal(err)
	}
	s.run("another issuer", iss)
	srv := httptest.NewServer(iss.Handler())
	s.t.Cleanup(srv.Close)
	eventually(s.t, "another issuer is ready", iss.Ready)
	return srv
}
