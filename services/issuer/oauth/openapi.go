package oauth

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/problem"
)

// basicScheme is HTTP Basic with client_id and client_secret.
const basicScheme = "client"

// byClient are the ways of a client to authenticate: by HTTP Basic, or by
// client_id and client_secret in the form, which OpenAPI sees as nothing. An
// exchange of a key without a client needs neither.
func byClient() []map[string][]string {
	return []map[string][]string{{basicScheme: {}}, {}}
}

func text(about string) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Description: about}
}

func texts(about string) *huma.Schema {
	return &huma.Schema{Type: huma.TypeArray, Items: text(""), Description: about}
}

func enum(about string, values ...string) *huma.Schema {
	s := text(about)
	for _, v := range values {
		s.Enum = append(s.Enum, v)
	}
	return s
}

func seconds(about string) *huma.Schema {
	return &huma.Schema{Type: huma.TypeInteger, Format: "int64", Description: about}
}

// object takes no member that is not named: what is answered is known.
func object(required []string, props map[string]*huma.Schema) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, Required: required, Properties: props, AdditionalProperties: false}
}

func tokenSchema() *huma.Schema {
	return object([]string{"access_token", "token_type", "expires_in"}, map[string]*huma.Schema{
		"access_token":      text("a JWT (RFC 9068)"),
		"token_type":        enum("", "Bearer"),
		"expires_in":        seconds("seconds"),
		"scope":             text("what it has; missing: none"),
		"issued_token_type": enum("of an exchange", TypeAccessToken),
		"quash_bound_address": text("of a key that may be used from some networks alone: the address that was held against them. " +
			"Whoever exchanged it for somebody else, and named them in X-Forwarded-For, uses the token for that address alone, and not at all if it is another one"),
	})
}

func introspectionSchema() *huma.Schema {
	return object([]string{"active"}, map[string]*huma.Schema{
		"active":     {Type: huma.TypeBoolean, Description: "false: nothing more is told"},
		"scope":      text("with one space between"),
		"client_id":  text(""),
		"token_type": enum("", "Bearer"),
		"exp":        seconds("since 1970"),
		"iat":        seconds("since 1970"),
		"sub":        text(""),
		"aud":        {OneOf: []*huma.Schema{text(""), texts("")}},
		"iss":        text(""),
		"jti":        text(""),
		"roles":      texts(""),
		"tenant":     text(""),
	})
}

func jwksSchema() *huma.Schema {
	one := object([]string{"kty", "kid", "alg", "use", "crv", "x"}, map[string]*huma.Schema{
		"kty": enum("", "EC", "OKP"), "kid": text("RFC 7638"), "alg": enum("", "ES256", "EdDSA"), "use": enum("", "sig"),
		"crv": enum("", "P-256", "Ed25519"), "x": text(""), "y": text(""),
	})
	return object([]string{"keys"}, map[string]*huma.Schema{"keys": {Type: huma.TypeArray, Items: one}})
}

// metadataSchema follows metadata: every member of it is always there.
func metadataSchema() *huma.Schema {
	props, required := map[string]*huma.Schema{}, []string{}
	for name, v := range metadata(Config{}) {
		props[name] = texts("")
		if _, one := v.(string); one {
			props[name] = text("")
		}
		required = append(required, name)
	}
	slices.Sort(required)
	return object(required, props)
}

func faultSchema() *huma.Schema {
	return object([]string{"error"}, map[string]*huma.Schema{
		"error": enum("RFC 6749, 5.2; RFC 7009, 2.2.1; RFC 8707, 2",
			issuer.CodeInvalidRequest, issuer.CodeInvalidClient, issuer.CodeInvalidGrant, issuer.CodeUnauthorizedClient,
			issuer.CodeUnsupportedGrantType, issuer.CodeInvalidScope, issuer.CodeInvalidTarget, issuer.CodeUnsupportedTokenType,
			problem.Internal.OAuth(), problem.Unavailable.OAuth(), problem.Forbidden.OAuth()),
		"error_description": text("for people"),
	})
}

