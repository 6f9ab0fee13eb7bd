package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

const formType = "application/x-www-form-urlencoded"

// badForm is a request to an OAuth endpoint that must be refused.
type badForm struct {
	name, method, path, body string
	header                   []string // in place of the media type of a form where not nil
	want                     int
	code                     string // of RFC 6749, 5.2
}

// refusedForm sends it and looks at the answer, and at what it left behind.
func (v *victim) refusedForm(t *testing.T, b badForm) {
	t.Helper()
	header := b.header
	if header == nil {
		header = []string{"Content-Type", formType}
	}
	r := v.send(cmp(b.method, "POST"), b.path, b.body, header...)
	var p struct {
		Error       string
		Description string `json:"error_description"`
	}
	if err := json.Unmarshal(r.body, &p); err != nil || r.header.Get("Content-Type") != "application/json" {
		t.Fatalf("status %d, Content-Type %q, body %.300s: want the error of RFC 6749", r.status, r.header.Get("Content-Type"), r.body)
	}
	if r.status != b.want || p.Error != b.code || p.Description == "" {
		t.Errorf("status %d, error %q (%s), want %d %q", r.status, p.Error, p.Description, b.want, b.code)
	}
	// RFC 6749, 5.2: the characters of error_description.
	if strings.ContainsFunc(p.Description, func(c rune) bool { return c < 0x20 || c > 0x7e || c == '"' || c == '\\' }) {
		t.Errorf("error_description %q", p.Description)
	}
	if r.header.Get("Cache-Control") != "no-store" || r.header.Get("Pragma") != "no-cache" {
		t.Errorf("Cache-Control %q, Pragma %q", r.header.Get("Cache-Control"), r.header.Get("Pragma"))
	}
	if (r.status == 401) != (r.header.Get("WWW-Authenticate") != "") {
		t.Errorf("status %d, WWW-Authenticate %q", r.status, r.header.Get("WWW-Authenticate"))
	}
	if r.status == 405 && r.header.Get("Allow") != "POST" {
		t.Errorf("Allow %q", r.header.Get("Allow"))
	}
	v.silent(t, "the answer", r)
	v.unchanged(t)
}

// goodForm is what an endpoint takes, as the client.
func (v *victim) goodForm(path string) string {
	f := url.Values{"client_id": {v.client}, "client_secret": {v.clientSecret}}
	if path == "/oauth/token" {
		f.Set("grant_type", "client_credentials")
	} else {
		f.Set("token", v.token)
	}
	return f.Encode()
}

// TestOAuthEndpointsRefuseBadRequests sends each endpoint what none takes.
func TestOAuthEndpointsRefuseBadRequests(t *testing.T) {
	v := newVictim(t)
	for _, path := range []string{"/oauth/token", "/oauth/introspect", "/oauth/revoke"} {
		good := v.goodForm(path)
		cases := append(v.badFormRequests(path, good), v.badClients(path)...)
		for _, b := range cases {
			b.path = cmp(b.path, path)
			t.Run(path+" "+b.name, func(t *testing.T) { v.refusedForm(t, b) })
		}
		// What is not known is ignored (RFC 6749, 3.2), and without a value omitted.
		if path != "/oauth/revoke" {
			if r := v.send("POST", path, good+"&unknown=1&scope=", "Content-Type", formType+"; charset=UTF-8"); r.status != 200 {
				t.Errorf("%s: status %d, want 200: %s", path, r.status, r.body)
			}
		}
	}
	v.alive(t)
}

