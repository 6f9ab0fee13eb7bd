package oauth

import (
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/services/issuer"
)

// route is one endpoint: what serves it, and how the OpenAPI document tells of
// it. There is one list for both, so that neither can lack one.
type route struct {
	id, method, path, summary string
	tenant                    bool                  // the path names one
	params                    []param               // of the form
	auth                      []map[string][]string // how a client authenticates, one of these
	answer                    string                // what 200 carries
	body                      *huma.Schema          // of 200; nil: it is empty
	many                      []string
	serve                     func(*handler, http.ResponseWriter, *http.Request, form) error // of a form
	get                       func(*handler, http.ResponseWriter, *http.Request)
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

// routes returns the endpoints of an issuer whose URL has this path.
func routes(path string) []route {
	return []route{
		{
			id: "token", method: http.MethodPost, path: path + "/oauth/token", summary: "Get an access token (RFC 6749, RFC 8693)", params: tokenParams,
			auth: byClient(), answer: "an access token", body: tokenSchema(), many: []string{"resource", "audience"}, serve: (*handler).token,
		},
		{
			id: "introspect", method: http.MethodPost, path: path + "/oauth/introspect", summary: "Tell about a token (RFC 7662)", params: append([]param{{"fresh", false, "true: the log is asked anew first, so that whatever was acknowledged before the request counts"}}, aboutToken...),
			auth: byClient(), body: introspectionSchema(), answer: "active; of an active token of the client's, or for an audience that it serves, its claims", serve: (*handler).introspect,
		},
		{
			id: "revokeToken", method: http.MethodPost, path: path + "/oauth/revoke", summary: "End a token of one's own (RFC 7009)", params: aboutToken,
			auth: byClient(), answer: "nothing: it is durable", serve: (*handler).revoke,
		},
		{
			id: "reportLeak", method: http.MethodPost, path: path + "/oauth/leaked", summary: "Show an API key or client secret that has leaked",
			params: []param{{"key", true, "what was found: having it proves the word"}, {"where", false, "where it was found, for the operators"}},
			answer: "nothing, whether or not it is one", serve: (*handler).leaked,
		},
		{id: "jwks", method: http.MethodGet, path: path + "/oauth/jwks", summary: "The public keys (RFC 7517)", answer: "the keys", body: jwksSchema(), get: (*handler).jwks},
		// RFC 8414, 3: the well-known part goes before the issuer's path; OpenID
		// Connect Discovery, 4: after it.
		{id: "metadata", method: http.MethodGet, path: "/.well-known/oauth-authorization-server" + path, summary: "Where things are (RFC 8414)", answer: "the metadata", body: metadataSchema(), get: (*handler).metadata},
		{id: "openidMetadata", method: http.MethodGet, path: path + "/.well-known/openid-configuration", summary: "The same document", answer: "the metadata", body: metadataSchema(), get: (*handler).metadata},
	}
}

// ofTenants are the endpoints of the issuers of tenants.
func ofTenants(rs []route) []route {
	for i := range rs {
		r := &rs[i]
		r.id, r.summary, r.tenant = "tenant"+strings.ToUpper(r.id[:1])+r.id[1:], r.summary+", of a tenant's issuer", true
	}
	return rs
}

const formType = "application/x-www-form-urlencoded"
