package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/engine/enginetest"
)

// askers is how many ask an issuer at the same time.
const askers = 16

// turns is how often both sides are measured, one after the other.
const turns = 5

// BenchmarkToken: tokens a second at the token endpoint over HTTP, for a client and
// for an API key of a client's, in turns with a bare handler that reads the same form,
// does the same cryptography (a hash of the secret, compared in constant time, and one
// signature over the same claims by the same library), and writes the same JSON.
func BenchmarkToken(b *testing.B) {
	w := newIssuing(b, enginetest.NATS(b))
	s := w.start(b)
	c := w.client(b, issuer.GrantClientCredentials, "token-exchange")
	byClient := url.Values{"grant_type": {issuer.GrantClientCredentials}, "client_id": {c.ID}, "client_secret": {c.Secret}}
	byKey := exchangeForm(w.clientKey(b, c.ID))
	b.Run("grant=client-credentials", func(b *testing.B) { w.tokens(b, s.Handler(), byClient, "client_secret") })
	b.Run("grant=exchange", func(b *testing.B) { w.tokens(b, s.Handler(), byKey, "subject_token") })
}

// tokens measures one grant; field is where the form has the secret.
func (w *issuing) tokens(b *testing.B, ours http.Handler, form url.Values, field string) {
	model := w.ask(b, w.url, form)
	bare := newBareTokens(b, &model, form, field)
	server := httptest.NewServer(bare)
	defer server.Close()
	sameMembers(b, model, w.ask(b, server.URL, form))
	text := form.Encode()
	load := func(url string) float64 {
		runtime.GC() // of what the other side has left
		return during(b, askers, func(int, int) error {
			req, err := formRequest(url+"/oauth/token", text)
			if err != nil {
				return err
			}
			return send(w.http, req, http.StatusOK, nil)
		})
	}
	var mine, theirs float64
	n := 0
	for b.Loop() {
		for range turns {
			mine += load(w.url)
			theirs += load(server.URL)
			n++
		}
	}
	b.ReportMetric(mine/float64(n), "tokens/s")
	b.ReportMetric(theirs/float64(n), "bare/s")
	b.ReportMetric(mine/theirs, "ratio")
	alone(b, ours, bare, "/oauth/token", text)
}

// tokenBody is the answer of the token endpoint.
type tokenBody struct {
	AccessToken     string `json:"access_token"`
	IssuedTokenType string `json:"issued_token_type,omitempty"`
	TokenType       string `json:"token_type"`
	ExpiresIn       int64  `json:"expires_in"`
	Scope           string `json:"scope,omitempty"`
}

func (w *issuing) ask(b *testing.B, url string, form url.Values) (out tokenBody) {
	b.Helper()
	req, err := formRequest(url+"/oauth/token", form.Encode())
	if err == nil {
		err = send(w.http, req, http.StatusOK, &out)
	}
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// bareTokens gives whoever shows the secret a token as the issuer's.
type bareTokens struct {
	field  string
	hash   [sha256.Size]byte // of the secret
	key    *ecdsa.PrivateKey
	kid    string
	claims bareClaims
	answer tokenBody
}

// bareClaims are those of an access token, in the issuer's order.
type bareClaims struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience string   `json:"aud"`
	Expires  int64    `json:"exp"`
	IssuedAt int64    `json:"iat"`
	ID       string   `json:"jti"`
	ClientID string   `json:"client_id"`
	Scope    string   `json:"scope"`
	Tenant   string   `json:"tenant"`
	Stamp    string   `json:"rseq"`
	Via      []string `json:"via"`
}

// What jwt asks of claims.

func (c *bareClaims) GetExpirationTime() (*jwt.NumericDate, error) {
	return jwt.NewNumericDate(time.Unix(c.Expires, 0)), nil
}

