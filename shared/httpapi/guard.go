package httpapi

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// ByGuard authorizes by a guard: our own APIs are guarded as any other. Scopes about the
// installation count in tokens of the home tenant alone.
func ByGuard(g *guard.Guard, home string) Authorizer { return byGuard{g, home} }

type byGuard struct {
	g    *guard.Guard
	home string
}

func (b byGuard) Authorize(ctx context.Context, token string, scopes []string) (Caller, error) {
	d := b.g.Decide(ctx, token, guard.Requirement{Scopes: scopes})
	switch {
	case d.Allowed():
		c := Caller{
			Subject: d.Token.Subject, Client: d.Token.ClientID, Tenant: d.Token.Tenant,
			Scopes: d.Token.Scopes, TokenID: d.Token.ID, Targets: d.Token.TargetKeys(),
			watch: func(ctx context.Context) (context.Context, context.CancelFunc) { return b.g.Watch(ctx, d.Token) },
		}
		if c.Tenant == b.home {
			return c, nil
		}
		if i := slices.IndexFunc(scopes, rights.OfInstallation); i >= 0 {
			return Caller{}, problem.New(problem.Forbidden, "only the operators of the tenant %q can do this: the scope %s of a token of the tenant %q does not count", b.home, scopes[i], c.Tenant)
		}
		c.Scopes = slices.DeleteFunc(slices.Clone(c.Scopes), rights.OfInstallation)
		return c, nil
	case d.Outcome == guard.Unavailable:
		e := problem.Wrap(problem.Unavailable, errors.New(d.Reason), "%s", d.Public())
		e.RetryAfter = d.RetryAfter
		return Caller{}, e
	case d.Error == guard.ErrorInsufficientScope:
		return Caller{}, problem.New(problem.Forbidden, "the token lacks the scope %s", strings.Join(scopes, " "))
	}
	return Caller{}, problem.Wrap(problem.Unauthorized, errors.New(d.Reason), "the access token is not good: %s", d.Public())
}
