package guard_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/guardtest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

var read = guard.Requirement{Scopes: []string{"orders:read"}}

func decide(g *guard.Guard, token string, req guard.Requirement) guard.Decision {
	return g.Decide(context.Background(), token, req)
}

func wantDeny(t *testing.T, d guard.Decision, status int, check string) {
	t.Helper()
	if d.Outcome == guard.Allow || d.Allowed() || d.Status != status || d.Check != check {
		t.Errorf("decision %s %d %q (%s), want %d by %q", d.Outcome, d.Status, d.Check, d.Reason, status, check)
	}
	if d.Outcome == guard.Unavailable && d.RetryAfter <= 0 {
		t.Error("unavailable without RetryAfter")
	}
}

func wantAllow(t *testing.T, d guard.Decision) {
	t.Helper()
	if !d.Allowed() || d.Status != http.StatusOK || d.Check != "" || d.Token == nil {
		t.Errorf("decision %s %d %q (%s), want allow", d.Outcome, d.Status, d.Check, d.Reason)
	}
}

func TestZeroDecisionDenies(t *testing.T) {
	var d guard.Decision
	if d.Allowed() || d.Outcome != guard.Deny || d.HTTPStatus() != http.StatusServiceUnavailable {
		t.Errorf("the zero Decision: %+v", d)
	}
}

func TestGoodTokenIsAllowed(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	token := q.Token(guardtest.Token{Subject: "bob", Scopes: []string{"orders:read", "x"}, Roles: []string{"dev"}, SessionID: "s1"})
	for range 3 { // from the cache, too
		d := decide(g, token, guard.Requirement{Scopes: []string{"orders:read"}, AnyRole: []string{"ops", "dev"}})
		wantAllow(t, d)
		if d.Token.Subject != "bob" || d.Token.SessionID != "s1" || d.Source != guard.SourceView || d.Staleness > time.Minute {
			t.Errorf("decision %+v, token %+v", d, d.Token)
		}
	}
	if s := g.Stats(); s.Allowed != 3 || s.CacheHits != 2 || s.CacheMisses != 1 || !s.Accepting {
		t.Errorf("stats %+v", s)
	}
}

func TestScopesAndRolesAreRequired(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	token := q.Token(guardtest.Token{Scopes: []string{"orders:write"}, Roles: []string{"dev"}})
	d := decide(g, token, read)
	wantDeny(t, d, http.StatusForbidden, guard.CheckScope)
	if d.Error != guard.ErrorInsufficientScope || d.Token == nil {
		t.Errorf("%+v", d)
	}
	wantDeny(t, decide(g, token, guard.Requirement{AnyRole: []string{"ops"}}), http.StatusForbidden, guard.CheckRole)
	wantAllow(t, decide(g, token, guard.Requirement{AnyRole: []string{"ops", "dev"}}))
	wantDeny(t, decide(g, token, guard.Requirement{Audience: []string{"https://other"}}), http.StatusUnauthorized, guard.CheckAudience)
	other := q.Token(guardtest.Token{Audience: []string{"https://other"}})
	wantDeny(t, decide(g, other, guard.Requirement{}), http.StatusUnauthorized, guard.CheckAudience)
	wantAllow(t, decide(g, other, guard.Requirement{AnyAudience: true}))
}

