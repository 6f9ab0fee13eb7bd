package guard_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardtest"
	"github.com/quash-project/quash/shared/guard/revoke"
)

func benchToken(tb testing.TB, q *guardtest.Quash) string {
	tb.Helper()
	var via []revoke.Target
	for _, id := range []string{"key1", "role1", "role2"} {
		t, err := revoke.NewTarget("default", "", revoke.KindRole, id)
		if err != nil {
			tb.Fatal(err)
		}
		via = append(via, t)
	}
	return q.Token(guardtest.Token{
		Subject: "user_2JxkC0vF7w8Q4nT1sZpR9b", ClientID: "client_5hYtR2mKq8", Scopes: []string{"orders:read", "orders:write"}, Via: via,
	})
}

// publicKey is the key that signs, as golang-jwt wants it.
func publicKey(tb testing.TB, q *guardtest.Quash) *ecdsa.PublicKey {
	tb.Helper()
	w := httptest.NewRecorder()
	q.JWKS().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	var set struct{ Keys []struct{ X, Y string } }
	if err := json.Unmarshal(w.Body.Bytes(), &set); err != nil {
		tb.Fatal(err)
	}
	x, _ := base64.RawURLEncoding.DecodeString(set.Keys[0].X)
	y, _ := base64.RawURLEncoding.DecodeString(set.Keys[0].Y)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// BenchmarkDecide: a whole decision beside golang-jwt's Parse of the same token,
// which checks signature and times and knows nothing of revocation.
func BenchmarkDecide(b *testing.B) {
	q := guardtest.New(b)
	key := publicKey(b, q)
	tokens := make([]string, 4096)
	for i := range tokens {
		tokens[i] = benchToken(b, q)
	}
	for range 1000 {
		q.Revoke("principal:x" + time.Now().String())
	}
	req := guard.Requirement{Scopes: []string{"orders:read"}}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithExpirationRequired(), jwt.WithIssuer(guardtest.URL), jwt.WithAudience(guardtest.URL))
	parse := func(b *testing.B, text string) {
		if _, err := parser.Parse(text, func(*jwt.Token) (any, error) { return key, nil }); err != nil {
			b.Fatal(err)
		}
	}
	// An API key that was exchanged before, beside its token: both in the cache.
	b.Run("seen=true/impl=guard-key", func(b *testing.B) {
		g := q.Guard(guard.WithExchange(q.Exchange()))
		key := q.APIKey(guardtest.Token{Subject: "user_2JxkC0vF7w8Q4nT1sZpR9b", ClientID: "client_5hYtR2mKq8", Scopes: []string{"orders:read", "orders:write"}})
		ctx, before := context.Background(), q.Exchanges()
		b.ReportAllocs()
		for b.Loop() {
			if d := g.Decide(ctx, key, req); !d.Allowed() {
				b.Fatal(d.Reason)
			}
		}
		if n := q.Exchanges() - before; n != 1 {
			b.Fatalf("%d exchanges", n)
		}
	})
	where := guard.Require(guard.Scopes("orders:read"), guard.Any(guard.AnyRole("support"), guard.SubjectIs(guard.Path("user"))))
	where.Request = path{"user": "user_2JxkC0vF7w8Q4nT1sZpR9b"}
	b.Run("seen=true/impl=guard-conditions", func(b *testing.B) {
		g, ctx := q.Guard(), context.Background()
		b.ReportAllocs()
		for b.Loop() {
			if d := g.Decide(ctx, tokens[0], where); !d.Allowed() {
				b.Fatal(d.Reason)
			}
		}
	})
	for _, seen := range []string{"true", "false"} {
		b.Run("seen="+seen+"/impl=guard", func(b *testing.B) {
			// A cache smaller than what goes by: no token is seen twice.
			g := q.Guard(guard.WithCache(map[string]uint64{"true": 16 << 20, "false": 64 << 10}[seen]))
			ctx, i := context.Background(), 0
			if seen == "true" {
				tokens := tokens[:1]
				g.Decide(ctx, tokens[0], req)
			}
			b.ReportAllocs()
			for b.Loop() {
				text := tokens[0]
				if seen == "false" {
					text = tokens[i%len(tokens)]
					i++
				}
				if d := g.Decide(ctx, text, req); !d.Allowed() {
					b.Fatal(d.Reason)
				}
			}
			if s := g.Stats(); seen == "false" && s.CacheHits > s.CacheMisses/10 {
				b.Fatalf("tokens were seen before: %+v", s)
			}
		})
		b.Run("seen="+seen+"/impl=golang-jwt", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				parse(b, tokens[i%len(tokens)])
			}
		})
	}
}
