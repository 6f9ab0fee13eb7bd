package issuer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
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
	// Gone returns nil once there are no signing keys of a tenant any more.
	Gone(ctx context.Context, tenant string) error
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
	// Keys is what holds for all API keys and client secrets.
	Keys KeyPolicy
}

// The lives of credentials.
const (
	DefaultTokenLife = 10 * time.Minute
	DefaultKeyLife   = 90 * 24 * time.Hour
	MaxKeyLife       = wire.MaxCredentialLife
)

// Deps is what the service works with. All fields are required but Expiring,
// Rotated, Due and Verifier, which introspection and revocation of tokens need.
type Deps struct {
	Store     *Store
	Reader    Reader
	Committer commit.Committer
	Signers   Signers
	Verifier  Verifier
	// Expiring tells others of keys that come to their end; nil: nobody is told but the
	// log and the record.
	Expiring func(context.Context, KeyExpiring) error
	// Attempted counts a key or secret that was refused because of a target, if that hits
	// what has this stamp, and says whether it does; nil: nobody counts.
	Attempted func(target revoke.Key, stamp revoke.Stamp, from netip.Addr) bool
	// Rotated tells others of keys that others take the place of; nil as with Expiring.
	Rotated func(context.Context, KeyRotated) error
	// Due tells others of keys that should be rotated and have no recipient; nil as with Expiring.
	Due func(context.Context, KeyDue) error
	// Requests are those that are remembered by their idempotency key; nil: none are.
	Requests Requests
	Log      *zap.Logger
	Now      func() time.Time
	Rand     io.Reader
}

// Requests is where requests of a tenant's callers are remembered for a day. It is safe for
// concurrent use.
type Requests interface {
	// Stored returns their names.
	Stored(ctx context.Context, tenant string) ([]string, error)
	Forget(ctx context.Context, name string) error
}

// Service is the issuer of one tenant. Its methods are safe for concurrent use.
type Service struct {
	cfg    Config
	d      Deps
	runner *endings.Runner
	base   [2]revoke.Key // tenant and issuer: targets of everything
	home   *Service      // that of the installation itself; see In
	// Of all tenants, as what follows:
	rates     *rates
	byKey     *budgets // of keys with a rate limit
	byNetwork *budgets // of who says that keys have leaked
	uses      *uses
	counts    *counts
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
	errs = append(errs, cfg.Keys.complete())
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg, d: d, base: baseOf(cfg.Tenant), rates: newRates(), byKey: newBudgets(), byNetwork: newBudgets(), uses: newUses(), counts: &counts{},
		runner: &endings.Runner{Committer: d.Committer, Reader: d.Reader, Log: d.Log, Now: d.Now},
	}
	s.home = s
	return s, nil
}

func baseOf(tenant string) [2]revoke.Key {
	return [2]revoke.Key{target(tenant, revoke.KindTenant, tenant), target(tenant, revoke.KindIssuer, revoke.Own)}
}

// In returns the issuer of a tenant of the same installation. Whether there is one shows
// when something is asked of it.
func (s *Service) In(tenant string) *Service {
	home := s.home
	if tenant == home.cfg.Tenant {
		return home
	}
	in := *home
	in.cfg.Tenant, in.cfg.Issuer, in.base = tenant, wire.TenantIssuer(home.cfg.Issuer, tenant), baseOf(tenant)
	return &in
}

// isHome reports whether it is the issuer of the installation's own tenant.
func (s *Service) isHome() bool { return s.cfg.Tenant == s.home.cfg.Tenant }

// Issuer returns the claim iss of its tokens.
func (s *Service) Issuer() string { return s.cfg.Issuer }

// Tenant returns whose issuer it is.
func (s *Service) Tenant() string { return s.cfg.Tenant }

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
	Client string   // client_id of the caller's token
	// Targets are the keys of everything whose revocation refuses the caller's token; of
	// Quash itself there are none.
	Targets []revoke.Key
	Request string // the id of the request, for the audit
	Try     Try    // nil: the request will not be repeated
}

func (s *Service) meta(c Caller, reason string) endings.Meta {
	return endings.Meta{Actor: c.Actor, Reason: reason, At: s.d.Now().UTC().Truncate(time.Millisecond), Request: c.Request}
}
