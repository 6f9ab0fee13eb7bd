// Package app wires the revocation service: the log, the fleet, the Redis view,
// the audit and the ways in. Mains, the all-in-one process and tests use it alike.
package app

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/logging"
	"github.com/quash-project/quash/shared/process"
	"github.com/quash-project/quash/shared/tracing"
)

// Config is what the operator writes. What has no default is required.
type Config struct {
	// URL is the issuer whose tokens open our own APIs.
	URL string `koanf:"url"`
	// Tenant is whose issuer that is. Empty: default.
	Tenant string `koanf:"tenant"`
	// Trust are the rotator's identity keys, as ed25519:BASE64URL.
	Trust []string `koanf:"trust"`
	// Limit is the greatest staleness at which our own APIs accept a token. 0:
	// 15s; 60s at most.
	Limit time.Duration `koanf:"limit"`
	// Replicas of the log's stream: 1 or 3. 0: 1.
	Replicas int `koanf:"replicas"`
	// SyncAlways says that every NATS server syncs before it acknowledges
	// (jetstream { sync_interval: always }). Where it is false a power cut can
	// lose an acknowledged revocation, and the service says so at its start.
	SyncAlways bool `koanf:"sync_always"`
	// ProofKEKFile holds the key-encryption key under which the keys are sealed that
	// sign receipts. It is this service's own, and not that of the signing keys: who
	// signs receipts can make no token.
	ProofKEKFile string `koanf:"proof_kek_file"`
	// RedisShards is N of the Redis view, fixed for its life. 0: 1.
	RedisShards int `koanf:"redis_shards"`
	// RedisEmbedded says that Redis is the in-process server of the all-in-one.
	RedisEmbedded bool `koanf:"-"`

	// SLO is how fast revocations are to take effect; see package slo.
	SLO SLO `koanf:"slo"`

	// SecondPerson says which revocations and holds need two people.
	SecondPerson SecondPerson `koanf:"second_person"`

	// Former are names of guards whose instances are all gone: they are taken out
	// before anybody joins. Whoever sets it must be able to prove it, as the
	// all-in-one can by the lock on its directory.
	Former []string `koanf:"-"`

	// The rest is for the process of its own; the all-in-one leaves it empty.

	NATS   NATS           `koanf:"nats"`
	Redis  Redis          `koanf:"redis"`
	Listen process.Listen `koanf:"listen"`
	Log    logging.Config `koanf:"log"`
	Trace  tracing.Config `koanf:"trace"`
}

// SLO is an objective: of the canaries of an hour that share is refused by every guard
// within that time.
type SLO struct {
	Within time.Duration `koanf:"within"` // 0: 1s; 20s at most
	Share  float64       `koanf:"share"`  // 0: 0.99
}

// NATS is where the broker is.
type NATS struct {
	URL          string `koanf:"url"`
	Creds        string `koanf:"creds"`         // the credentials file of the user revocation
	ControlCreds string `koanf:"control_creds"` // of the user control-reader, for the audit
}

// Redis is where the view is written.
type Redis struct {
	// URLFile holds a redis:// URL with the writer's password. Empty: no view.
	URLFile string `koanf:"url_file"`
}

// Validate checks what a process of its own needs.
func (c *Config) Validate() error {
	errs := []error{c.check()}
	if c.NATS.URL == "" || c.NATS.Creds == "" || c.NATS.ControlCreds == "" {
		errs = append(errs, errors.New("nats.url, nats.creds and nats.control_creds are needed"))
	}
	return errors.Join(append(errs, c.Listen.Validate(), c.Log.Validate(), c.Trace.Validate())...)
}

func (c *Config) check() error {
	var errs []error
	if c.URL == "" {
		errs = append(errs, errors.New("url is missing: the issuer whose tokens open our own APIs"))
	}
	if len(c.Trust) == 0 {
		errs = append(errs, errors.New("trust: name the rotator's identity key, as ed25519:BASE64URL"))
	}
	if c.ProofKEKFile == "" {
		errs = append(errs, errors.New("proof_kek_file is missing: the key-encryption key of the keys that sign receipts, made by quash secrets init"))
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		errs = append(errs, fmt.Errorf("replicas %d: want 1, 3 or 5", c.Replicas))
	}
	if c.SLO.Within < 0 || c.SLO.Within > maxWithin {
		errs = append(errs, fmt.Errorf("slo.within %v: want up to %v", c.SLO.Within, maxWithin))
	}
	if c.SLO.Share < 0 || c.SLO.Share > 1 {
		errs = append(errs, fmt.Errorf("slo.share %v: want up to 1, as in 0.99", c.SLO.Share))
	}
	return errors.Join(append(errs, c.SecondPerson.check()...)...)
}

// maxWithin is as long as a canary is watched.
const maxWithin = 20 * time.Second

// Deps is what main built.
type Deps struct {
	Log *zap.Logger
	// Traces follows requests; nil: nothing does.
	Traces trace.TracerProvider
	// Now and Rand are time.Now and crypto/rand.Reader where nil.
	Now  func() time.Time
	Rand io.Reader
	// NATS is the connection of the user revocation, Control that of the user
	// control-reader. They need not be up yet.
	NATS, Control *nats.Conn
	// Redis is the writer's client, made by redisview.Connect; nil: there is no
	// Redis view.
	Redis redis.UniversalClient
}