func formBody(r *route) *huma.RequestBody {
	props, required := map[string]*huma.Schema{}, []string{}
	for _, p := range r.params {
		props[p.name] = text(p.doc)
		if slices.Contains(r.many, p.name) {
			props[p.name] = texts(p.doc)
		}
		if p.required {
			required = append(required, p.name)
		}
	}
	return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		// Parameters that are not known are ignored: RFC 6749, 3.2.
		formType: {Schema: &huma.Schema{Type: huma.TypeObject, Properties: props, Required: required}},
	}}
}

func header(about string) *huma.Header { return &huma.Header{Description: about, Schema: text("")} }

// headers are those of an answer.
func (r *route) headers(status int) map[string]*huma.Header {
	h := map[string]*huma.Header{"X-Request-Id": header("names the request in the operator's log"), "Cache-Control": header("no-store")}
	if r.serve != nil {
		h["Pragma"] = header("no-cache")
	}
	switch {
	case r.get != nil && status == http.StatusOK:
		h["Cache-Control"] = header("public, max-age=300")
	case status == http.StatusUnauthorized:
		h["WWW-Authenticate"] = header("Basic: RFC 6749, 5.2")
	case status == http.StatusServiceUnavailable, status == http.StatusTooManyRequests:
		h["Retry-After"] = header("seconds")
	}
	return h
}

// describe adds a route to an OpenAPI document.
func (r *route) describe(doc *huma.OpenAPI) {
	op := &huma.Operation{OperationID: r.id, Method: r.method, Path: r.path, Summary: r.summary, Tags: []string{"oauth"}, Security: r.auth, Responses: map[string]*huma.Response{}}
	if r.tenant {
		op.Parameters = []*huma.Param{{Name: tenantVar, In: "path", Required: true, Schema: text(""), Description: "the tenant's name"}}
	}
	add := func(status int, about string, schema *huma.Schema) {
		answer := &huma.Response{Description: about, Headers: r.headers(status)}
		if schema != nil {
			answer.Content = map[string]*huma.MediaType{"application/json": {Schema: schema}}
		}
		op.Responses[strconv.Itoa(status)] = answer
	}
	add(http.StatusOK, r.answer, r.body)
	for _, status := range r.failures() {
		op.Responses[strconv.Itoa(status)] = r.failure(doc, status)
	}
	if r.serve != nil {
		op.RequestBody = formBody(r)
	}
	if len(r.auth) > 0 {
		doc.Components.SecuritySchemes[basicScheme] = &huma.SecurityScheme{Type: "http", Scheme: "basic", Description: "RFC 6749, 2.3.1; or client_id and client_secret in the form"}
	}
	doc.AddOperation(op)
}

// failure returns a reference to what the endpoints answer with a status.
func (r *route) failure(doc *huma.OpenAPI, status int) *huma.Response {
	name := "oauth-" + strconv.Itoa(status)
	if r.get != nil {
		name = "oauth-get-" + strconv.Itoa(status)
	}
	if doc.Components.Responses == nil {
		doc.Components.Responses = map[string]*huma.Response{}
	}
	doc.Components.Responses[name] = &huma.Response{
		Description: http.StatusText(status), Headers: r.headers(status),
		Content: map[string]*huma.MediaType{"application/json": {Schema: faultSchema()}},
	}
	return &huma.Response{Ref: "#/components/responses/" + name}
}

// failures are the statuses that are not a success. The metadata of the installation's own
// issuer always comes.
func (r *route) failures() (out []int) {
	switch {
	case r.serve != nil:
		out = []int{
			http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType,
			http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable,
		}
		if len(r.auth) > 0 {
			out = append(out, http.StatusUnauthorized)
		}
	case r.tenant || r.body.Properties["keys"] != nil:
		out = []int{http.StatusInternalServerError, http.StatusServiceUnavailable}
	}
	if r.tenant {
		out = append(out, http.StatusNotFound)
	}
	return out
}