// TestEveryTargetHitsAtOnce is the promise itself: each thing that a token
// belongs to, revoked or held, refuses it, also when it was seen before.
func TestEveryTargetHitsAtOnce(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	role := revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: revoke.KindRole, ID: "r1"}
	key := revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: revoke.KindKey, ID: "k1"}
	issue := func() string {
		return q.Token(guardtest.Token{
			Subject: "bo/b", ClientID: "c%1", SessionID: "s1", ID: "j1", Via: []revoke.Target{role, key}, Scopes: []string{"orders:read"},
		})
	}
	for _, target := range []string{
		"principal:bo%2Fb", "client:c%251", "grant:bo%2Fb/c%251", "sign-ins:bo%2Fb", "role:r1", "tenant:default", "issuer:own",
	} {
		token := issue()
		wantAllow(t, decide(g, token, read))
		stamp := q.Revoke(target)
		d := decide(g, token, read)
		wantDeny(t, d, http.StatusUnauthorized, guard.CheckTargets)
		if d.Since != stamp || d.Error != guard.ErrorInvalidToken || d.Token == nil {
			t.Errorf("%s: since %s, want %s: %+v", target, d.Since, stamp, d)
		}
		if !strings.HasPrefix(target, "role") && d.Target.String() != target {
			t.Errorf("target %s, want %s", d.Target, target)
		}
		wantAllow(t, decide(g, issue(), read)) // what is made afterwards is clean
	}
	token := issue()
	for _, target := range []string{"principal:bo%2Fb", "token:j1", "session:s1", "key:k1", "signing-key:" + q.KeyID()} {
		q.Hold(target)
		d := decide(g, token, read)
		wantDeny(t, d, http.StatusUnauthorized, guard.CheckTargets)
		if !strings.HasPrefix(d.Reason, guard.CauseHeld) {
			t.Errorf("%s: reason %q", target, d.Reason)
		}
		q.Release(target)
		wantAllow(t, decide(g, token, read))
	}
	for _, target := range []string{"key:k1", "session:s1", "token:j1", "signing-key:" + q.KeyID()} {
		q.Revoke(target)
		wantDeny(t, decide(g, issue(), read), http.StatusUnauthorized, guard.CheckTargets)
	}
}

func TestTokenFormOfOwnIssuerIsStrict(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	now := q.Now().Unix()
	for name, c := range map[string]struct {
		t     guardtest.Token
		check string
	}{
		"typ JWT":             {guardtest.Token{Header: map[string]any{"typ": "JWT"}}, guard.CheckClaims},
		"no typ":              {guardtest.Token{Header: map[string]any{"typ": nil}}, guard.CheckClaims},
		"alg none":            {guardtest.Token{Header: map[string]any{"alg": "none"}}, guard.CheckClaims},
		"alg HS256":           {guardtest.Token{Header: map[string]any{"alg": "HS256"}}, guard.CheckClaims},
		"alg of another key":  {guardtest.Token{Header: map[string]any{"alg": "EdDSA"}}, guard.CheckKey},
		"crit":                {guardtest.Token{Header: map[string]any{"crit": []string{"exp"}}}, guard.CheckForm},
		"kid a number":        {guardtest.Token{Header: map[string]any{"kid": 1}}, guard.CheckForm},
		"unknown kid":         {guardtest.Token{Header: map[string]any{"kid": "other"}}, guard.CheckKey},
		"unknown issuer":      {guardtest.Token{Claims: map[string]any{"iss": "https://evil.test"}}, guard.CheckIssuer},
		"no sub":              {guardtest.Token{Claims: map[string]any{"sub": nil}}, guard.CheckClaims},
		"no jti":              {guardtest.Token{Claims: map[string]any{"jti": nil}}, guard.CheckClaims},
		"no exp":              {guardtest.Token{Claims: map[string]any{"exp": nil}}, guard.CheckClaims},
		"no iat":              {guardtest.Token{Claims: map[string]any{"iat": nil}}, guard.CheckClaims},
		"no rseq":             {guardtest.Token{Claims: map[string]any{"rseq": nil}}, guard.CheckClaims},
		"no via":              {guardtest.Token{Claims: map[string]any{"via": nil}}, guard.CheckClaims},
		"no tenant":           {guardtest.Token{Claims: map[string]any{"tenant": nil}}, guard.CheckClaims},
		"another tenant":      {guardtest.Token{Claims: map[string]any{"tenant": "other"}}, guard.CheckClaims},
		"no aud":              {guardtest.Token{Claims: map[string]any{"aud": nil}}, guard.CheckClaims},
		"another aud":         {guardtest.Token{Claims: map[string]any{"aud": "https://other"}}, guard.CheckAudience},
		"an hour and more":    {guardtest.Token{Life: time.Hour + time.Second}, guard.CheckClaims},
		"a life below zero":   {guardtest.Token{Claims: map[string]any{"exp": now - 700, "iat": now - 600}}, guard.CheckClaims},
		"expired":             {guardtest.Token{Claims: map[string]any{"exp": now, "iat": now - 600}}, guard.CheckTime},
		"not yet":             {guardtest.Token{Claims: map[string]any{"nbf": now + 600}}, guard.CheckTime},
		"bound to a key":      {guardtest.Token{Claims: map[string]any{"cnf": map[string]any{"jkt": "x"}}}, guard.CheckClaims},
		"exp a string":        {guardtest.Token{Claims: map[string]any{"exp": "9999999999"}}, guard.CheckForm},
		"SUB beside sub":      {guardtest.Token{Claims: map[string]any{"SUB": "root"}}, guard.CheckForm},
		"sub of control code": {guardtest.Token{Claims: map[string]any{"sub": "a\x00b"}}, guard.CheckClaims},
		"sub of 513 bytes":    {guardtest.Token{Claims: map[string]any{"sub": strings.Repeat("a", 513)}}, guard.CheckClaims},
	} {
		d := decide(g, q.Token(c.t), guard.Requirement{})
		t.Run(name, func(t *testing.T) { wantDeny(t, d, http.StatusUnauthorized, c.check) })
		if d.Error != guard.ErrorInvalidToken {
			t.Errorf("%s: error %q", name, d.Error)
		}
	}
}

