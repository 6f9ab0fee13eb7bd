package deployment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Timing of the balancer.
const (
	checkEvery  = 250 * time.Millisecond
	dialTimeout = time.Second
)

// Balancer hands connections to backends that say that they are ready, in turn,
// and knows nothing of what goes through them: TLS ends at the backend.
type Balancer struct {
	Log *zap.Logger

	backends []*backend
	next     atomic.Uint64
}

// backend is where connections go, and the address that says whether they may.
type backend struct {
	addr, admin string
	ready       atomic.Bool
}

// Add adds a backend, as ADDR=ADMIN. Call it before Serve.
func (b *Balancer) Add(text string) error {
	addr, admin, ok := strings.Cut(text, "=")
	if !ok || addr == "" || admin == "" {
		return fmt.Errorf("backend %q: want ADDR=ADMIN", text)
	}
	b.backends = append(b.backends, &backend{addr: addr, admin: admin})
	return nil
}

// Serve takes connections from l until ctx ends.
func (b *Balancer) Serve(ctx context.Context, l net.Listener) error {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	running.Go(func() { b.check(ctx) })
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		running.Go(func() { b.handle(ctx, c) })
	}
}

func (b *Balancer) check(ctx context.Context) {
	client := &http.Client{Timeout: dialTimeout}
	t := time.NewTicker(checkEvery)
	defer t.Stop()
	for {
		for _, x := range b.backends {
			err := ready(ctx, client, "http://"+x.admin)
			if is := err == nil; x.ready.Swap(is) != is && ctx.Err() == nil {
				b.Log.Info("a backend has changed", zap.String("addr", x.addr), zap.Bool("ready", is), zap.Error(err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// dial connects to the next backend that is ready, or if none is to any: its own
// answer says better what is wrong than a connection that is closed.
func (b *Balancer) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	first := int(b.next.Add(1) % uint64(len(b.backends)))
	var errs []error
	for _, needReady := range []bool{true, false} {
		for i := range b.backends {
			x := b.backends[(first+i)%len(b.backends)]
			if x.ready.Load() != needReady {
				continue
			}
			c, err := d.DialContext(ctx, "tcp", x.addr)
			if err == nil {
				return c, nil
			}
			errs = append(errs, err)
		}
	}
	return nil, errors.Join(errs...)
}

func (b *Balancer) handle(ctx context.Context, client net.Conn) {
	defer client.Close()
	server, err := b.dial(ctx)
	if err != nil {
		b.Log.Warn("no backend takes a connection", zap.Error(err))
		return
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() { _, _ = client.Close(), server.Close() })
	defer stop()
	done := make(chan struct{}, 2)
	pipe := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // either side may end it
		if half, ok := to.(*net.TCPConn); ok {
			_ = half.CloseWrite()
		}
		done <- struct{}{}
	}
	go pipe(server, client)
	go pipe(client, server)
	<-done
	<-done
}
