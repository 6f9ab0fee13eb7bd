// Package oauth is the issuer's OAuth 2.0 endpoints: token (RFC 6749, RFC 8693,
// RFC 8707), introspection (RFC 7662), revocation (RFC 7009), JWKS (RFC 7517) and
// metadata (RFC 8414, OpenID Connect Discovery). They are plain handlers, strict
// from the first byte: POST only, one media type, nothing in the query, no
// parameter twice, exact error codes, never cached.
package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/guard/peer"
	"github.com/quash-project/quash/shared/guard/wire"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// Config says where things are.
type Config struct {
	// Issuer is the URL in the claim iss; endpoints are below it.
	Issuer string
	// Revocation and Rotation are the URLs named in the metadata as
	// quash_revocation_endpoints and quash_rotation_endpoints.
	Revocation, Rotation []string
	// Keys gives the public keys of a tenant's issuer as JWKs: those that are published
	// and may have living tokens.
	Keys func(tenant string) []map[string]string
	// Proxies are those whose word counts on whom they ask for.
	Proxies peer.Proxies
	Log     *zap.Logger
}

// handler answers for one tenant's issuer.
type handler struct {
	s   *issuer.Service
	cfg Config
}

// Types of tokens: RFC 8693, 3, and our own.
const (
	TypeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
	TypeAPIKey      = "urn:quash:token-type:api-key"
)

// Register adds the endpoints of the installation's own issuer and of those of tenants to
// mux, and to the OpenAPI document if there is one.
func Register(mux *http.ServeMux, doc *huma.OpenAPI, s *issuer.Service, cfg Config) error {
	u, err := url.Parse(cfg.Issuer)
	if err != nil {
		return err
	}
	home := &handler{s: s, cfg: cfg}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	for _, r := range append(routes(path), ofTenants(routes(wire.TenantIssuer(path, "{"+tenantVar+"}")))...) {
		if r.get != nil {
			mux.HandleFunc("GET "+r.path, home.get(r.get))
		} else {
			// Without the method: the answer to another one is an OAuth error, too.
			mux.HandleFunc(r.path, home.post(r.serve, r.many...))
		}
		if doc != nil {
			r.describe(doc)
		}
	}
	return nil
}

// tenantVar is the part of a path that names a tenant.
const tenantVar = "tenant"

// of returns the handler of the tenant that a request's path names, or itself.
func (h *handler) of(r *http.Request) (*handler, error) {
	name := r.PathValue(tenantVar)
	if name == "" {
		return h, nil
	}
	in := *h
	in.s = h.s.In(name)
	in.cfg.Issuer = in.s.Issuer()
	if in.s == h.s { // one issuer has one URL
		return nil, problem.New(problem.NotFound, "the issuer of the tenant %q is %s", name, h.cfg.Issuer)
	}
	return &in, in.s.Present(r.Context())
}

func (h *handler) metadata(w http.ResponseWriter, r *http.Request) {
	data, err := json.Marshal(metadata(h.cfg))
	if err != nil {
		h.fail(w, r, err)
		return
	}
	public(w, data)
}

func (h *handler) get(endpoint func(*handler, http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		in, err := h.of(r)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		endpoint(in, w, r)
	}
}

// post wraps an endpoint that takes a form. The answer to every error is that
// of RFC 6749, 5.2.
func (h *handler) post(endpoint func(*handler, http.ResponseWriter, *http.Request, form) error, many ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Pragma", "no-cache")
		f, err := readForm(w, r, many...)
		var in *handler
		if err == nil {
			in, err = h.of(r)
		}
		if err == nil {
			ctx, cancel := context.WithTimeout(r.Context(), frame.Deadline)
			defer cancel()
			err = endpoint(in, w, r.WithContext(ctx), f)
		}
		if err != nil {
			h.fail(w, r, err)
		}
	}
}

type errorBody struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
}

// fail is the one place that turns an error into an answer.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	var f *fault
	var no *issuer.Refusal
	status, body := 0, errorBody{}
	switch {
	case errors.As(err, &f):
		status, body = f.status, errorBody{f.code, f.detail}
	case errors.As(err, &no):
		status, body = http.StatusBadRequest, errorBody{no.Code, no.Detail}
	default:
		e := problem.From(err)
		status, body = e.Kind.Status(), errorBody{e.Kind.OAuth(), e.Detail}
		if s := e.RetryAfterSeconds(); s > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(s))
		}
		if status >= http.StatusInternalServerError {
			h.cfg.Log.Warn("an OAuth request could not be answered", zap.String("path", r.URL.Path), zap.String("error", apikey.Redact(err.Error())))
		}
	}
	if body.Error == issuer.CodeInvalidClient {
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", `Basic realm="quash", charset="UTF-8"`)
	}
	body.Description = describable(apikey.Redact(body.Description))
	answer(w, status, body)
}

