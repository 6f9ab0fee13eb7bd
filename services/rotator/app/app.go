package app

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/quash-project/quash/services/reference"
	"github.com/quash-project/quash/services/rotator"
	"github.com/quash-project/quash/services/rotator/httpapi"
	"github.com/quash-project/quash/services/rotator/kvstore"
	"github.com/quash-project/quash/services/rotator/schedule"
	"github.com/quash-project/quash/shared/breakglass"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/leaked/natsteller"
	"github.com/quash-project/quash/shared/metrics"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
	"github.com/quash-project/quash/shared/tracing"
)

// drain is how long requests over NATS may take after the end was asked for.
const drain = 10 * time.Second

// Service is a running rotator.
type Service struct {
	log     *zap.Logger
	traces  trace.TracerProvider
	nats    *nats.Conn
	store   *kvstore.Store
	guard   *guard.Guard
	domain  *rotator.Rotator
	plans   *schedule.Service
	counts  scheduleCounts
	trust   string
	handler http.Handler
	door    *breakglass.Door
	tenant  string
	leaks   *natsteller.Teller
}

// New wires the service. It asks nothing of NATS yet: Run waits for that.
func New(_ context.Context, cfg Config, d Deps) (*Service, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("rotator: %w", err)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Rand == nil {
		d.Rand = rand.Reader
	}
	if d.Log == nil {
		d.Log = zap.NewNop()
	}
	if cfg.Tenant == "" {
		cfg.Tenant = "default"
	}
	if cfg.Replicas == 0 {
		cfg.Replicas = 1
	}
	s := &Service{log: d.Log, traces: d.Traces, nats: d.NATS, door: breakglass.New(d.Log), tenant: cfg.Tenant}
	if err := s.wire(cfg, d); err != nil {
		return nil, fmt.Errorf("rotator: %w", err)
	}
	return s, nil
}

func (s *Service) wire(cfg Config, d Deps) error {
	private, err := rotator.LoadIdentity(cfg.IdentityFile)
	if err != nil {
		return err
	}
	s.trust = signing.TrustString(private.Public().(ed25519.PublicKey))
	if d.KEK == nil {
		kek, err := seal.LoadKEK(cfg.KEKFile)
		if err != nil {
			return err
		}
		d.KEK = kek
	}
	js, err := jetstream.New(d.NATS)
	if err != nil {
		return err
	}
	s.store = kvstore.New(js, cfg.Replicas, d.Log.Named("store"))
	if err := s.follow(cfg, d); err != nil {
		return err
	}
	s.domain, err = rotator.New(rotator.Config{
		Home: rotator.Tenant{Name: cfg.Tenant, Issuer: cfg.Issuer}, Policy: cfg.policy(), IssuerName: identity.Issuer,
	}, rotator.Deps{
		Store: s.store, Entries: commit.NewClient(d.NATS, identity.Rotator), Keys: commit.NewKeyClient(d.NATS),
		Reader: reader{s.guard.Reader()}, KEK: d.KEK, Identity: private, Now: d.Now, Rand: d.Rand, Log: d.Log,
		Clear: func(ctx context.Context, tenant string) error { return s.plans.Clear(ctx, tenant) },
	})
	if err != nil {
		return err
	}
	s.schedule(kvstore.NewSchedules(js, cfg.Replicas, d.Log.Named("schedules")), d)
	mux := http.NewServeMux()
	reference.Register(mux)
	api := frame.New(mux, "rotator", frame.ByGuard(s.guard, s.tenant), d.Log)
	httpapi.Register(api, s.domain, d.KEK)
	httpapi.RegisterSchedules(api, s.plans, d.KEK)
	s.leaks = natsteller.New(d.NATS, d.Log.Named("leaks"))
	s.handler = frame.Handler(mux, d.Log.Named("http"), d.Traces, s.leaks.Leaks())
	return nil
}

// follow makes the one reader, by which the guard of our own API decides and the
// domain knows of epochs and of keys that were revoked by their target.
func (s *Service) follow(cfg Config, d Deps) error {
	link, err := natsfeed.New(d.NATS, identity.Rotator)
	if err != nil {
		return err
	}
	var epoch uint64 // owned by the reader, which calls one at a time
	onEntry := func(m wire.Stored) {
		// The message of a new epoch itself mostly comes within a whole state.
		if m.Message.Epoch != epoch {
			epoch = m.Message.Epoch
			s.domain.Kick()
		} else if len(m.Message.End) > 0 {
			s.domain.Ends(m.Message.End)
		}
	}
	s.guard, err = guard.New([]guard.Issuer{{URL: cfg.Issuer, Tenant: cfg.Tenant, Tenants: true, Trust: []string{s.trust}, Audience: []string{cfg.Issuer}}},
		guard.WithFollow(follow.Config{Source: link, Feed: link, OnEntry: onEntry, Rand: d.Rand}),
		guard.WithClock(d.Now), guard.WithLogger(d.Log.Named("guard")), guard.WithObserver(tracing.Decisions))
	return err
}

// reader is what the domain asks of the reader of the log.
type reader struct{ guard.Reader }

func (r reader) Epoch() uint64           { return r.View().Epochs().Current().Number }
func (r reader) Ended(k revoke.Key) bool { return r.View().State(k).Ended }

// Handler answers requests: /v1/rotations, /v1/schedules, /v1/signing-keys and
// /openapi/rotator. Before Ready most of them answer 503.
func (s *Service) Handler() http.Handler { return s.handler }

// Trust is the public half of the identity key, as guards are given it.
func (s *Service) Trust() string { return s.trust }

// Run works until ctx ends: it follows the log, keeps the keys, and works on
// rotations. What was accepted over NATS is answered before it returns.
func (s *Service) Run(ctx context.Context) error {
	ways := natsapi.Config{
		Auth: frame.ByGuard(s.guard, s.tenant), Queue: "quash-rotator", MaxBody: frame.MaxBody, Deadline: frame.Deadline + time.Minute, Log: s.log.Named("natsapi"), Traces: s.traces,
	}
	srv, err := natsapi.Serve(s.nats, wire.APIRotation, ways, httpapi.Endpoints(s.domain)...)
	if err != nil {
		return fmt.Errorf("rotator: %w", err)
	}
	glass, err := natsapi.Serve(s.nats, wire.BreakGlassRotation, ways, httpapi.BreakGlass(s.domain, s.door, s.tenant)...)
	if err != nil {
		return fmt.Errorf("rotator: %w", err)
	}
	// Requests are answered by the guard and the store: those end last.
	work, finish := context.WithCancel(context.WithoutCancel(ctx))
	defer finish()
	g, work := errgroup.WithContext(work)
	g.Go(func() error { return s.guard.Run(work) })
	g.Go(func() error { return s.store.Run(work) })
	g.Go(func() error { return s.domain.Run(work) })
	g.Go(func() error { return s.leaks.Run(work) })
	g.Go(func() error { return s.plans.Run(work) })
	select {
	case <-ctx.Done():
	case <-work.Done():
	}
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	srv.Stop(short)
	glass.Stop(short)
	finish()
	return g.Wait()
}

// Ready returns nil when the keys are as they should be and requests can be
// answered.
func (s *Service) Ready() error {
	if err := errors.Join(s.domain.Ready(), s.guard.Ready()); err != nil {
		return fmt.Errorf("rotator: %w", err)
	}
	return nil
}

// Metrics implements metrics.Source.
func (s *Service) Metrics() []prometheus.Collector {
	return append(append(metrics.Guard(s.guard), s.door.Metrics()), s.scheduled()...)
}
