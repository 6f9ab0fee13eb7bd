package app_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/services/issuer/app"
	"github.com/quash-project/quash/shared/rights"
)

func hashOf(secret string) string {
	h := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(h[:])
}

type importAnswer struct {
	Items []struct{ ID, Outcome, Field, Detail string }
}

func (w *world) imports(keys ...map[string]any) (a importAnswer) {
	w.t.Helper()
	w.must(200, "POST", "/v1/keys/import", map[string]any{"keys": keys, "reason": "moved"}, &a)
	if len(a.Items) != len(keys) {
		w.t.Fatalf("%d outcomes of %d keys", len(a.Items), len(keys))
	}
	return a
}

// What another system has given out works here, and dies here.
func TestImportedKeyLivesAndDies(t *testing.T) {
	w := newWorld(t)
	const secret = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"
	good := map[string]any{"sha256": strings.ToUpper(hashOf(secret)), "owner": "pat", "scopes": []string{"orders:read"}, "labels": map[string]string{"from": "old"}}
	unknown := w.post("/oauth/token", exchangeForm(secret))
	if unknown.status != 400 || string(unknown.body) != string(w.post("/oauth/token", exchangeForm("quash_key_x")).body) {
		t.Errorf("before: %d %s, want the answer for every key that is not good", unknown.status, unknown.body)
	}
	a := w.imports(good, map[string]any{"sha256": hashOf(""), "owner": "pat"})
	id := a.Items[0].ID
	if a.Items[0].Outcome != "imported" || a.Items[1].Outcome != "refused" || a.Items[1].Field != "sha256" {
		t.Fatalf("%+v", a)
	}
	tok := w.token(secret)
	if tok.Scope != "orders:read" || claims(t, tok.AccessToken)["sub"] != "pat" {
		t.Errorf("%+v: want a token of the owner's", tok)
	}
	if s := w.show(id); !s.Imported || s.ClientID != "key_"+id {
		t.Errorf("%+v", s)
	}
	var found struct {
		ID    string
		Known bool
	}
	w.must(200, "POST", "/v1/lookups", map[string]any{"secret": secret}, &found)
	if found.ID != id || !found.Known {
		t.Errorf("looked up: %+v, want %s", found, id)
	}
	// As a client of its own it may end itself: RFC 7009.
	about := func(token string) url.Values {
		return url.Values{"token": {token}, "client_id": {"key_" + id}, "client_secret": {secret}}
	}
	if a := w.post("/oauth/introspect", about(tok.AccessToken)); a.status != 200 || !strings.Contains(string(a.body), `"active":true`) {
		t.Errorf("introspection by it: %d %s", a.status, a.body)
	}
	if a := w.imports(good); a.Items[0].Outcome != "exists" || a.Items[0].ID != id {
		t.Errorf("again: %+v, want the same key", a)
	}
	good["scopes"] = []string{"orders:write"}
	if a := w.imports(good); a.Items[0].Outcome != "refused" || w.token(secret).Scope != "orders:read" {
		t.Errorf("with more: %+v, want it refused, and the key as it was", a)
	}
	good["scopes"] = []string{"orders:read"}
	if a := w.post("/oauth/revoke", about(secret)); a.status != 200 {
		t.Errorf("revoked by itself: %d %s", a.status, a.body)
	}
	if a := w.post("/oauth/token", exchangeForm(secret)); string(a.body) != string(unknown.body) {
		t.Errorf("after its end: %d %s", a.status, a.body)
	}
	if a := w.post("/oauth/introspect", url.Values{"token": {tok.AccessToken}}, w.introspector()...); strings.Contains(string(a.body), `"active":true`) {
		t.Errorf("its token lives on: %s", a.body)
	}
	// An import that goes on does not bring it back.
	if a := w.imports(good); a.Items[0].Outcome != "refused" || !strings.Contains(a.Items[0].Detail, "revoked") {
		t.Errorf("after its end: %+v, want it refused", a)
	}
	if strings.Contains(w.logs.text(), secret) {
		t.Error("the log has the secret")
	}
}

