package chaos

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/logging"
)

// watcher is somebody who decides about tokens.
type watcher interface {
	title() string
	look(ctx context.Context, t *Token, probe bool) Look
}

// embedded is a guard in this process. By its name: near follows the log with
// the default limit, short with a short one, asks goes on with Redis past that,
// redis has nothing but Redis.
type embedded struct {
	w    *world
	name string
	skew atomic.Int64 // what its clock is wrong by, nanoseconds

	mu      sync.Mutex
	guard   *guard.Guard
	running sync.WaitGroup
	cancel  context.CancelFunc
	close   func()
}

func (e *embedded) title() string { return e.name }

// now is its wall clock alone: the monotonic one can't be set.
func (e *embedded) now() time.Time { return time.Now().Round(0).Add(time.Duration(e.skew.Load())) }

// start makes it anew: another instance of the fleet.
func (e *embedded) start() error {
	logs, err := os.OpenFile(filepath.Join(e.w.dir, "logs", e.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	closers := []func(){func() { _ = logs.Close() }}
	log := logging.New(logging.Config{}, logs)
	opts, more, err := e.options(log)
	closers = append(closers, more...)
	closeAll := func() {
		for i := range closers {
			closers[len(closers)-1-i]()
		}
	}
	if err != nil {
		closeAll()
		return err
	}
	issuer := guard.Issuer{URL: e.w.env["QUASH_URL"], Trust: []string{e.w.env["QUASH_TRUST"]}}
	if e.name == "redis" {
		issuer.Trust, issuer.JWKSURL = nil, issuer.URL+"/oauth/jwks"
	}
	g, err := guard.New([]guard.Issuer{issuer}, opts...)
	if err != nil {
		closeAll()
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.mu.Lock()
	defer e.mu.Unlock()
	e.guard, e.cancel, e.close = g, cancel, closeAll
	e.running.Go(func() {
		if err := g.Run(ctx); err != nil {
			log.Error("the guard ended", zap.Error(err))
		}
	})
	return nil
}

func (e *embedded) options(log *zap.Logger) (opts []guard.Option, closers []func(), err error) {
	opts = []guard.Option{guard.WithLogger(log), guard.WithClock(e.now), guard.WithHTTPClient(e.w.http)}
	if e.name == "asks" || e.name == "redis" {
		d, err := e.redis(log)
		if err != nil {
			return nil, nil, err
		}
		opts = append(opts, guard.WithRedis(d))
	}
	if e.name == "redis" {
		return opts, nil, nil
	}
	if e.name != "near" {
		opts = append(opts, guard.WithLimit(e.w.pace.limit))
	}
	if e.name == "asks" {
		opts = append(opts, guard.WithPast(wire.PastRedis))
	}
	nc, user, err := natsfeed.Connect(e.through(e.w.env["QUASH_NATS_URL"], "nats-%d clients"), e.w.env["QUASH_NATS_CREDS"], "chaos "+e.name, log, nats.RootCAs(e.w.caFile()))
	if err != nil {
		return nil, nil, err
	}
	link, err := natsfeed.New(nc, user)
	if err != nil {
		return nil, []func(){nc.Close}, err
	}
	return append(opts, guard.WithFollow(follow.Config{Source: link, Feed: link})), []func(){nc.Close}, nil
}

// through leads each of some URLs over a link of this guard.
func (e *embedded) through(urls, port string) string {
	var out []string
	for i, u := range strings.Split(urls, ",") {
		scheme, addr, _ := strings.Cut(u, "://")
		out = append(out, scheme+"://"+e.w.links.route(e.name, fmt.Sprintf(port, i+1), addr))
	}
	return strings.Join(out, ",")
}

func (e *embedded) redis(log *zap.Logger) (*denylist.Reader, error) {
	o, err := denylist.ParseURL(e.w.env["QUASH_REDIS_URL"])
	if err != nil {
		return nil, err
	}
	o.Addrs[0] = e.w.links.route(e.name, "redis-1 clients", o.Addrs[0])
	o.TLSConfig = e.w.tls()
	return denylist.OpenWith(o, denylist.Config{Now: e.now, Log: log.Named("denylist")})
}

// stop ends it, in order: it says that it is out, if it can.
func (e *embedded) stop() {
	e.mu.Lock()
	cancel, closeAll := e.cancel, e.close
	e.cancel = nil
	e.mu.Unlock()
	if cancel != nil {
		cancel()
		e.running.Wait()
		closeAll()
	}
}

func (e *embedded) current() *guard.Guard {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.guard
}

func (e *embedded) look(ctx context.Context, t *Token, probe bool) Look {
	g := e.current()
	l := Look{By: e.name, Guard: Who{Name: e.name}, Token: t.ID, Redis: e.name == "redis", Asked: e.w.rec.Now()}
	if r := g.Reader(); r != nil {
		l.Guard = Who{"app", r.Status().Instance} // the identity that they share
	}
	req := guard.Requirement{Scopes: []string{"orders:read"}}
	if probe {
		req.MaxStale = guard.Probe
	}
	d := g.Decide(ctx, t.Text, req)
	l.Answered, l.Stale, l.Epoch, l.Why = e.w.rec.Now(), d.Staleness, d.Watermark.Epoch, d.Reason
	l.Probe = probe && d.Source == guard.SourceView
	switch {
	case d.Outcome == guard.Allow:
		l.Verdict = Allowed
	case d.Outcome == guard.Unavailable:
		if strings.Contains(d.Reason, "the view may be") {
			e.w.rec.Count(sawStale, 1)
		}
	case d.Check != guard.CheckTargets:
		l.Verdict = Other
	case strings.HasPrefix(d.Reason, guard.CauseHeld):
		l.Verdict = Held
	default:
		l.Verdict = Dead
	}
	if d.Source == guard.SourceRedis && d.Outcome == guard.Allow {
		e.w.rec.Count(sawRedis, 1)
	}
	for name, key := range t.Targets {
		if key == d.Target.Key {
			l.Target = name
		}
	}
	return l
}

// demo is a resource server of the deployment: a guard in another process.
type demo struct {
	w         *world
	name, url string
}

func (d *demo) title() string { return d.name }

func (d *demo) look(ctx context.Context, t *Token, _ bool) Look {
	l := Look{By: d.name, Guard: Who{Name: d.name}, Token: t.ID, Stale: d.w.pace.demo, Asked: d.w.rec.Now()}
	status, text := d.ask(ctx, t.Text)
	l.Answered, l.Why = d.w.rec.Now(), text
	switch status {
	case http.StatusOK:
		l.Verdict = Allowed
	case http.StatusUnauthorized:
		l.Verdict = Dead // which of the two it does not tell
	case 0, http.StatusServiceUnavailable:
	default:
		l.Verdict = Other
	}
	return l
}

func (d *demo) ask(ctx context.Context, token string) (status int, text string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := d.w.http.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
	if err != nil {
		return 0, err.Error() // the answer is not whole: it says nothing
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}
