package guard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/attempts"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/keys"
	"github.com/quash-project/quash/shared/guard/seen"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Guard decides whether a token may do what a request asks for. It is safe for
// concurrent use.
type Guard struct {
	opts     options
	issuers  map[string]*issuer // by URL; never changes
	order    []*issuer
	cache    *otter.Cache[string, *verified] // by the token's text; nil: none
	reader   atomic.Pointer[Reader]
	started  atomic.Bool
	stopped  atomic.Bool
	waiting  atomic.Pointer[string] // what Run waits for; nil: nothing
	watches  watches
	attempts *attempts.Counter
	running  *attempts.Gauge
	seen     *seen.Memory // nil: there is nobody to tell
	exchange *exchanger   // nil: API keys are not taken
	stats    counters
}

// New returns a guard for tokens of these issuers, or all that is wrong with the
// configuration. It accepts nothing before Run has followed the log far enough;
// see Ready.
func New(issuers []Issuer, opts ...Option) (*Guard, error) {
	o, err := newOptions(opts)
	errs := []error{err}
	if len(issuers) == 0 {
		errs = append(errs, errors.New("no issuer: nobody's tokens would be taken"))
	}
	g := &Guard{opts: o, issuers: map[string]*issuer{}}
	g.watches.init()
	now := func() time.Time { return g.opts.now() }
	g.attempts, g.running = attempts.New(now), attempts.NewGauge(now)
	if err == nil && g.opts.follows() {
		g.seen = seen.New(g.opts.now())
	}
	if err == nil {
		if err := g.addIssuers(issuers); err != nil {
			errs = append(errs, err)
		} else {
			errs = append(errs, g.openExchange())
		}
		errs = append(errs, g.open())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	return g, nil
}

func (g *Guard) addIssuers(issuers []Issuer) error {
	var errs []error
	names := map[string]bool{}
	for _, i := range issuers {
		iss, err := newIssuer(i, &g.opts)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		name := iss.Tenant + "/" + iss.name
		if g.issuers[i.URL] != nil || names[name] {
			errs = append(errs, fmt.Errorf("issuer %.200q: its URL, or its name in tenant %q, stands twice", i.URL, iss.Tenant))
			continue
		}
		names[name] = true
		g.issuers[i.URL] = iss
		g.order = append(g.order, iss)
	}
	return errors.Join(errs...)
}

// open makes what needs no connection.
func (g *Guard) open() error {
	if g.opts.cache > 0 {
		cache, err := otter.New(&otter.Options[string, *verified]{MaximumWeight: g.opts.cache, Weigher: weigh})
		if err != nil {
			return fmt.Errorf("cache: %w", err)
		}
		g.cache = cache
	}
	switch {
	case g.opts.reader != nil:
		g.reader.Store(&g.opts.reader)
	case g.opts.follow != nil:
		_, err := g.makeReader(*g.opts.follow)
		return err
	}
	return nil
}

// weigh estimates what an entry takes: the text, the payload, and about as much
// again for what is derived from it.
func weigh(text string, v *verified) uint32 {
	return uint32(len(text) + 2*len(v.Raw) + 16*len(v.targets) + 1024)
}

// keep puts a verified token into the cache. The text is copied: that of a
// request is a part of its headers, and would keep all of them.
func (g *Guard) keep(text string, v *verified) {
	if g.cache != nil {
		g.stats.cacheMisses.Add(1)
		g.cache.Set(strings.Clone(text), v)
	}
}

// makeReader makes the guard's own reader, with the guard's limits.
func (g *Guard) makeReader(cfg follow.Config) (*follow.Reader, error) {
	cfg.Limit, cfg.Past, cfg.Now, cfg.Log = g.opts.limit, g.opts.past, g.opts.now, g.opts.log.Named("follow")
	next := cfg.OnKey
	cfg.OnKey = func(m wire.Message) {
		g.OnKey(m)
		if next != nil {
			next(m)
		}
	}
	r, err := follow.New(cfg)
	if err != nil {
		return nil, err
	}
	var reader Reader = r
	g.reader.Store(&reader)
	return r, nil
}

// Reader returns the reader that the guard decides by, nil while there is none:
// before Run with WithNATS, and always with Redis alone.
func (g *Guard) Reader() Reader {
	if r := g.reader.Load(); r != nil {
		return *r
	}
	return nil
}

// Run follows the log, fetches keys and reads the Redis view until ctx ends. It
// returns an error only if it could not begin, or was called twice; what fails
// on the way is tried again, and Ready says so. Whatever Run started has ended
// when it returns, and the guard accepts nothing any more.
func (g *Guard) Run(ctx context.Context) error {
	if g.started.Swap(true) {
		return errors.New("guard: Run was called before")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer g.stopped.Store(true)
	var tasks sync.WaitGroup
	if g.exchange != nil {
		g.exchange.begin(ctx) // before what makes the guard ready
		tasks.Go(func() { g.exchange.run(ctx) })
	}
	start := func(run func(context.Context) error) {
		tasks.Go(func() {
			if err := run(ctx); err != nil {
				cancel(fmt.Errorf("guard: %w", err))
			}
		})
	}
	for _, iss := range g.order {
		if iss.remote != nil {
			tasks.Go(func() { iss.remote.Run(ctx) })
		}
	}
	if g.opts.redis != nil {
		start(g.opts.redis.Run)
	}
	switch {
	case g.opts.nats != nil:
		start(g.runNATS)
	case g.opts.follow != nil:
		start(g.Reader().(*follow.Reader).Run)
		fallthrough
	case g.opts.reader != nil:
		tasks.Go(func() { g.tell(ctx, g.Reader()) })
	}
	tasks.Go(func() { g.watchLoop(ctx) })
	<-ctx.Done()
	cause := context.Cause(ctx)
	tasks.Wait()
	if cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

// tell tells the service what it wants to know of this guard, until ctx ends. No decision
// depends on any of it.
func (g *Guard) tell(ctx context.Context, r Reader) {
	var telling sync.WaitGroup
	telling.Go(func() { g.tellAttempts(ctx, r) })
	telling.Go(func() { g.tellRunning(ctx, r) })
	telling.Go(func() { g.answerQuestions(ctx, r) })
	telling.Wait()
}

// OnKey takes a key message of the log. Call it for a reader of one's own, as
// its follow.Config.OnKey; with WithNATS and WithFollow it is called already.
func (g *Guard) OnKey(m wire.Message) {
	for _, iss := range g.order {
		if iss.set == nil {
			continue
		}
		switch err := iss.apply(m, g.opts.now()); {
		case err == nil:
			g.watches.kick()
			return
		case !errors.Is(err, keys.ErrOther):
			g.opts.log.Error("a key message is not taken", zap.String("issuer", iss.URL), zap.String("message", m.ID), zap.Error(err))
			return
		}
	}
}

// Ready returns nil when the guard may accept tokens of every issuer, and
// otherwise everything that it waits for. It is for readiness probes.
func (g *Guard) Ready() error {
	var errs []error
	if g.stopped.Load() {
		return errors.New("guard: stopped")
	}
	if !g.started.Load() {
		errs = append(errs, errors.New("not running: Run was not called"))
	}
	if w := g.waiting.Load(); w != nil {
		errs = append(errs, errors.New(*w))
	}
	errs = append(errs, g.viewReady())
	now := g.opts.now()
	for _, iss := range g.order {
		if err := iss.ready(now); err != nil {
			errs = append(errs, fmt.Errorf("issuer %s: %w", iss.URL, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("guard: not ready: %w", err)
	}
	return nil
}

func (g *Guard) viewReady() error {
	r := g.Reader()
	if r == nil {
		if g.opts.follows() {
			return errors.New("waiting for NATS")
		}
		if st := g.opts.redis.Status(); !st.Complete {
			return fmt.Errorf("view: %w", st.Reason)
		}
		return nil
	}
	st := r.Status()
	staleness, err := r.Check()
	switch {
	case err != nil && st.Waiting != "":
		return fmt.Errorf("view: %w (%s)", err, st.Waiting)
	case err != nil:
		return fmt.Errorf("view: %w", err)
	case st.Limit != 0 && st.Limit < g.opts.limit:
		return fmt.Errorf("view: the fleet knows the limit %s of this reader, the guard has %s", st.Limit, g.opts.limit)
	case st.Past == wire.PastDeny && g.opts.past != wire.PastDeny, st.Past == wire.PastRedis && g.opts.past == wire.PastAllow:
		return fmt.Errorf("view: the fleet knows that this reader does %q past its limit, the guard does %q", st.Past, g.opts.past)
	case staleness > g.opts.limit && g.opts.past == wire.PastDeny:
		return errors.New("view: " + g.staleReason(staleness, g.opts.limit))
	}
	return nil
}

// Stats is how a guard has fared, for metrics.
type Stats struct {
	Allowed, Denied, Unavailable uint64 // decisions
	CacheHits, CacheMisses       uint64 // of good tokens
	Exchanges                    uint64 // of API keys for tokens, asked of the issuer
	ExchangeFailures             uint64 // of them, those that it could not answer
	Attempts                     uint64 // refusals by a cut or a hold
	AttemptsLost                 uint64 // of them, those that are reported to nobody: of too many at once
	Targets                      int    // of which something is known
	Staleness                    time.Duration
	Accepting                    bool // the view may be accepted from; Staleness is known
	Position                     wire.Position
}

type counters struct {
	outcomes               [3]atomic.Uint64
	cacheHits, cacheMisses atomic.Uint64
}

func (c *counters) count(o Outcome) {
	if int(o) < len(c.outcomes) {
		c.outcomes[o].Add(1)
	}
}

// Stats returns the counts since New.
func (g *Guard) Stats() Stats {
	s := Stats{
		Allowed: g.stats.outcomes[Allow].Load(), Denied: g.stats.outcomes[Deny].Load(), Unavailable: g.stats.outcomes[Unavailable].Load(),
		CacheHits: g.stats.cacheHits.Load(), CacheMisses: g.stats.cacheMisses.Load(),
	}
	s.Attempts, s.AttemptsLost = g.attempts.Counted()
	if g.exchange != nil {
		s.Exchanges, s.ExchangeFailures = g.exchange.asked.Load(), g.exchange.failed.Load()
	}
	if r := g.Reader(); r != nil {
		staleness, err := r.Check()
		s.Staleness, s.Accepting = staleness, err == nil
		s.Targets, s.Position = r.View().Len(), r.Position()
	} else if g.opts.redis != nil {
		st := g.opts.redis.Status()
		s.Staleness, s.Accepting, s.Position = st.Staleness, st.Complete, st.Position
	}
	return s
}