// describable keeps to the characters of error_description: RFC 6749, 5.2:
// "MUST NOT include characters outside the set %x20-21 / %x23-5B / %x5D-7E".
func describable(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '"':
			return '\''
		case c < 0x20 || c > 0x7e || c == '\\':
			return '?'
		}
		return c
	}, s)
}

func answer(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(data) // the caller has gone; nothing is left to do
}

// public answers with what may be kept: as long as readers of the JWKS may be
// behind, a new signing key is published before it signs.
func public(w http.ResponseWriter, data []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write(data) // the caller has gone; nothing is left to do
}

type tokenBody struct {
	AccessToken     string `json:"access_token"`
	IssuedTokenType string `json:"issued_token_type,omitempty"`
	TokenType       string `json:"token_type"`
	ExpiresIn       int64  `json:"expires_in"`
	Scope           string `json:"scope,omitempty"`
	BoundAddress    string `json:"quash_bound_address,omitempty"`
}

func (h *handler) token(w http.ResponseWriter, r *http.Request, f form) error {
	auth, err := h.clientAuth(r, f)
	if err != nil {
		return err
	}
	req := issuer.TokenRequest{Client: auth}
	if text := f.get("scope"); text != "" {
		if req.Scopes, err = rights.ParseScopes(text); err != nil {
			return &issuer.Refusal{Code: issuer.CodeInvalidScope, Detail: "the scope is malformed: want scopes with one space between"}
		}
	}
	var tok issuer.Token
	body := tokenBody{TokenType: "Bearer"}
	switch f.get("grant_type") {
	case "":
		return invalid("grant_type is missing")
	case issuer.GrantClientCredentials:
		if req.Resources, err = resources(f, false); err != nil {
			return err
		}
		tok, err = h.s.ClientCredentials(r.Context(), req)
	case issuer.GrantTokenExchange:
		if req.Resources, err = resources(f, true); err != nil {
			return err
		}
		if req.APIKey, err = subjectToken(f); err != nil {
			return err
		}
		body.IssuedTokenType = TypeAccessToken
		tok, err = h.s.Exchange(r.Context(), req)
	default:
		return &issuer.Refusal{Code: issuer.CodeUnsupportedGrantType, Detail: "want client_credentials or " + issuer.GrantTokenExchange}
	}
	if err != nil {
		return err
	}
	body.AccessToken, body.ExpiresIn, body.Scope = tok.Text, int64(tok.Life.Seconds()), strings.Join(tok.Scopes, " ")
	if tok.BoundTo.IsValid() {
		body.BoundAddress = tok.BoundTo.String()
	}
	answer(w, http.StatusOK, body)
	return nil
}

// subjectToken reads the parameters of RFC 8693, 2.1.
func subjectToken(f form) (string, error) {
	switch {
	case f.get("subject_token") == "":
		return "", invalid("subject_token is missing")
	case f.get("subject_token_type") == "":
		return "", invalid("subject_token_type is missing")
	case f.get("subject_token_type") != TypeAPIKey:
		return "", invalid("subject_token_type: want " + TypeAPIKey)
	case f.get("actor_token") != "" || f.get("actor_token_type") != "":
		return "", invalid("actor_token is not supported")
	case f.get("requested_token_type") != "" && f.get("requested_token_type") != TypeAccessToken:
		return "", invalid("requested_token_type: want " + TypeAccessToken)
	}
	return f.get("subject_token"), nil
}

// resources reads what the token is to be for: RFC 8707, and for an exchange
// also the logical names of RFC 8693.
func resources(f form, names bool) ([]string, error) {
	for _, res := range f["resource"] {
		if !issuer.IsResource(res) {
			return nil, &issuer.Refusal{Code: issuer.CodeInvalidTarget, Detail: "resource: want an absolute URI without a fragment"}
		}
	}
	if !names {
		return f["resource"], nil
	}
	return append(f["resource"], f["audience"]...), nil
}