func (c *bareClaims) GetIssuedAt() (*jwt.NumericDate, error) {
	return jwt.NewNumericDate(time.Unix(c.IssuedAt, 0)), nil
}
func (c *bareClaims) GetNotBefore() (*jwt.NumericDate, error) { return nil, nil }
func (c *bareClaims) GetIssuer() (string, error)              { return c.Issuer, nil }
func (c *bareClaims) GetSubject() (string, error)             { return c.Subject, nil }
func (c *bareClaims) GetAudience() (jwt.ClaimStrings, error) {
	return jwt.ClaimStrings{c.Audience}, nil
}

func newBareTokens(b *testing.B, model *tokenBody, form url.Values, field string) *bareTokens {
	b.Helper()
	t := &bareTokens{field: field, hash: sha256.Sum256([]byte(form.Get(field))), kid: "bare", answer: *model}
	if err := json.Unmarshal(payload(b, model.AccessToken), &t.claims); err != nil {
		b.Fatal(err)
	}
	var err error
	if t.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		b.Fatal(err)
	}
	return t
}

func (t *bareTokens) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	err := r.ParseForm()
	hash := sha256.Sum256([]byte(r.PostForm.Get(t.field)))
	if err != nil || subtle.ConstantTimeCompare(hash[:], t.hash[:]) != 1 {
		http.Error(out, "bad", http.StatusBadRequest)
		return
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	claims := t.claims
	claims.ID, claims.IssuedAt = base64.RawURLEncoding.EncodeToString(id[:]), time.Now().Unix()
	claims.Expires = claims.IssuedAt + t.answer.ExpiresIn
	token := jwt.NewWithClaims(jwt.SigningMethodES256, &claims)
	token.Header["typ"], token.Header["kid"] = issuer.TokenType, t.kid
	answer := t.answer
	if answer.AccessToken, err = token.SignedString(t.key); err != nil {
		http.Error(out, "bad", http.StatusInternalServerError)
		return
	}
	out.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(out).Encode(answer) // the caller has gone; nothing is left to do
}

func payload(b *testing.B, token string) []byte {
	b.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		b.Fatalf("a token of %d parts", len(parts))
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		b.Fatal(err)
	}
	return data
}

// sameMembers wants that both sides did as much: a bare token has what the issuer's has.
func sameMembers(b *testing.B, ours, bare tokenBody) {
	b.Helper()
	members := func(t tokenBody) []string {
		var claims map[string]any
		if err := json.Unmarshal(payload(b, t.AccessToken), &claims); err != nil {
			b.Fatal(err)
		}
		return slices.Sorted(maps.Keys(claims))
	}
	if o, t := members(ours), members(bare); !slices.Equal(o, t) {
		b.Fatalf("the issuer's token has %v, the bare one %v", o, t)
	}
	ours.AccessToken, bare.AccessToken = "", ""
	if ours != bare {
		b.Fatalf("the issuer answers %+v, the bare one %+v", ours, bare)
	}
}

// alone reports what one request takes in each of the handlers, without what a server
// and a client do around it. Each has the next of the forms; for the time the handlers
// take turns.
func alone(b *testing.B, ours, bare http.Handler, path string, forms ...string) {
	b.Helper()
	const n = 400
	next := 0
	serve := func(h http.Handler, form string) time.Duration {
		r, out := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form)), httptest.NewRecorder()
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		began := time.Now()
		h.ServeHTTP(out, r)
		return time.Since(began)
	}
	form := func() string { next++; return forms[(next-1)%len(forms)] }
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	around := testing.AllocsPerRun(n, func() { serve(nothing, forms[0]) })
	b.ReportMetric(testing.AllocsPerRun(n, func() { serve(ours, form()) })-around, "allocs/token")
	b.ReportMetric(testing.AllocsPerRun(n, func() { serve(bare, forms[0]) })-around, "bare-allocs/token")
	var mine, theirs []time.Duration
	for range n {
		text := form()
		mine, theirs = append(mine, serve(ours, text)), append(theirs, serve(bare, text))
	}
	b.ReportMetric(micros(quantile(mine, 0.5)), "handler-us")
	b.ReportMetric(micros(quantile(theirs, 0.5)), "bare-handler-us")
}