func TestTouchedTokenIsRefused(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	token := q.Token(guardtest.Token{})
	other := q.Token(guardtest.Token{Subject: "root"})
	a, b := strings.Split(token, "."), strings.Split(other, ".")
	d := decide(g, b[0]+"."+b[1]+"."+a[2], guard.Requirement{})
	wantDeny(t, d, http.StatusUnauthorized, guard.CheckSignature)
	if d.Token != nil || strings.Contains(d.Reason, "root") {
		t.Errorf("a refusal before the signature was proved tells claims: %+v", d)
	}
	wantDeny(t, decide(g, token+"=", guard.Requirement{}), http.StatusUnauthorized, guard.CheckForm)
	wantDeny(t, decide(g, "", guard.Requirement{}), http.StatusUnauthorized, guard.CheckForm)
}

func TestCachedTokenStillExpiresAndItsKeyIsStillAsked(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	kid := q.KeyID()
	token := q.Token(guardtest.Token{Life: time.Minute})
	long := q.Token(guardtest.Token{Life: time.Hour})
	wantAllow(t, decide(g, token, guard.Requirement{}))
	wantAllow(t, decide(g, long, guard.Requirement{}))
	q.Advance(61 * time.Second)
	fresh := guard.Requirement{MaxStale: guard.Probe} // the view aged a minute by that
	wantDeny(t, decide(g, token, fresh), http.StatusUnauthorized, guard.CheckTime)
	wantAllow(t, decide(g, long, fresh))
	q.SetKeyState(kid, "retiring")
	wantAllow(t, decide(g, long, fresh))
	q.SetKeyState(kid, "revoked")
	wantDeny(t, decide(g, long, fresh), http.StatusUnauthorized, guard.CheckKey)
}

func TestKeyCountsOnlyInItsStatesAndUpToItsEnd(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	old := q.KeyID()
	token := q.Token(guardtest.Token{Life: time.Hour})
	q.Rotate()
	if q.KeyID() == old {
		t.Fatal("no new key")
	}
	wantAllow(t, decide(g, token, guard.Requirement{}))
	wantAllow(t, decide(g, q.Token(guardtest.Token{}), guard.Requirement{}))
	q.SetKeyState(old, "gone")
	wantDeny(t, decide(g, token, guard.Requirement{}), http.StatusUnauthorized, guard.CheckKey)
	q.SetKeyState(old, "signing") // late: the greatest state counts
	wantDeny(t, decide(g, token, guard.Requirement{}), http.StatusUnauthorized, guard.CheckKey)
}

func TestStampAboveTheWatermarkIsNotNewerThanEveryCut(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithWait(20 * time.Millisecond))
	ahead := q.Stamp()
	ahead.Seq += 1000
	token := q.Token(guardtest.Token{Stamp: &ahead})
	d := decide(g, token, guard.Requirement{})
	wantDeny(t, d, http.StatusServiceUnavailable, guard.CheckView)
	if d.Error != "" {
		t.Errorf("503 with the error %q: it says nothing of the token", d.Error)
	}
}

