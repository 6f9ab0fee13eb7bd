package issuer

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/quash-project/quash/shared/problem"
)

// budgets are token buckets in this replica's memory: one that restarts begins with full
// ones, and each of several replicas has its own.
type budgets struct {
	mu sync.Mutex
	of map[string]*rate.Limiter
}

// maxBudgets is how many buckets there are at most.
const maxBudgets = 100_000

func newBudgets() *budgets { return &budgets{of: map[string]*rate.Limiter{}} }

// take takes one of perMinute, all of which may be taken at once. If there is none left
// it says for how long one has to wait. What was taken can be given back at that moment.
func (r *budgets) take(name string, perMinute int, now time.Time) (taken *rate.Reservation, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.of[name]
	if l == nil {
		r.makeRoom(now)
		l = rate.NewLimiter(rate.Limit(float64(perMinute)/60), perMinute)
		r.of[name] = l
	}
	taken = l.ReserveN(now, 1)
	wait = taken.DelayFrom(now)
	if wait > 0 {
		taken.CancelAt(now)
	}
	return taken, wait
}

// makeRoom forgets buckets that are full: a new one is the same. If there is none, it
// forgets any one.
func (r *budgets) makeRoom(now time.Time) {
	if len(r.of) < maxBudgets {
		return
	}
	for name, l := range r.of {
		if l.TokensAt(now) >= float64(l.Burst()) {
			delete(r.of, name)
		}
	}
	for name := range r.of {
		if len(r.of) < maxBudgets {
			return
		}
		delete(r.of, name)
	}
}

func tooMany(what string, wait time.Duration) error {
	err := problem.New(problem.RateLimited, "%s; wait for Retry-After", what)
	err.RetryAfter = wait
	return err
}

// admitKey takes an exchange from the rate limit of a key, and from what the tenant may have:
// from both or from none.
func (s *Service) admitKey(ctx context.Context, k *Key, now time.Time) error {
	if k.RateLimit == 0 {
		return s.admit(ctx)
	}
	taken, wait := s.byKey.take(RecordKey(k.Tenant, k.ID), k.RateLimit, now)
	if wait > 0 {
		s.counts.limited.Add(1)
		return tooMany("the key's rate limit is reached", wait)
	}
	err := s.admit(ctx)
	if err != nil {
		taken.CancelAt(now)
	}
	return err
}
