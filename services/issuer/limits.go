package issuer

import (
	"context"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/quash-project/quash/shared/problem"
)

// Present returns nil if the tenant is there, and a NotFound otherwise. That of the
// installation always is.
func (s *Service) Present(ctx context.Context) error {
	if s.isHome() {
		return nil
	}
	if checkTenantName(s.cfg.Tenant) != nil {
		return problem.New(problem.NotFound, "there is no such tenant")
	}
	t, err := s.d.Store.Tenants.Get(ctx, s.cfg.Tenant)
	if err == nil && t.Mark != nil || err != nil && problem.KindOf(err) == problem.NotFound {
		return problem.New(problem.NotFound, "there is no tenant %q", s.cfg.Tenant)
	}
	return err
}

// limits returns those of the tenant, as far as they have been heard of here.
func (s *Service) limits(ctx context.Context) (Limits, error) {
	t, err := s.d.Store.Tenants.Get(ctx, s.cfg.Tenant)
	if err != nil && problem.KindOf(err) == problem.NotFound {
		return Limits{}, nil // an installation without an operator's key has no record
	}
	return t.Limits, err
}

// roomFor tells whether the tenant may have another record of a kind, of which it has so
// many. Several made at once may go a little above it.
func roomFor(what string, have, limit int) error {
	if limit == 0 || have < limit {
		return nil
	}
	e := problem.New(problem.RateLimited, "the tenant has %d %s, and its limit is %d: delete some, or have the limit raised", have, what, limit)
	e.RetryAfter = time.Minute
	return e
}

func (s *Service) roomForKey(ctx context.Context) error {
	l, err := s.limits(ctx)
	if err != nil {
		return err
	}
	return roomFor("API keys and client secrets", s.d.Store.Keys.Size(TenantGroup(s.cfg.Tenant)), l.Keys)
}

// roomForSuccessor lets every key have one beside itself: a tenant at its limit can rotate.
func (s *Service) roomForSuccessor(ctx context.Context) error {
	l, err := s.limits(ctx)
	if err != nil {
		return err
	}
	return roomFor("API keys and client secrets, those that are rotated included", s.d.Store.Keys.Size(TenantGroup(s.cfg.Tenant)), 2*l.Keys)
}

func (s *Service) roomForClient(ctx context.Context) error {
	l, err := s.limits(ctx)
	if err != nil {
		return err
	}
	return roomFor("clients", s.d.Store.Clients.Size(TenantGroup(s.cfg.Tenant)), l.Clients)
}

// rates are the limiters of tenants that have such a limit.
type rates struct {
	mu sync.Mutex
	of map[string]*rate.Limiter
}

func newRates() *rates { return &rates{of: map[string]*rate.Limiter{}} }

// admit tells whether another token may be given to the tenant now. A burst is what a
// second allows.
func (s *Service) admit(ctx context.Context) error {
	l, err := s.limits(ctx)
	if err != nil {
		return err
	}
	if l.TokensPerSecond == 0 {
		return nil
	}
	now := s.d.Now()
	r := s.rates.limiter(s.cfg.Tenant, rate.Limit(l.TokensPerSecond), now)
	if r.AllowN(now, 1) {
		return nil
	}
	e := problem.New(problem.RateLimited, "the tenant gets at most %g tokens a second here: keep a token for as long as it lives", l.TokensPerSecond)
	e.RetryAfter = max(time.Second, time.Duration(float64(time.Second)/l.TokensPerSecond))
	return e
}

func (r *rates) limiter(tenant string, limit rate.Limit, now time.Time) *rate.Limiter {
	burst := max(1, int(math.Ceil(float64(limit))))
	r.mu.Lock()
	defer r.mu.Unlock()
	have := r.of[tenant]
	if have == nil {
		have = rate.NewLimiter(limit, burst)
		r.of[tenant] = have
	}
	if have.Limit() != limit {
		have.SetLimitAt(now, limit)
		have.SetBurstAt(now, burst)
	}
	return have
}
