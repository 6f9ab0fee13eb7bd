package guardtest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
)

// Token is what a token is to say. The zero Token is one of subject "alice",
// for everything that New's guard accepts, without any scope.
type Token struct {
	Subject   string // default "alice"
	ClientID  string // default "client_test"
	SessionID string // none by default
	ID        string // jti; random by default
	Scopes    []string
	Roles     []string
	Audience  []string      // default URL
	Life      time.Duration // default 10 minutes
	// Via are the targets that the token was made from: keys, roles, bindings.
	Via []revoke.Target
	// Stamp is the position up to which the issuer had read; default: all of it.
	Stamp *revoke.Stamp
	// Header and Claims replace members, and leave out those that are nil: for
	// tokens that should be refused.
	Header, Claims map[string]any
}

// Token issues a token.
func (q *Quash) Token(t Token) string {
	q.tb.Helper()
	key, now := q.key(), q.Now()
	stamp := q.Stamp()
	if t.Stamp != nil {
		stamp = *t.Stamp
	}
	via := []string{}
	for _, v := range t.Via {
		via = append(via, v.Key().String())
	}
	claims := map[string]any{
		"iss": URL, "sub": or(t.Subject, "alice"), "client_id": or(t.ClientID, "client_test"), "jti": or(t.ID, rand.Text()),
		"aud": URL, "iat": now.Unix(), "exp": now.Add(t.life()).Unix(), "scope": strings.Join(t.Scopes, " "),
		"tenant": Tenant, "rseq": stamp.String(), "via": via,
	}
	if len(t.Roles) > 0 {
		claims["roles"] = t.Roles
	}
	if len(t.Audience) > 0 {
		claims["aud"] = t.Audience
	}
	if t.SessionID != "" {
		claims["sid"] = t.SessionID
	}
	header := map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": key.id}
	text := q.segment(header, t.Header) + "." + q.segment(claims, t.Claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key.private, sum[:])
	if err != nil {
		q.tb.Fatalf("guardtest: %v", err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func (t Token) life() time.Duration {
	if t.Life == 0 {
		return 10 * time.Minute
	}
	return t.Life
}

// Stamp returns the stamp that what is made now gets.
func (q *Quash) Stamp() revoke.Stamp {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stamp
}

func (q *Quash) segment(members, changes map[string]any) string {
	q.tb.Helper()
	maps.Copy(members, changes)
	maps.DeleteFunc(members, func(_ string, v any) bool { return v == nil })
	text, err := json.Marshal(members)
	if err != nil {
		q.tb.Fatalf("guardtest: %v", err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func or(s, byDefault string) string {
	if s == "" {
		return byDefault
	}
	return s
}
