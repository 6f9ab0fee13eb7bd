package issuer

import (
	"context"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// DisableKey holds an API key or client secret: it and every token that came from it
// is refused until EnableKey. The record stays as it is, so that nothing but the log
// says so; and so a condition is judged by what this replica knows, just before. The last one that rules
// the tenant is not held here; to cut off even that one, hold it as a target.
func (s *Service) DisableKey(ctx context.Context, c Caller, id, reason string, only ...If[Key]) (Ended, error) {
	return s.holdKey(ctx, c, id, commit.Hold, reason, only)
}

// EnableKey releases a key that DisableKey holds, or the policy for leaked ones. What else
// hits it (a hold on its owner, a revocation) stays; where somebody else holds the key itself
// too, before or since, that is problem.Conflict, and it is theirs to release.
func (s *Service) EnableKey(ctx context.Context, c Caller, id, reason string, only ...If[Key]) (Ended, error) {
	return s.holdKey(ctx, c, id, commit.Release, reason, only)
}

func (s *Service) holdKey(ctx context.Context, c Caller, id string, op commit.Op, reason string, only []If[Key]) (Ended, error) {
	k, err := s.Key(ctx, c, id)
	if err != nil {
		return Ended{}, err
	}
	if k.Mark != nil {
		return Ended{}, problem.New(problem.Conflict, "the key is ending")
	}
	if err := check(k, only); err != nil {
		return Ended{}, err
	}
	if op == commit.Release {
		// Who can enable it gives it all that it can do.
		if err := s.mayGiveKey(ctx, c, &k); err != nil {
			return Ended{}, err
		}
		if _, err := s.givesKey(ctx, c, "id", &k, k.Expires); err != nil {
			return Ended{}, err
		}
	}
	request, err := s.newID(c)
	if err != nil {
		return Ended{}, err
	}
	commitIt := func(ctx context.Context) (Ended, error) {
		return s.commitOne(ctx, request, commit.Request{
			Tenant: c.Tenant, Op: op, Actor: c.Actor, RequestID: c.Request, Reason: reason, Targets: []commit.Target{{Kind: revoke.KindKey, ID: k.ID}},
			Own: op == commit.Release,
		})
	}
	if op == commit.Release {
		return commitIt(ctx)
	}
	// Who holds the last key that rules may not be able to release it.
	if err := s.d.Store.Bindings.Fresh(ctx); err != nil {
		return Ended{}, err
	}
	if s.mayRule(&k) {
		return s.endingRuler(ctx, c, leaving{key: k.ID}, commitIt)
	}
	return commitIt(ctx)
}

// commitOne commits what changes no record, under an idempotency key.
func (s *Service) commitOne(ctx context.Context, key string, r commit.Request) (Ended, error) {
	r.Key = key
	a, err := s.d.Committer.Commit(ctx, r)
	if err == nil {
		s.see(ctx, a)
	}
	return Ended{Target: revoke.Target{Kind: r.Targets[0].Kind, ID: r.Targets[0].ID}.String(), Answer: a}, err
}
