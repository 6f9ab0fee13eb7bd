// Package process is what every main has: signals, exit codes, listeners, and
// the address for operators with /livez and /readyz.
package process

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/metrics"
)

// Context returns one that ends at an interrupt or SIGTERM. A second signal ends
// the process at once.
func Context() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // gives signals back their default
	return ctx, stop
}

// Exit prints err, if there is one, and ends the process with 0 or 1.
func Exit(name string, err error) {
	os.Exit(report(os.Stderr, name, err))
}

func report(w io.Writer, name string, err error) int {
	if err == nil || errors.Is(err, context.Canceled) {
		return 0
	}
	_, _ = fmt.Fprintf(w, "%s: %v\n", name, err)
	return 1
}

// Service is what a main runs.
type Service interface {
	// Handler answers requests; it is called before Run.
	Handler() http.Handler
	// Run works until ctx ends, and returns when what it accepted is done.
	Run(ctx context.Context) error
	// Ready returns nil, or what it waits for.
	Ready() error
}

// Listen is where a Service is reached.
type Listen struct {
	Addr  string `koanf:"addr"`  // of its API, host:port
	Admin string `koanf:"admin"` // of /livez, /readyz and /metrics; empty: none
	Cert  string `koanf:"cert"`  // PEM file, read again when it changes; without it Addr must be loopback
	Key   string `koanf:"key"`   // PEM file
	// Grace is how long after the end was asked for requests are still taken, while
	// /readyz says no already: a balancer sends nobody to a listener that is closed. 0:
	// it closes at once.
	Grace time.Duration `koanf:"grace"`
}

// maxGrace keeps an end from looking as if it hung.
const maxGrace = time.Minute

// Validate says what is wrong.
func (l Listen) Validate() error {
	host, _, err := net.SplitHostPort(l.Addr)
	if err != nil {
		return fmt.Errorf("listen.addr %q: must be host:port", l.Addr)
	}
	if (l.Cert == "") != (l.Key == "") {
		return errors.New("listen.cert and listen.key: give both or none")
	}
	if l.Grace < 0 || l.Grace > maxGrace {
		return fmt.Errorf("listen.grace %s: want 0s to %s", l.Grace, maxGrace)
	}
	if l.Cert == "" && !Loopback(host) {
		return fmt.Errorf("listen.addr %q: without listen.cert only loopback is allowed: API keys and tokens would pass in clear", l.Addr)
	}
	return nil
}

// Loopback reports whether a host is this machine only.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

func (l Listen) listen(log *zap.Logger) (net.Listener, error) {
	if l.Cert == "" {
		return net.Listen("tcp", l.Addr)
	}
	c, err := loadCertificate(l.Cert, l.Key, log)
	if err != nil {
		return nil, err
	}
	return tls.Listen("tcp", l.Addr, c.config())
}

// drain is how long open requests may take after the end was asked for.
const drain = 10 * time.Second

// Serve runs s until ctx ends: then it says that it is not ready, takes no new
// request once the grace is over, finishes those that it has, and lets s finish its
// own.
func Serve(ctx context.Context, l Listen, s Service, log *zap.Logger) error {
	ln, err := l.listen(log)
	if err != nil {
		return err
	}
	var stopping atomic.Bool
	ready := func() error {
		if stopping.Load() {
			return errors.New("stopping")
		}
		return s.Ready()
	}
	handler := s.Handler()
	if l.Admin != "" {
		admin, err := net.Listen("tcp", l.Admin)
		if err != nil {
			_ = ln.Close()
			return err
		}
		m := metrics.New(ready, s)
		handler = m.Count(handler)
		srv := NewServer(Admin(ready, m.Handler()))
		go func() { _ = srv.Serve(admin) }()
		defer srv.Close()
	}
	srv := NewServer(leaving(&stopping, handler))
	failed := make(chan error, 2)
	go func() { failed <- srv.Serve(ln) }()
	work, finish := context.WithCancel(context.WithoutCancel(ctx))
	defer finish()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(work) }()
	log.Info("listening", zap.String("addr", ln.Addr().String()))
	go tellWhenReady(work, ready)

	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("listener %s: %w", l.Addr, err)
	case err = <-ended:
		if err == nil {
			err = errors.New("ended by itself")
		}
		_ = srv.Close()
		return err
	}
	stopping.Store(true)
	tell(daemon.SdNotifyStopping)
	log.Info("stopping: finishing open requests")
	if err == nil {
		rest(l.Grace, failed, ended)
	}
	shutDown(srv, log)
	finish()
	rerr := <-ended
	if errors.Is(rerr, context.Canceled) {
		rerr = nil
	}
	return errors.Join(err, rerr)
}

// leaving tells clients that the end is near with each answer: who keeps a
// connection ends it then, and asks elsewhere. One that was closed on them while they
// wrote would leave them without an answer.
func leaving(stopping *atomic.Bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if stopping.Load() {
			w.Header().Set("Connection", "close") // on HTTP/2 a GOAWAY comes of it
		}
		next.ServeHTTP(w, r)
	})
}

// rest waits, unless the listener fails or the service ends meanwhile, whose error is
// left to whoever reads next.
func rest(d time.Duration, failed <-chan error, ended chan error) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-failed:
	case err := <-ended:
		ended <- err
	}
}

// shutDown takes no new request, and waits for those that are open.
func shutDown(srv *http.Server, log *zap.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		log.Warn("requests were cut off", zap.Error(err))
	}
}

// NewServer returns a server with the timeouts that all of ours have. Bodies
// have a deadline of their own; answers may take as long as their operation.
func NewServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
}

// readyEvery is how often it is looked at whether the service is ready, until it is.
const readyEvery = 100 * time.Millisecond

// tellWhenReady tells systemd what the service waits for, and when it is ready.
// Where it was not started by systemd that says nothing (sd_notify(3)).
func tellWhenReady(ctx context.Context, ready func() error) {
	t := time.NewTicker(readyEvery)
	defer t.Stop()
	said := ""
	for {
		err := ready()
		if err == nil {
			tell(daemon.SdNotifyReady + "\nSTATUS=ready")
			return
		}
		if text := strings.ReplaceAll(err.Error(), "\n", "; "); text != said {
			said = text
			tell("STATUS=" + text)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func tell(state string) { _, _ = daemon.SdNotify(false, state) }

// Admin answers /livez (the process runs), /readyz (it may be asked) and /metrics.
func Admin(ready func() error, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.Handle("GET /metrics", metrics)
	return mux
}
