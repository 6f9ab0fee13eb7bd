package enginetest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Direction is a way through a Proxy.
type Direction int

// The directions, as the client sees them.
const (
	Up   Direction = iota // from the client to the server
	Down                  // from the server to the client
)

// Proxy stands between clients and a server, and spoils what goes through.
type Proxy struct {
	Addr string // where clients connect

	to      string
	delay   atomic.Int64
	mu      sync.Mutex
	conns   map[net.Conn]bool
	cut     bool
	flowing [2]chan struct{} // closed while bytes go that way
}

// NewProxy starts a proxy before the server at an address.
func NewProxy(t testing.TB, to string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open := make(chan struct{})
	close(open)
	p := &Proxy{Addr: l.Addr().String(), to: to, conns: map[net.Conn]bool{}, flowing: [2]chan struct{}{open, open}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil || !p.add(client, server) {
				_ = client.Close()
				continue
			}
			wg.Go(func() { p.pipe(server, client, Up) })
			wg.Go(func() { p.pipe(client, server, Down) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.Thaw()
		p.Cut(true)
		wg.Wait()
	})
	return p
}

// add keeps both ends, unless the way is cut.
func (p *Proxy) add(client, server net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		_ = server.Close()
		return false
	}
	p.conns[client], p.conns[server] = true, true
	return true
}

func (p *Proxy) pipe(dst, src net.Conn, d Direction) {
	defer func() {
		p.mu.Lock()
		delete(p.conns, dst)
		p.mu.Unlock()
		_ = dst.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			p.mu.Lock()
			flowing := p.flowing[d]
			p.mu.Unlock()
			<-flowing
			time.Sleep(time.Duration(p.delay.Load())) // the slowness itself
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Delay makes whatever goes through come later.
func (p *Proxy) Delay(d time.Duration) { p.delay.Store(int64(d)) }

// Cut closes all connections and lets none through, or ends that.
func (p *Proxy) Cut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if cut {
		for c := range p.conns {
			_ = c.Close()
		}
	}
}

// Freeze holds back all that goes these ways, with connections as they are;
// none named: both.
func (p *Proxy) Freeze(ways ...Direction) {
	if len(ways) == 0 {
		ways = []Direction{Up, Down}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range ways {
		select {
		case <-p.flowing[d]:
			p.flowing[d] = make(chan struct{})
		default: // frozen already
		}
	}
}

// Thaw lets everything go on, also what was held back.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d := range p.flowing {
		select {
		case <-p.flowing[d]:
		default:
			close(p.flowing[d])
		}
	}
}
