package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/services/issuer/app"
	"github.com/quash-project/quash/shared/engine/enginetest"
)

const (
	// introspected is how many tokens are asked about in one turn.
	introspected = 10_000
	// living is how many tokens there are where each is asked about again and again.
	living = 1_000
)

// BenchmarkIntrospect: tokens a second about which a resource server asks over HTTP, in
// turns with a bare handler that proves the same client by the same hash, verifies the
// same tokens by the same library, and writes the same JSON. The issuer's guard keeps
// tokens that it has verified, the bare handler none: so each token is asked about once
// for the first row, and 1,000 are again and again for the second.
func BenchmarkIntrospect(b *testing.B) {
	w := newIssuing(b, enginetest.NATS(b))
	s := w.start(b)
	holder, server := w.client(b, "token-exchange"), w.client(b, issuer.GrantClientCredentials)
	key := w.clientKey(b, holder.ID)
	b.Run("seen=false", func(b *testing.B) {
		w.introspections(b, s, server, func() []string { return w.exchanged(b, s, key, introspected) })
	})
	b.Run("seen=true", func(b *testing.B) {
		tokens := w.exchanged(b, s, key, living)
		each(b, tokens, func(token string) error { return w.introspect(w.url, server, token, nil) })
		tokens = slices.Repeat(tokens, introspected/living)
		w.introspections(b, s, server, func() []string { return tokens })
	})
}

func introspectForm(client madeClient, token string) string {
	return url.Values{"client_id": {client.ID}, "client_secret": {client.Secret}, "token": {token}}.Encode()
}

func (w *issuing) introspect(address string, client madeClient, token string, into any) error {
	req, err := formRequest(address+"/oauth/introspect", introspectForm(client, token))
	if err != nil {
		return err
	}
	return send(w.http, req, http.StatusOK, into)
}

// introspections measures both sides with the tokens that next gives for each turn.
func (w *issuing) introspections(b *testing.B, s *app.Service, client madeClient, next func() []string) {
	bare := newBareIntrospection(b, w.jwk, client)
	server := httptest.NewServer(bare)
	defer server.Close()
	w.sameAnswers(b, server.URL, client, next()[0])
	rate := func(address string, tokens []string) float64 {
		runtime.GC() // of what the other side, or the making of the tokens, has left
		return each(b, tokens, func(token string) error { return w.introspect(address, client, token, nil) })
	}
	var mine, theirs float64
	n := 0
	for b.Loop() {
		for range turns {
			tokens := next()
			mine += rate(w.url, tokens)
			theirs += rate(server.URL, tokens)
			n++
		}
	}
	b.ReportMetric(mine/float64(n), "tokens/s")
	b.ReportMetric(theirs/float64(n), "bare/s")
	b.ReportMetric(mine/theirs, "ratio")
	var forms []string
	for _, token := range next()[:living] {
		forms = append(forms, introspectForm(client, token))
	}
	alone(b, s.Handler(), bare, "/oauth/introspect", forms...)
}

// sameAnswers wants that both sides say as much.
func (w *issuing) sameAnswers(b *testing.B, bare string, client madeClient, token string) {
	b.Helper()
	var ours, theirs introspection
	if err := errors.Join(w.introspect(w.url, client, token, &ours), w.introspect(bare, client, token, &theirs)); err != nil {
		b.Fatal(err)
	}
	if ours != theirs || !ours.Active {
		b.Fatalf("the issuer answers %+v, the bare one %+v", ours, theirs)
	}
}

// exchanged takes so many tokens for an API key, not over HTTP.
func (w *issuing) exchanged(b *testing.B, s *app.Service, key string, n int) []string {
	b.Helper()
	tokens := make([]string, n)
	var next atomic.Int64
	var all sync.WaitGroup
	for range askers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				t, err := s.Domain().Exchange(b.Context(), issuer.TokenRequest{APIKey: key})
				if err != nil {
					b.Error(err)
					return
				}
				tokens[i] = t.Text
			}
		})
	}
	all.Wait()
	if b.Failed() {
		b.FailNow()
	}
	return tokens
}

// each has the askers do something with all tokens, and returns tokens a second.
func each(b *testing.B, tokens []string, do func(token string) error) float64 {
	b.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range askers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(tokens); i = int(next.Add(1)) - 1 {
				if err := do(tokens[i]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return float64(len(tokens)) / time.Since(began).Seconds()
}

// introspection is the answer about a token.
type introspection struct {
	Active    bool   `json:"active"`
	Scope     string `json:"scope,omitempty"`
	ClientID  string `json:"client_id,omitempty"`
	TokenType string `json:"token_type,omitempty"`
	Expires   int64  `json:"exp,omitempty"`
	IssuedAt  int64  `json:"iat,omitempty"`
	Subject   string `json:"sub,omitempty"`
	Audience  string `json:"aud,omitempty"`
	Issuer    string `json:"iss,omitempty"`
	ID        string `json:"jti,omitempty"`
	Tenant    string `json:"tenant,omitempty"`
}

// bareIntrospection answers one client.
type bareIntrospection struct {
	client string
	hash   [sha256.Size]byte // of its secret
	key    *ecdsa.PublicKey
}

func newBareIntrospection(b *testing.B, jwk map[string]string, client madeClient) *bareIntrospection {
	b.Helper()
	point := []byte{4} // uncompressed
	for _, half := range []string{"x", "y"} {
		raw, err := base64.RawURLEncoding.DecodeString(jwk[half])
		if err != nil {
			b.Fatal(err)
		}
		point = append(point, raw...)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		b.Fatal(err)
	}
	return &bareIntrospection{client.ID, sha256.Sum256([]byte(client.Secret)), key}
}

func (h *bareIntrospection) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	err := r.ParseForm()
	hash := sha256.Sum256([]byte(r.PostForm.Get("client_secret")))
	if err != nil || r.PostForm.Get("client_id") != h.client || subtle.ConstantTimeCompare(hash[:], h.hash[:]) != 1 {
		http.Error(out, "bad", http.StatusUnauthorized)
		return
	}
	var c bareClaims
	_, err = jwt.ParseWithClaims(r.PostForm.Get("token"), &c, func(*jwt.Token) (any, error) { return h.key, nil },
		jwt.WithValidMethods([]string{"ES256"}))
	answer := introspection{}
	if err == nil {
		answer = introspection{
			Active: true, Scope: c.Scope, ClientID: c.ClientID, TokenType: "Bearer", Expires: c.Expires, IssuedAt: c.IssuedAt,
			Subject: c.Subject, Audience: c.Audience, Issuer: c.Issuer, ID: c.ID, Tenant: c.Tenant,
		}
	}
	out.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(out).Encode(answer) // the caller has gone; nothing is left to do
}
