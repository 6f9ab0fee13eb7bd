package chaos

import (
	"io"
	"net"
	"testing"
	"time"
)

// echo is a server that says back what it hears.
func echo(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	return l.Addr().String()
}

// caller is a connection over a link.
type caller struct {
	t *testing.T
	net.Conn
}

func call(t *testing.T, x *link) caller {
	t.Helper()
	c, err := net.Dial("tcp", x.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return caller{t, c}
}

// hears sends a byte and reports whether it comes back in time.
func (c caller) hears(within time.Duration) error {
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	return c.waits(within)
}

func (c caller) waits(within time.Duration) error {
	c.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		c.t.Fatal(err)
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

func timedOut(err error) bool {
	e, ok := err.(net.Error) //nolint:errorlint // as net returns it
	return ok && e.Timeout()
}

const (
	soon    = 10 * time.Second       // for what must come
	notSoon = 100 * time.Millisecond // for what must not
)

func TestLinkDoesWhatItsStateSays(t *testing.T) {
	x, err := newLink("a", "b clients", echo(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	c := call(t, x)
	if err := c.hears(soon); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]state{"up": {upStill: true}, "down": {downStill: true}, "both": {upStill: true, downStill: true}} {
		x.set(s)
		if err := c.hears(notSoon); !timedOut(err) {
			t.Errorf("still %s: %v", name, err)
		}
		if other := call(t, x); other.hears(notSoon) == nil {
			t.Errorf("still %s: a new connection is answered", name)
		}
		x.set(state{})
		if err := c.waits(soon); err != nil {
			t.Errorf("what was held back %s does not come: %v", name, err)
		}
	}
	x.set(state{late: 50 * time.Millisecond})
	began := time.Now()
	if err := c.hears(soon); err != nil || time.Since(began) < 100*time.Millisecond { // both ways
		t.Errorf("late: after %s, %v", time.Since(began), err)
	}
	x.set(state{stall: 1})
	began = time.Now()
	if err := c.hears(soon); err != nil || time.Since(began) < 2*stallLeast {
		t.Errorf("lossy: after %s, %v", time.Since(began), err)
	}
	x.set(state{reset: 1})
	if err := c.hears(soon); err == nil || timedOut(err) {
		t.Errorf("a connection that is reset: %v", err)
	}
	x.set(state{})
	c = call(t, x)
	if err := c.hears(soon); err != nil {
		t.Fatal(err)
	}
	x.set(state{cut: true})
	if err := c.waits(soon); err == nil || timedOut(err) {
		t.Errorf("a connection over a way that was cut: %v", err)
	}
	if err := call(t, x).hears(soon); err == nil || timedOut(err) {
		t.Errorf("a new one: %v", err)
	}
	x.set(state{})
	if err := call(t, x).hears(soon); err != nil {
		t.Errorf("mended: %v", err)
	}
}

// Who asks for a way twice is led the same one, and another asker another.
func TestLinksAreOneForEachPair(t *testing.T) {
	var l links
	defer l.close()
	to := echo(t)
	first := l.route("a", "b clients", to)
	if again := l.route("a", "b clients", to); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	if other := l.route("c", "b clients", to); other == first {
		t.Error("two processes share a link")
	}
	if n := l.set(state{cut: true}, func(x *link) bool { return x.from == "a" }); n != 1 {
		t.Errorf("%d links of a", n)
	}
}
