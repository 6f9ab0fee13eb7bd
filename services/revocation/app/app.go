package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"github.com/quash-project/quash/services/reference"
	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/services/revocation/attempts"
	"github.com/quash-project/quash/services/revocation/audit/natstrail"
	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/holds"
	"github.com/quash-project/quash/services/revocation/httpapi"
	"github.com/quash-project/quash/services/revocation/incidents"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/services/revocation/natsapi"
	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/services/revocation/redisview"
	"github.com/quash-project/quash/services/revocation/running"
	"github.com/quash-project/quash/services/revocation/slo"
	"github.com/quash-project/quash/shared/breakglass"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/idempotency"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/leaked/natsteller"
	"github.com/quash-project/quash/shared/tracing"
)

// Service is a running revocation service.
type Service struct {
	cfg     Config
	log     *zap.Logger
	traces  trace.TracerProvider
	nats    *nats.Conn
	ledger  *ledger.Ledger
	fleet   *fleet.Fleet
	holds   *holds.Keeper
	slo     *slo.Meter
	audit   *natstrail.Follower
	proofs  *receipts.Keeper
	pages   frame.Pages
	books   *incidents.Books
	tries   *attempts.Keeper
	runs    *running.Keeper
	view    *redisview.Writer // nil: there is no Redis view
	guard   *guard.Guard
	domain  *revocation.Service
	feed    *revocation.Feed
	guards  *natsapi.Server
	handler http.Handler
	api     frame.Authorizer
	asked   *idempotency.Bucket
	door    *breakglass.Door
	waiting *pendingStore
	told    *secondTold
	leaks   *natsteller.Teller
}

// New wires the service. It asks nothing of NATS or Redis yet: Run waits for them.
func New(_ context.Context, cfg Config, d Deps) (*Service, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("revocation: %w", err)
	}
	withDefaults(&cfg, &d)
	s := &Service{cfg: cfg, log: d.Log, traces: d.Traces, nats: d.NATS, feed: &revocation.Feed{}, door: breakglass.New(d.Log)}
	for _, build := range []func(Deps) error{s.buildLog, s.buildReceipts, s.buildGuard, s.buildWays} {
		if err := build(d); err != nil {
			return nil, fmt.Errorf("revocation: %w", err)
		}
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
	if cfg.Replicas == 0 {
		cfg.Replicas = 1
	}
}

// buildLog makes the log, and those who are told of everything in it.
func (s *Service) buildLog(d Deps) error {
	cfg := ledger.Config{
		NATS: d.NATS, Log: d.Log.Named("log"), Now: d.Now, Rand: d.Rand, Replicas: s.cfg.Replicas, SyncAlways: s.cfg.SyncAlways,
	}
	if d.Redis != nil {
		cfg.Remembered = func(ctx context.Context, yield func(revoke.Key, revoke.State) bool) error {
			return s.view.States(ctx, yield)
		}
	}
	var err error
	if s.ledger, err = ledger.New(cfg); err != nil {
		return err
	}
	fcfg := fleet.Config{Log: s.ledger, Logger: d.Log.Named("fleet"), Now: d.Now}
	if d.Redis != nil {
		store := redisview.NewStore(d.Redis, s.cfg.RedisEmbedded)
		s.view, err = redisview.New(store, s.ledger, redisview.Config{
			Shards: s.cfg.RedisShards, Now: d.Now, Rand: d.Rand, Log: d.Log.Named("redis"), Proof: s.proof,
		})
		if err != nil {
			return err
		}
		fcfg.Redis = s.view
	}
	s.fleet = fleet.New(fcfg)
	s.slo = slo.New(slo.Config{Fleet: s.fleet, Applied: s.ledger.WaitApplied, Now: d.Now, Within: s.cfg.SLO.Within, Share: s.cfg.SLO.Share})
	s.audit, err = natstrail.New(natstrail.Config{NATS: d.NATS, Control: d.Control, Log: d.Log.Named("audit"), Replicas: s.cfg.Replicas})
	if err != nil {
		return err
	}
	s.holds = holds.New(s.ledger, holds.Config{Now: d.Now, Log: d.Log.Named("holds"), From: s.from})
	s.ledger.Observe(s.holds)
	s.ledger.AskHolders(s.holds)
	s.ledger.Observe(s.fleet)
	s.ledger.Observe(s.feed)
	if s.view != nil {
		s.ledger.Observe(s.view)
	}
	return nil
}

