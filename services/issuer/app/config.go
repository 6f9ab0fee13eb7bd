// Package app wires the issuer: the domain to its buckets, the log, the signing
// keys and the ways in. Mains, the all-in-one process and tests use it alike.
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

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/guard/peer"
	"github.com/quash-project/quash/shared/logging"
	"github.com/quash-project/quash/shared/process"
	"github.com/quash-project/quash/shared/tracing"
)

// Config is what the operator writes. What has no default is required.
type Config struct {
	// URL is the issuer: the claim iss, and the base of the endpoints. It can't be
	// changed later: it stands in every token, and guards know it.
	URL string `koanf:"url"`
	// Tenant is whose issuer this is. Empty: default.
	Tenant string `koanf:"tenant"`
	// Audience is the aud of tokens for which no resource was asked. Empty: URL.
	// Tokens for our own APIs need URL in their aud.
	Audience string `koanf:"audience"`
	// TokenLife is the life of access tokens. 0: 10m; 1h at most.
	TokenLife time.Duration `koanf:"token_life"`
	// Limit is the greatest staleness of the view at which anything is issued or
	// decided. 0: 15s; 60s at most.
	Limit time.Duration `koanf:"limit"`
	// KeyLife is that of API keys and client secrets for which none was asked: 0: 90 days,
	// or MaxKeyLife if that is less. MaxKeyLife is the most that may be asked for; 0: 400
	// days, which is the most that it can be.
	KeyLife    time.Duration `koanf:"key_life"`
	MaxKeyLife time.Duration `koanf:"max_key_life"`
	// ExpiryWarnings are how long before a key's end others are told of it. nil: 14 days
	// and 1 day; empty: never.
	ExpiryWarnings []time.Duration `koanf:"expiry_warnings"`
	// KeyOverlap is how long a key that is rotated stays good beside the new one if nothing
	// else is asked. 0: 24h.
	KeyOverlap time.Duration `koanf:"key_overlap"`
	// SelfRotation is whether whoever has a key can rotate it: allow or refuse. Empty: allow.
	SelfRotation string `koanf:"self_rotation"`
	// LeakedKeys is what becomes of a key that somebody shows who should not have it:
	// report or hold. Empty: report.
	LeakedKeys string `koanf:"leaked_keys"`
	// TrustedProxies are the networks of those whose X-Forwarded-For or Forwarded says
	// for whom they ask. Empty: the connection alone says who that is.
	TrustedProxies []string `koanf:"trusted_proxies"`
	// Trust are the rotator's identity keys, as ed25519:BASE64URL.
	Trust []string `koanf:"trust"`
	// KEKFile holds the key-encryption key under which signing keys are sealed: the
	// same as the rotator's.
	KEKFile string `koanf:"kek_file"`
	// RevocationURLs and RotationURLs are named in the metadata. Empty: URL with
	// /v1/revocations and /v1/rotations.
	RevocationURLs []string `koanf:"revocation_urls"`
	RotationURLs   []string `koanf:"rotation_urls"`
	// OperatorKeyFile is where an empty installation writes its first operator's
	// API key, once, with mode 0600. Empty: nowhere, and no such key is made.
	OperatorKeyFile string `koanf:"operator_key_file"`
	// Canary is how often a token is issued and cut to measure how fast that takes
	// effect. 0: never; 1s at least.
	Canary time.Duration `koanf:"canary"`
	// Replicas of the buckets: 1 or 3. 0: 1.
	Replicas int `koanf:"replicas"`

	// The rest is for the process of its own; the all-in-one leaves it empty.

	NATS   NATS           `koanf:"nats"`
	Listen process.Listen `koanf:"listen"`
	Log    logging.Config `koanf:"log"`
	Trace  tracing.Config `koanf:"trace"`
}

// What LeakedKeys can be.
const (
	leakReport = "report"
	leakHold   = "hold"
)

// What SelfRotation can be.
const (
	selfAllow  = "allow"
	selfRefuse = "refuse"
)

func (c *Config) keyPolicy() issuer.KeyPolicy {
	return issuer.KeyPolicy{
		Life: c.KeyLife, MaxLife: c.MaxKeyLife, Warnings: c.ExpiryWarnings, HoldLeaked: c.LeakedKeys == leakHold,
		Overlap: c.KeyOverlap, NoSelfRotation: c.SelfRotation == selfRefuse,
	}
}

// NATS is where the broker is.
type NATS struct {
	URL   string `koanf:"url"`
	Creds string `koanf:"creds"` // the credentials file of the user issuer
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
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !process.Loopback(u.Hostname())) || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		errs = append(errs, fmt.Errorf("url %.200q: want an https URL (or http on loopback) without query and fragment", c.URL))
	}
	if len(c.Trust) == 0 {
		errs = append(errs, errors.New("trust: name the rotator's identity key as ed25519:BASE64URL"))
	}
	if c.LeakedKeys != "" && c.LeakedKeys != leakReport && c.LeakedKeys != leakHold {
		errs = append(errs, fmt.Errorf("leaked_keys %.80q: want %s or %s", c.LeakedKeys, leakReport, leakHold))
	}
	if c.SelfRotation != "" && c.SelfRotation != selfAllow && c.SelfRotation != selfRefuse {
		errs = append(errs, fmt.Errorf("self_rotation %.80q: want %s or %s", c.SelfRotation, selfAllow, selfRefuse))
	}
	if _, err := peer.ParseProxies(c.TrustedProxies); err != nil {
		errs = append(errs, fmt.Errorf("trusted_proxies: %w", err))
	}
	if err := c.keyPolicy().Check(); err != nil {
		errs = append(errs, fmt.Errorf("key_life, max_key_life, expiry_warnings, key_overlap: %w", err))
	}
	if c.Canary != 0 && c.Canary < time.Second {
		errs = append(errs, fmt.Errorf("canary %v: want 1s or more, or 0 for none", c.Canary))
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		errs = append(errs, fmt.Errorf("replicas %d: want 1, 3 or 5", c.Replicas))
	}
	return errors.Join(errs...)
}

// Deps is what main built.
type Deps struct {
	Log *zap.Logger
	// Traces follows requests; nil: nothing does.
	Traces trace.TracerProvider
	// Now and Rand are time.Now and crypto/rand.Reader where nil.
	Now  func() time.Time
	Rand io.Reader
	// NATS is the connection of the user issuer. It need not be up yet.
	NATS *nats.Conn
	// KEK opens the signing keys. nil: it is read from Config.KEKFile.
	KEK tink.AEAD
}
