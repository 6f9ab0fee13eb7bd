package slo

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quash-project/quash/shared/metrics"
)

// Report is how fast revocation is here.
type Report struct {
	Within  time.Duration
	Share   float64
	Windows []Window
	Guards  []Guard // by name
}

// Window is what was measured within a time.
type Window struct {
	Length time.Duration
	Spread
	// Good runs were refused by every guard within the objective.
	Good int
	// Met: there were runs, the last one not long ago, and the share of the good ones is
	// that of the objective.
	Met bool
}

// Spread is how a number of times are spread. Missed ones were not heard of at all, and
// count as slower than all.
type Spread struct {
	Runs, Missed  int
	P50, P99, Max time.Duration // zero where it is a missed one, or there are none
}

// Guard is what was measured of the instances of one name: of the newest runs.
type Guard struct {
	Name string
	Spread
	Last time.Time
}

// silence is how long there may be no run: then nobody can tell how fast revocation is, and
// perhaps there is none.
const silence = 5 * time.Minute

// windows of a Report.
var windows = []time.Duration{5 * time.Minute, time.Hour, kept}

// Report returns what was measured until now.
func (m *Meter) Report() Report {
	now := m.cfg.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	r := Report{Within: m.cfg.Within, Share: m.cfg.Share}
	for _, length := range windows {
		r.Windows = append(r.Windows, m.windowLocked(now, length))
	}
	for name, s := range m.guards {
		g := Guard{Name: name, Last: s.last}
		times := make([]time.Duration, 0, min(s.n, perGuard))
		for _, t := range s.took[:min(s.n, perGuard)] {
			times = append(times, time.Duration(float64(t)*float64(time.Second)))
		}
		g.Spread = spread(times)
		r.Guards = append(r.Guards, g)
	}
	slices.SortFunc(r.Guards, func(a, b Guard) int { return cmp.Compare(a.Name, b.Name) })
	return r
}

func (m *Meter) windowLocked(now time.Time, length time.Duration) Window {
	w := Window{Length: length}
	var times []time.Duration
	for i := len(m.runs) - 1; i >= 0 && now.Sub(m.runs[i].at) <= length; i-- {
		took := m.runs[i].took
		times = append(times, took)
		if took >= 0 && took <= m.cfg.Within {
			w.Good++
		}
	}
	w.Spread = spread(times)
	w.Met = w.Runs > 0 && now.Sub(m.runs[len(m.runs)-1].at) <= silence && float64(w.Good) >= m.cfg.Share*float64(w.Runs)
	return w
}

// spread sorts times.
func spread(times []time.Duration) Spread {
	s := Spread{Runs: len(times)}
	if s.Runs == 0 {
		return s
	}
	rank := func(d time.Duration) time.Duration {
		if d < 0 {
			return 2 * longest
		}
		return d
	}
	slices.SortFunc(times, func(a, b time.Duration) int { return cmp.Compare(rank(a), rank(b)) })
	at := func(share float64) time.Duration {
		// Nearest rank: the least time within which that share was.
		i := int(share*float64(len(times)) + 0.999999)
		return max(0, times[min(max(i-1, 0), len(times)-1)])
	}
	for _, d := range times {
		if d < 0 {
			s.Missed++
		}
	}
	s.P50, s.P99, s.Max = at(0.5), at(0.99), max(0, times[len(times)-1])
	return s
}

// Metrics implements metrics.Source.
func (m *Meter) Metrics() []prometheus.Collector {
	hour := func() Window {
		now := m.cfg.Now()
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.windowLocked(now, time.Hour)
	}
	return []prometheus.Collector{
		m.effect,
		metrics.Gauge("quash_slo_met", "1 if of the canaries of the last hour that this replica has committed enough were refused everywhere in time; 0 also if there was none for 5 minutes.",
			func() float64 { return metrics.Bool(hour().Met) }),
		metrics.Gauge("quash_slo_runs", "Canaries of the last hour that this replica has committed.", func() float64 { return float64(hour().Runs) }),
		metrics.Gauge("quash_slo_good", "Those of them that every guard refused in time.", func() float64 { return float64(hour().Good) }),
	}
}
