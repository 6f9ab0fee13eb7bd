package chaos

import (
	"hash/fnv"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// state is how a link treats what goes through it.
type state struct {
	cut bool // connections are closed, and new ones refused
	// upStill and downStill hold back what goes from or to the client, with
	// connections as they are: half-open, if it is one of them.
	upStill, downStill bool
	late               time.Duration // each piece comes so much later
	stall              float64       // chance that a piece waits as for a lost packet's repetition
	reset              float64       // chance that a piece ends its connection instead
}

// What a lost packet costs: Linux sends it again after 200 ms at least, and twice
// that when it is lost again.
const (
	stallLeast = 200 * time.Millisecond
	stallMost  = 800 * time.Millisecond
)

// link is a proxy before one port, for one process that goes there.
type link struct {
	from, to string // process, and process with the use of its port
	addr     string // where it listens
	listener net.Listener
	running  sync.WaitGroup

	mu      sync.Mutex
	rng     *rand.Rand
	target  string
	state   state
	changed chan struct{} // closed with the next change of state
	conns   map[net.Conn]bool
	closed  bool
}

func newLink(from, to, target string, seed uint64) (*link, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	name := fnv.New64a()
	_, _ = name.Write([]byte(from + "\x00" + to))
	x := &link{from: from, to: to, rng: rand.New(rand.NewPCG(seed, name.Sum64())), addr: l.Addr().String(), target: target, listener: l, changed: make(chan struct{}), conns: map[net.Conn]bool{}}
	x.running.Go(x.serve)
	return x, nil
}

func (x *link) serve() {
	for {
		client, err := x.listener.Accept()
		if err != nil {
			return
		}
		x.running.Go(func() { x.connect(client) })
	}
}

// connect takes a client's connection to the target. One that nothing gets
// through to connects all the same, as to a machine that has stopped.
func (x *link) connect(client net.Conn) {
	if !x.keep(client) {
		return
	}
	x.mu.Lock()
	target := x.target
	x.mu.Unlock()
	server, err := net.DialTimeout("tcp", target, time.Second)
	if err != nil || !x.keep(server) {
		x.drop(client)
		return
	}
	done := make(chan struct{})
	go func() { defer close(done); x.pipe(server, client, true) }()
	x.pipe(client, server, false)
	<-done
}

// keep remembers a connection, unless the way is cut.
func (x *link) keep(c net.Conn) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.state.cut {
		_ = c.Close()
		return false
	}
	x.conns[c] = true
	return true
}

func (x *link) drop(c net.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.conns, c)
	_ = c.Close()
}

// pipe ends both ends together: a broken connection is broken for both.
func (x *link) pipe(dst, src net.Conn, up bool) {
	defer x.drop(dst)
	defer x.drop(src)
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 && !x.pass(up) {
			return
		}
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits as the link's state wants, and reports whether the connection stands.
func (x *link) pass(up bool) bool {
	for {
		x.mu.Lock()
		s, changed, closed := x.state, x.changed, x.closed
		resets, stalls := s.reset > 0 && x.rng.Float64() < s.reset, s.stall > 0 && x.rng.Float64() < s.stall
		stall := stallLeast + time.Duration(x.rng.Int64N(int64(stallMost-stallLeast)))
		x.mu.Unlock()
		switch {
		case closed || s.cut:
			return false
		case up && s.upStill, !up && s.downStill:
			<-changed
			continue
		case resets:
			return false
		}
		wait := s.late
		if stalls {
			wait += stall
		}
		if wait == 0 {
			return true
		}
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-changed: // what was late comes at once when the link is mended, in order
		}
		return true
	}
}

// set changes how the link treats what comes, also of connections that stand.
func (x *link) set(s state) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.state = s
	close(x.changed)
	x.changed = make(chan struct{})
	if s.cut {
		x.closeAll()
	}
}

func (x *link) closeAll() {
	for c := range x.conns {
		_ = c.Close()
	}
}

func (x *link) close() {
	_ = x.listener.Close()
	x.mu.Lock()
	x.closed = true
	close(x.changed)
	x.changed = make(chan struct{})
	x.closeAll()
	x.mu.Unlock()
	x.running.Wait()
}

// links are all of them.
type links struct {
	seed uint64 // of what is lost on the way
	mu   sync.Mutex
	all  []*link
	errs []error
}

// route is deployment.Options.Route: a link for each pair.
func (l *links) route(from, to, addr string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.all {
		if x.from == from && x.to == to {
			return x.addr
		}
	}
	x, err := newLink(from, to, addr, l.seed)
	if err != nil {
		l.errs = append(l.errs, err)
		return addr
	}
	l.all = append(l.all, x)
	return x.addr
}

// set changes the links that match, and returns how many.
func (l *links) set(s state, match func(*link) bool) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.all {
		if match(x) {
			x.set(s)
			n++
		}
	}
	return n
}

// retarget lets the links that match lead elsewhere. What stands breaks.
func (l *links) retarget(target string, match func(*link) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.all {
		if match(x) {
			x.mu.Lock()
			if x.target != target {
				x.target = target
				x.closeAll()
			}
			x.mu.Unlock()
		}
	}
}

// mend makes all as they should be.
func (l *links) mend() { l.set(state{}, func(*link) bool { return true }) }

func (l *links) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.all {
		x.close()
	}
}
