package slo

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// The objective, unless the operator has another one: of all canaries in a window so
// many are refused by every guard within so long.
const (
	DefaultWithin = time.Second
	DefaultShare  = 0.99
)

const (
	// longest is how long a run is watched. What is slower than that is as bad as never.
	longest = 20 * time.Second
	// kept is for how long runs are kept, and the longest window.
	kept = 24 * time.Hour
	// maxRuns bounds them, whatever cuts canaries how often.
	maxRuns = 50_000
	// maxWatched is how many runs are watched at once.
	maxWatched = 16
	// perGuard is how many runs are kept of one guard, and maxGuards of how many.
	perGuard, maxGuards = 512, 10_000
)

// RedisView is what the Redis view is called among the guards. No guard can have this name.
const RedisView = "(redis view)"

// Fleet is the part of fleet.Fleet that is needed.
type Fleet interface {
	Wait(ctx context.Context, e fleet.Entry, d time.Duration) fleet.Confirmation
	List() []fleet.Guard
}

// Config is what a Meter needs. Fleet, Applied and Now are required.
type Config struct {
	Fleet Fleet
	// Applied returns once this replica has applied the entry, and so knows everybody
	// who can be below it.
	Applied func(ctx context.Context, at revoke.Stamp) error
	Now     func() time.Time
	Within  time.Duration // 0: DefaultWithin
	Share   float64       // 0: DefaultShare
}

// Meter measures. It is safe for concurrent use.
type Meter struct {
	cfg     Config
	watched chan struct{}
	effect  *prometheus.HistogramVec

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // of Run: what is watched ends with it
	running sync.WaitGroup
	runs    []run
	guards  map[string]*samples
}

// run is one canary.
type run struct {
	at   time.Time
	took time.Duration // until the last guard; negative: one had not within longest
}

// samples are the newest of one guard, in a ring.
type samples struct {
	took [perGuard]float32 // seconds; negative: not within longest
	n    int               // ever
	last time.Time
}

// New returns a Meter. It measures nothing before it runs.
func New(cfg Config) *Meter {
	if cfg.Within == 0 {
		cfg.Within = DefaultWithin
	}
	if cfg.Share == 0 {
		cfg.Share = DefaultShare
	}
	return &Meter{
		cfg: cfg, watched: make(chan struct{}, maxWatched), guards: map[string]*samples{},
		effect: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "quash_revocation_effect_seconds",
			Help:    "From the request to revoke a canary until each resource server was known to refuse it, and the Redis view to have it.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}, []string{"guard"}),
	}
}

// Run lets it measure until ctx ends.
func (m *Meter) Run(ctx context.Context) error {
	m.mu.Lock()
	m.ctx = ctx
	m.mu.Unlock()
	<-ctx.Done()
	m.mu.Lock()
	m.ctx = nil
	m.mu.Unlock()
	m.running.Wait()
	return nil
}

// Now is by the clock that times are measured by.
func (m *Meter) Now() time.Time { return m.cfg.Now() }

// Missed notes a canary that could not be committed: it is refused by nobody.
func (m *Meter) Missed() { m.note(nil, true) }

// Measure watches a canary that was committed, and was asked for at that moment. It does
// not block: where too many are watched already, something is so slow that this one counts
// as missed.
func (m *Meter) Measure(asked time.Time, e fleet.Entry) {
	m.mu.Lock()
	ctx := m.ctx
	full := len(m.watched) == cap(m.watched)
	if ctx != nil && !full {
		m.watched <- struct{}{} // none is put there but with the lock
	}
	m.mu.Unlock()
	switch {
	case ctx == nil:
		return
	case full:
		m.Missed()
		return
	}
	m.running.Go(func() {
		defer func() { <-m.watched }()
		m.watch(ctx, asked, e)
	})
}

func (m *Meter) watch(ctx context.Context, asked time.Time, e fleet.Entry) {
	refusing := map[string]bool{} // instances that are past their limit: they refuse everything
	for _, g := range m.cfg.Fleet.List() {
		refusing[g.Instance] = g.State != fleet.StateJoined
	}
	applied, cancel := context.WithTimeout(ctx, longest)
	err := m.cfg.Applied(applied, e.At)
	cancel()
	var c fleet.Confirmation
	if err == nil {
		c = m.cfg.Fleet.Wait(ctx, e, longest)
	}
	if ctx.Err() != nil {
		return
	}
	m.note(m.slowest(c, asked, refusing), err != nil)
}

// slowest returns how long each guard took, by name: of several instances the slowest.
func (m *Meter) slowest(c fleet.Confirmation, asked time.Time, refusing map[string]bool) map[string]time.Duration {
	took := map[string]time.Duration{}
	add := func(name string, d time.Duration) {
		if had, ok := took[name]; !ok || d < 0 || had >= 0 && d > had {
			took[name] = d
		}
	}
	for _, g := range c.Confirmed {
		add(g.Name, max(0, g.At.Sub(asked)))
	}
	for _, g := range c.Unconfirmed {
		if !refusing[g.Instance] {
			add(g.Name, -1)
		}
	}
	if r := c.Redis; r != nil {
		if r.AppliedAt.IsZero() {
			add(RedisView, -1)
		} else {
			add(RedisView, max(0, r.AppliedAt.Sub(asked)))
		}
	}
	return took
}

// note takes a run: how long each guard took, or that nobody can tell.
func (m *Meter) note(took map[string]time.Duration, missed bool) {
	now := m.cfg.Now()
	var all time.Duration
	if missed {
		all = -1
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, d := range took {
		if d < 0 || all >= 0 && d > all {
			all = d
		}
		s := m.guards[name]
		if s == nil && len(m.guards) < maxGuards {
			s = &samples{}
			m.guards[name] = s
		}
		if s == nil {
			continue
		}
		s.took[s.n%perGuard] = float32(d.Seconds())
		s.n, s.last = s.n+1, now
		if d < 0 {
			d = 2 * longest // the bucket of what is slower than all
		}
		m.effect.WithLabelValues(name).Observe(d.Seconds())
	}
	m.runs = append(m.runs, run{now, all})
	m.forgetLocked(now)
}

// forgetLocked drops what is older than a day, and guards that are not there any more.
func (m *Meter) forgetLocked(now time.Time) {
	old := 0
	for old < len(m.runs) && (now.Sub(m.runs[old].at) > kept || len(m.runs)-old > maxRuns) {
		old++
	}
	m.runs = append(m.runs[:0], m.runs[old:]...)
	for name, s := range m.guards {
		if now.Sub(s.last) > kept {
			delete(m.guards, name)
			m.effect.DeleteLabelValues(name)
		}
	}
}
