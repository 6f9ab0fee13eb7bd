// Package metrics is what a service tells of itself to Prometheus: the process,
// its HTTP requests, whether it is ready, and what its parts collect. A registry
// is made for each service and passed on; nothing is global. No label has an id,
// a name of a person or a path, of which there could be any number.
package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/quash-project/quash/shared/guard"
)

// Source is a service that has metrics of its own.
type Source interface {
	// Metrics returns collectors, which are asked at each scrape, concurrently.
	Metrics() []prometheus.Collector
}

// Registry are the metrics of one service.
type Registry struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
}

// New makes the metrics of a service. Ready is what /readyz answers by; of is
// asked for more if it is a Source.
func New(ready func() error, of any) *Registry {
	r := &Registry{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "quash_http_request_duration_seconds", Help: "Requests to the API, by status and method.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}, []string{"code", "method"}),
	}
	r.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector(), r.requests,
		Gauge("quash_ready", "1 if the service may be asked, as /readyz says.", func() float64 { return Bool(ready() == nil) }),
	)
	if s, ok := of.(Source); ok {
		r.registry.MustRegister(s.Metrics()...)
	}
	return r
}

// Handler answers GET /metrics.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// Count counts what h answers, and how long it takes.
func (r *Registry) Count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w}
		defer func() {
			r.requests.WithLabelValues(strconv.Itoa(rec.code()), method(req.Method)).Observe(time.Since(start).Seconds())
		}()
		h.ServeHTTP(rec, req)
	})
}

// method keeps strangers from making up label values.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions:
		return m
	}
	return "other"
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) code() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Gauge is one whose value is asked for at each scrape.
func Gauge(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

// Counter is one whose value is asked for at each scrape.
func Counter(name, help string, labels prometheus.Labels, value func() float64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, value)
}

// Bool is 1 for true.
func Bool(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Guard tells what a guard does. The module of the guard knows no Prometheus: its
// users take Stats for what they have.
func Guard(g *guard.Guard) []prometheus.Collector {
	decisions := func(outcome string, count func(guard.Stats) uint64) prometheus.Collector {
		return Counter("quash_guard_decisions_total", "Decisions about tokens, by outcome.", prometheus.Labels{"outcome": outcome},
			func() float64 { return float64(count(g.Stats())) })
	}
	exchanges := func(outcome string, count func(guard.Stats) uint64) prometheus.Collector {
		return Counter("quash_guard_exchanges_total", "Exchanges of API keys for tokens that the guard asked for, by outcome.", prometheus.Labels{"outcome": outcome},
			func() float64 { return float64(count(g.Stats())) })
	}
	return []prometheus.Collector{
		exchanges("answered", func(s guard.Stats) uint64 { return s.Exchanges - min(s.Exchanges, s.ExchangeFailures) }),
		exchanges("failed", func(s guard.Stats) uint64 { return s.ExchangeFailures }),
		decisions("allow", func(s guard.Stats) uint64 { return s.Allowed }),
		decisions("deny", func(s guard.Stats) uint64 { return s.Denied }),
		decisions("unavailable", func(s guard.Stats) uint64 { return s.Unavailable }),
		Counter("quash_guard_attempts_total", "Refusals by a revocation or a hold.", nil, func() float64 { return float64(g.Stats().Attempts) }),
		Counter("quash_guard_attempts_lost_total", "Refusals by a revocation or a hold that are reported to nobody: of too many at once.", nil, func() float64 { return float64(g.Stats().AttemptsLost) }),
		Gauge("quash_guard_accepting", "1 if the guard's view may be accepted from.", func() float64 { return Bool(g.Stats().Accepting) }),
		Gauge("quash_guard_staleness_seconds", "How old the guard's view is at most; meaningless while it does not accept.", func() float64 { return g.Stats().Staleness.Seconds() }),
		Gauge("quash_guard_targets", "Targets of which the guard's view knows something.", func() float64 { return float64(g.Stats().Targets) }),
		Gauge("quash_guard_position", "Sequence in the log up to which the guard's view has applied it.", func() float64 { return float64(g.Stats().Position.Seq) }),
	}
}
