package app_test

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/quash-project/quash/shared/commit"
)

func TestUnmodifiedOAuthClientGetsTokens(t *testing.T) {
	w := newWorld(t)
	c := w.newClient(map[string]any{"name": "reports", "grants": []string{"client_credentials"}, "scopes": []string{"orders:read"}})
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams, oauth2.AuthStyleAutoDetect} {
		tok, err := (&clientcredentials.Config{
			ClientID: c.ID, ClientSecret: c.Secret, TokenURL: w.http.URL + "/oauth/token", Scopes: []string{"orders:read"}, AuthStyle: style,
		}).Token(context.Background())
		if err != nil {
			t.Fatalf("style %d: %v", style, err)
		}
		got := claims(t, tok.AccessToken)
		if got["sub"] != c.ID || got["client_id"] != c.ID || got["scope"] != "orders:read" {
			t.Errorf("claims = %v", got)
		}
	}
}

func TestClientAuthenticationIsExact(t *testing.T) {
	w := newWorld(t)
	c := w.newClient(map[string]any{"name": "reports", "grants": []string{"client_credentials"}, "scopes": []string{"a"}})
	other := w.newClient(map[string]any{"name": "other", "grants": []string{"client_credentials"}, "scopes": []string{"a"}})
	noGrant := w.newClient(map[string]any{"name": "exchanger", "grants": []string{"token-exchange"}, "scopes": []string{"a"}})
	key := w.newKey(map[string]any{"owner": "alice", "scopes": []string{"a"}})
	grant := func(more ...string) url.Values {
		f := url.Values{"grant_type": {"client_credentials"}}
		for i := 0; i+1 < len(more); i += 2 {
			f.Add(more[i], more[i+1])
		}
		return f
	}
	cases := []struct {
		name   string
		form   url.Values
		basic  []string
		status int
		code   string
	}{
		{"none", grant(), nil, 401, "invalid_client"},
		{"id alone", grant("client_id", c.ID), nil, 401, "invalid_client"},
		{"secret alone", grant("client_secret", c.Secret), nil, 400, "invalid_request"},
		{"another's secret", grant(), []string{c.ID, other.Secret}, 401, "invalid_client"},
		{"an API key for a secret", grant(), []string{c.ID, key.Secret}, 401, "invalid_client"},
		{"wrong secret", grant("client_id", c.ID, "client_secret", "guess"), nil, 401, "invalid_client"},
		{"both ways", grant("client_id", c.ID, "client_secret", c.Secret), []string{c.ID, c.Secret}, 400, "invalid_request"},
		{"two ids", grant("client_id", other.ID), []string{c.ID, c.Secret}, 400, "invalid_request"},
		{"an API key has no client credentials", grant(), []string{key.ClientID, key.Secret}, 400, "unauthorized_client"},
		{"grant not given", grant(), []string{noGrant.ID, noGrant.Secret}, 400, "unauthorized_client"},
		{"scope not given", grant("scope", "b"), []string{c.ID, c.Secret}, 400, "invalid_scope"},
		{"good", grant("client_id", c.ID), []string{c.ID, c.Secret}, 200, ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			a := w.post("/oauth/token", tc.form, tc.basic...)
			if a.status != tc.status || tc.code != "" && a.code(t) != tc.code {
				t.Fatalf("%d %s, want %d %s", a.status, a.body, tc.status, tc.code)
			}
			if got := a.header.Get("WWW-Authenticate") != ""; got != (tc.status == 401) {
				t.Errorf("WWW-Authenticate = %q", a.header.Get("WWW-Authenticate"))
			}
			if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Pragma") != "no-cache" {
				t.Errorf("headers = %v", a.header)
			}
		})
	}
	w.commit(commit.Revoke, "client:"+c.ID)
	if a := w.post("/oauth/token", grant(), c.ID, c.Secret); a.status != 401 || a.code(t) != "invalid_client" {
		t.Errorf("a cut client: %d %s", a.status, a.body)
	}
	// A secret made after the cut is clean.
	var second madeKey
	w.must(http.StatusCreated, "POST", "/v1/clients/"+c.ID+"/secrets", map[string]any{}, &second)
	if a := w.post("/oauth/token", grant(), c.ID, second.Secret); a.status != 200 {
		t.Errorf("a new secret: %d %s", a.status, a.body)
	}
}