func TestTokenAheadOfTheViewWaitsForIt(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithWait(10 * time.Second))
	head := g.Reader().Position().Stamp
	next := revoke.Stamp{Epoch: head.Epoch, Seq: head.Seq + 1}
	token := q.Token(guardtest.Token{Stamp: &next})
	got := make(chan guard.Decision, 1)
	go func() { got <- decide(g, token, guard.Requirement{}) }()
	q.Revoke("principal:alice") // stands at next: what was read before it is dead, this token was made with it
	wantAllow(t, <-got)
}

func TestPastItsLimitAGuardDoesWhatItsOwnerChose(t *testing.T) {
	q := guardtest.New(t)
	redis := q.Redis()
	denies := q.Guard()
	allows := q.Guard(guard.WithPast(wire.PastAllow))
	asks := q.Guard(guard.WithPast(wire.PastRedis), guard.WithRedis(redis))
	token := q.Token(guardtest.Token{Scopes: []string{"orders:read"}, Life: time.Hour})
	revoked := q.Token(guardtest.Token{Subject: "mallory", Life: time.Hour})
	for _, g := range []*guard.Guard{denies, allows, asks} {
		wantAllow(t, decide(g, token, read))
	}
	q.Revoke("principal:mallory")
	q.Disconnect()
	redis.Disconnect()
	q.Advance(16 * time.Second)

	d := decide(denies, token, read)
	wantDeny(t, d, http.StatusServiceUnavailable, guard.CheckView)
	if d.Staleness < 16*time.Second {
		t.Errorf("claims to be only %s old", d.Staleness)
	}
	d = decide(allows, token, read)
	wantAllow(t, d)
	if d.Source != guard.SourceStale || d.Staleness < 16*time.Second {
		t.Errorf("allowed past the limit without saying so: %+v", d)
	}
	wantDeny(t, decide(asks, token, read), http.StatusServiceUnavailable, guard.CheckView) // Redis is cut off, too
	for _, g := range []*guard.Guard{denies, allows, asks} {
		wantDeny(t, decide(g, revoked, guard.Requirement{}), http.StatusUnauthorized, guard.CheckTargets) // a hit is a hit
	}
	if denies.Ready() == nil {
		t.Error("ready past its limit")
	}
}

func TestPastItsLimitRedisAnswers(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithPast(wire.PastRedis), guard.WithRedis(q.Redis()))
	token := q.Token(guardtest.Token{Life: time.Hour})
	wantAllow(t, decide(g, token, guard.Requirement{}))
	q.Disconnect()
	q.Advance(16 * time.Second)
	d := decide(g, token, guard.Requirement{})
	wantAllow(t, d)
	if d.Source != guard.SourceRedis {
		t.Errorf("source %q, want redis", d.Source)
	}
	q.Revoke("principal:alice") // reaches Redis only
	d = decide(g, token, guard.Requirement{})
	wantDeny(t, d, http.StatusUnauthorized, guard.CheckTargets)
	if d.Source != guard.SourceRedis || d.Target.String() != "principal:alice" {
		t.Errorf("%+v", d)
	}
	wantDeny(t, decide(g, token, guard.Requirement{MaxStale: guard.Probe}), http.StatusServiceUnavailable, guard.CheckView)
}

func TestRouteMayAskForFresherThanTheLimit(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithLimit(time.Minute))
	token := q.Token(guardtest.Token{Life: time.Hour})
	q.Disconnect()
	q.Revoke("principal:alice") // is not heard
	q.Advance(10 * time.Second)
	wantAllow(t, decide(g, token, guard.Requirement{})) // within the minute that was chosen
	q.Reconnect()
	for _, maxStale := range []time.Duration{guard.Probe, time.Second} {
		wantDeny(t, decide(g, token, guard.Requirement{MaxStale: maxStale}), http.StatusUnauthorized, guard.CheckTargets)
	}
}

func TestLostLogIsNotAnOldView(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	token := q.Token(guardtest.Token{Life: time.Hour})
	q.Revoke("principal:mallory")
	mallory := q.Token(guardtest.Token{Subject: "mallory", Stamp: &revoke.Stamp{}})
	q.LoseLog()
	q.WaitReady(g)
	wantAllow(t, decide(g, token, guard.Requirement{}))
	wantDeny(t, decide(g, mallory, guard.Requirement{}), http.StatusUnauthorized, guard.CheckTargets) // what was learnt is kept
	q.Revoke("principal:alice")
	wantDeny(t, decide(g, token, guard.Requirement{}), http.StatusUnauthorized, guard.CheckTargets)
	wantAllow(t, decide(g, q.Token(guardtest.Token{}), guard.Requirement{}))
}

