package httpapi

import (
	"context"
	"errors"
	"strings"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/problem"
)

// ByGuard authorizes by a guard: our own APIs are guarded as any other.
func ByGuard(g *guard.Guard) Authorizer { return byGuard{g} }

type byGuard struct{ g *guard.Guard }

func (b byGuard) Authorize(ctx context.Context, token string, scopes []string) (Caller, error) {
	d := b.g.Decide(ctx, token, guard.Requirement{Scopes: scopes})
	switch {
	case d.Allowed():
		return Caller{
			Subject: d.Token.Subject, Client: d.Token.ClientID, Tenant: d.Token.Tenant,
			Scopes: d.Token.Scopes, TokenID: d.Token.ID,
		}, nil
	case d.Outcome == guard.Unavailable:
		e := problem.Wrap(problem.Unavailable, errors.New(d.Reason), "%s", d.Public())
		e.RetryAfter = d.RetryAfter
		return Caller{}, e
	case d.Error == guard.ErrorInsufficientScope:
		return Caller{}, problem.New(problem.Forbidden, "the token lacks the scope %s", strings.Join(scopes, " "))
	}
	return Caller{}, problem.Wrap(problem.Unauthorized, errors.New(d.Reason), "the access token is not good: %s", d.Public())
}