func TestMalformedTokenRequestsAreRefused(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "alice", "scopes": []string{"a"}})
	good := exchangeForm(k.Secret).Encode()
	const formType = "application/x-www-form-urlencoded"
	cases := []struct {
		name, method, path, contentType, body string
		status                                int
		code                                  string
	}{
		{"GET", "GET", "/oauth/token", "", "", 405, "invalid_request"},
		{"PUT", "PUT", "/oauth/token", formType, good, 405, "invalid_request"},
		{"query", "POST", "/oauth/token?x=1", formType, good, 400, "invalid_request"},
		{"empty query", "POST", "/oauth/token?", formType, good, 400, "invalid_request"},
		{"JSON", "POST", "/oauth/token", "application/json", good, 415, "invalid_request"},
		{"no type", "POST", "/oauth/token", "", good, 415, "invalid_request"},
		{"latin-1", "POST", "/oauth/token", formType + "; charset=iso-8859-1", good, 415, "invalid_request"},
		{"duplicate", "POST", "/oauth/token", formType, good + "&scope=a&scope=a", 400, "invalid_request"},
		{"duplicate empty", "POST", "/oauth/token", formType, good + "&scope=&scope=a", 400, "invalid_request"},
		{"unknown twice", "POST", "/oauth/token", formType, good + "&x=1&x=2", 400, "invalid_request"},
		{"semicolon", "POST", "/oauth/token", formType, good + ";scope=a", 400, "invalid_request"},
		{"bad escape", "POST", "/oauth/token", formType, good + "&scope=%zz", 400, "invalid_request"},
		{"not UTF-8", "POST", "/oauth/token", formType, good + "&scope=%ff", 400, "invalid_request"},
		{"control character", "POST", "/oauth/token", formType, good + "&x=%00", 400, "invalid_request"},
		{"too large", "POST", "/oauth/token", formType, good + "&x=" + strings.Repeat("a", 70_000), 413, "invalid_request"},
		{"no grant", "POST", "/oauth/token", formType, "subject_token=x", 400, "invalid_request"},
		{"other grant", "POST", "/oauth/token", formType, "grant_type=password", 400, "unsupported_grant_type"},
		{"no subject", "POST", "/oauth/token", formType, "grant_type=urn:ietf:params:oauth:grant-type:token-exchange", 400, "invalid_request"},
		{"other subject type", "POST", "/oauth/token", formType, strings.Replace(good, "api-key", "jwt", 1), 400, "invalid_request"},
		{"other token wanted", "POST", "/oauth/token", formType, good + "&requested_token_type=urn:ietf:params:oauth:token-type:refresh_token", 400, "invalid_request"},
		{"actor", "POST", "/oauth/token", formType, good + "&actor_token=x", 400, "invalid_request"},
		{"unknown resource", "POST", "/oauth/token", formType, good + "&resource=https://elsewhere.test", 400, "invalid_target"},
		{"no resource", "POST", "/oauth/token", formType, good + "&resource=orders", 400, "invalid_target"},
		{"unknown audience", "POST", "/oauth/token", formType, good + "&audience=orders", 400, "invalid_target"},
		{"another client", "POST", "/oauth/token", formType, good + "&client_id=client_x", 400, "invalid_request"},
		{"good", "POST", "/oauth/token", formType + "; charset=UTF-8", good + "&requested_token_type=urn:ietf:params:oauth:token-type:access_token&x=1&client_id=key_" + k.ID, 200, ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequest(tc.method, w.http.URL+tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			if tc.contentType != "" {
				req.Header.Set("Content-Type", tc.contentType)
			}
			a := w.do(req)
			if a.status != tc.status || tc.code != "" && a.code(t) != tc.code {
				t.Fatalf("%d %s, want %d %s", a.status, a.body, tc.status, tc.code)
			}
			if tc.status == 405 && a.header.Get("Allow") != "POST" {
				t.Errorf("Allow = %q", a.header.Get("Allow"))
			}
			if strings.Contains(string(a.body), k.Secret[10:]) {
				t.Error("the answer repeats the key")
			}
		})
	}
	for _, header := range []string{"Bearer x", "Basic !!!", "Basic " + base64.StdEncoding.EncodeToString([]byte("no colon"))} {
		req, _ := http.NewRequest("POST", w.http.URL+"/oauth/token", strings.NewReader(good))
		req.Header.Set("Content-Type", formType)
		req.Header.Set("Authorization", header)
		if a := w.do(req); a.status != 401 || a.code(t) != "invalid_client" {
			t.Errorf("%s: %d %s", header, a.status, a.body)
		}
	}
}

