package attempts

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/quash-project/quash/shared/guard/wire"
)

// Gauge counts the requests that still run although an entry refuses what they were
// admitted with. It is safe for concurrent use.
type Gauge struct {
	now    func() time.Time
	kicked chan struct{}

	mu     sync.Mutex
	counts map[Of]*level
	last   int64 // the newest time of a change
}

// level is one count, as far as it has been told.
type level struct {
	n     uint64
	told  int64
	state int
	sent  time.Time
}

// NewGauge returns a Gauge that goes by this clock.
func NewGauge(now func() time.Time) *Gauge {
	return &Gauge{now: now, kicked: make(chan struct{}, 1), counts: map[Of]*level{}}
}

// Add counts one more, and reports whether there was room: of what is not counted End must
// not be called.
func (g *Gauge) Add(of Of) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.counts[of]
	if l == nil {
		if len(g.counts) >= MaxCounts && !g.forgetEnded() {
			return false
		}
		l = &level{}
		g.counts[of] = l
	}
	l.n++
	g.change(l)
	return true
}

// forgetEnded forgets what has ended and was told, and reports whether there was such.
func (g *Gauge) forgetEnded() bool {
	before := len(g.counts)
	maps.DeleteFunc(g.counts, func(_ Of, l *level) bool { return l.n == 0 && l.state == told })
	return len(g.counts) < before
}

// End counts one less.
func (g *Gauge) End(of Of) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l := g.counts[of]; l != nil && l.n > 0 {
		l.n--
		g.change(l)
	}
}

func (g *Gauge) change(l *level) {
	g.last = max(g.now().UnixMilli(), g.last+1)
	l.told, l.state = g.last, changed
	select {
	case g.kicked <- struct{}{}:
	default:
	}
}

// Kicked tells of something new to report.
func (g *Gauge) Kicked() <-chan struct{} { return g.kicked }

// Next returns how long nothing is to be reported unless Kicked says so.
func (g *Gauge) Next() time.Duration {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	wait := forget
	for _, l := range g.counts {
		wait = min(wait, until(l.state, l.sent, now))
	}
	return wait
}

// Report returns what is to be told now, as much as one report takes; the rest comes with
// the next. What has ended is told twice, and is forgotten then.
func (g *Gauge) Report() []wire.Running {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetEnded()
	var list []Of
	for of, l := range g.counts {
		if due(l.state, l.sent, now) {
			list = append(list, of)
		}
	}
	slices.SortFunc(list, func(a, b Of) int { // what has waited for the longest first
		x, y := g.counts[a], g.counts[b]
		return cmp.Or(x.sent.Compare(y.sent), cmp.Compare(x.told, y.told))
	})
	list = list[:min(len(list), wire.MaxRunning)]
	out := make([]wire.Running, 0, len(list))
	for _, of := range list {
		l := g.counts[of]
		l.state, l.sent = l.state-1, now
		out = append(out, wire.Running{At: of.At, Target: of.Target, Told: l.told, Count: l.n})
	}
	return out
}

// Unsent takes back what could not be sent.
func (g *Gauge) Unsent(list []wire.Running) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range list {
		if l := g.counts[Of{r.At, r.Target}]; l != nil && l.told == r.Told {
			l.state = changed
		}
	}
}