func (v *victim) badFormRequests(path, good string) []badForm {
	invalid := func(name, body string) badForm {
		return badForm{name: name, body: body, want: 400, code: "invalid_request"}
	}
	many := &strings.Builder{}
	many.WriteString(good)
	for i := range 10_000 {
		fmt.Fprintf(many, "&%x=", i)
	}
	header := func(pairs ...string) []string { return append([]string{}, pairs...) }
	notForm := func(name string, pairs ...string) badForm {
		return badForm{name: name, body: good, header: header(pairs...), want: 415, code: "invalid_request"}
	}
	return []badForm{
		{name: "GET", method: "GET", header: header(), want: 405, code: "invalid_request"},
		{name: "GET with everything in the query", method: "GET", path: path + "?" + good, header: header(), want: 400, code: "invalid_request"},
		{name: "PUT", method: "PUT", body: good, want: 405, code: "invalid_request"},
		{name: "DELETE", method: "DELETE", header: header(), want: 405, code: "invalid_request"},
		{name: "made-up method", method: "REVOKE", header: header(), want: 405, code: "invalid_request"},
		{name: "credentials in the query", path: path + "?client_secret=" + v.clientSecret, body: good, want: 400, code: "invalid_request"},
		{name: "everything in the query", path: path + "?" + good, want: 400, code: "invalid_request"},
		{name: "a question mark", path: path + "?", body: good, want: 400, code: "invalid_request"},
		notForm("no media type"),
		notForm("JSON", "Content-Type", "application/json"),
		notForm("multipart", "Content-Type", "multipart/form-data; boundary=x"),
		notForm("latin-1", "Content-Type", formType+"; charset=iso-8859-1"),
		notForm("a parameter", "Content-Type", formType+"; version=1"),
		notForm("two media types", "Content-Type", formType, "Content-Type", formType),
		notForm("malformed media type", "Content-Type", formType+"; ="),
		notForm("compressed", "Content-Type", formType, "Content-Encoding", "gzip"),
		invalid("empty", ""),
		invalid("only separators", "&&&"),
		invalid("a parameter twice", good+"&"+good),
		invalid("an unknown parameter twice", good+"&"+v.key.Secret+"=1&"+v.key.Secret+"=1"),
		invalid("a parameter twice, once empty", good+"&client_secret="),
		invalid("a parameter twice, once escaped", good+"&client%5Fid="+v.client),
		invalid("a semicolon", good+";x=1"),
		invalid("a bad escape", good+"&x=%zz"),
		invalid("an escape cut short", good+"&x=%4"),
		invalid("no UTF-8", good+"&x=%ff"),
		invalid("raw bytes that are no UTF-8", good+"&x=\xff"),
		invalid("a control character", good+"&x=%00"),
		invalid("a line end", good+"&x=a%0Ab"),
		invalid("no name", good+"&=x"),
		invalid("10,000 parameters", many.String()),
		{name: "10,000 longer parameters", body: many.String() + strings.Repeat("a", 30<<10), want: 413, code: "invalid_request"},
		{name: "too large", body: good + "&x=" + strings.Repeat("a", 64<<10), want: 413, code: "invalid_request"},
	}
}

// badClients are ways to authenticate that are none.
func (v *victim) badClients(path string) []badForm {
	rest := "grant_type=client_credentials"
	if path != "/oauth/token" {
		rest = "token=" + url.QueryEscape(v.token)
	}
	basic := func(user, password string) string {
		req, _ := http.NewRequest("GET", "/", nil)
		req.SetBasicAuth(user, password)
		return req.Header.Get("Authorization")
	}
	by := func(name, header string) badForm {
		return badForm{name: name, body: rest, header: []string{"Content-Type", formType, "Authorization", header}, want: 401, code: "invalid_client"}
	}
	in := func(name, id, secret string) badForm {
		return badForm{name: name, body: rest + "&client_id=" + url.QueryEscape(id) + "&client_secret=" + url.QueryEscape(secret), want: 401, code: "invalid_client"}
	}
	good := basic(v.client, v.clientSecret)
	both := []string{"Content-Type", formType, "Authorization", good}
	cases := []badForm{
		{name: "no client", body: rest, want: 401, code: "invalid_client"},
		by("Bearer", "Bearer "+v.token),
		by("no scheme", v.clientSecret),
		by("empty", ""),
		by("no base64", "Basic "+v.clientSecret),
		by("no colon", basic(v.client, "")[:len(basic(v.client, ""))-4]),
		by("no secret", basic(v.client, "")),
		by("no id", basic("", v.clientSecret)),
		by("a bad escape within", basic(v.client+"%zz", v.clientSecret)),
		by("a control character within", basic(v.client, v.clientSecret+"%00")),
		by("another client", basic("client_none", v.clientSecret)),
		by("an API key as a secret", basic(v.client, v.key.Secret)),
		in("an API key as a secret in the form", v.client, v.key.Secret),
		in("no such client", "client_none", v.clientSecret),
		in("an id that is a wildcard", "*", v.clientSecret),
		in("an id with dots", "client_a.b.>", v.clientSecret),
		{name: "id alone", body: rest + "&client_id=" + v.client, want: 401, code: "invalid_client"},
		{name: "secret alone", body: rest + "&client_secret=" + v.clientSecret, want: 400, code: "invalid_request"},
		{name: "both ways", body: rest + "&client_id=" + v.client + "&client_secret=" + v.clientSecret, header: both, want: 400, code: "invalid_request"},
		{name: "two ids", body: rest + "&client_id=client_other", header: both, want: 400, code: "invalid_request"},
		{name: "two headers", body: rest, header: append(append([]string{}, both...), "Authorization", good), want: 400, code: "invalid_request"},
	}
	for name, text := range spoilt(v.clientSecret) {
		b := by("secret "+name, basic(url.QueryEscape(v.client), url.QueryEscape(text)))
		c := in("secret in the form "+name, v.client, text)
		if strings.ContainsAny(text, "\n") {
			c.want, c.code = 400, "invalid_request"
		}
		cases = append(cases, b, c)
	}
	return cases
}