func TestTokenIsForTheResourceThatWasAskedFor(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "alice", "scopes": []string{"a"}, "audiences": []string{"https://orders.test", "https://stock.test"}})
	if aud := claims(t, w.token(k.Secret).AccessToken)["aud"]; aud != "https://orders.test" {
		t.Errorf("aud = %v: the default is not allowed, so the first that is", aud)
	}
	if aud := claims(t, w.token(k.Secret, "resource", "https://stock.test").AccessToken)["aud"]; aud != "https://stock.test" {
		t.Errorf("aud = %v", aud)
	}
	both := claims(t, w.token(k.Secret, "resource", "https://stock.test", "resource", "https://orders.test").AccessToken)["aud"]
	if list, ok := both.([]any); !ok || len(list) != 2 {
		t.Errorf("aud = %v", both)
	}
	if a := w.post("/oauth/token", exchangeForm(k.Secret, "resource", apiURL)); a.code(t) != "invalid_target" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

type introspected struct {
	Active   bool   `json:"active"`
	Scope    string `json:"scope"`
	ClientID string `json:"client_id"`
	Subject  string `json:"sub"`
}

func (w *world) introspect(token, id, secret string) introspected {
	w.t.Helper()
	a := w.post("/oauth/introspect", url.Values{"token": {token}}, id, secret)
	if a.status != http.StatusOK {
		w.t.Fatalf("introspect: %d %s", a.status, a.body)
	}
	var i introspected
	a.json(w.t, &i)
	if !i.Active && strings.TrimSpace(string(a.body)) != `{"active":false}` {
		w.t.Errorf("an inactive token has more to say: %s", a.body)
	}
	return i
}

func TestIntrospectionIsForTheTokensClientAndItsAudience(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "alice", "scopes": []string{"a"}, "audiences": []string{"https://orders.test"}})
	cc := []string{"client_credentials"}
	server := w.newClient(map[string]any{"name": "orders", "grants": cc, "serves": []string{"https://orders.test"}})
	stranger := w.newClient(map[string]any{"name": "stranger", "grants": cc, "serves": []string{"https://stock.test"}})
	tok := w.token(k.Secret).AccessToken
	if i := w.introspect(tok, k.ClientID, k.Secret); !i.Active || i.Subject != "alice" || i.ClientID != k.ClientID || i.Scope != "a" {
		t.Errorf("to its client: %+v", i)
	}
	if i := w.introspect(tok, server.ID, server.Secret); !i.Active {
		t.Errorf("to its audience: %+v", i)
	}
	if i := w.introspect(tok, stranger.ID, stranger.Secret); i.Active {
		t.Errorf("to a stranger: %+v", i)
	}
	for _, other := range []string{"x", k.Secret, tok[:len(tok)-6] + "AAAAAA", "a.b.c"} {
		if i := w.introspect(other, server.ID, server.Secret); i.Active {
			t.Errorf("%.10s... is active", other)
		}
	}
	for _, path := range []string{"/oauth/introspect", "/oauth/revoke"} {
		if a := w.post(path, url.Values{"token": {tok}}); a.status != 401 || a.code(t) != "invalid_client" {
			t.Errorf("%s without authentication: %d %s", path, a.status, a.body)
		}
		if a := w.post(path, url.Values{}, server.ID, server.Secret); a.status != 400 || a.code(t) != "invalid_request" {
			t.Errorf("%s without a token: %d %s", path, a.status, a.body)
		}
	}
	w.commit(commit.Revoke, "principal:alice")
	if i := w.introspect(tok, server.ID, server.Secret); i.Active {
		t.Error("a revoked token is active")
	}
}

