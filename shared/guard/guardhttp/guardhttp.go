package guardhttp

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/quash-project/quash/shared/guard"
)

// Decider is what the middleware needs of a guard; *guard.Guard is one.
type Decider interface {
	Decide(ctx context.Context, token string, req guard.Requirement) guard.Decision
	Watch(ctx context.Context, c *guard.Claims) (context.Context, context.CancelFunc)
}

// Option changes what Require does by default.
type Option func(*options)

type options struct {
	realm  string
	watch  bool
	refuse func(http.ResponseWriter, *http.Request, guard.Decision)
}

// WithRealm sets the realm in WWW-Authenticate; none by default.
func WithRealm(realm string) Option { return func(o *options) { o.realm = realm } }

// WithWatch ends the request's context when its token is hit or expires, for
// handlers that stream or wait. context.Cause says why.
func WithWatch() Option { return func(o *options) { o.watch = true } }

// WithRefusal has refuse answer requests that are refused, instead of Write. It
// must answer: the request goes no further.
func WithRefusal(refuse func(http.ResponseWriter, *http.Request, guard.Decision)) Option {
	return func(o *options) { o.refuse = refuse }
}

type decisionKey struct{}

// Require returns middleware that lets a request through if its bearer token
// meets req, and answers itself otherwise, as RFC 6750 says.
func Require(g Decider, req guard.Requirement, opts ...Option) func(http.Handler) http.Handler {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if o.refuse == nil {
		o.refuse = func(w http.ResponseWriter, _ *http.Request, d guard.Decision) { Write(w, d, req, o.realm) }
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, d, ok := Bearer(r)
			if ok {
				d = g.Decide(r.Context(), token, req)
			}
			if !d.Allowed() {
				o.refuse(w, r, d)
				return
			}
			ctx := context.WithValue(r.Context(), decisionKey{}, &d)
			if o.watch {
				var cancel context.CancelFunc
				ctx, cancel = g.Watch(ctx, d.Token)
				defer cancel()
			}
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}

// TokenFrom returns what the request's token says, nil outside of Require.
func TokenFrom(ctx context.Context) *guard.Claims {
	return DecisionFrom(ctx).Token
}

// DecisionFrom returns the decision that let the request through: how stale the
// view was, and whether it was past its limit. Outside of Require it is the zero
// Decision, which denies.
func DecisionFrom(ctx context.Context) guard.Decision {
	if d, ok := ctx.Value(decisionKey{}).(*guard.Decision); ok {
		return *d
	}
	return guard.Decision{}
}

// Bearer returns the token of the request's Authorization header: only from
// there (RFC 6750 also knows form and query, where tokens get into logs). If ok
// is false, d says why not: no token at all, which is no error (section 3.1), or
// a request that can't be right.
func Bearer(r *http.Request) (token string, d guard.Decision, ok bool) {
	headers := r.Header.Values("Authorization")
	switch len(headers) {
	case 0:
		return "", none("no token was sent: bring one in the header Authorization, as Bearer TOKEN"), false
	case 1:
	default:
		return "", malformed("more than one header Authorization"), false
	}
	scheme, token, found := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", none("the header Authorization is not of the scheme Bearer"), false
	}
	token = strings.TrimLeft(token, " ")
	if !found || token == "" || strings.ContainsAny(token, " ,\t") {
		return "", malformed("the header Authorization is not Bearer and one token"), false
	}
	return token, guard.Decision{}, true
}

func none(reason string) guard.Decision {
	return guard.Decision{Outcome: guard.Deny, Status: http.StatusUnauthorized, Check: guard.CheckForm, Reason: reason}
}

func malformed(reason string) guard.Decision {
	return guard.Decision{
		Outcome: guard.Deny, Status: http.StatusBadRequest, Error: guard.ErrorInvalidRequest, Check: guard.CheckForm, Reason: reason,
	}
}

// problem is an RFC 9457 document.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Error  string `json:"error,omitempty"` // the code of RFC 6750
	Check  string `json:"check,omitempty"`
}

const typeBase = "https://quash.dev/problems/"

var titles = map[int][2]string{
	http.StatusBadRequest:         {"invalid-request", "The request is not valid"},
	http.StatusUnauthorized:       {"unauthorized", "Not signed in"},
	http.StatusForbidden:          {"forbidden", "Not allowed"},
	http.StatusServiceUnavailable: {"unavailable", "Not available now"},
}

// Write answers a request that d refuses: status, WWW-Authenticate, Retry-After
// and a problem document. The answer names the check that failed and nothing of
// the guard's insides.
func Write(w http.ResponseWriter, d guard.Decision, req guard.Requirement, realm string) {
	status := d.HTTPStatus()
	names, known := titles[status]
	if !known { // an Allow has nothing to answer here: its caller is wrong, and the request goes no further
		status = http.StatusServiceUnavailable
		names = titles[status]
	}
	doc := problem{Type: typeBase + names[0], Title: names[1], Status: status, Detail: d.Public(), Error: d.Error, Check: d.Check}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.Itoa(int(max(1, math.Ceil(d.RetryAfter.Seconds())))))
	} else {
		h.Set("WWW-Authenticate", Challenge(d, req, realm))
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(doc) // the caller has gone; nothing is left to do
}

// Challenge returns the value of WWW-Authenticate for a refusal (RFC 6750,
// section 3): without an error code where no token was sent.
func Challenge(d guard.Decision, req guard.Requirement, realm string) string {
	var b strings.Builder
	b.WriteString("Bearer")
	sep := " "
	add := func(name, value string) {
		if value != "" {
			b.WriteString(sep + name + `="` + clean(value) + `"`)
			sep = ", "
		}
	}
	add("realm", realm)
	add("error", d.Error)
	if d.Error != "" {
		add("error_description", d.Public())
	}
	if d.Error == guard.ErrorInsufficientScope || d.Error == "" {
		add("scope", strings.Join(req.Scopes, " "))
	}
	return b.String()
}

// clean leaves what RFC 6750 allows in a value, and quotes nothing: 0x20-7E
// without the quote and the backslash.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '\''
		}
		return r
	}, s)
}
