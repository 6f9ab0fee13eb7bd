package guardhttp

import (
	"context"
	"net/http"

	"github.com/quash-project/quash/shared/guard"
)

// Decider is what the middleware needs of a guard; *guard.Guard is one.
type Decider interface {
	Decide(ctx context.Context, token string, req guard.Requirement) guard.Decision
	Watch(ctx context.Context, c *guard.Claims) (context.Context, context.CancelFunc)
}

type claimsKey struct{}

// Require returns middleware that lets a request through if its bearer token
// meets req, and answers itself otherwise, as RFC 6750 says.
func Require(g Decider, req guard.Requirement, opts ...Option) func(http.Handler) http.Handler {
	return nil
}

// Option changes what Require does by default.
type Option func(*options)

type options struct {
	realm string
	watch bool
}

// WithRealm sets the realm in WWW-Authenticate.
func WithRealm(realm string) Option { return func(o *options) { o.realm = realm } }

// WithWatch ends the request's context when its token is hit or expires.
func WithWatch() Option { return func(o *options) { o.watch = true } }

// TokenFrom returns what the request's token says, nil outside of Require.
func TokenFrom(ctx context.Context) *guard.Claims {
	c, _ := ctx.Value(claimsKey{}).(*guard.Claims)
	return c
}

// Bearer returns the token of the request's Authorization header: only from
// there (RFC 6750 also knows form and query, where tokens get into logs). A
// request that can't be right gets a Decision that says so, and ok is false.
func Bearer(r *http.Request) (token string, d guard.Decision, ok bool) {
	return "", guard.Decision{}, false
}

// Write answers a request that d refuses: status, WWW-Authenticate, Retry-After
// and a problem document. It is for those who do not use Require.
func Write(w http.ResponseWriter, d guard.Decision, req guard.Requirement, realm string) {}