func TestClientRevokesItsOwnTokensOnly(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "alice", "scopes": []string{"a"}})
	other := w.newKey(map[string]any{"owner": "bob", "scopes": []string{"a"}})
	tok, kept := w.token(k.Secret).AccessToken, w.token(k.Secret).AccessToken
	if a := w.post("/oauth/revoke", url.Values{"token": {tok}}, other.ClientID, other.Secret); a.status != 400 || a.code(t) != "invalid_grant" {
		t.Errorf("by another: %d %s", a.status, a.body)
	}
	for range 2 { // the second time changes nothing
		if a := w.post("/oauth/revoke", url.Values{"token": {tok}, "token_type_hint": {"refresh_token"}}, k.ClientID, k.Secret); a.status != 200 || len(a.body) != 0 {
			t.Errorf("own: %d %s", a.status, a.body)
		}
	}
	if w.introspect(tok, k.ClientID, k.Secret).Active {
		t.Error("the token is active after its revocation was answered")
	}
	if !w.introspect(kept, k.ClientID, k.Secret).Active {
		t.Error("another token of the key is dead too")
	}
	if a := w.post("/oauth/revoke", url.Values{"token": {"nonsense"}}, k.ClientID, k.Secret); a.status != 200 {
		t.Errorf("no token: %d %s", a.status, a.body)
	}
	// Who has found a key can end it with nothing but the key.
	if a := w.post("/oauth/revoke", url.Values{"token": {k.Secret}}, k.ClientID, k.Secret); a.status != 200 {
		t.Errorf("the key itself: %d %s", a.status, a.body)
	}
	if a := w.post("/oauth/token", exchangeForm(k.Secret)); a.status != 400 {
		t.Errorf("the key lives: %d", a.status)
	}
	w.stopLog()
	if a := w.post("/oauth/revoke", url.Values{"token": {w.token(other.Secret).AccessToken}}, other.ClientID, other.Secret); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("what is not durable is not answered with success: %d %s", a.status, a.body)
	}
}

func TestMetadataIsTheSameDocumentTwice(t *testing.T) {
	w := newWorld(t)
	get := func(path string) answer {
		req, _ := http.NewRequest("GET", w.http.URL+path, nil)
		return w.do(req)
	}
	a, b := get("/.well-known/oauth-authorization-server"), get("/.well-known/openid-configuration")
	if a.status != 200 || string(a.body) != string(b.body) {
		t.Fatalf("%d %s\n%s", a.status, a.body, b.body)
	}
	var doc map[string]any
	a.json(t, &doc)
	if doc["issuer"] != apiURL || doc["token_endpoint"] != apiURL+"/oauth/token" {
		t.Errorf("document = %v", doc)
	}
	if l := doc["quash_revocation_endpoints"].([]any); len(l) != 1 || l[0] != apiURL+"/v1/revocations" {
		t.Errorf("quash_revocation_endpoints = %v", l)
	}
	jwks := get("/oauth/jwks")
	if jwks.header.Get("Cache-Control") != "public, max-age=300" || !strings.Contains(string(jwks.body), w.signing.Keys[0].ID) {
		t.Errorf("jwks: %v %s", jwks.header, jwks.body)
	}
	if strings.Contains(string(jwks.body), `"d"`) {
		t.Error("a private key is published")
	}
}
