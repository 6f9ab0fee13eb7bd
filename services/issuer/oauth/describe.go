package oauth

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/services/issuer"
)

// route is one endpoint: what serves it, and how the OpenAPI document tells of
// it. There is one list for both, so that neither can lack one.
type route struct {
	id, method, path, summary string
	params                    []param // of the form
	basic                     bool    // a client authenticates
	answer                    string  // what 200 carries
	many                      []string
	serve                     func(http.ResponseWriter, *http.Request, form) error // of a form
	get                       http.HandlerFunc
}

type param struct {
	name     string
	required bool
	doc      string
}

var (
	clientParams = []param{
		{"client_id", false, "where the client does not authenticate by HTTP Basic"},
		{"client_secret", false, "with client_id, in place of HTTP Basic"},
	}
	tokenParams = append([]param{
		{"grant_type", true, issuer.GrantClientCredentials + " or " + issuer.GrantTokenExchange},
		{"scope", false, "a part of what the credential has; all of it by default"},
		{"resource", false, "RFC 8707; may be given more than once"},
		{"audience", false, "RFC 8693; may be given more than once"},
		{"subject_token", false, "the API key, of an exchange"},
		{"subject_token_type", false, TypeAPIKey},
		{"requested_token_type", false, TypeAccessToken},
	}, clientParams...)
	aboutToken = append([]param{{"token", true, "the token that it is about"}, {"token_type_hint", false, "ignored"}}, clientParams...)
)

func (h *handler) routes(path string) []route {
	return []route{
		{
			id: "token", method: http.MethodPost, path: path + "/oauth/token", summary: "Get an access token (RFC 6749, RFC 8693)", params: tokenParams,
			basic: true, answer: "access_token, token_type, expires_in, scope, issued_token_type", many: []string{"resource", "audience"}, serve: h.token,
		},
		{
			id: "introspect", method: http.MethodPost, path: path + "/oauth/introspect", summary: "Tell about a token (RFC 7662)", params: aboutToken,
			basic: true, answer: "active; of an active token of the client's, or for an audience that it serves, its claims", serve: h.introspect,
		},
		{
			id: "revokeToken", method: http.MethodPost, path: path + "/oauth/revoke", summary: "End a token of one's own (RFC 7009)", params: aboutToken,
			basic: true, answer: "nothing: it is durable", serve: h.revoke,
		},
		{id: "jwks", method: http.MethodGet, path: path + "/oauth/jwks", summary: "The public keys (RFC 7517)", answer: "keys", get: h.jwks},
		// RFC 8414, 3: the well-known part goes before the issuer's path; OpenID
		// Connect Discovery, 4: after it.
		{id: "metadata", method: http.MethodGet, path: "/.well-known/oauth-authorization-server" + path, summary: "Where things are (RFC 8414)", answer: "the metadata", get: h.metadata},
		{id: "openidMetadata", method: http.MethodGet, path: path + "/.well-known/openid-configuration", summary: "The same document", answer: "the metadata", get: h.metadata},
	}
}

const formType = "application/x-www-form-urlencoded"

// describe adds a route to an OpenAPI document.
func (r *route) describe(doc *huma.OpenAPI) {
	op := &huma.Operation{OperationID: r.id, Method: r.method, Path: r.path, Summary: r.summary, Tags: []string{"oauth"}, Responses: map[string]*huma.Response{}}
	object := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeObject}}
	op.Responses["200"] = &huma.Response{Description: r.answer, Content: map[string]*huma.MediaType{"application/json": object}}
	failures := []int{http.StatusServiceUnavailable}
	if r.serve != nil {
		failures = append(failures, http.StatusBadRequest, http.StatusUnauthorized, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
		props, required := map[string]*huma.Schema{}, []string{}
		for _, p := range r.params {
			props[p.name] = &huma.Schema{Type: huma.TypeString, Description: p.doc}
			if slices.Contains(r.many, p.name) {
				props[p.name] = &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}, Description: p.doc}
			}
			if p.required {
				required = append(required, p.name)
			}
		}
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			formType: {Schema: &huma.Schema{Type: huma.TypeObject, Properties: props, Required: required}},
		}}
	}
	fault := &huma.MediaType{Schema: &huma.Schema{
		Type: huma.TypeObject, Required: []string{"error"}, Properties: map[string]*huma.Schema{
			"error": {Type: huma.TypeString, Description: "RFC 6749, 5.2"}, "error_description": {Type: huma.TypeString},
		},
	}}
	for _, status := range failures {
		op.Responses[strconv.Itoa(status)] = &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{"application/json": fault}}
	}
	if r.basic {
		doc.Components.SecuritySchemes["client"] = &huma.SecurityScheme{Type: "http", Scheme: "basic"}
		op.Security = []map[string][]string{{"client": {}}, {}}
	}
	doc.AddOperation(op)
}
