package simulation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/holds"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/services/revocation/redisview"
	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

const tenant = "default"

// world is one simulated Quash.
type world struct {
	c       *chance
	b       *broker
	redis   *redisPair
	records *records
	truth   *truth
	log     *zap.Logger
	traces  func(format string, args ...any)

	replicas []*replica
	guards   []*member
	views    []*redisReader
	ctx      context.Context
	stop     context.CancelFunc
}

// replica is one process of the revocation service, or the place of one.
type replica struct {
	w      *world
	number int
	life   atomic.Int64 // how often it was started
	offset time.Duration

	mu     sync.Mutex
	link   *link
	ledger *ledger.Ledger // nil: it does not run
	fleet  *fleet.Fleet
	relay  *fleet.Relay
	view   *redisview.Writer
	end    context.CancelFunc
	done   chan struct{}
}

func (r *replica) name() string { return fmt.Sprintf("replica-%d.%d", r.number, r.life.Load()) }

func (r *replica) now() time.Time { return time.Now().Add(r.offset) }

func (w *world) tracef(format string, args ...any) {
	if w.traces != nil {
		w.traces(clock(time.Now())+" "+format, args...)
	}
}

// start starts it with an empty memory.
func (r *replica) start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ledger != nil {
		return nil
	}
	r.life.Add(1)
	w := r.w
	log := w.log.Named(r.name())
	r.link = newLink(w.b)
	rc := &client{r: w.redis, dead: &r.link.dead}
	var view *redisview.Writer
	l, err := ledger.New(ledger.Config{
		Broker: r.link, Log: log, Now: r.now, Rand: w.c, SyncAlways: w.c.one(2), RingSize: 300 + w.c.below(2000), EpochGap: 5 * time.Second,
		Remembered: func(ctx context.Context, yield func(revoke.Key, revoke.State) bool) error {
			return view.States(ctx, yield)
		},
	})
	if err != nil {
		return err
	}
	view, err = redisview.New(rc, l, redisview.Config{
		Now: r.now, Rand: w.c, Log: log, Batch: 20, Sweep: time.Minute,
		Proof: func(p wire.Position, _ revoke.Epochs) bool {
			go func() { // as the service does: judged apart
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				_ = l.Shown(ctx, "redis", []wire.Position{p})
			}()
			return true
		},
	})
	if err != nil {
		return err
	}
	r.ledger, r.view = l, view
	r.fleet = fleet.New(fleet.Config{Log: l, Logger: log, Now: r.now, Redis: view})
	r.relay = &fleet.Relay{Send: r.passOn(r.link)}
	keeper := holds.New(l, holds.Config{Now: r.now, Log: log})
	for _, o := range []ledger.Observer{keeper, r.fleet, view} {
		l.Observe(o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, f := make(chan struct{}), r.fleet
	r.end, r.done = cancel, done
	go func() {
		defer close(done)
		var all sync.WaitGroup
		for _, run := range []func(context.Context) error{
			l.Run, keeper.Run, view.Run, func(ctx context.Context) error { return f.Run(ctx, l) },
		} {
			all.Go(func() { _ = run(ctx) })
		}
		all.Wait()
	}()
	w.tracef("%s starts", r.name())
	return nil
}

// crash ends it between any two steps: nothing that it does counts any more.
func (r *replica) crash() {
	r.mu.Lock()
	runs, link, end, done := r.ledger != nil, r.link, r.end, r.done
	r.ledger, r.fleet, r.view = nil, nil, nil
	r.mu.Unlock()
	if !runs {
		return
	}
	r.w.tracef("%s crashes", r.name())
	link.dead.Store(true)
	end()
	<-done // never with mu held: virtual time has to pass
	link.close()
}

// parts returns what runs; ok is false if nothing does.
func (r *replica) parts() (l *ledger.Ledger, f *fleet.Fleet, v *redisview.Writer, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ledger, r.fleet, r.view, r.ledger != nil
}

// any returns a replica that runs, and that is ready if so wanted.
func (w *world) any(ready bool) *replica {
	n := w.c.below(len(w.replicas))
	for i := range w.replicas {
		r := w.replicas[(n+i)%len(w.replicas)]
		if l, _, _, ok := r.parts(); ok && !r.link.away.Load() && (!ready || l.Ready() == nil) {
			return r
		}
	}
	return nil
}

// member is a guard: a follower, and how it decides.
type member struct {
	w     *world
	name  string
	limit time.Duration
	past  string
	off   time.Duration

	mu     sync.Mutex
	reader *follow.Reader
	ear    *ear
	away   bool
	end    context.CancelFunc
	done   chan struct{}
}

func (m *member) now() time.Time { return time.Now().Add(m.off) }

func (m *member) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := follow.New(follow.Config{
		Source: m, Feed: m, Log: m.w.log.Named(m.name), Now: m.now, Rand: m.w.c, Limit: m.limit, Past: m.past,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	m.reader, m.end, m.done = r, cancel, done
	go func() { defer close(done); _ = r.Run(ctx) }()
	return nil
}

// restart ends the process and starts another: another instance.
func (m *member) restart() error {
	m.stop()
	return m.start()
}

func (m *member) stop() {
	m.mu.Lock()
	end, done := m.end, m.done
	m.mu.Unlock()
	if end != nil {
		end()
		<-done
	}
}

func (m *member) current() *follow.Reader {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reader
}

// cut cuts it off, or brings it back.
func (m *member) cut(away bool) {
	m.mu.Lock()
	m.away = away
	e := m.ear
	m.mu.Unlock()
	if e != nil {
		e.away.Store(away)
		if !away {
			e.lost()
		}
	}
}

var errNobody = errors.New("simulated: nobody answers")

// ask sends a request to a replica, which may be lost on either way.
func ask[Req, Resp any](ctx context.Context, m *member, r *replica, q Req, do func(ctx context.Context, r *replica, q Req) Resp) (Resp, error) {
	var zero Resp
	lose := func() bool {
		m.mu.Lock()
		away := m.away
		m.mu.Unlock()
		return away || m.w.b.goes(50)
	}
	if r == nil {
		return zero, errNobody
	}
	if !pause(ctx, m.w.c.upTo(3*time.Millisecond)) || lose() {
		<-ctx.Done()
		return zero, ctx.Err()
	}
	out := make(chan Resp, 1)
	go func() {
		work, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		out <- do(work, r, q)
	}()
	select {
	case <-ctx.Done():
		return zero, ctx.Err()
	case a := <-out:
		if !pause(ctx, m.w.c.upTo(3*time.Millisecond)) || lose() || r.link.dead.Load() {
			<-ctx.Done()
			return zero, ctx.Err()
		}
		return a, nil
	}
}

func notRunning() *wire.Refusal {
	return &wire.Refusal{Code: "not_ready", Detail: "simulated: it does not run"}
}

// Sync, Page, Probe, Join, Out and Report are a follow.Source.
func (m *member) Sync(ctx context.Context, q wire.SyncRequest) (wire.SyncAnswer, error) {
	return ask(ctx, m, m.w.any(true), q, func(ctx context.Context, r *replica, q wire.SyncRequest) wire.SyncAnswer {
		l, _, _, ok := r.parts()
		if !ok {
			return wire.SyncAnswer{Error: notRunning()}
		}
		return l.Sync(ctx, m.name, q)
	})
}

func (m *member) Page(ctx context.Context, name string, q wire.PageRequest) ([]byte, error) {
	type page struct {
		data []byte
		err  error
	}
	for _, r := range m.w.replicas {
		l, _, _, ok := r.parts()
		if !ok || l.Replica() != name {
			continue
		}
		p, err := ask(ctx, m, r, q, func(ctx context.Context, _ *replica, q wire.PageRequest) page {
			data, err := l.Page(ctx, q)
			return page{data, err}
		})
		if err == nil {
			err = p.err
		}
		return p.data, err
	}
	return nil, errNobody
}

func (m *member) Probe(ctx context.Context, q wire.ProbeRequest) (wire.ProbeAnswer, error) {
	r := m.w.any(true)
	m.heard(r, q.Instance, q.Position.Position())
	return ask(ctx, m, r, q, func(ctx context.Context, r *replica, q wire.ProbeRequest) wire.ProbeAnswer {
		l, f, _, ok := r.parts()
		if !ok {
			return wire.ProbeAnswer{Error: notRunning()}
		}
		a := l.Probe(ctx, m.name, q)
		a.SpreadMS = f.Spread().Milliseconds()
		return a
	})
}

func (m *member) Join(ctx context.Context, q wire.JoinRequest) (wire.JoinAnswer, error) {
	return ask(ctx, m, m.w.any(true), q, func(ctx context.Context, r *replica, q wire.JoinRequest) wire.JoinAnswer {
		l, f, _, ok := r.parts()
		if !ok {
			return wire.JoinAnswer{Error: notRunning()}
		}
		return f.Join(ctx, l, m.name, q)
	})
}

func (m *member) Out(ctx context.Context, q wire.OutRequest) (wire.JoinAnswer, error) {
	return ask(ctx, m, m.w.any(true), q, func(ctx context.Context, r *replica, q wire.OutRequest) wire.JoinAnswer {
		l, f, _, ok := r.parts()
		if !ok {
			return wire.JoinAnswer{Error: notRunning()}
		}
		return f.Leave(ctx, l, m.name, q)
	})
}

func (m *member) Report(_ context.Context, q wire.Report) error {
	m.heard(m.w.any(true), q.Instance, q.Position.Position())
	return nil
}

// Subscribe is a follow.Feed.
func (m *member) Subscribe(deliver func(wire.Stored, error), lost func()) (func(), error) {
	e, stop := m.w.b.listen(func(s stored) {
		at, err := wire.FromHeader(feedHeader(s))
		deliver(at, err)
	})
	e.lost = lost
	m.mu.Lock()
	m.ear = e
	e.away.Store(m.away)
	m.mu.Unlock()
	return stop, nil
}

// decide says whether it takes a thing, as a guard does: what is claimed of the
// view first, then the view itself.
func (m *member) decide(x *thing) (taken bool) {
	if !m.now().Before(x.expires) {
		return false
	}
	r := m.current()
	c := claim{who: m.name, instance: r.Instance(), at: time.Now(), bounded: m.past != wire.PastAllow}
	staleness, err := r.Check()
	at := r.Position()
	if _, hit := r.View().HitAny(x.targets, x.stamp); hit || err != nil || at.Less(x.stamp) {
		return false
	}
	c.proved, c.epoch = c.at.Add(-staleness), at.Epoch
	if staleness > m.limit {
		if m.past != wire.PastAllow {
			return false
		}
		m.w.truth.count("taken past the limit")
	}
	m.w.truth.taken(x, c)
	return true
}

// redisReader is a resource server with Redis alone.
type redisReader struct {
	w      *world
	name   string
	reader *denylist.Reader
	end    context.CancelFunc
	done   chan struct{}
}

func (w *world) newRedisReader(n int) (*redisReader, error) {
	conns := []denylist.Conn{&client{r: w.redis}, &client{r: w.redis}}
	r, err := denylist.New(conns, denylist.Config{Log: w.log.Named(fmt.Sprint("redis-reader-", n))})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	out := &redisReader{w: w, name: fmt.Sprint("redis-reader-", n), reader: r, end: cancel, done: make(chan struct{})}
	go func() { defer close(out.done); _ = r.Run(ctx) }()
	return out, nil
}

func (r *redisReader) check(x *thing) (denylist.Result, error) {
	ctx, cancel := context.WithTimeout(r.w.ctx, time.Second)
	defer cancel()
	return r.reader.Check(ctx, denylist.Query{Tenant: tenant, Keys: x.targets, Stamp: x.stamp})
}

func (r *redisReader) decide(x *thing) bool {
	if !time.Now().Before(x.expires) {
		return false
	}
	c := claim{who: r.name, at: time.Now(), redis: true}
	res, _ := r.check(x)
	if res.Outcome != denylist.Clean {
		return false
	}
	c.proved, c.epoch = time.Now().Add(-res.Staleness), res.Position.Epoch
	r.w.truth.taken(x, c)
	return true
}
