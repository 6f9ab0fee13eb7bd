package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// Caller is who asks, as their access token says.
type Caller struct {
	Subject string   // principal; for client credentials the client's id
	Client  string   // client_id
	Tenant  string   //
	Scopes  []string //
	TokenID string   // jti
	// Targets are the keys of everything whose revocation refuses the token.
	Targets []revoke.Key

	// watch returns a context that ends when the token is hit or expires; nil: nothing tells of that.
	watch func(context.Context) (context.Context, context.CancelFunc)
}

// Has reports whether the caller's token has the scope.
func (c Caller) Has(scope string) bool { return slices.Contains(c.Scopes, scope) }

// Actor names the caller in records and in the audit.
func (c Caller) Actor() string {
	if c.Client == "" || c.Client == c.Subject || strings.HasPrefix(c.Client, "key_") {
		return c.Subject
	}
	return c.Subject + " by " + c.Client
}

// Authorizer decides whether a token gives all of these scopes. Its errors are
// problems: Unauthorized, Forbidden, or Unavailable when it can't tell now.
type Authorizer interface {
	Authorize(ctx context.Context, token string, scopes []string) (Caller, error)
}

// The scopes of operations that need none. Public opens one to everybody. Authenticated
// opens one to whoever has a good token: what they may do, the operation decides.
const (
	Public        = "public"
	Authenticated = "authenticated"
)

type callerKey struct{}

// CallerOf returns who asks; the zero Caller in a public operation.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// WithCaller returns a context in which CallerOf returns c.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// Authorize takes the bearer token from the header Authorization and asks auth
// for a scope; "a|b" wants one of them.
func Authorize(ctx context.Context, auth Authorizer, header []string, scope string) (Caller, error) {
	token, err := bearer(header)
	if err != nil {
		return Caller{}, err
	}
	if scope == Authenticated {
		return auth.Authorize(ctx, token, nil)
	}
	var c Caller
	for _, one := range strings.Split(scope, "|") {
		c, err = auth.Authorize(ctx, token, []string{one})
		if err == nil || problem.KindOf(err) != problem.Forbidden {
			break
		}
	}
	return c, err
}

// bearer reads RFC 6750, section 2.1: one header, one token.
func bearer(header []string) (string, error) {
	if len(header) == 0 {
		return "", problem.New(problem.Unauthorized, "this needs an access token in the header Authorization: Bearer TOKEN")
	}
	if len(header) > 1 {
		return "", problem.FieldError("Authorization", "stands there twice")
	}
	scheme, token, ok := strings.Cut(header[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" || strings.ContainsAny(token, " ,") {
		return "", problem.New(problem.Unauthorized, "the header Authorization must be: Bearer TOKEN")
	}
	return token, nil
}

// challenge is the WWW-Authenticate header of RFC 6750, section 3.
func challenge(kind problem.Kind, sent bool, scope string) string {
	switch {
	case kind == problem.Unauthorized && !sent:
		return `Bearer realm="quash"`
	case kind == problem.Unauthorized:
		return `Bearer realm="quash", error="invalid_token"`
	case kind == problem.Forbidden && (scope == "" || scope == Authenticated): // the operation has decided: its text says what it takes
		return `Bearer realm="quash", error="insufficient_scope"`
	case kind == problem.Forbidden:
		return `Bearer realm="quash", error="insufficient_scope", scope="` + strings.ReplaceAll(scope, "|", " ") + `"`
	}
	return ""
}

// errorHeaders are what an answer with err has besides the document.
func errorHeaders(err error, sent bool, scope string) http.Header {
	h := http.Header{}
	e := problem.From(err)
	if s := e.RetryAfterSeconds(); s > 0 {
		h.Set("Retry-After", strconv.Itoa(s))
	}
	if c := challenge(e.Kind, sent, scope); c != "" {
		h.Set("WWW-Authenticate", c)
	}
	return h
}
