package oauth

import (
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/quash-project/quash/services/issuer"
)

// maxBody is the longest request body, maxParams how many parameters it may have.
const (
	maxBody   = 64 << 10
	maxParams = 200
)

// form is a request's parameters. Those without a value are not in it: RFC 6749,
// 3.2: "Parameters sent without a value MUST be treated as if they were omitted".
type form map[string][]string

func (f form) get(name string) string {
	if v := f[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// fault is a request that can't be right.
type fault struct {
	status int
	code   string
	detail string
}

func (f *fault) Error() string { return f.code + ": " + f.detail }

func invalid(detail string) *fault {
	return &fault{http.StatusBadRequest, issuer.CodeInvalidRequest, detail}
}

// readForm reads a request strictly. Parameters named in many may stand there
// more than once, no other may: RFC 6749, 3.2.
func readForm(w http.ResponseWriter, r *http.Request, many ...string) (form, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, &fault{http.StatusMethodNotAllowed, issuer.CodeInvalidRequest, "use POST"}
	}
	// What stands in a URL ends up in logs and histories.
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return nil, invalid("parameters belong in the body, not in the query")
	}
	types := r.Header.Values("Content-Type")
	if len(types) != 1 || !isForm(types[0]) {
		return nil, &fault{http.StatusUnsupportedMediaType, issuer.CodeInvalidRequest, "want Content-Type: " + formType}
	}
	if enc := r.Header.Get("Content-Encoding"); enc != "" {
		return nil, &fault{http.StatusUnsupportedMediaType, issuer.CodeInvalidRequest, "want no Content-Encoding"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, &fault{http.StatusRequestEntityTooLarge, issuer.CodeInvalidRequest, "the body is too large"}
	}
	if err != nil {
		return nil, invalid("the body could not be read")
	}
	return parseForm(string(body), many...)
}

func isForm(contentType string) bool {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil || media != formType {
		return false
	}
	for name, v := range params {
		if name != "charset" || !strings.EqualFold(v, "utf-8") {
			return false
		}
	}
	return true
}

func parseForm(body string, many ...string) (form, error) {
	f := form{}
	seen := map[string]bool{}
	for n := 0; body != ""; n++ {
		if n == maxParams {
			return nil, invalid("there are too many parameters")
		}
		var pair string
		pair, body, _ = strings.Cut(body, "&")
		if pair == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err1 := url.QueryUnescape(rawName)
		value, err2 := url.QueryUnescape(rawValue)
		if err1 != nil || err2 != nil || strings.Contains(pair, ";") || !clean(name) || !clean(value) || name == "" {
			return nil, invalid("a parameter is not properly form-encoded UTF-8 without control characters")
		}
		if seen[name] && !contains(many, name) {
			return nil, invalid("a parameter stands there more than once") // not which: it could be a secret
		}
		seen[name] = true
		if value != "" {
			f[name] = append(f[name], value)
		}
	}
	return f, nil
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func clean(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}

// clientAuth reads how a client shows who it is, and from where it asks.
func (h *handler) clientAuth(r *http.Request, f form) (issuer.ClientAuth, error) {
	auth, err := clientAuth(r, f)
	auth.From, auth.Agent = h.cfg.Proxies.Caller(r), r.UserAgent()
	return auth, err
}

// clientAuth reads how a client shows who it is: by HTTP Basic or in the body,
// not both (RFC 6749, 2.3: "The client MUST NOT use more than one authentication
// method in each request").
func clientAuth(r *http.Request, f form) (issuer.ClientAuth, error) {
	inBody := issuer.ClientAuth{ID: f.get("client_id"), Secret: f.get("client_secret")}
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 {
		if inBody.Secret != "" && inBody.ID == "" {
			return issuer.ClientAuth{}, invalid("client_secret without client_id")
		}
		return inBody, nil
	}
	if len(headers) > 1 {
		return issuer.ClientAuth{}, invalid("the header Authorization stands there more than once")
	}
	if inBody.Secret != "" {
		return issuer.ClientAuth{}, invalid("authenticate by the header Authorization or by client_secret, not both")
	}
	auth, ok := parseBasic(headers[0])
	if !ok {
		return issuer.ClientAuth{}, errClient
	}
	if inBody.ID != "" && inBody.ID != auth.ID {
		return issuer.ClientAuth{}, invalid("client_id is another than that of the header Authorization")
	}
	return auth, nil
}

var errClient = &issuer.Refusal{Code: issuer.CodeInvalidClient, Detail: "client authentication failed"}

// parseBasic reads the header of RFC 7617, with id and secret form-encoded
// within: RFC 6749, 2.3.1.
func parseBasic(header string) (issuer.ClientAuth, bool) {
	scheme, cred, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Basic") {
		return issuer.ClientAuth{}, false
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimLeft(cred, " "))
	if err != nil || strings.ContainsAny(cred, "\r\n") {
		return issuer.ClientAuth{}, false
	}
	rawID, rawSecret, ok := strings.Cut(string(raw), ":")
	id, err1 := url.QueryUnescape(rawID)
	secret, err2 := url.QueryUnescape(rawSecret)
	if !ok || err1 != nil || err2 != nil || id == "" || secret == "" || !clean(id) || !clean(secret) {
		return issuer.ClientAuth{}, false
	}
	return issuer.ClientAuth{ID: id, Secret: secret}, true
}
