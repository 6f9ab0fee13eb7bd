package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quash-project/quash/services/rotator"
	"github.com/quash-project/quash/services/rotator/kvstore"
	"github.com/quash-project/quash/services/rotator/schedule"
	"github.com/quash-project/quash/shared/metrics"
	"github.com/quash-project/quash/shared/signing"
)

// scheduleCounts is what is measured of schedules.
type scheduleCounts struct{ late prometheus.Histogram }

// schedule wires what fires schedules to the keys that they rotate.
func (s *Service) schedule(store schedule.Store, d Deps) {
	s.counts.late = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "quash_schedule_late_seconds", Help: "How late firings of schedules were claimed.",
		Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
	})
	s.plans = schedule.New(schedule.Deps{
		Store: store, Rotations: signingKeys{s.domain}, Subjects: subjects{signingKeys{s.domain}, issuersKeys{d.NATS}}, Keys: issuersKeys{d.NATS}, Tenants: tenants{s.domain, s.store},
		Now: d.Now, Rand: d.Rand, Log: d.Log.Named("schedule"),
		Late: func(late time.Duration) { s.counts.late.Observe(late.Seconds()) },
	})
}

// signingKeys are what schedules rotate.
type signingKeys struct{ r *rotator.Rotator }

// Begin implements schedule.Rotations. While a rotation waits that an earlier firing has begun,
// a later one is a part of it: a key has to be known to guards before it signs, which can take
// longer than it is to the next firing.
func (k signingKeys) Begin(ctx context.Context, b schedule.Begin) (string, error) {
	switch waits, ok, err := k.r.WaitsFor(b.Tenant, b.Actor); {
	case err != nil:
		return "", err
	case ok:
		return waits.ID, nil
	}
	r, err := k.r.Start(ctx, rotator.Request{Key: b.ID, Tenant: b.Tenant, Actor: b.Actor, Kind: rotator.KindSigningKey, Reason: b.Reason})
	return r.ID, err
}

// Subject implements schedule.Subjects: a signing key is in use since it signs.
func (k signingKeys) Subject(ctx context.Context, tenant string, _ schedule.Target) (schedule.Subject, error) {
	set, err := k.r.SigningKeys(ctx, tenant)
	if err != nil {
		return schedule.Subject{}, err
	}
	signs := set.In(signing.Signing)
	if signs == nil {
		return schedule.Subject{}, nil
	}
	sub := schedule.Subject{ID: signs.ID, Since: time.UnixMilli(signs.SigningAt), Expires: signs.EndTime()}
	if next := set.In(signing.Published); next != nil {
		sub.Next = next.ID
	}
	return sub, nil
}

// tenants are those that the rotator keeps keys of.
type tenants struct {
	*rotator.Rotator
	store *kvstore.Store
}

// Tenants implements schedule.Tenants.
func (t tenants) Tenants() map[string]bool { return t.store.Tenants() }

// Ends implements schedule.Tenants.
func (t tenants) Ends(ctx context.Context, tenant string) (bool, error) {
	return t.store.Ends(ctx, tenant)
}

// scheduled are the metrics of schedules.
func (s *Service) scheduled() []prometheus.Collector {
	state := func(name string) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quash_schedules", Help: "Schedules by state.", ConstLabels: prometheus.Labels{"state": name},
		}, func() float64 { return float64(s.plans.Stats().States[name]) })
	}
	firings := func(outcome string, of func(schedule.Stats) uint64) prometheus.Collector {
		return metrics.Counter("quash_schedule_firings_total", "Firings of schedules that this replica has done, by outcome; missed: it found some that were not fired in time, and that are skipped.",
			prometheus.Labels{"outcome": outcome}, func() float64 { return float64(of(s.plans.Stats())) })
	}
	return []prometheus.Collector{
		state(schedule.Active), state(schedule.Paused), state(schedule.Failing),
		firings("begun", func(s schedule.Stats) uint64 { return s.Begun }),
		firings("failed", func(s schedule.Stats) uint64 { return s.Failed }),
		firings("missed", func(s schedule.Stats) uint64 { return s.Missed }),
		s.counts.late,
	}
}