// introspector is a client that serves the default audience.
func (w *world) introspector() []string {
	w.t.Helper()
	c := w.newClient(map[string]any{"name": "api", "grants": []string{"client_credentials"}, "serves": []string{apiURL}})
	return []string{c.ID, c.Secret}
}

// One bad line stops no other, and nothing is given that the caller lacks.
func TestImportTellsOfEachKey(t *testing.T) {
	w := newWorld(t)
	soon := time.Now().Add(time.Hour).Format(time.RFC3339)
	bad := map[string]map[string]any{
		"sha256":     {"sha256": "abc", "owner": "pat"},
		"owner":      {"sha256": hashOf("an owner is missing"), "owner": ""},
		"scopes":     {"sha256": hashOf("a scope is none"), "owner": "pat", "scopes": []string{"quash:none"}},
		"roles":      {"sha256": hashOf("a role is none"), "owner": "pat", "roles": []string{"none"}},
		"networks":   {"sha256": hashOf("a network is none"), "owner": "pat", "networks": []string{"x"}},
		"rate_limit": {"sha256": hashOf("a rate is none"), "owner": "pat", "rate_limit": -1},
		"expires":    {"sha256": hashOf("its end is past"), "owner": "pat", "expires": "2020-01-01T00:00:00Z"},
		"name":       {"sha256": hashOf("a name with a secret"), "owner": "pat", "name": w.operator},
	}
	var keys []map[string]any
	var fields []string
	for field, k := range bad {
		keys, fields = append(keys, k, map[string]any{"sha256": hashOf("good " + field + " and long enough"), "owner": "pat", "expires": soon}), append(fields, field, "")
	}
	a := w.imports(keys...)
	for i, it := range a.Items {
		if want := fields[i]; it.Field != want || (it.Outcome == "imported") != (want == "") || strings.Contains(it.Detail, w.operator) {
			t.Errorf("%v: %+v, want the field %q", keys[i], it, want)
		}
	}
	if a := w.imports(keys[1], keys[1]); a.Items[0].Outcome != "exists" || a.Items[1].Outcome != "exists" {
		t.Errorf("the same twice: %+v", a)
	}
	weak := w.newKey(map[string]any{"owner": "weak", "scopes": []string{rights.KeysWrite}})
	tok := w.token(weak.Secret).AccessToken
	r := w.api(tok, "POST", "/v1/keys/import", map[string]any{"keys": []any{map[string]any{"sha256": hashOf("more than one has"), "owner": "eve", "roles": []string{"operator"}}}})
	if r.status != 200 || !strings.Contains(string(r.body), "refused") || !strings.Contains(string(r.body), "lacking") {
		t.Errorf("roles that the caller lacks: %d %s, want them refused", r.status, r.body)
	}
	if r := w.api(w.token(w.operator).AccessToken, "POST", "/v1/keys/import", map[string]any{"keys": slices.Repeat([]any{keys[1]}, 201)}); r.status != 422 {
		t.Errorf("201 keys: %d, want 422", r.status)
	}
}

func (w *world) leak(key, where string) answer {
	w.t.Helper()
	return w.post("/oauth/leaked", url.Values{"key": {key}, "where": {where}})
}

