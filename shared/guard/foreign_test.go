package guard_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardtest"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// provider is an OpenID provider that knows nothing of Quash.
type provider struct {
	*httptest.Server
	tb   testing.TB
	key  *rsa.PrivateKey
	kid  atomic.Value
	down atomic.Bool
	hits atomic.Int64
}

func newProvider(tb testing.TB) *provider {
	tb.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		tb.Fatal(err)
	}
	p := &provider{tb: tb, key: key}
	p.kid.Store("rsa-1")
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.hits.Add(1)
		if p.down.Load() {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		b64 := base64.RawURLEncoding
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]any{
			"kty": "RSA", "use": "sig", "kid": p.kid.Load(), "n": b64.EncodeToString(key.N.Bytes()),
			"e": b64.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
		}}})
	}))
	tb.Cleanup(p.Close)
	return p
}

func (p *provider) issuer() guard.Issuer {
	return guard.Issuer{URL: p.URL, Name: "login", Audience: []string{"api://orders"}, JWKSURL: p.URL + "/keys"}
}

func (p *provider) token(now time.Time, changes map[string]any) string {
	p.tb.Helper()
	claims := jwt.MapClaims{
		"iss": p.URL, "sub": "auth0|bob", "aud": "api://orders", "azp": "spa", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "scope": "orders:read",
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	t.Header["kid"] = p.kid.Load()
	text, err := t.SignedString(crypto.Signer(p.key))
	if err != nil {
		p.tb.Fatal(err)
	}
	return text
}

func (p *provider) target(kind revoke.Kind, id string) revoke.Target {
	p.tb.Helper()
	t, err := revoke.NewTarget("default", "login", kind, id)
	if err != nil {
		p.tb.Fatal(err)
	}
	return t
}

func TestForeignIssuerBesideOwnOne(t *testing.T) {
	q, p := guardtest.New(t), newProvider(t)
	g := q.Start([]guard.Issuer{q.Issuer(), p.issuer()}, guard.WithFollow(q.Follow()))
	q.WaitReady(g)
	own := q.Token(guardtest.Token{Subject: "auth0|bob", Scopes: []string{"orders:read"}})
	now := q.Now()
	foreign := p.token(now.Add(-10*time.Minute), nil)
	wantAllow(t, decide(g, own, read))
	d := decide(g, foreign, read)
	wantAllow(t, d)
	if d.Token.ClientID != "spa" || d.Token.IssuerName != "login" || !d.Token.Stamp.IsZero() {
		t.Errorf("token %+v", d.Token)
	}

	q.Revoke("principal:auth0|bob") // that of our own issuer: ids of different issuers never meet
	wantAllow(t, decide(g, foreign, read))
	wantDeny(t, decide(g, own, read), http.StatusUnauthorized, guard.CheckTargets)

	young := p.token(now.Add(time.Minute), nil) // within the skew allowed to the provider's clock
	wantAllow(t, decide(g, young, read))
	q.RevokeTargets(p.target(revoke.KindPrincipal, "auth0|bob"))
	wantDeny(t, decide(g, foreign, read), http.StatusUnauthorized, guard.CheckTargets)
	wantDeny(t, decide(g, young, read), http.StatusUnauthorized, guard.CheckTargets)
	q.Advance(6 * time.Minute)
	wantAllow(t, decide(g, p.token(q.Now(), nil), guard.Requirement{MaxStale: guard.Probe}))
}

func TestForeignTargetsHit(t *testing.T) {
	q, p := guardtest.New(t), newProvider(t)
	g := q.Start([]guard.Issuer{q.Issuer(), p.issuer()}, guard.WithFollow(q.Follow()))
	q.WaitReady(g)
	token := p.token(q.Now(), map[string]any{"sid": "s1", "jti": "j1"})
	for _, target := range []revoke.Target{
		p.target(revoke.KindPrincipal, "auth0|bob"), p.target(revoke.KindClient, "spa"), p.target(revoke.KindGrant, "auth0|bob/spa"),
		p.target(revoke.KindSession, "s1"), p.target(revoke.KindSignIns, "auth0|bob"), p.target(revoke.KindToken, "j1"),
		p.target(revoke.KindSigningKey, "rsa-1"), p.target(revoke.KindIssuer, "login"),
	} {
		wantAllow(t, decide(g, token, read))
		q.HoldTargets(target)
		wantDeny(t, decide(g, token, read), http.StatusUnauthorized, guard.CheckTargets)
		q.ReleaseTargets(target)
	}
}

func TestForeignTokensAreRefusedThatCantBeChecked(t *testing.T) {
	q, p := guardtest.New(t), newProvider(t)
	g := q.Start([]guard.Issuer{q.Issuer(), p.issuer()}, guard.WithFollow(q.Follow()))
	q.WaitReady(g)
	now := q.Now()
	for name, c := range map[string]struct {
		token string
		check string
	}{
		"no iat":             {p.token(now, map[string]any{"iat": nil}), guard.CheckClaims},
		"no exp":             {p.token(now, map[string]any{"exp": nil}), guard.CheckClaims},
		"above its max life": {p.token(now, map[string]any{"exp": now.Add(61 * time.Minute).Unix()}), guard.CheckClaims},
		"from the future":    {p.token(now.Add(6*time.Minute), nil), guard.CheckTime},
		"for somebody else":  {p.token(now, map[string]any{"aud": "api://other"}), guard.CheckAudience},
		"of our own issuer":  {p.token(now, map[string]any{"iss": guardtest.URL}), guard.CheckClaims},
	} {
		d := decide(g, c.token, read)
		t.Run(name, func(t *testing.T) { wantDeny(t, d, http.StatusUnauthorized, c.check) })
	}
}

func TestForeignKeysAreFetchedAgainForAnUnknownKid(t *testing.T) {
	q, p := guardtest.New(t), newProvider(t)
	g := q.Start([]guard.Issuer{q.Issuer(), p.issuer()}, guard.WithFollow(q.Follow()))
	q.WaitReady(g)
	old := p.token(q.Now(), nil)
	wantAllow(t, decide(g, old, read))
	p.kid.Store("rsa-2")
	q.Advance(11 * time.Second) // fetched moments ago, it would not be again
	wantAllow(t, decide(g, p.token(q.Now(), nil), read))
	wantDeny(t, decide(g, old, read), http.StatusUnauthorized, guard.CheckKey) // its key has left, cached or not
	before := p.hits.Load()
	for range 50 {
		p.kid.Store("rsa-3")
		token := p.token(q.Now(), nil)
		p.kid.Store("rsa-2")
		wantDeny(t, decide(g, token, read), http.StatusUnauthorized, guard.CheckKey)
	}
	if n := p.hits.Load() - before; n > 1 {
		t.Errorf("%d fetches for 50 unknown keys", n)
	}
	p.down.Store(true)
	p.kid.Store("rsa-4")
	q.Advance(11 * time.Second)
	wantDeny(t, decide(g, p.token(q.Now(), nil), guard.Requirement{MaxStale: guard.Probe}), http.StatusServiceUnavailable, guard.CheckKey)
}

// TestRedisAlone is a guard without NATS: its keys come from the JWKS URL.
func TestRedisAlone(t *testing.T) {
	q := guardtest.New(t)
	jwks := httptest.NewServer(q.JWKS())
	defer jwks.Close()
	redis := q.Redis()
	g := q.Start([]guard.Issuer{{URL: guardtest.URL, JWKSURL: jwks.URL}}, guard.WithRedis(redis))
	q.WaitReady(g)
	token := q.Token(guardtest.Token{Scopes: []string{"orders:read"}})
	d := decide(g, token, read)
	wantAllow(t, d)
	if d.Source != guard.SourceRedis || d.Watermark.IsZero() {
		t.Errorf("%+v", d)
	}
	ctx, cancel := g.Watch(context.Background(), d.Token)
	defer cancel()
	stamp := q.Revoke("principal:alice")
	d = decide(g, token, read)
	wantDeny(t, d, http.StatusUnauthorized, guard.CheckTargets)
	if d.Since != stamp || d.Target.String() != "principal:alice" {
		t.Errorf("%+v", d)
	}
	e := g.Explain(context.Background(), token, read)
	if hits := e.Hits(); len(hits) != 1 || hits[0].String() != "principal:alice" || hits[0].Since != stamp {
		t.Errorf("explained %+v", hits)
	}
	select {
	case <-ctx.Done():
		if !errors.Is(context.Cause(ctx), guard.ErrHit) {
			t.Errorf("ended by %v", context.Cause(ctx))
		}
	case <-time.After(time.Minute):
		t.Error("the watched context did not end")
	}
	again := q.Token(guardtest.Token{})
	wantAllow(t, decide(g, again, guard.Requirement{}))
	ahead := q.Stamp()
	ahead.Seq += 100
	wantDeny(t, decide(g, q.Token(guardtest.Token{Stamp: &ahead}), guard.Requirement{}), http.StatusServiceUnavailable, guard.CheckView)
	redis.Disconnect()
	wantDeny(t, decide(g, again, guard.Requirement{}), http.StatusServiceUnavailable, guard.CheckView)
	wantDeny(t, decide(g, token, guard.Requirement{}), http.StatusUnauthorized, guard.CheckTargets)
	if err := g.Ready(); err == nil || !strings.Contains(err.Error(), "the Redis view is not complete") {
		t.Errorf("ready: %v", err)
	}
}

func TestConfigurationThatWouldOpenIsRefused(t *testing.T) {
	q := guardtest.New(t)
	good := q.Issuer()
	follow := guard.WithFollow(q.Follow())
	with := func(change func(*guard.Issuer)) []guard.Issuer {
		i := guard.Issuer{URL: "https://login.example", Name: "login", Audience: []string{"a"}, JWKSURL: "https://login.example/keys"}
		change(&i)
		return []guard.Issuer{i}
	}
	for name, c := range map[string]struct {
		issuers []guard.Issuer
		opts    []guard.Option
	}{
		"no issuer":                 {nil, []guard.Option{follow}},
		"nothing says what is dead": {[]guard.Issuer{good}, nil},
		"two logs":                  {[]guard.Issuer{good}, []guard.Option{follow, guard.WithNATS("nats://127.0.0.1", "x")}},
		"own without trust":         {[]guard.Issuer{{URL: "https://q"}}, []guard.Option{follow}},
		"trust that is no key":      {[]guard.Issuer{{URL: "https://q", Trust: []string{"ed25519:AAAA"}}}, []guard.Option{follow}},
		"redis alone, no JWKS":      {[]guard.Issuer{good}, []guard.Option{guard.WithRedis(q.Redis())}},
		"the same issuer twice":     {[]guard.Issuer{good, good}, []guard.Option{follow}},
		"foreign named own":         {with(func(i *guard.Issuer) { i.Name = "own" }), []guard.Option{follow}},
		"foreign for anybody":       {with(func(i *guard.Issuer) { i.Audience = nil }), []guard.Option{follow}},
		"foreign with HS256":        {with(func(i *guard.Issuer) { i.Algs = []string{"HS256"} }), []guard.Option{follow}},
		"foreign with none":         {with(func(i *guard.Issuer) { i.Algs = []string{"none"} }), []guard.Option{follow}},
		"keys over plain http":      {with(func(i *guard.Issuer) { i.JWKSURL = "http://login.example/keys" }), []guard.Option{follow}},
		"tokens for a week":         {with(func(i *guard.Issuer) { i.MaxLife = 7 * 24 * time.Hour }), []guard.Option{follow}},
		"limit above the maximum":   {[]guard.Issuer{good}, []guard.Option{follow, guard.WithLimit(2 * time.Minute)}},
		"past the limit: whatever":  {[]guard.Issuer{good}, []guard.Option{follow, guard.WithPast("whatever")}},
		"redis without redis":       {[]guard.Issuer{good}, []guard.Option{follow, guard.WithPast("redis")}},
	} {
		if g, err := guard.New(c.issuers, c.opts...); err == nil || g != nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestExplainTellsEveryCheckAndTarget(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	token := q.Token(guardtest.Token{Audience: []string{"https://other"}, SessionID: "s1"})
	cut := q.Revoke("principal:alice")
	held := q.Hold("session:s1")
	e := g.Explain(context.Background(), token, read)
	wantDeny(t, e.Decision, http.StatusUnauthorized, guard.CheckAudience) // the first that fails
	failed := map[string]string{}
	for _, c := range e.Checks {
		if !c.OK {
			failed[c.Check] = c.Detail
		}
	}
	if len(failed) != 3 || failed[guard.CheckAudience] == "" || failed[guard.CheckTargets] == "" || failed[guard.CheckScope] == "" {
		t.Errorf("failed: %v of %v", failed, e.Checks)
	}
	hits := e.Hits()
	if len(hits) != 2 || hits[0].String() != "session:s1" || hits[0].Cause != guard.CauseHeld || hits[0].Since != held ||
		hits[1].String() != "principal:alice" || hits[1].Cause != guard.CauseCut || hits[1].Since != cut {
		t.Errorf("hits: %+v", hits)
	}
	if !e.Proved || e.Claims.Subject != "alice" || e.Position.ID == "" || e.ViewError != "" {
		t.Errorf("%+v", e)
	}
	forged := q.Token(guardtest.Token{})
	forged = forged[:len(forged)-10] + "AAAAAAAAAA"
	if e := g.Explain(context.Background(), forged, read); e.Proved || e.Allowed() || e.Decision.Token != nil {
		t.Errorf("a forged token: %+v", e)
	}
	if e := g.Explain(context.Background(), "x", read); len(e.Checks) != 1 || e.Checks[0].OK {
		t.Errorf("no token: %+v", e.Checks)
	}
}

func TestWatchEndsWithTheToken(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	for name, c := range map[string]struct {
		do   func()
		want error
	}{
		"hit":         {func() { q.Hold("principal:alice") }, guard.ErrHit},
		"key revoked": {func() { q.SetKeyState(q.KeyID(), "revoked"); q.Rotate() }, guard.ErrHit},
	} {
		q.Release("principal:alice")
		d := decide(g, q.Token(guardtest.Token{}), guard.Requirement{})
		wantAllow(t, d)
		ctx, cancel := g.Watch(context.Background(), d.Token)
		if ctx.Err() != nil {
			t.Fatalf("%s: ended at once", name)
		}
		c.do()
		select {
		case <-ctx.Done():
		case <-time.After(time.Minute):
			t.Fatalf("%s: did not end", name)
		}
		if err := context.Cause(ctx); !errors.Is(err, c.want) {
			t.Errorf("%s: ended by %v", name, err)
		}
		cancel()
	}
	q.Release("principal:alice")
	d := decide(g, q.Token(guardtest.Token{Claims: map[string]any{"exp": q.Now().Unix() + 2}}), guard.Requirement{})
	ctx, cancel := g.Watch(context.Background(), d.Token)
	defer cancel()
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), guard.ErrExpired) {
		t.Errorf("ended by %v", context.Cause(ctx))
	}
	if ctx, _ := g.Watch(context.Background(), &guard.Claims{}); ctx.Err() == nil {
		t.Error("claims that nobody proved are watched")
	}
}

// TestNoTokenInLogsOrReasons (promise 6).
func TestNoTokenInLogsOrReasons(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	q := guardtest.New(t)
	g := q.Guard(guard.WithLogger(zap.New(core)))
	secret := "sEcReTvAlUe"
	var said strings.Builder
	for _, tok := range []guardtest.Token{
		{Subject: secret},
		{Claims: map[string]any{"iss": secret}},
		{Claims: map[string]any{"aud": secret}},
		{Claims: map[string]any{"exp": secret}},
		{Claims: map[string]any{"rseq": secret}},
		{Claims: map[string]any{"via": []string{secret}}},
		{Claims: map[string]any{"tenant": secret}},
		{Header: map[string]any{"kid": secret}},
		{Header: map[string]any{"alg": secret}},
		{Header: map[string]any{"typ": secret}},
		{Claims: map[string]any{"sub": secret + "\x00"}},
		{Claims: map[string]any{strings.ToUpper("exp"): secret}},
	} {
		text := q.Token(tok)
		d := decide(g, text, read)
		said.WriteString(d.Reason)
		d = decide(g, text[:len(text)-4], read)
		said.WriteString(d.Reason)
	}
	for _, l := range logs.All() {
		said.WriteString(l.Message)
		b, _ := json.Marshal(l.ContextMap())
		said.Write(b)
	}
	if strings.Contains(said.String(), secret) {
		t.Errorf("a token's contents were told: %s", said.String())
	}
}
