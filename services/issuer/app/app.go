package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/services/issuer/httpapi"
	"github.com/quash-project/quash/services/issuer/kvstore"
	"github.com/quash-project/quash/services/issuer/oauth"
	"github.com/quash-project/quash/services/reference"
	"github.com/quash-project/quash/shared/breakglass"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/keys"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/peer"
	"github.com/quash-project/quash/shared/guard/wire"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/idempotency"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/metrics"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
	"github.com/quash-project/quash/shared/tracing"
)

// Service is a running issuer.
type Service struct {
	cfg     Config
	log     *zap.Logger
	traces  trace.TracerProvider
	domain  *issuer.Service
	store   *kvstore.Store
	guard   *guard.Guard
	reader  *follow.Reader
	rings   *rings
	asked   *idempotency.Bucket
	handler http.Handler
	seeded  atomic.Bool // the fixed roles are there, and the first operator if wanted
	waits   atomic.Pointer[string]
	nats    *nats.Conn
	door    *breakglass.Door
}

// New wires the service. It asks nothing of NATS yet: Run waits for that.
func New(_ context.Context, cfg Config, d Deps) (*Service, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	withDefaults(&cfg, &d)
	s := &Service{cfg: cfg, log: d.Log, traces: d.Traces, nats: d.NATS, door: breakglass.New(d.Log)}
	if err := s.wire(d); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	return s, nil
}

func withDefaults(cfg *Config, d *Deps) {
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
	if cfg.Limit == 0 {
		cfg.Limit = wire.DefaultLimit
	}
	base := strings.TrimSuffix(cfg.URL, "/")
	if len(cfg.RevocationURLs) == 0 {
		cfg.RevocationURLs = []string{base + "/v1/revocations"}
	}
	if len(cfg.RotationURLs) == 0 {
		cfg.RotationURLs = []string{base + "/v1/rotations"}
	}
}

// wire builds the parts from the bottom up.
func (s *Service) wire(d Deps) error {
	known, err := keys.NewFamily(s.cfg.Tenant, s.cfg.URL, s.cfg.Trust, keys.OwnAlgs())
	if err != nil {
		return err
	}
	if err := s.follow(d, known); err != nil {
		return err
	}
	if s.store, err = kvstore.New(kvstore.Config{NATS: d.NATS, Replicas: s.cfg.Replicas, Log: d.Log.Named("store"), Now: d.Now, Rand: d.Rand}); err != nil {
		return err
	}
	if d.KEK == nil {
		kek, err := seal.LoadKEK(s.cfg.KEKFile)
		if err != nil {
			return err
		}
		d.KEK = kek
	}
	js, err := jetstream.New(d.NATS)
	if err != nil {
		return err
	}
	s.rings = &rings{js: js, cfg: signing.Config{
		KEK: d.KEK, Now: d.Now, Log: d.Log.Named("keyring"), Blocked: s.reader.View().Blocked,
		State: func(tenant, kid string) string {
			if of := known.Set(tenant); of != nil {
				if k := of.Lookup(kid); k != nil {
					return k.State
				}
			}
			return ""
		},
	}}
	if s.asked, err = idempotency.NewBucket(d.NATS, s.cfg.Replicas, d.Log.Named("requests")); err != nil {
		return err
	}
	s.domain, err = issuer.New(issuer.Config{
		Issuer: s.cfg.URL, Tenant: s.cfg.Tenant, Audience: s.cfg.Audience, TokenLife: s.cfg.TokenLife, Limit: s.cfg.Limit, Keys: s.cfg.keyPolicy(),
	}, issuer.Deps{
		Expiring: events{d.NATS}.keyExpiring, Rotated: events{d.NATS}.keyRotated, Due: events{d.NATS}.keyDue,
		Store: &s.store.Store, Reader: s.reader, Committer: commit.NewClient(d.NATS, identity.Issuer), Signers: s.rings,
		Verifier: verifier{s.guard}, Attempted: s.guard.Attempted, Requests: s.asked, Log: d.Log, Now: d.Now, Rand: d.Rand,
	})
	if err != nil {
		return err
	}
	return s.routes(d)
}