// Whoever shows a key has it noted; of anything else the answer is the same.
func TestLeakedKeyIsNotedAndByPolicyHeld(t *testing.T) {
	w := newWorld(t, func(c *app.Config) { c.LeakedKeys = "hold" })
	k := w.newKey(map[string]any{"owner": "pat"})
	c := w.newClient(map[string]any{"name": "n", "grants": []string{"client_credentials"}})
	tok := w.token(k.Secret).AccessToken
	for _, unknown := range []string{"x", k.Secret[:40], strings.Repeat("a", 1000)} {
		if a := w.leak(unknown, "here"); a.status != 200 || len(a.body) != 0 {
			t.Errorf("an unknown one: %d %q, want 200 and nothing", a.status, a.body)
		}
	}
	if s := w.show(k.ID); s.State != "active" || s.Leaked != nil {
		t.Errorf("%+v: touched by the word about others", s)
	}
	if a := w.leak(k.Secret, "https://example.com/?key="+k.Secret); a.status != 200 || len(a.body) != 0 {
		t.Errorf("%d %q, want 200 and nothing", a.status, a.body)
	}
	s := w.show(k.ID)
	if s.State != "held" || s.Leaked == nil || s.Leaked.Where != "https://example.com/?key=[redacted]" || s.Leaked.From != "127.0.0.1" {
		t.Errorf("%+v %+v: want it held, and noted without the secret", s, s.Leaked)
	}
	if a := w.api(tok, "GET", "/v1/keys", nil); a.status != 401 {
		t.Errorf("a token of it: %d, want 401", a.status)
	}
	w.leak(c.Secret, "")
	if s := w.show(c.SecretID); s.State != "held" || s.Leaked == nil {
		t.Errorf("a client secret: %+v, want it held", s)
	}
	before := w.revisions("KV_keys", "$KV.keys.default."+k.ID)
	w.leak(k.Secret, "again")
	if n := w.revisions("KV_keys", "$KV.keys.default."+k.ID); n != before || before != 2 {
		t.Errorf("%d revisions after one more, %d before; want 2", n, before)
	}
	// An operator who enables it is heard, until it is shown again.
	w.must(200, "POST", "/v1/keys/"+k.ID+"/enable", map[string]any{"reason": "it was us"}, nil)
	if s := w.show(k.ID).State; s != "active" {
		t.Errorf("enabled: %s", s)
	}
	w.leak(k.Secret, "again")
	if s := w.show(k.ID).State; s != "held" {
		t.Errorf("shown again: %s, want held", s)
	}
	if text := w.logs.text(); strings.Contains(text, k.Secret[15:40]) || !strings.Contains(text, "a key has leaked") {
		t.Error("the log has the secret, or no line about it")
	}
	limited := false
	for range 70 {
		limited = limited || w.leak("x", "").status == 429
	}
	if !limited {
		t.Error("70 within a moment were all taken")
	}
}

func TestKeyInAURLCountsAsLeaked(t *testing.T) {
	w := newWorld(t)
	tok := w.token(w.operator).AccessToken
	for path, want := range map[string]int{"/v1/keys/": 422, "/v1/keys?owner=": 422, "/oauth/token?subject_token=": 400, "/oauth/jwks?": 400, "/nothing/": 422} {
		k := w.newKey(map[string]any{"owner": "pat"})
		a := w.api(tok, "GET", path+k.Secret, nil)
		if a.status != want || strings.Contains(string(a.body), k.Secret[15:40]) {
			t.Errorf("%s: %d %s, want %d", path, a.status, a.body, want)
		}
		if s := w.show(k.ID); s.State != "active" || s.Leaked == nil || !strings.Contains(s.Leaked.Where, "URL") {
			t.Errorf("%s: %+v, want it noted, and by default no more", path, s)
		}
	}
	// What another system gave out has no form of ours.
	const imported = "sk_live_9fHq39LyjWDarjtT1zdp7x"
	for _, path := range []string{"/v1/keys/", "/v1/keys?api_key="} {
		if a := w.api(tok, "GET", path+imported, nil); a.status == 422 && strings.Contains(string(a.body), "leaked") {
			t.Errorf("%s of nobody's: %d %s", path, a.status, a.body)
		}
	}
	id := w.imports(map[string]any{"sha256": hashOf(imported), "owner": "pat"}).Items[0].ID
	for _, path := range []string{"/v1/keys/", "/v1/keys?api_key=", "/nothing?"} {
		if a := w.api(tok, "GET", path+imported, nil); a.status != 422 || !strings.Contains(string(a.body), "leaked") || strings.Contains(string(a.body), imported) {
			t.Errorf("%s: %d %s, want 422", path, a.status, a.body)
		}
	}
	if s := w.show(id); s.Leaked == nil || !strings.Contains(s.Leaked.Where, "URL") || strings.Count(w.logs.text(), imported) > 1 {
		t.Errorf("%+v: want it noted, and in the log at most as the path of before", s)
	}
	if strings.Contains(w.logs.text(), "quash_key_") && strings.Count(w.logs.text(), "quash_key_[redacted]") != strings.Count(w.logs.text(), "quash_key_") {
		t.Error("the log has a secret")
	}
}
