package app

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/shared/approvers"
	"github.com/quash-project/quash/shared/breakglass"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
)

// SecondPerson says which revocations and holds need a second person; see revocation.Policy.
type SecondPerson struct {
	Mode    string        `koanf:"mode"`    // auto, always or never; empty: auto
	Hits    int           `koanf:"hits"`    // 0: 1000
	Within  time.Duration `koanf:"within"`  // 0: 1h; 24h at most
	Expires time.Duration `koanf:"expires"` // 0: 1h; 24h at most
}

func (c *SecondPerson) check() (errs []error) {
	switch c.Mode {
	case "", revocation.SecondAuto, revocation.SecondAlways, revocation.SecondNever:
	default:
		errs = append(errs, fmt.Errorf("second_person.mode %.40q: want auto, always or never", c.Mode))
	}
	if c.Hits < 0 || c.Hits > revocation.MaxSecondHits {
		errs = append(errs, fmt.Errorf("second_person.hits %d: want up to %d", c.Hits, revocation.MaxSecondHits))
	}
	for name, d := range map[string]time.Duration{"within": c.Within, "expires": c.Expires} {
		if d != 0 && (d < time.Second || d > revocation.MaxSecondTime) {
			errs = append(errs, fmt.Errorf("second_person.%s %v: want 1s to %v", name, d, revocation.MaxSecondTime))
		}
	}
	return errs
}

func (c SecondPerson) policy() revocation.Policy {
	p := revocation.Policy{Mode: c.Mode, Hits: c.Hits, Window: c.Within, Life: c.Expires}
	if p.Mode == "" {
		p.Mode = revocation.SecondAuto
	}
	if p.Hits == 0 {
		p.Hits = revocation.DefaultSecondHits
	}
	if p.Window == 0 {
		p.Window = revocation.DefaultSecondWindow
	}
	if p.Life == 0 {
		p.Life = revocation.DefaultPendingLife
	}
	return p
}

// buildSecond makes what the rule of two people needs.
func (s *Service) buildSecond(d Deps) error {
	var err error
	if s.waiting, err = newPendingStore(d.NATS, s.cfg.Replicas, d.Log.Named("pending")); err != nil {
		return err
	}
	s.told = newSecondTold(s.door, d.Log.Named("pending"))
	s.domain.Second = revocation.Second{
		Policy: s.cfg.SecondPerson.policy(), Approvers: approving{d.Control}, Pending: s.waiting, Spent: newSpent(s.asked, d.Now), Told: s.told,
	}
	return nil
}

// approving asks the issuer, as records does.
type approving struct{ control *nats.Conn }

// Approvers implements revocation.Approvers.
func (r approving) Approvers(ctx context.Context, ask approvers.Request) (approvers.Answer, error) {
	if r.control == nil {
		return approvers.Answer{}, problem.New(problem.Unavailable, "this service has no connection to the issuer's records, so that it can't tell who may approve")
	}
	return natsapi.Call[approvers.Answer](ctx, r.control, wire.RecordsIssuer+approvers.Operation, "", ask)
}

// stateUnasked counts what was cut without a question.
const stateUnasked = "unasked"

// secondTold counts and logs what becomes of cuts that need a second person.
type secondTold struct {
	door      *breakglass.Door
	log       *zap.Logger
	decisions *prometheus.CounterVec
}

func newSecondTold(door *breakglass.Door, log *zap.Logger) *secondTold {
	t := &secondTold{door: door, log: log, decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quash_second_person_total", Help: "Revocations and holds that needed a second person, by what this replica has made of them.",
	}, []string{"state"})}
	for _, state := range []string{revocation.PendingWaits, revocation.PendingApproved, revocation.PendingDenied, revocation.PendingExpired, revocation.PendingOvertaken, stateUnasked} {
		t.decisions.WithLabelValues(state) // 0 is shown too
	}
	for _, op := range []commit.Op{commit.Revoke, commit.Hold} {
		door.Declare(string(op))
	}
	return t
}

// Pending implements revocation.SecondTold.
func (t *secondTold) Pending(p *revocation.Pending) {
	t.decisions.WithLabelValues(p.State).Inc()
	t.log.Info("a cut waits for a second person", zap.String("id", p.ID), zap.String("actor", p.Asker), zap.String("why", p.Why))
}

// Decided implements revocation.SecondTold.
func (t *secondTold) Decided(p *revocation.Pending) {
	t.decisions.WithLabelValues(p.State).Inc()
	t.log.Info("a cut that waited was decided", zap.String("id", p.ID), zap.String("state", p.State), zap.String("by", p.DecidedBy))
}

// Unasked implements revocation.SecondTold.
func (t *secondTold) Unasked(op commit.Op, actor string, err error) {
	t.decisions.WithLabelValues(stateUnasked).Inc()
	t.log.Warn("a narrow cut was committed without knowing whether it needs a second person, since it waits for no bucket",
		zap.String("op", string(op)), zap.String("actor", actor), zap.Error(err))
}

// BreakGlass implements revocation.SecondTold.
func (t *secondTold) BreakGlass(op commit.Op, actor, reason string, err error) {
	t.door.Used(string(op), actor, reason, err)
}
