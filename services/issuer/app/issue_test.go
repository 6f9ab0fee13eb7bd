package app_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/signing"
)

func segment(t testing.TB, token string, n int, into any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a token with %d parts", len(parts))
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[n])
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestExchangedKeyIsAnRFC9068Token(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "alice", "scopes": []string{"orders:read", "orders:write"}})
	if k.State != "active" || k.ClientID != "key_"+k.ID {
		t.Errorf("key = %+v", k)
	}
	tok := w.token(k.Secret)
	if tok.TokenType != "Bearer" || tok.ExpiresIn != 600 || tok.Scope != "orders:read orders:write" ||
		tok.IssuedTokenType != "urn:ietf:params:oauth:token-type:access_token" {
		t.Errorf("answer = %+v", tok)
	}
	var header map[string]any
	segment(t, tok.AccessToken, 0, &header)
	if header["typ"] != "at+jwt" || header["alg"] != "ES256" || header["kid"] != w.signing.Keys[0].ID {
		t.Errorf("header = %v", header)
	}
	c := claims(t, tok.AccessToken)
	for name, want := range map[string]any{
		"iss": apiURL, "sub": "alice", "aud": apiURL, "client_id": "key_" + k.ID, "scope": "orders:read orders:write", "tenant": "default",
	} {
		if c[name] != want {
			t.Errorf("claim %s = %v, want %v", name, c[name], want)
		}
	}
	if len(c["via"].([]any)) != 1 || c["rseq"] == "" || c["jti"] == "" || c["exp"].(float64)-c["iat"].(float64) != 600 {
		t.Errorf("claims = %v", c)
	}
}

func TestScopesNeverGrow(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "alice", "scopes": []string{"orders:read", "orders:write"}})
	if tok := w.token(k.Secret, "scope", "orders:read"); tok.Scope != "orders:read" {
		t.Errorf("scope = %q", tok.Scope)
	}
	for _, scope := range []string{"orders:delete", "orders:read quash:revoke", "orders:read  orders:write", "\"", "orders:re%20ad orders:x"} {
		a := w.post("/oauth/token", exchangeForm(k.Secret, "scope", scope))
		if a.status != http.StatusBadRequest || a.code(t) != "invalid_scope" {
			t.Errorf("scope %q: %d %s", scope, a.status, a.body)
		}
	}
}

// Every way in which a key can be dead has the same answer, and each is told
// apart from a live one.
func TestDeadKeysGiveNothing(t *testing.T) {
	w := newWorld(t)
	make1 := func() madeKey { return w.newKey(map[string]any{"owner": "alice", "scopes": []string{"a"}}) }
	alive := make1()
	cases := map[string]func(k madeKey) string{
		"unknown":  func(madeKey) string { return "quash_key_00000000000000000000000000000000000000000004b914W" },
		"mistyped": func(k madeKey) string { return k.Secret[:len(k.Secret)-1] + "-" },
		"empty":    func(madeKey) string { return "x" },
		"deleted": func(k madeKey) string {
			w.must(http.StatusOK, "DELETE", "/v1/keys/"+k.ID+"?reason=leaked", nil, nil)
			return k.Secret
		},
		"revoked": func(k madeKey) string { w.commit(commit.Revoke, "key:"+k.ID); return k.Secret },
		"held":    func(k madeKey) string { w.commit(commit.Hold, "key:"+k.ID); return k.Secret },
		"of a held client": func(k madeKey) string {
			w.commit(commit.Hold, "client:key_"+k.ID)
			return k.Secret
		},
		"of a cut grant": func(k madeKey) string {
			w.commit(commit.Revoke, "grant:alice/key_"+k.ID)
			return k.Secret
		},
	}
	for name, kill := range cases {
		t.Run(name, func(t *testing.T) {
			k := make1()
			w.token(k.Secret)
			a := w.post("/oauth/token", exchangeForm(kill(k)))
			if a.status != http.StatusBadRequest || a.code(t) != "invalid_request" { // RFC 8693, 2.2.2
				t.Errorf("%d %s", a.status, a.body)
			}
			if a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("Cache-Control = %q", a.header.Get("Cache-Control"))
			}
			if strings.Contains(string(a.body), k.Secret) {
				t.Error("the answer repeats the key")
			}
		})
	}
	w.token(alive.Secret)
}