// proofTime bounds the judgement of a position that Redis shows.
const proofTime = 30 * time.Second

// proof shows the log a position that Redis has and it does not. It is judged
// apart, since the view asks within its own beat.
func (s *Service) proof(p wire.Position, _ revoke.Epochs) bool {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), proofTime)
		defer cancel()
		if err := s.ledger.Shown(ctx, "redis", []wire.Position{p}); err != nil {
			s.log.Warn("Redis shows a position that the log does not have, and it could not be judged yet", zap.Error(err))
		}
	}()
	return true
}

// buildGuard makes the guard of our own API, which is a member of the fleet like
// any other: whatever decides is.
func (s *Service) buildGuard(d Deps) error {
	link, err := natsfeed.New(d.NATS, identity.Revocation)
	if err != nil {
		return err
	}
	s.guard, err = guard.New([]guard.Issuer{{URL: s.cfg.URL, Tenant: s.cfg.Tenant, Tenants: true, Trust: s.cfg.Trust, Audience: []string{s.cfg.URL}}},
		guard.WithFollow(follow.Config{Source: link, Feed: link, Rand: d.Rand}),
		guard.WithLimit(s.cfg.Limit), guard.WithClock(d.Now), guard.WithLogger(d.Log.Named("guard")), guard.WithObserver(tracing.Decisions))
	return err
}

// buildWays makes the ways in.
func (s *Service) buildWays(d Deps) error {
	s.domain = &revocation.Service{Ledger: s.ledger, Fleet: s.fleet, Guard: s.guard, Home: s.cfg.Tenant, Now: d.Now, Rand: d.Rand}
	s.guards = &natsapi.Server{NATS: d.NATS, Ledger: s.ledger, Fleet: s.fleet, Log: d.Log.Named("nats"), Traces: d.Traces, Canaries: s.slo, Attempts: s.tries, Running: s.runs, Now: d.Now}
	s.domain.Records, s.domain.Tenants, s.domain.Memories = records{d.Control}, tenants{d.Control}, s.guards
	s.api = frame.ByGuard(s.guard, s.cfg.Tenant)
	mux := http.NewServeMux()
	var status httpapi.Redis
	if s.view != nil {
		status = s.redisStatus
	}
	var err error
	if s.asked, err = idempotency.NewBucket(d.NATS, s.cfg.Replicas, d.Log.Named("requests")); err != nil {
		return err
	}
	s.domain.Plans = plans{s.asked}
	if err := s.buildSecond(d); err != nil {
		return err
	}
	api := frame.New(mux, "revocation", s.api, d.Log)
	api.Remember(frame.Memory{Notes: s.asked, Now: d.Now, Rand: d.Rand})
	httpapi.Register(api, s.pages, s.domain, s.feed, status)
	httpapi.RegisterSLO(api, s.slo)
	trail, err := natstrail.NewReader(d.NATS, d.Control)
	if err != nil {
		return err
	}
	origin := auditOrigin(s.cfg.URL)
	httpapi.RegisterAudit(api, s.pages, httpapi.Trail{
		Kept: trail, Home: s.cfg.Tenant, Since: s.domain.Since, Origin: origin, Log: d.Log.Named("audit"),
		Signer: func(ctx context.Context) (note.Signer, error) { return s.proofs.Keys.NoteSigner(ctx, origin) },
	})
	httpapi.RegisterReceipts(api, s.pages, s.proofs, s.runs, s.domain, s.cfg.URL)
	s.books, err = incidents.New(incidents.Config{
		NATS: d.NATS, Receipts: s.proofs, Ledger: s.ledger, Replicas: s.cfg.Replicas, Now: d.Now, Rand: d.Rand, Log: d.Log.Named("incidents"), From: s.from,
	})
	if err != nil {
		return err
	}
	s.domain.Notebooks = s.books
	httpapi.RegisterIncidents(api, s.pages, s.books, s.cfg.Tenant, s.cfg.URL)
	httpapi.RegisterAttempts(api, s.pages, s.tries, s.cfg.Tenant)
	reference.Register(mux)
	s.leaks = natsteller.New(d.Control, d.Log.Named("leaks"))
	s.handler = frame.Handler(mux, d.Log.Named("http"), d.Traces, s.leaks.Leaks())
	return nil
}

