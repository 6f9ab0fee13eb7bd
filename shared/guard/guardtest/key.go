package guardtest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/keyform"
	"github.com/quash-project/quash/shared/guard/peer"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// apiKey is what the issuer knows of a key.
type apiKey struct {
	token Token // what it is exchanged for
	born  revoke.Stamp
	from  []netip.Prefix // none: from everywhere
}

// APIKey makes an API key, for a guard with WithExchange: it is exchanged for such a
// token, which has the key among its targets.
func (q *Quash) APIKey(t Token) string {
	q.tb.Helper()
	text, err := keyform.Generate(rand.Reader, keyform.Key)
	if err != nil {
		q.tb.Fatalf("guardtest: %v", err)
	}
	q.ImportKey(text, t)
	return text
}

// ImportKey is APIKey for a key with a text of its own, see guard.Exchange.Imported.
func (q *Quash) ImportKey(text string, t Token) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.apiKeys[text] = apiKey{token: t, born: q.stamp}
}

// BindKey has a key be good from these networks alone. The issuer takes a guard's word on
// from where a request comes.
func (q *Quash) BindKey(key string, networks ...netip.Prefix) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := q.apiKeys[key]
	k.from = networks
	q.apiKeys[key] = k
}

// KeyTarget returns the key as a target of Revoke, Hold and Release.
func (q *Quash) KeyTarget(key string) string {
	if _, err := keyform.Parse(key); err != nil {
		return "key:" + keyform.ImportedID(sha256.Sum256([]byte(key)))
	}
	return "key:" + keyform.ID(key)
}

// Exchange returns what a guard needs to exchange keys here, without a port:
//
//	g := q.Guard(guard.WithExchange(q.Exchange()))
func (q *Quash) Exchange() guard.Exchange {
	return guard.Exchange{Client: &http.Client{Transport: inMemory{q.Endpoints()}}}
}

// inMemory answers requests by a handler.
type inMemory struct{ h http.Handler }

func (m inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.RemoteAddr = "127.0.0.1:1"
	w := httptest.NewRecorder()
	m.h.ServeHTTP(w, r)
	return w.Result(), nil
}

// StopIssuer has the issuer answer 503 until StartIssuer. The log goes on.
func (q *Quash) StopIssuer() { q.setStopped(true) }

// StartIssuer ends StopIssuer.
func (q *Quash) StartIssuer() { q.setStopped(false) }

func (q *Quash) setStopped(stopped bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = stopped
}

// Exchanges returns how many exchanges of keys were asked for.
func (q *Quash) Exchanges() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.exchanges
}

// Leaked returns the targets (key:ID) of the keys that guards have told of, because
// they were found in a URL.
func (q *Quash) Leaked() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.leaked)
}

// Endpoints are the issuer's token endpoint, for the exchange of API keys alone, and
// the one that is told of leaked keys.
func (q *Quash) Endpoints() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /oauth/token", q.serveToken)
	mux.HandleFunc("POST /oauth/leaked", q.serveLeaked)
	return mux
}

func (q *Quash) serveLeaked(w http.ResponseWriter, r *http.Request) {
	if key := r.PostFormValue("key"); key != "" && r.PostFormValue("where") == "url" {
		q.mu.Lock()
		q.leaked = append(q.leaked, q.KeyTarget(key))
		q.mu.Unlock()
	}
	w.WriteHeader(http.StatusNoContent)
}

func (q *Quash) serveToken(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	text, audience := r.PostFormValue("subject_token"), r.PostForm["audience"]
	q.mu.Lock()
	q.exchanges++
	key, known := q.apiKeys[text]
	stopped := q.stopped
	q.mu.Unlock()
	refuse := func(status int, code string) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": code}) // the caller has gone; nothing is left to do
	}
	switch {
	case stopped:
		w.Header().Set("Retry-After", "3")
		refuse(http.StatusServiceUnavailable, "temporarily_unavailable")
		return
	case r.PostFormValue("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange":
		refuse(http.StatusBadRequest, "unsupported_grant_type")
		return
	case !known || r.PostFormValue("subject_token_type") != "urn:quash:token-type:api-key":
		refuse(http.StatusBadRequest, "invalid_request")
		return
	}
	t, stamp := key.token, q.Stamp() // the stamp comes first
	t.Stamp = &stamp
	own := q.parse([]string{q.KeyTarget(text)})[0]
	from := anybody.Caller(r)
	bound := len(key.from) > 0
	if q.keyHit(own, key) || bound && !slices.ContainsFunc(key.from, func(n netip.Prefix) bool { return n.Contains(from) }) {
		refuse(http.StatusBadRequest, "invalid_request")
		return
	}
	allowed := t.Audience
	if len(allowed) == 0 {
		allowed = []string{URL}
	}
	for _, a := range audience {
		if !slices.Contains(allowed, a) {
			refuse(http.StatusBadRequest, "invalid_target")
			return
		}
	}
	if len(audience) > 0 {
		t.Audience = audience
	}
	t.Via = append([]revoke.Target{own}, t.Via...)
	answer := map[string]any{
		"access_token": q.Token(t), "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
		"token_type": "Bearer", "expires_in": int(t.life().Seconds()), "scope": strings.Join(t.Scopes, " "),
	}
	if bound {
		answer["quash_bound_address"] = from.String()
	}
	_ = json.NewEncoder(w).Encode(answer) // the caller has gone; nothing is left to do
}

// anybody are those whose word counts on whom they ask for: guards, wherever they are.
var anybody = peer.Proxies{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// keyHit reports whether a key is dead or held.
func (q *Quash) keyHit(own revoke.Target, key apiKey) bool {
	epochs := q.view.Epochs()
	principal := revoke.Target{Tenant: Tenant, Issuer: revoke.Own, Kind: revoke.KindPrincipal, ID: or(key.token.Subject, "alice")}
	client := revoke.Target{Tenant: Tenant, Issuer: revoke.Own, Kind: revoke.KindClient, ID: or(key.token.ClientID, "client_test")}
	for _, t := range []revoke.Target{own, principal, client} {
		if q.view.State(t.Key()).Hits(key.born, epochs) {
			return true
		}
	}
	return false
}

// ForgetKey removes a key of which the log says nothing: as where its end was not
// committed.
func (q *Quash) ForgetKey(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.apiKeys, key)
}
