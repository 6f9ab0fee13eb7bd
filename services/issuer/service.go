package issuer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Reader follows the log; *follow.Reader is one.
type Reader interface {
	// Stamp is the position of the newest entry or epoch known, or of the last
	// sync if that is higher.
	Stamp() revoke.Stamp
	View() *revoke.View
	Position() wire.Position
	// Check says how stale the view is at most; an error says why nothing may be
	// decided from it.
	Check() (staleness time.Duration, err error)
	// Fresh returns once a tick that was asked for now has been applied.
	Fresh(ctx context.Context) error
	// WaitFor returns once the watermark has reached the stamp.
	WaitFor(ctx context.Context, s revoke.Stamp) error
}

// Signer signs with the key that signs for a tenant now.
type Signer interface {
	Sign(typ string, claims jwt.Claims) (string, error)
}

// Signers gives the Signer of a tenant; a problem.Error if there is none.
type Signers interface {
	Signer(ctx context.Context, tenant string) (Signer, error)
}

// Verified is a token of ours whose signature was proved.
type Verified struct {
	Token  Claims
	Active bool // a guard takes it
	// Unknown says that the signature is good and the view too old to say more.
	Unknown bool
}

// ErrNotOurs is the error of Verifier for what is no token of ours.
var ErrNotOurs = errors.New("issuer: not a token of ours")

// Verifier checks tokens as a guard does, whatever their audience.
type Verifier interface {
	Verify(ctx context.Context, token string) (Verified, error)
}

// Config is what the operator decides.
type Config struct {
	// Issuer is the URL in the claim iss.
	Issuer string
	// Tenant is whose issuer this is.
	Tenant string
	// Audience is the aud of tokens for which no resource was asked. Empty: Issuer.
	Audience string
	// TokenLife is the life of access tokens; 0: 10 minutes, an hour at most.
	TokenLife time.Duration
	// Limit is the greatest staleness of the view at which anything is issued; 0:
	// 15 s.
	Limit time.Duration
}

// The lives of credentials.
const (
	DefaultTokenLife = 10 * time.Minute
	DefaultKeyLife   = 90 * 24 * time.Hour
	MaxKeyLife       = wire.MaxCredentialLife
)

// Deps is what the service works with. All fields are required but Verifier,
// which introspection and revocation of tokens need.
type Deps struct {
	Store     *Store
	Reader    Reader
	Committer commit.Committer
	Signers   Signers
	Verifier  Verifier
	Log       *zap.Logger
	Now       func() time.Time
	Rand      io.Reader
}

// Service is the issuer of one tenant. Its methods are safe for concurrent use.
type Service struct {
	cfg    Config
	d      Deps
	runner *endings.Runner
	base   [2]revoke.Key // tenant and issuer: targets of everything
}

// New checks the configuration.
func New(cfg Config, d Deps) (*Service, error) {
	if cfg.TokenLife == 0 {
		cfg.TokenLife = DefaultTokenLife
	}
	if cfg.Limit == 0 {
		cfg.Limit = wire.DefaultLimit
	}
	if cfg.Audience == "" {
		cfg.Audience = cfg.Issuer
	}
	var errs []error
	if cfg.Issuer == "" {
		errs = append(errs, errors.New("issuer: the issuer URL is missing"))
	}
	if err := revoke.CheckName("tenant", cfg.Tenant); err != nil {
		errs = append(errs, err)
	}
	if cfg.TokenLife < time.Second || cfg.TokenLife > wire.MaxTokenLife {
		errs = append(errs, fmt.Errorf("token life %v: want 1s to %v", cfg.TokenLife, wire.MaxTokenLife))
	}
	if cfg.Limit < time.Second || cfg.Limit > wire.MaxLimit {
		errs = append(errs, fmt.Errorf("staleness limit %v: want 1s to %v", cfg.Limit, wire.MaxLimit))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Service{
		cfg: cfg, d: d,
		runner: &endings.Runner{Committer: d.Committer, Reader: d.Reader, Log: d.Log, Now: d.Now},
		base: [2]revoke.Key{
			target(cfg.Tenant, revoke.KindTenant, cfg.Tenant),
			target(cfg.Tenant, revoke.KindIssuer, revoke.Own),
		},
	}, nil
}

// Ready tells whether the service can issue.
func (s *Service) Ready() error {
	if _, err := s.d.Reader.Check(); err != nil {
		return fmt.Errorf("the log: %w", err)
	}
	return s.d.Store.Ready()
}

// Caller is who asks for a change, proved by a token.
type Caller struct {
	Actor  string   // who, for the audit
	Tenant string   // whose records
	Scopes []string // what the caller holds
}

func (s *Service) meta(c Caller, reason string) endings.Meta {
	return endings.Meta{Actor: c.Actor, Reason: reason, At: s.d.Now().UTC().Truncate(time.Millisecond)}
}