// TestRestoredLogVoidsSignIns: what had ended one may be lost with the log's tail.
func TestRestoredLogVoidsSignIns(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard()
	key := q.Token(guardtest.Token{Life: time.Hour})
	signIn := q.Token(guardtest.Token{Life: time.Hour, SessionID: "s1"})
	q.LoseLog()
	q.WaitReady(g)
	wantAllow(t, decide(g, signIn, guard.Requirement{})) // no backup was restored
	q.RestoreLog()
	q.WaitReady(g)
	wantAllow(t, decide(g, key, guard.Requirement{}))
	d := decide(g, signIn, guard.Requirement{})
	wantDeny(t, d, http.StatusUnauthorized, guard.CheckTargets)
	if !strings.Contains(d.Reason, "restored") {
		t.Errorf("reason %q: want why", d.Reason)
	}
	wantAllow(t, decide(g, q.Token(guardtest.Token{SessionID: "s2"}), guard.Requirement{}))
}

// TestStartWhileQuashIsDown: it waits, refuses with 503, says what it waits for,
// and never opens by itself.
func TestStartWhileQuashIsDown(t *testing.T) {
	q := guardtest.New(t)
	q.Disconnect()
	g := q.Start([]guard.Issuer{q.Issuer()}, guard.WithFollow(q.Follow()), guard.WithPast(wire.PastAllow))
	token := q.Token(guardtest.Token{})
	wantDeny(t, decide(g, token, guard.Requirement{}), http.StatusServiceUnavailable, guard.CheckView)
	err := g.Ready()
	if err == nil || !strings.Contains(err.Error(), "no signing key") {
		t.Errorf("ready: %v", err)
	}
	wantDeny(t, decide(g, "x.y.z", guard.Requirement{}), http.StatusUnauthorized, guard.CheckForm)
	q.Reconnect()
	q.WaitReady(g)
	wantAllow(t, decide(g, token, guard.Requirement{}))
}

func TestStoppedGuardAcceptsNothing(t *testing.T) {
	q := guardtest.New(t)
	g, err := guard.New([]guard.Issuer{q.Issuer()}, guard.WithFollow(q.Follow()))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Ready(); err == nil {
		t.Error("ready before Run")
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- g.Run(ctx) }()
	q.WaitReady(g)
	token := q.Token(guardtest.Token{})
	wantAllow(t, decide(g, token, guard.Requirement{}))
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	wantDeny(t, decide(g, token, guard.Requirement{}), http.StatusServiceUnavailable, guard.CheckView)
	if g.Ready() == nil {
		t.Error("ready after it has stopped")
	}
	if g.Run(context.Background()) == nil {
		t.Error("ran twice")
	}
}

// TestReaderOfSomebodyElse is how the services use a guard: one reader for all
// that a process decides.
func TestReaderOfSomebodyElse(t *testing.T) {
	q := guardtest.New(t)
	var g *guard.Guard
	cfg := q.Follow()
	cfg.Now, cfg.OnKey = q.Now, func(m wire.Message) { g.OnKey(m) }
	r, err := follow.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if g, err = guard.New([]guard.Issuer{q.Issuer()}, guard.WithReader(r), guard.WithClock(q.Now)); err != nil {
		t.Fatal(err)
	}
	reading, stopReading := context.WithCancel(context.Background())
	guarding, stopGuarding := context.WithCancel(context.Background())
	read, guarded := make(chan error, 1), make(chan error, 1)
	go func() { read <- r.Run(reading) }()
	go func() { guarded <- g.Run(guarding) }()
	q.WaitReady(g)
	token := q.Token(guardtest.Token{})
	wantAllow(t, decide(g, token, guard.Requirement{}))
	stopGuarding()
	if err := <-guarded; err != nil {
		t.Error(err)
	}
	wantDeny(t, decide(g, token, guard.Requirement{}), http.StatusServiceUnavailable, guard.CheckView)
	stopReading()
	if err := <-read; err != nil {
		t.Error(err)
	}
}
