package guardhttp

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/keyform"
)

// Decider is what the middleware needs of a guard; *guard.Guard is one.
type Decider interface {
	Decide(ctx context.Context, token string, req guard.Requirement) guard.Decision
	Watch(ctx context.Context, c *guard.Claims) (context.Context, context.CancelFunc)
	KeyInURL(secret string)
	ImportedInURL(u *url.URL, req guard.Requirement, bare bool) bool
}

// Option changes what Require does by default.
type Option func(*options)

type options struct {
	realm  string
	watch  bool
	keys   []string // headers
	refuse func(http.ResponseWriter, *http.Request, guard.Decision)
	from   func(guard.Values) netip.Addr
}

// WithRealm sets the realm in WWW-Authenticate; none by default.
func WithRealm(realm string) Option { return func(o *options) { o.realm = realm } }

// WithWatch ends the request's context when its token is hit or expires, for
// handlers that stream or wait. context.Cause says why.
func WithWatch() Option { return func(o *options) { o.watch = true } }

// WithKeyHeader takes an API key from these headers too, such as X-API-Key, for a
// guard that takes keys (guard.WithExchange). The header Authorization, as Bearer KEY,
// needs no option. A request that brings more than one credential is refused.
func WithKeyHeader(names ...string) Option {
	return func(o *options) {
		for _, name := range names {
			if !strings.EqualFold(name, "Authorization") { // is taken anyway
				o.keys = append(o.keys, name)
			}
		}
	}
}

// WithCaller tells from which address a request came, where that is not its RemoteAddr:
// behind proxies, whose word on it is to be believed and nobody else's, as in
//
//	proxies, err := peer.ParseProxies([]string{"10.0.0.0/28"})
//	...
//	guardhttp.WithCaller(proxies.Caller)
//
// It is asked of requests with a token or key that was revoked or is held, which are
// counted by it, and of those with an API key that may be used from some networks alone,
// which is judged by it (guard.Exchange).
func WithCaller(of func(*http.Request) netip.Addr) Option {
	return func(o *options) {
		o.from = func(v guard.Values) netip.Addr {
			if r, ok := v.(*http.Request); ok {
				return of(r)
			}
			return netip.Addr{}
		}
	}
}

// WithRefusal has refuse answer requests that are refused, instead of Write. It
// must answer: the request goes no further.
func WithRefusal(refuse func(http.ResponseWriter, *http.Request, guard.Decision)) Option {
	return func(o *options) { o.refuse = refuse }
}

type decisionKey struct{}

// Require returns middleware that lets a request through if its bearer token
// meets req, and answers itself otherwise, as RFC 6750 says. Where req asks for
// guard.Path, it must be part of the handler of a route, behind the mux.
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
			d, ok := o.inURL(g, req, r)
			if ok {
				var token string
				if token, d, ok = o.credential(r); ok {
					asked := req
					asked.Request = r
					if o.from != nil {
						asked.From = o.from
					}
					d = g.Decide(r.Context(), token, asked)
				}
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

// inURL refuses a request with a secret in its URL, whatever else it brings: who
// reads the logs has that secret (RFC 6750, section 5.3).
func (o *options) inURL(g Decider, req guard.Requirement, r *http.Request) (d guard.Decision, ok bool) {
	secrets := keyform.FindInURL(r.URL)
	for _, s := range secrets {
		g.KeyInURL(s)
	}
	if len(secrets) > 0 || g.ImportedInURL(r.URL, req, o.bare(r)) {
		return malformed("a secret of Quash's stands in the URL, where it gets into logs: take it for leaked, replace it, and send the new one in a header"), false
	}
	// RFC 6750, section 2: "Clients MUST NOT use more than one method to transmit the
	// token in each request". Alone it is no token at all: see Bearer.
	if strings.Contains(r.URL.RawQuery, "access_token=") && len(r.Header.Values("Authorization")) > 0 && r.URL.Query().Has("access_token") {
		return malformed("a token stands in the URL, where it gets into logs, beside the header Authorization"), false
	}
	return guard.Decision{}, true
}

// bare reports whether a request brings no credential.
func (o *options) bare(r *http.Request) bool {
	return len(r.Header.Values("Authorization")) == 0 && !slices.ContainsFunc(o.keys, func(name string) bool { return len(r.Header.Values(name)) > 0 })
}

// credential returns the token or API key of a request.
func (o *options) credential(r *http.Request) (text string, d guard.Decision, ok bool) {
	var in string
	for _, name := range o.keys {
		for _, value := range r.Header.Values(name) {
			switch {
			case in != "" || len(r.Header.Values("Authorization")) > 0:
				return "", malformed("more than one credential: send the API key in one header, once"), false
			case value == "" || strings.ContainsAny(value, " ,\t"):
				return "", malformed("the header " + name + " is not one API key"), false
			case strings.HasPrefix(value, "eyJ"): // {" in base64url: a JWT
				return "", malformed("the header " + name + " is for API keys: bring a token in the header Authorization"), false
			}
			in, text = name, value
		}
	}
	if in != "" {
		return text, guard.Decision{}, true
	}
	return Bearer(r)
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
	if d.Check == guard.CheckScope || d.Error == "" {
		add("scope", strings.Join(scopes(req), " "))
	}
	return b.String()
}

// scopes are those of the first way to meet a requirement that wants any: the
// attribute scope has room for one way.
func scopes(req guard.Requirement) []string {
	for _, a := range req.Alternatives() {
		if len(a.Scopes) > 0 {
			return a.Scopes
		}
	}
	return nil
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
