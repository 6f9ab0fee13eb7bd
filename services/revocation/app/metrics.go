package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/shared/metrics"
)

// Metrics implements metrics.Source.
func (s *Service) Metrics() []prometheus.Collector {
	out := append(metrics.Guard(s.guard), s.door.Metrics(), s.told.decisions,
		metrics.Gauge("quash_log_head", "Sequence of the newest message of the log that was applied.", func() float64 { return float64(s.ledger.Head().Seq) }),
		metrics.Gauge("quash_log_epoch", "Number of the log's history. Another one says that the log went back.", func() float64 { return float64(s.ledger.Epoch()) }),
		metrics.Gauge("quash_log_targets", "Targets of which the log says something.", func() float64 { return float64(s.ledger.View().Len()) }),
		metrics.Gauge("quash_log_hazards", "Settings by which an acknowledged revocation can be lost; the log names them.", func() float64 { return float64(len(s.ledger.Hazards())) }),
	)
	out = append(out,
		metrics.Gauge("quash_receipts", "Receipts that are kept.", func() float64 { return float64(s.proofs.Status().Receipts) }),
		metrics.Gauge("quash_receipts_incomplete", "Receipts that are not complete.", func() float64 { return float64(s.proofs.Status().Incomplete) }),
		metrics.Gauge("quash_receipts_waiting", "Entries of the log that this replica looks at again, until their receipt is complete.", func() float64 { return float64(s.proofs.Status().Waiting) }),
		metrics.Gauge("quash_receipts_catching_up", "1 while entries are read from the log again that were not looked at in time.", func() float64 { return metrics.Bool(s.proofs.Status().CatchingUp) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quash_receipts_written_total", Help: "Receipts that this replica has written, or written again."}, func() float64 { return float64(s.proofs.Status().Written) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quash_receipts_failed_total", Help: "Receipts that could not be written at once; they are made up."}, func() float64 { return float64(s.proofs.Status().Failed) }),
	)
	out = append(out,
		metrics.Counter("quash_attempts_total", "Attempts with what was revoked or held that this replica has heard of from guards.", nil, func() float64 { return float64(s.tries.Status().Counted) }),
		metrics.Counter("quash_attempts_first_total", "Receipts of which this replica has heard of a first attempt.", nil, func() float64 { return float64(s.tries.Status().Firsts) }),
		metrics.Counter("quash_attempts_dropped_total", "Reports of attempts that this replica could not keep.", nil, func() float64 { return float64(s.tries.Status().Dropped) }),
	)
	out = append(out, metrics.Counter("quash_running_dropped_total", "Reports of requests that still run that this replica could not keep.", nil, func() float64 { return float64(s.runs.Dropped()) }))
	for _, state := range []string{fleet.StateJoined, fleet.StateFenced, fleet.StateOut} {
		out = append(out, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quash_fleet_guards", Help: "Guards by state: joined, fenced (silent for longer than their limit), out.", ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 { return float64(s.guardsIn(state)) }))
	}
	out = append(out, s.slo.Metrics()...)
	if s.view != nil {
		out = append(out,
			metrics.Gauge("quash_redis_complete", "1 if the Redis view is whole and its beat goes on.", func() float64 { return metrics.Bool(s.view.Status().Complete) }),
			metrics.Gauge("quash_redis_writing", "1 if this replica writes the Redis view.", func() float64 { return metrics.Bool(s.view.Status().Writing) }),
			metrics.Gauge("quash_redis_position", "Sequence in the log up to which the Redis view has applied it.", func() float64 { return float64(s.view.Status().Position.Seq) }),
		)
	}
	return out
}

func (s *Service) guardsIn(state string) (n int) {
	for _, g := range s.fleet.List() {
		if g.State == state {
			n++
		}
	}
	return n
}
