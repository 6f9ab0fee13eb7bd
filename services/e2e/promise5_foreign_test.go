package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/identity"
)

// provider is an OpenID provider that knows nothing of Quash: its tokens have no
// stamp, but the time by its own clock.
type provider struct {
	*httptest.Server
	t   testing.TB
	key *ecdsa.PrivateKey
}

func newProvider(t testing.TB) *provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding
	p := &provider{t: t, key: key}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{ // to a guard of this test
			"kty": "EC", "crv": "P-256", "kid": "p1", "x": b64.EncodeToString(point[1:33]), "y": b64.EncodeToString(point[33:]),
		}}})
	}))
	t.Cleanup(p.Close)
	return p
}

// token signs one that was issued at a time.
func (p *provider) token(sub string, iat time.Time) string {
	p.t.Helper()
	tok := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": p.URL, "sub": sub, "aud": "api://orders", "azp": "spa", "iat": iat.Unix(), "exp": iat.Add(30 * time.Minute).Unix(),
	})
	tok.Header["kid"] = "p1"
	text, err := tok.SignedString(p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

// Tokens of a foreign issuer have nothing but iat to go by, so a cut hits all
// that seem older than it and the skew allowed to that issuer together: its
// clock, ours and the guard's may differ by minutes, and none slips through.
func TestPromise5ForeignTokensGoByTheirTimeAndTheSkew(t *testing.T) {
	t.Parallel()
	const skew = 5 * time.Minute // the default
	for _, off := range []struct{ revocation, guard, provider time.Duration }{
		{0, 0, 0},
		{0, 0, 4 * time.Minute},
		{-3 * time.Minute, 3 * time.Minute, 90 * time.Second},
		{3 * time.Minute, -3 * time.Minute, -time.Minute},
	} {
		t.Run(fmt.Sprintf("%+v", off), func(t *testing.T) {
			t.Parallel()
			guardClock := clockAt(off.guard)
			s, p := inProcess(t, clocks(map[string]*clock{identity.Revocation: clockAt(off.revocation)})), newProvider(t)
			admin := s.token(s.operator)
			foreign := guard.Issuer{URL: p.URL, Name: "login", Audience: []string{"api://orders"}, JWKSURL: p.URL}
			made, err := guard.New([]guard.Issuer{{URL: s.url, Trust: s.trust}, foreign},
				guard.WithNATS(s.nats.URL, s.nats.Creds(t, "orders")), guard.WithClock(guardClock.now))
			g := startGuard(t, made, err)
			g.ready()
			_, own := s.issue(admin, "bob") // of the same name, and another
			now := time.Now().Add(off.provider)
			old, young, other := p.token("bob", now.Add(-10*time.Minute)), p.token("bob", now), p.token("eve", now)
			for _, tok := range []string{own, old, young, other} {
				g.until(tok, http.StatusOK)
			}
			r := s.api(admin, http.MethodPost, "/v1/revocations", map[string]any{"op": "revoke", "targets": []string{"principal:bob"}, "issuer": "login", "reason": "test"})
			var cut receipt
			s.decode(r, http.StatusCreated, &cut)
			for name, tok := range map[string]string{"old": old, "just issued": young} {
				if d := g.Decide(t.Context(), tok, guard.Requirement{MaxStale: guard.Probe}); d.Status != http.StatusUnauthorized {
					t.Errorf("a token that is %s at the cut: %d: %s", name, d.Status, d.Reason)
				}
			}
			for _, tok := range []string{own, other} {
				if d := g.decide(tok); d.Status != http.StatusOK {
					t.Errorf("a token of another: %d: %s", d.Status, d.Reason)
				}
			}
			// Exactly so far, and no further.
			border := cut.CommittedAt.Add(skew)
			if d := g.decide(p.token("bob", border.Add(-2*time.Second))); d.Status != http.StatusUnauthorized {
				t.Errorf("issued within the skew: %d", d.Status)
			}
			after := g.decide(p.token("bob", border.Add(2*time.Second)))
			if fromTheFuture := border.After(guardClock.now().Add(skew - 2*time.Second)); fromTheFuture != (after.Status == http.StatusUnauthorized) {
				t.Errorf("issued after it: %d: %s", after.Status, after.Reason)
			}
		})
	}
}
