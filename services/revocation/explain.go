package revocation

import (
	"context"
	"strings"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// maxNamed bounds how many events are read for one explanation.
const maxNamed = 16

// Explain says what a guard would decide, and why. A token carries some of its
// targets as keys only (the claim via): those that hit get their names from the
// events that say so, where the log still has them.
func (s *Service) Explain(ctx context.Context, who Caller, token string, req guard.Requirement) guard.Explanation {
	e := s.Guard.Explain(ctx, token, req)
	if e.Claims != nil && e.Claims.Tenant != who.Tenant && who.Tenant != s.Home {
		return s.notTheirs(ctx, req)
	}
	named := 0
	for i := range e.Targets {
		t := &e.Targets[i]
		if !t.Hit || t.Kind != revoke.KindInvalid || named == maxNamed {
			continue
		}
		named++
		name, ok := s.nameOf(ctx, who.Tenant, *t)
		if !ok {
			continue
		}
		bare := t.Target.String()
		t.Kind, t.ID = name.Kind, name.ID
		if e.Target.Key == t.Key {
			e.Target = t.Target
		}
		e.Reason = strings.ReplaceAll(e.Reason, bare, t.Target.String())
		for j := range e.Checks {
			e.Checks[j].Detail = strings.ReplaceAll(e.Checks[j].Detail, bare, t.Target.String())
		}
	}
	return e
}

// notTheirs is what is said of a token of another tenant, good or made up: the same as of a
// text that is no token. What is known of its targets is that tenant's own.
func (s *Service) notTheirs(ctx context.Context, req guard.Requirement) guard.Explanation {
	return s.Guard.Explain(ctx, "", req)
}

// nameOf looks for the target in the event that made it hit.
func (s *Service) nameOf(ctx context.Context, tenant string, t guard.TargetResult) (revoke.Target, bool) {
	ev, err := s.Ledger.EventOf(ctx, t.Since)
	if err != nil || ev.Data.Tenant != tenant {
		return revoke.Target{}, false
	}
	for _, x := range ev.Data.Targets {
		name := revoke.Target{Tenant: tenant, Issuer: x.Issuer, Kind: x.Kind, ID: x.ID}
		if name.Key() == t.Key {
			return name, true
		}
	}
	return revoke.Target{}, false
}