// auditOrigin names the audit trail of an installation: the issuer's URL without its
// scheme, as C2SP tlog-checkpoint recommends.
func auditOrigin(url string) string {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		url = rest
	}
	return strings.TrimSuffix(url, "/") + "/audit"
}

func (s *Service) redisStatus() httpapi.RedisStatus {
	st := s.view.Status()
	out := httpapi.RedisStatus{Complete: st.Complete, Writing: st.Writing, Epoch: st.Position.Epoch, Sequence: st.Position.Seq}
	if !st.SeenAt.IsZero() {
		at := frame.Time(st.SeenAt)
		out.SeenAt = &at
	}
	if st.Reason != nil {
		out.Reason = st.Reason.Error()
	}
	return out
}

// Handler answers requests: /v1/revocations, /v1/receipts, /v1/incidents, /v1/fleet, /v1/decisions, /v1/feed
// and /openapi/revocation. Before Ready most of them answer 503.
func (s *Service) Handler() http.Handler { return s.handler }

// Run works until ctx ends, and returns when what was accepted is done.
func (s *Service) Run(ctx context.Context) error {
	// The ways in close before the log does, so that what they accepted is committed.
	logCtx, stopLog := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLog()
	below := errgroup.Group{}
	below.Go(func() error { return s.ledger.Run(logCtx) })
	if err := s.removeFormer(ctx); err != nil {
		stopLog()
		return errors.Join(err, below.Wait())
	}

	g, ctx := errgroup.WithContext(ctx)
	// Our own guard says that it is out: somebody must be there to hear it.
	guardsCtx, stopGuards := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error { return s.guards.Run(guardsCtx) })
	g.Go(func() error {
		defer stopGuards()
		return s.guard.Run(ctx)
	})
	g.Go(func() error { return s.fleet.Run(ctx, s.ledger) })
	g.Go(func() error { return s.holds.Run(ctx) })
	g.Go(func() error { return s.asked.Run(ctx) })
	g.Go(func() error { return s.waiting.run(ctx, s.domain.Settle) })
	g.Go(func() error { return s.audit.Run(ctx) })
	g.Go(func() error { return s.slo.Run(ctx) })
	g.Go(func() error { return s.proofs.Run(ctx) })
	g.Go(func() error { return s.books.Run(ctx) })
	g.Go(func() error { return s.tries.Run(ctx) })
	g.Go(func() error { return s.leaks.Run(ctx) })
	g.Go(func() error { return s.runs.Run(ctx) })
	g.Go(func() error { return s.serveOutsiders(ctx) })
	if s.view != nil {
		g.Go(func() error { return s.view.Run(ctx) })
	}
	err := g.Wait()
	stopLog()
	return errors.Join(err, below.Wait())
}

// removeFormer takes the guards of a former process out of the fleet before
// anybody can join under their names.
func (s *Service) removeFormer(ctx context.Context) error {
	if len(s.cfg.Former) == 0 {
		return nil
	}
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for ctx.Err() == nil {
		if s.ledger.Ready() == nil {
			err := s.fleet.Gone(ctx, s.ledger, s.cfg.Former, "its process has ended")
			if err == nil {
				return nil
			}
			s.log.Warn("guards of the former process could not be taken out yet", zap.Error(err))
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	return nil
}

// Ready returns nil when the service commits, and decides for its own API.
func (s *Service) Ready() error {
	if err := errors.Join(s.ledger.Ready(), s.guard.Ready()); err != nil {
		return fmt.Errorf("revocation: %w", err)
	}
	return nil
}
