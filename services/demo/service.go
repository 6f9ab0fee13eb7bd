package demo

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/logging"
	"github.com/quash-project/quash/shared/metrics"
	"github.com/quash-project/quash/shared/process"
	"github.com/quash-project/quash/shared/tracing"
)

// Config is what the owner of a resource server writes. What has no default is
// required.
type Config struct {
	// Issuer is the URL of the Quash whose tokens are taken, Trust its rotator's
	// identity keys, as ed25519:BASE64URL.
	Issuer string   `koanf:"issuer"`
	Trust  []string `koanf:"trust"`
	// Limit is the greatest staleness at which anything is decided. 0: 15s.
	Limit time.Duration `koanf:"limit"`
	// Keys takes API keys too, as Bearer or in the header X-API-Key: they are exchanged
	// at the issuer.
	Keys bool `koanf:"keys"`

	NATS   NATS           `koanf:"nats"`
	Listen process.Listen `koanf:"listen"`
	Log    logging.Config `koanf:"log"`
	Trace  tracing.Config `koanf:"trace"`
}

// NATS is where the broker is.
type NATS struct {
	URL   string `koanf:"url"`   // several with commas between
	Creds string `koanf:"creds"` // the credentials file of this guard
}

// Validate says what is wrong.
func (c *Config) Validate() error {
	var errs []error
	if c.Issuer == "" || len(c.Trust) == 0 {
		errs = append(errs, errors.New("issuer and trust are needed"))
	}
	if c.NATS.URL == "" || c.NATS.Creds == "" {
		errs = append(errs, errors.New("nats.url and nats.creds are needed"))
	}
	return errors.Join(append(errs, c.Listen.Validate(), c.Log.Validate(), c.Trace.Validate())...)
}

// Service is a demo server that follows Quash by itself.
type Service struct {
	guard   *guard.Guard
	handler http.Handler
}

// New wires it; Run follows.
func New(cfg Config, log *zap.Logger, traces trace.TracerProvider) (*Service, error) {
	opts := []guard.Option{guard.WithNATS(cfg.NATS.URL, cfg.NATS.Creds), guard.WithLogger(log), guard.WithObserver(tracing.Decisions)}
	if cfg.Limit != 0 {
		opts = append(opts, guard.WithLimit(cfg.Limit))
	}
	if cfg.Keys {
		opts = append(opts, guard.WithExchange(guard.Exchange{}))
	}
	g, err := guard.New([]guard.Issuer{{URL: cfg.Issuer, Trust: cfg.Trust}}, opts...)
	if err != nil {
		return nil, err
	}
	return &Service{guard: g, handler: Handler(g, log.Named("http"), traces)}, nil
}

// Handler answers requests.
func (s *Service) Handler() http.Handler { return s.handler }

// Run follows Quash until ctx ends, and says then that it is out.
func (s *Service) Run(ctx context.Context) error { return s.guard.Run(ctx) }

// Ready returns nil when it may accept, or what it waits for.
func (s *Service) Ready() error { return s.guard.Ready() }

// Metrics implements metrics.Source.
func (s *Service) Metrics() []prometheus.Collector { return metrics.Guard(s.guard) }