type introspection struct {
	Active    bool            `json:"active"`
	Scope     string          `json:"scope,omitempty"`
	ClientID  string          `json:"client_id,omitempty"`
	TokenType string          `json:"token_type,omitempty"`
	Expires   int64           `json:"exp,omitempty"`
	IssuedAt  int64           `json:"iat,omitempty"`
	Subject   string          `json:"sub,omitempty"`
	Audience  issuer.Audience `json:"aud,omitempty"`
	Issuer    string          `json:"iss,omitempty"`
	ID        string          `json:"jti,omitempty"`
	Roles     []string        `json:"roles,omitempty"`
	Tenant    string          `json:"tenant,omitempty"`
}

func (h *handler) introspect(w http.ResponseWriter, r *http.Request, f form) error {
	auth, token, err := h.tokenRequest(r, f)
	if err != nil {
		return err
	}
	fresh := f.get("fresh")
	if fresh != "" && fresh != "true" && fresh != "false" {
		return invalid("fresh: want true or false")
	}
	c, err := h.s.Introspect(r.Context(), auth, token, fresh == "true")
	if err != nil {
		return err
	}
	if c == nil {
		answer(w, http.StatusOK, introspection{})
		return nil
	}
	answer(w, http.StatusOK, introspection{
		Active: true, Scope: c.Scope, ClientID: c.ClientID, TokenType: "Bearer", Expires: c.Expires, IssuedAt: c.IssuedAt,
		Subject: c.Subject, Audience: c.Audience, Issuer: c.Issuer, ID: c.ID, Roles: c.Roles, Tenant: c.Tenant,
	})
	return nil
}

func (h *handler) revoke(w http.ResponseWriter, r *http.Request, f form) error {
	auth, token, err := h.tokenRequest(r, f)
	if err != nil {
		return err
	}
	if err := h.s.Revoke(r.Context(), auth, token); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// leaked takes the word of whoever shows a secret. The answer tells nothing of it.
func (h *handler) leaked(w http.ResponseWriter, r *http.Request, f form) error {
	if f.get("key") == "" {
		return invalid("key is missing")
	}
	if err := h.s.ReportLeak(r.Context(), f.get("key"), f.get("where"), h.cfg.Proxies.Caller(r)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// tokenRequest reads a request about a token. A token_type_hint may be ignored.
func (h *handler) tokenRequest(r *http.Request, f form) (issuer.ClientAuth, string, error) {
	auth, err := h.clientAuth(r, f)
	if err != nil {
		return issuer.ClientAuth{}, "", err
	}
	if f.get("token") == "" {
		return issuer.ClientAuth{}, "", invalid("token is missing")
	}
	return auth, f.get("token"), nil
}

// jwks answers with the public keys. None at all is not an answer that a reader
// should keep: the keys have not been read yet.
func (h *handler) jwks(w http.ResponseWriter, r *http.Request) {
	keys := h.cfg.Keys(h.s.Tenant())
	if len(keys) == 0 {
		h.fail(w, r, problem.New(problem.Unavailable, "there is no signing key yet; try again"))
		return
	}
	data, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	public(w, data)
}

// metadata is the document of RFC 8414, which serves as that of OpenID Connect
// Discovery too.
func metadata(cfg Config) map[string]any {
	base := strings.TrimSuffix(cfg.Issuer, "/")
	clientAuth := []string{"client_secret_basic", "client_secret_post"}
	orNone := func(list []string) []string { return append([]string{}, list...) }
	return map[string]any{
		"issuer":                                        cfg.Issuer,
		"token_endpoint":                                base + "/oauth/token",
		"introspection_endpoint":                        base + "/oauth/introspect",
		"revocation_endpoint":                           base + "/oauth/revoke",
		"jwks_uri":                                      base + "/oauth/jwks",
		"response_types_supported":                      []string{}, // no grant of a user's yet
		"subject_types_supported":                       []string{"public"},
		"id_token_signing_alg_values_supported":         []string{"ES256", "EdDSA"},
		"grant_types_supported":                         issuer.Grants(),
		"token_endpoint_auth_methods_supported":         append(clientAuth, "none"), // an exchange needs none
		"introspection_endpoint_auth_methods_supported": clientAuth,
		"revocation_endpoint_auth_methods_supported":    clientAuth,
		"quash_revocation_endpoints":                    orNone(cfg.Revocation),
		"quash_rotation_endpoints":                      orNone(cfg.Rotation),
		"quash_leaked_endpoint":                         base + "/oauth/leaked",
	}
}