// TestTokenEndpointRefusesBadGrants is about what only that endpoint takes.
func TestTokenEndpointRefusesBadGrants(t *testing.T) {
	v := newVictim(t)
	with := func(pairs ...string) string {
		f := exchange(v.key.Secret)
		for i := 0; i+1 < len(pairs); i += 2 {
			f.Del(pairs[i])
			if pairs[i+1] != "" {
				f.Set(pairs[i], pairs[i+1])
			}
		}
		return f.Encode()
	}
	client := "&client_id=" + v.client + "&client_secret=" + v.clientSecret
	cases := []badForm{
		{name: "no grant", body: with("grant_type", ""), want: 400, code: "invalid_request"},
		{name: "empty grant", body: with("grant_type", "") + "&grant_type=", want: 400, code: "invalid_request"},
		{name: "password", body: with("grant_type", "password", "username", "a", "password", v.key.Secret), want: 400, code: "unsupported_grant_type"},
		{name: "refresh", body: with("grant_type", "refresh_token", "refresh_token", v.key.Secret), want: 400, code: "unsupported_grant_type"},
		{name: "grant in another case", body: with("grant_type", "Client_Credentials"), want: 400, code: "unsupported_grant_type"},
		{name: "a secret as a grant", body: with("grant_type", v.key.Secret), want: 400, code: "unsupported_grant_type"},
		{name: "no subject token", body: with("subject_token", ""), want: 400, code: "invalid_request"},
		{name: "no subject token type", body: with("subject_token_type", ""), want: 400, code: "invalid_request"},
		{name: "unknown subject token type", body: with("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"), want: 400, code: "invalid_request"},
		{name: "a token for a key", body: with("subject_token", v.token), want: 400, code: "invalid_request"},
		{name: "a client secret for a key", body: with("subject_token", v.clientSecret), want: 400, code: "invalid_request"},
		{name: "an actor", body: with("actor_token", v.token, "actor_token_type", "urn:ietf:params:oauth:token-type:access_token"), want: 400, code: "invalid_request"},
		{name: "an actor's type alone", body: with("actor_token_type", "urn:ietf:params:oauth:token-type:access_token"), want: 400, code: "invalid_request"},
		{name: "another kind of token wanted", body: with("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), want: 400, code: "invalid_request"},
		{name: "a scope more", body: with("scope", "orders:read orders:write"), want: 400, code: "invalid_scope"},
		{name: "a scope of Quash", body: with("scope", "quash:revoke"), want: 400, code: "invalid_scope"},
		{name: "a scope in another case", body: with("scope", "Orders:read"), want: 400, code: "invalid_scope"},
		{name: "two spaces", body: with("scope", "orders:read  orders:read"), want: 400, code: "invalid_scope"},
		{name: "a scope that is no scope", body: with("scope", `a"b`), want: 400, code: "invalid_scope"},
		{name: "a secret as a scope", body: with("scope", v.key.Secret), want: 400, code: "invalid_scope"},
		{name: "a resource of others", body: with("resource", "https://elsewhere.example"), want: 400, code: "invalid_target"},
		{name: "a resource with a fragment", body: with("resource", v.url+"#x"), want: 400, code: "invalid_target"},
		{name: "a relative resource", body: with("resource", "orders"), want: 400, code: "invalid_target"},
		{name: "a secret as a resource", body: with("resource", "https://x/"+v.key.Secret), want: 400, code: "invalid_target"},
		{name: "a secret as an audience", body: with("audience", v.key.Secret), want: 400, code: "invalid_target"},
		{name: "one resource too many", body: with("resource", v.url) + "&resource=https://elsewhere.example", want: 400, code: "invalid_target"},
		{name: "scope of a client more", body: "grant_type=client_credentials&scope=orders:write" + client, want: 400, code: "invalid_scope"},
		{name: "resource of a client more", body: "grant_type=client_credentials&resource=https://elsewhere.example" + client, want: 400, code: "invalid_target"},
		{name: "exchange of a key of another client", body: with() + client, want: 400, code: "invalid_request"},
	}
	for name, text := range spoilt(v.key.Secret) {
		cases = append(cases, badForm{name: "key " + name, body: with("subject_token", text), want: 400, code: "invalid_request"})
	}
	for _, b := range cases {
		b.path = "/oauth/token"
		t.Run(b.name, func(t *testing.T) { v.refusedForm(t, b) })
	}
	v.alive(t)
}

// TestPublicDocumentsRefuseBadRequests is about JWKS and metadata.
func TestPublicDocumentsRefuseBadRequests(t *testing.T) {
	v := newVictim(t)
	for _, path := range []string{"/oauth/jwks", "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "REVOKE"} {
			t.Run(method+" "+path, func(t *testing.T) {
				v.refused(t, bad{method: method, path: path, header: []string{}, want: 405})
			})
		}
	}
	v.alive(t)
}