// follow makes the one reader, by which both the guard of our own APIs and the
// issuing itself decide.
func (s *Service) follow(d Deps, known *keys.Family) error {
	link, err := natsfeed.New(d.NATS, identity.Issuer)
	if err != nil {
		return err
	}
	onKey := func(m wire.Message) {
		if _, err := known.Apply(m, d.Now()); err != nil && !errors.Is(err, keys.ErrOther) {
			d.Log.Error("a key message is not taken", zap.String("message", m.ID), zap.Error(err))
		}
	}
	s.guard, err = guard.New([]guard.Issuer{{URL: s.cfg.URL, Tenant: s.cfg.Tenant, Tenants: true, Trust: s.cfg.Trust, Audience: []string{s.cfg.URL}}},
		guard.WithFollow(follow.Config{Source: link, Feed: link, OnKey: onKey, Rand: d.Rand}),
		guard.WithLimit(s.cfg.Limit), guard.WithClock(d.Now), guard.WithLogger(d.Log.Named("guard")), guard.WithObserver(tracing.Decisions))
	if err != nil {
		return err
	}
	reader, ok := s.guard.Reader().(*follow.Reader)
	if !ok {
		return errors.New("the guard has no reader of its own")
	}
	s.reader = reader
	return nil
}

// routes has every way in.
func (s *Service) routes(d Deps) error {
	mux := http.NewServeMux()
	api := frame.New(mux, "issuer", frame.ByGuard(s.guard, s.cfg.Tenant), d.Log)
	api.Remember(frame.Memory{Notes: s.asked, Now: d.Now, Rand: d.Rand})
	httpapi.Register(api, s.domain, d.KEK)
	reference.Register(mux)
	proxies, err := peer.ParseProxies(s.cfg.TrustedProxies)
	if err != nil {
		return err
	}
	err = oauth.Register(mux, api.OpenAPI(), s.domain, oauth.Config{
		Issuer: s.cfg.URL, Revocation: s.cfg.RevocationURLs, Rotation: s.cfg.RotationURLs, Proxies: proxies, Log: d.Log.Named("oauth"),
		Keys: s.rings.Public,
	})
	s.handler = frame.Handler(mux, d.Log.Named("http"), d.Traces, s.leaks(proxies))
	return err
}

// Handler answers requests: /v1/principals, /v1/keys, /v1/clients, /v1/roles, /v1/bindings,
// /v1/lookups, /oauth/, /.well-known/ and /openapi/issuer. Before Ready most of
// them answer 503.
func (s *Service) Handler() http.Handler { return s.handler }

// Domain returns what the ways in call, for tests and the all-in-one process.
func (s *Service) Domain() *issuer.Service { return s.domain }

// Reader returns the service's reader of the log.
func (s *Service) Reader() *follow.Reader { return s.reader }

// EnsureOperator makes the first operator's key in an installation that has had
// none, and hands it to save; see issuer.Service.EnsureOperator. It waits until
// the service can issue.
func (s *Service) EnsureOperator(ctx context.Context, save func(id, secret string) error) (created bool, err error) {
	if err := s.until(ctx, s.canMake); err != nil {
		return false, err
	}
	return s.domain.EnsureOperator(ctx, save)
}

// Run works until ctx ends: it follows the log, the buckets and the signing
// keys, seeds an empty installation, and goes on with what others left marked.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.guard.Run(ctx) })
	g.Go(func() error { return s.store.Run(ctx) })
	g.Go(func() error { return s.asked.Run(ctx) })
	g.Go(func() error { return s.rings.run(ctx) })
	g.Go(func() error { return s.domain.Run(ctx) })
	g.Go(func() error { return s.seed(ctx) })
	g.Go(func() error { return s.breakGlass(ctx) })
	if s.cfg.Canary > 0 {
		g.Go(func() error { return s.domain.Canaries(ctx, s.cfg.Canary) })
	}
	g.Go(func() error { return s.serveRecords(ctx) })
	g.Go(func() error { return s.serveRotation(ctx) })
	return g.Wait()
}

// Ready returns nil when the service issues tokens and takes requests.
func (s *Service) Ready() error {
	errs := []error{s.canMake(), s.rings.ready(s.cfg.Tenant), s.guard.Ready()}
	if !s.seeded.Load() {
		errs = append(errs, errors.New("the fixed roles have not been made yet"))
	}
	if w := s.waits.Load(); w != nil {
		errs = append(errs, errors.New(*w))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	return nil
}

// canMake tells whether records can be made.
func (s *Service) canMake() error { return s.domain.Ready() }

// Metrics implements metrics.Source.
func (s *Service) Metrics() []prometheus.Collector {
	return append(append(metrics.Guard(s.guard), s.door.Metrics()), s.keyMetrics()...)
}
