// Package app wires the rotator: the domain to its buckets, the log and the
// ways in. Mains, the all-in-one process and tests use it alike.
package app

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/tink-crypto/tink-go/v2/tink"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/rotator"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/logging"
	"github.com/quash-project/quash/shared/process"
	"github.com/quash-project/quash/shared/signing"
	"github.com/quash-project/quash/shared/tracing"
)

// Config is what the operator writes. What has no default is required.
type Config struct {
	// Issuer is the URL of the issuer whose tokens the keys sign.
	Issuer string `koanf:"issuer"`
	// Tenant is whose issuer that is. Empty: default.
	Tenant string `koanf:"tenant"`
	// IdentityFile holds the rotator's identity key, by which guards know what to
	// believe of signing keys.
	IdentityFile string `koanf:"identity_file"`
	// KEKFile holds the key-encryption key under which signing keys are sealed: the
	// same as the issuer's.
	KEKFile string `koanf:"kek_file"`
	// Alg of new keys: ES256 or EdDSA. Empty: ES256.
	Alg string `koanf:"alg"`
	// KeyLife is how long a key signs before it is rotated by itself. 0: 2160h
	// (90 days).
	KeyLife time.Duration `koanf:"key_life"`
	// TokenLife is the longest life of a token of the issuer. 0: 1h, the most.
	TokenLife time.Duration `koanf:"token_life"`
	// Lead is how long a key is published before it signs, for those who read the
	// JWKS URL. 0: 6m.
	Lead time.Duration `koanf:"lead"`
	// NoLead is for where nobody reads the JWKS URL: a key may sign as soon as
	// every guard has it.
	NoLead bool `koanf:"no_lead"`
	// Replicas of the buckets: 1 or 3. 0: 1.
	Replicas int `koanf:"replicas"`

	// The rest is for the process of its own; the all-in-one leaves it empty.

	NATS   NATS           `koanf:"nats"`
	Listen process.Listen `koanf:"listen"`
	Log    logging.Config `koanf:"log"`
	Trace  tracing.Config `koanf:"trace"`
}

// NATS is where the broker is.
type NATS struct {
	URL   string `koanf:"url"`
	Creds string `koanf:"creds"` // the credentials file of the user rotator
}

// Validate checks what a process of its own needs.
func (c *Config) Validate() error {
	errs := []error{c.check()}
	if c.KEKFile == "" {
		errs = append(errs, errors.New("kek_file is missing"))
	}
	if c.NATS.URL == "" || c.NATS.Creds == "" {
		errs = append(errs, errors.New("nats.url and nats.creds are needed"))
	}
	return errors.Join(append(errs, c.Listen.Validate(), c.Log.Validate(), c.Trace.Validate())...)
}

func (c *Config) check() error {
	var errs []error
	u, err := url.Parse(c.Issuer)
	if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !process.Loopback(u.Hostname())) {
		errs = append(errs, fmt.Errorf("issuer %.200q: want an https URL (or http on loopback)", c.Issuer))
	}
	if c.IdentityFile == "" {
		errs = append(errs, errors.New("identity_file is missing"))
	}
	if c.NoLead && c.Lead != 0 {
		errs = append(errs, errors.New("lead and no_lead: give one"))
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		errs = append(errs, fmt.Errorf("replicas %d: want 1, 3 or 5", c.Replicas))
	}
	return errors.Join(append(errs, c.policy().Validate())...)
}

func (c *Config) policy() rotator.Policy {
	p := rotator.Policy{Lead: c.Lead, KeyLife: c.KeyLife, TokenLife: c.TokenLife, Alg: c.Alg}
	if p.Lead == 0 && !c.NoLead {
		p.Lead = rotator.DefaultLead
	}
	if p.KeyLife == 0 {
		p.KeyLife = rotator.DefaultKeyLife
	}
	if p.TokenLife == 0 {
		p.TokenLife = wire.MaxTokenLife
	}
	if p.Alg == "" {
		p.Alg = signing.ES256
	}
	return p
}

// Deps is what main built.
type Deps struct {
	Log *zap.Logger
	// Traces follows requests; nil: nothing does.
	Traces trace.TracerProvider
	// Now and Rand are time.Now and crypto/rand.Reader where nil.
	Now  func() time.Time
	Rand io.Reader
	// NATS is the connection of the user rotator. It need not be up yet.
	NATS *nats.Conn
	// KEK seals the signing keys. nil: it is read from Config.KEKFile.
	KEK tink.AEAD
}