func TestWhatIsMadeAfterACutIsClean(t *testing.T) {
	w := newWorld(t)
	old := w.newKey(map[string]any{"owner": "bob", "scopes": []string{"a"}})
	w.token(old.Secret)
	w.commit(commit.Revoke, "principal:bob")
	if a := w.post("/oauth/token", exchangeForm(old.Secret)); a.status != http.StatusBadRequest {
		t.Errorf("a cut user's key: %d %s", a.status, a.body)
	}
	var shown madeKey
	w.must(http.StatusOK, "GET", "/v1/keys/"+old.ID, nil, &shown)
	if shown.State != "revoked" || len(shown.HitBy) != 1 || shown.HitBy[0] != "principal:bob" {
		t.Errorf("shown = %+v", shown)
	}
	w.token(w.newKey(map[string]any{"owner": "bob", "scopes": []string{"a"}}).Secret)
	// An operator's renewal makes the old one count as new.
	w.must(http.StatusOK, "POST", "/v1/keys/"+old.ID+"/renew", map[string]any{"reason": "it was not the key"}, &shown)
	if shown.State != "active" {
		t.Errorf("renewed = %+v", shown)
	}
	w.token(old.Secret)
}

func TestHeldKeyComesBack(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "dora", "scopes": []string{"a"}})
	w.commit(commit.Hold, "principal:dora")
	if a := w.post("/oauth/token", exchangeForm(k.Secret)); a.status != http.StatusBadRequest {
		t.Errorf("a held user's key: %d %s", a.status, a.body)
	}
	var shown madeKey
	w.must(http.StatusOK, "GET", "/v1/keys/"+k.ID, nil, &shown)
	if shown.State != "held" {
		t.Errorf("shown = %+v", shown)
	}
	w.commit(commit.Release, "principal:dora")
	w.token(k.Secret)
}

func TestNothingIsIssuedWithoutTheLog(t *testing.T) {
	w := newWorld(t)
	w.stopApp()
	w.cfg.Limit = 1_000_000_000 // 1 s, so that the test need not wait long
	w.startApp()
	k := w.newKey(map[string]any{"owner": "alice", "scopes": []string{"a"}})
	tok := w.token(k.Secret).AccessToken
	asks := func(path string, form url.Values) answer {
		form.Set("token", tok)
		return w.post(path, form, k.ClientID, k.Secret)
	}
	if a := asks("/oauth/introspect", url.Values{"fresh": {"true"}}); a.status != http.StatusOK {
		t.Fatalf("with the log: %d %s", a.status, a.body)
	}
	w.stopLog()
	unavailable := func(what string, a answer) {
		t.Helper()
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || strings.Contains(string(a.body), "active") {
			t.Errorf("%s: %d %v %s, want 503", what, a.status, a.header, a.body)
		}
	}
	// Within the limit too: whoever wants to know what is so now is not told what was.
	unavailable("fresh introspection", asks("/oauth/introspect", url.Values{"fresh": {"true"}}))
	var last answer
	eventually(t, "the issuer stops at its limit", func() bool {
		last = w.post("/oauth/token", exchangeForm(k.Secret))
		return last.status != http.StatusOK
	})
	if last.status != http.StatusServiceUnavailable || last.code(t) != "temporarily_unavailable" || last.header.Get("Retry-After") == "" {
		t.Errorf("%d %v %s", last.status, last.header, last.body)
	}
	if w.app.Ready() == nil {
		t.Error("it says that it is ready")
	}
	unavailable("introspection past the limit", asks("/oauth/introspect", url.Values{}))
	unavailable("a revocation that is not durable", asks("/oauth/revoke", url.Values{}))
	w.startLog()
	eventually(t, "it issues again", func() bool { return w.post("/oauth/token", exchangeForm(k.Secret)).status == http.StatusOK })
}

func TestTheNewestSigningKeySignsWhateverItsAlgorithm(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "alice", "scopes": []string{"a"}})
	old := w.token(k.Secret).AccessToken
	w.makeSigningKey(signing.EdDSA)
	newest := w.signing.Keys[1].ID
	var header struct{ Alg, Kid string }
	eventually(t, "the new key signs", func() bool {
		segment(t, w.token(k.Secret).AccessToken, 0, &header)
		return header.Kid == newest
	})
	if header.Alg != "EdDSA" {
		t.Errorf("alg = %s", header.Alg)
	}
	// Tokens of both are good, the operator's new one included.
	if !w.introspect(old, k.ClientID, k.Secret).Active || !w.introspect(w.token(k.Secret).AccessToken, k.ClientID, k.Secret).Active {
		t.Error("a rotation refuses a good token")
	}
	w.must(http.StatusOK, "GET", "/v1/keys", nil, nil)
	// A revoked signing key signs no more, and is not published.
	w.commit(commit.Revoke, "signing-key:"+newest)
	segment(t, w.token(k.Secret).AccessToken, 0, &header)
	req, _ := http.NewRequest("GET", w.http.URL+"/oauth/jwks", nil)
	if jwks := w.do(req); header.Kid == newest || strings.Contains(string(jwks.body), newest) {
		t.Errorf("kid = %s, jwks %s", header.Kid, jwks.body)
	}
}
