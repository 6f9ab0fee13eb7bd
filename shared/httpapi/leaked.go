package httpapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/guard/keyform"
	"github.com/quash-project/quash/shared/problem"
)

// Leaks deals with secrets that stand in a request's URL.
type Leaks struct {
	// Told is told of them. Where says so without them.
	Told func(r *http.Request, where string, secrets []string)
	// Known reports whether a text is a secret, where its form does not tell: one that was
	// imported from another system. nil: none is.
	Known func(text string) bool
	// Suspected is told, once it was answered, of a refused request in whose URL no secret was
	// found, and what there could be one: of an imported one nothing else may tell. nil:
	// nobody is.
	Suspected func(r *http.Request, where string, texts []string)
}

const (
	shortest = 8       // bytes of what can be a secret
	longest  = 4 << 10 // and at most
	most     = 32      // parts of a URL that are looked at
)

// inURL returns the secrets in a URL.
func inURL(u *url.URL, leaks []Leaks) []string {
	found := keyform.FindInURL(u)
	for _, l := range leaks {
		if len(found) > 0 || l.Known == nil {
			continue
		}
		for _, part := range parts(u) {
			if l.Known(part) {
				return []string{part}
			}
		}
	}
	return found
}

// parts returns what a URL can have a whole secret in: the parts of its path, and the
// values of its query or what stands there without a name.
func parts(u *url.URL) (out []string) {
	take := func(text string) {
		if len(text) >= shortest && len(text) <= longest && len(out) < most {
			out = append(out, text)
		}
	}
	for pair := range strings.FieldsFuncSeq(u.RawQuery, func(r rune) bool { return r == '&' || r == ';' }) {
		name, value, named := strings.Cut(pair, "=")
		if !named {
			value = name
		}
		take(value)
		if plain, err := url.QueryUnescape(value); err == nil && plain != value {
			take(plain)
		}
	}
	for part := range strings.SplitSeq(u.EscapedPath(), "/") {
		if plain, err := url.PathUnescape(part); err == nil {
			take(plain)
		}
	}
	return out
}

// suspect tells of what may be a secret in the URL of a request that was refused.
func suspect(r *http.Request, status int, pattern string, leaks []Leaks) {
	if status < 400 || status >= 500 {
		return
	}
	for _, l := range leaks {
		if l.Suspected == nil {
			continue
		}
		if texts := parts(r.URL); len(texts) > 0 {
			l.Suspected(r, whereIn(r, pattern), texts)
		}
	}
}

// whereIn says where a secret stood, without what stood there.
func whereIn(r *http.Request, pattern string) string {
	return strings.TrimSpace("in the URL of a request to Quash: " + methodOf(r) + " " + routeOf(pattern))
}

func routeOf(pattern string) string {
	if _, route, found := strings.Cut(pattern, " "); found {
		return route
	}
	return pattern
}

// refuseURL answers a request with a secret in its URL. RFC 6750, 5.3: "Bearer tokens
// SHOULD NOT be passed in page URLs": servers, proxies and browsers keep those, so that
// it counts as leaked, whatever becomes of the request.
func refuseURL(w http.ResponseWriter, r *http.Request, pattern, id string, secrets []string, leaks []Leaks) error {
	for _, l := range leaks {
		l.Told(r, whereIn(r, pattern), secrets)
	}
	err := problem.New(problem.Invalid, "an API key or client secret stands in the URL, which is kept in logs and histories: it counts as leaked. Make another one, revoke this one, and send keys in the body of POST /oauth/token alone")
	err.Field = parameterOf(r.URL, secrets)
	if !strings.Contains(routeOf(pattern), "/oauth/") {
		problem.Write(w, err, id)
		return err
	}
	// RFC 6749, 5.2, as those endpoints answer everything else.
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Kind.OAuth(), "error_description": err.Detail}) // the caller has gone; nothing is left to do
	return err
}

// parameterOf returns the name of the parameter in which a secret stands; empty: it
// stands elsewhere.
func parameterOf(u *url.URL, secrets []string) string {
	has := func(text string) bool {
		plain, err := url.QueryUnescape(text)
		return slices.ContainsFunc(secrets, func(s string) bool { return strings.Contains(text, s) || err == nil && strings.Contains(plain, s) })
	}
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil || apikey.In(name) || has(name) || !utf8.ValidString(name) {
			continue
		}
		if has(value) {
			return name
		}
	}
	return ""
}
