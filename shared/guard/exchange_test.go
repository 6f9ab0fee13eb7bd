package guard_test

import (
	"context"
	"net/http"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/guardtest"
	"github.com/quash-project/quash/shared/guard/keyform"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// probing is read with a proof of freshness: time goes by in these tests.
var probing = guard.Requirement{Scopes: []string{"orders:read"}, MaxStale: guard.Probe}

var orders = guardtest.Token{Subject: "bob", Scopes: []string{"orders:read"}}

func wantExchanges(t *testing.T, q *guardtest.Quash, want int) {
	t.Helper()
	if got := q.Exchanges(); got != want {
		t.Errorf("%d exchanges, want %d", got, want)
	}
}

func TestKeyIsDecidedLikeItsToken(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithExchange(q.Exchange()))
	key := q.APIKey(orders)
	for range 3 {
		d := decide(g, key, read)
		wantAllow(t, d)
		if d.Token.Subject != "bob" || d.Source != guard.SourceView {
			t.Errorf("decision %+v", d)
		}
	}
	// What it may not do costs no other exchange.
	wantDeny(t, decide(g, key, guard.Requirement{Scopes: []string{"orders:write"}}), http.StatusForbidden, guard.CheckScope)
	wantDeny(t, decide(g, key, guard.Require(guard.AnyRole("ops"))), http.StatusForbidden, guard.CheckRole)
	wantAllow(t, decide(g, key, read))
	wantAllow(t, decide(g, q.Token(orders), read)) // tokens are taken as before
	wantExchanges(t, q, 1)
	if s := g.Stats(); s.Exchanges != 1 || s.ExchangeFailures != 0 || s.Allowed != 5 {
		t.Errorf("stats %+v", s)
	}
	if e := g.Explain(t.Context(), key, read); !e.Allowed() || e.Checks[0].Check != guard.CheckExchange || !e.Proved {
		t.Errorf("explanation %+v", e.Checks)
	}
}

// TestRevokedKeyIsRefusedWhileItsTokenIsKept: each thing that the key or its token
// belongs to.
func TestRevokedKeyIsRefusedWhileItsTokenIsKept(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithExchange(q.Exchange()))
	role := revoke.Target{Tenant: guardtest.Tenant, Issuer: revoke.Own, Kind: revoke.KindRole, ID: "r1"}
	token := guardtest.Token{Subject: "bob", ClientID: "app", Scopes: []string{"orders:read"}, Via: []revoke.Target{role}}
	for _, target := range []string{"key", "principal:bob", "client:app"} {
		key := q.APIKey(token)
		name := target
		if target == "key" {
			name = q.KeyTarget(key)
		}
		wantAllow(t, decide(g, key, read))
		before := q.Exchanges()
		q.Hold(name)
		for range 3 {
			wantDeny(t, decide(g, key, read), http.StatusUnauthorized, guard.CheckTargets)
			if target == "key" { // which needs nobody to be asked
				wantExchanges(t, q, before)
			} else {
				break
			}
		}
		q.Release(name)
		q.Advance(3 * time.Second) // a refusal is kept for 2 s
		wantAllow(t, decide(g, key, probing))
		at := q.Revoke(name)
		d := decide(g, key, probing)
		if wantDeny(t, d, http.StatusUnauthorized, guard.CheckTargets); d.Since != at {
			t.Errorf("%s: since %s, want %s", name, d.Since, at)
		}
		for range 3 { // and for good: it is not exchanged again
			if d := decide(g, key, probing); d.Status != http.StatusUnauthorized {
				t.Errorf("%s: %d %s", name, d.Status, d.Reason)
			}
			q.Advance(3 * time.Second)
		}
	}
	// A cut role ends the token; the key lives, and gets another one.
	key := q.APIKey(token)
	wantAllow(t, decide(g, key, probing))
	q.Revoke("role:r1")
	before := q.Exchanges()
	wantDeny(t, decide(g, key, probing), http.StatusUnauthorized, guard.CheckTargets)
	wantExchanges(t, q, before)
	wantAllow(t, decide(g, key, probing))
	wantExchanges(t, q, before+1)
}

// TestKeyThatIsAlwaysHitIsNotAskedForAtOnce: an issuer that lags gives tokens that
// are dead. Each request would ask it for another.
func TestKeyThatIsAlwaysHitIsNotAskedForAtOnce(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithExchange(q.Exchange()))
	key := q.APIKey(guardtest.Token{Audience: []string{guardtest.URL}, SessionID: "s1"})
	q.Revoke("session:s1") // of which the issuer of these tests knows nothing
	for range 5 {
		wantDeny(t, decide(g, key, guard.Requirement{}), http.StatusUnauthorized, guard.CheckTargets)
	}
	wantExchanges(t, q, 1)
}

func TestBadKeyCostsLittle(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithExchange(q.Exchange()))
	key := q.APIKey(orders)
	last := "a"
	if strings.HasSuffix(key, last) {
		last = "b"
	}
	for _, bad := range []string{
		key[:len(key)-1] + last, key[:len(key)-1], key + "0", "quash_key_", strings.Replace(key, "quash_key_", "quash_key_٣", 1),
		"quash_key_" + strings.Repeat("a", 5000),
	} {
		d := decide(g, bad, read)
		if wantDeny(t, d, http.StatusUnauthorized, guard.CheckExchange); strings.Contains(d.Reason, bad[10:]) && bad != "quash_key_" {
			t.Error("the reason has the key in it")
		}
	}
	secret, err := keyform.Generate(strings.NewReader(strings.Repeat("x", 32)), keyform.Secret)
	if err != nil {
		t.Fatal(err)
	}
	wantDeny(t, decide(g, secret, read), http.StatusUnauthorized, guard.CheckForm)
	wantDeny(t, decide(g, strings.ToUpper(key), read), http.StatusUnauthorized, guard.CheckForm)
	wantExchanges(t, q, 0)
	unknown, err := keyform.Generate(strings.NewReader(strings.Repeat("x", 32)), keyform.Key)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		d := decide(g, unknown, read)
		if wantDeny(t, d, http.StatusUnauthorized, guard.CheckExchange); d.Error != guard.ErrorInvalidToken || d.Token != nil {
			t.Errorf("%+v", d)
		}
	}
	wantExchanges(t, q, 1)
	q.ImportKey(unknown, orders) // somebody made it meanwhile
	q.Advance(2*time.Second + time.Millisecond)
	wantAllow(t, decide(g, unknown, read))
}

// TestReadyGuardExchanges: the reader is what makes a guard ready, so exchanges have to
// be possible before the reader says its first word.
func TestReadyGuardExchanges(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // what is started first has its turn first
	q := guardtest.New(t)
	cfg, key := q.Follow(), q.APIKey(orders)
	first := make(chan guard.Decision, 1)
	var g *guard.Guard
	cfg.Feed = feed{cfg.Feed, sync.OnceFunc(func() { first <- decide(g, key, probing) })}
	g, err := guard.New([]guard.Issuer{q.Issuer()}, guard.WithFollow(cfg), guard.WithExchange(q.Exchange()), guard.WithClock(q.Now))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	if d := <-first; d.Check == guard.CheckExchange {
		t.Errorf("when the reader subscribes: %s", d.Reason)
	}
	q.WaitReady(g)
	wantAllow(t, decide(g, key, probing))
	wantExchanges(t, q, 1)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// feed does something before it is subscribed to.
type feed struct {
	follow.Feed
	before func()
}

func (f feed) Subscribe(deliver func(wire.Stored, error), lost func()) (stop func(), err error) {
	f.before()
	return f.Feed.Subscribe(deliver, lost)
}

func TestKeyIsExchangedAnewBeforeItsTokenEnds(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithExchange(q.Exchange()))
	key := q.APIKey(orders)
	first := decide(g, key, probing)
	wantAllow(t, first)
	q.Advance(9*time.Minute + 25*time.Second)
	wantAllow(t, decide(g, key, probing))
	wantExchanges(t, q, 1)
	q.Advance(8 * time.Second) // 27 s before its end, or a little less
	d := decide(g, key, probing)
	if wantAllow(t, d); d.Token.ID != first.Token.ID { // nobody waits for the new one
		t.Error("the token was replaced while a request waited")
	}
	eventually(t, func() bool { return decide(g, key, probing).Token.ID != first.Token.ID })
	wantExchanges(t, q, 2)
}

// TestIssuerThatIsAwayEndsNothingBeforeItsTime, and lets nothing live longer.
func TestIssuerThatIsAwayEndsNothingBeforeItsTime(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithExchange(q.Exchange()))
	key, other := q.APIKey(orders), q.APIKey(orders)
	wantAllow(t, decide(g, key, probing))
	q.StopIssuer()
	for range 3 {
		d := decide(g, other, probing)
		if wantDeny(t, d, http.StatusServiceUnavailable, guard.CheckExchange); d.RetryAfter != 3*time.Second {
			t.Errorf("retry after %s, want what the issuer says", d.RetryAfter)
		}
	}
	wantExchanges(t, q, 2) // a failure is kept for a moment, too
	left := decide(g, key, probing).Token.Expires.Sub(q.Now())
	q.Advance(left - 10*time.Second)
	wantAllow(t, decide(g, key, probing)) // until its end
	eventually(t, func() bool { return g.Stats().ExchangeFailures == 2 })
	wantAllow(t, decide(g, key, probing))
	q.Advance(10 * time.Second)
	wantDeny(t, decide(g, key, probing), http.StatusServiceUnavailable, guard.CheckExchange)
	q.StartIssuer()
	q.Advance(6 * time.Second)
	wantAllow(t, decide(g, key, probing))
	wantAllow(t, decide(g, other, probing))
}

// TestRefusalOfTheIssuerEndsAKeptToken: also where the log has not said so.
func TestRefusalOfTheIssuerEndsAKeptToken(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithExchange(q.Exchange()))
	key := q.APIKey(orders)
	wantAllow(t, decide(g, key, probing))
	q.ForgetKey(key)
	q.Advance(9*time.Minute + 45*time.Second)
	wantAllow(t, decide(g, key, probing)) // asks for another
	eventually(t, func() bool { return decide(g, key, probing).Check == guard.CheckExchange })
}

func TestKeyIsExchangedForTheResourceThatIsAsked(t *testing.T) {
	q := guardtest.New(t)
	i := q.Issuer()
	i.Audience = []string{"https://orders", "https://bills"}
	g := q.Start([]guard.Issuer{i}, guard.WithFollow(q.Follow()), guard.WithExchange(q.Exchange()))
	q.WaitReady(g)
	bills := q.APIKey(guardtest.Token{Audience: []string{"https://bills", "https://other"}})
	wantAllow(t, decide(g, bills, guard.Requirement{}))
	wantExchanges(t, q, 2) // not for orders
	wantAllow(t, decide(g, bills, guard.Requirement{Audience: []string{"https://other"}}))
	wantDeny(t, decide(g, bills, guard.Requirement{Audience: []string{"https://orders"}}), http.StatusUnauthorized, guard.CheckAudience)
	wantAllow(t, decide(g, bills, guard.Requirement{}))
	wantExchanges(t, q, 4)
}

func TestImportedKeysAreTakenByTheirForm(t *testing.T) {
	q := guardtest.New(t)
	x := q.Exchange()
	x.Imported = regexp.MustCompile(`sk_[0-9a-f]{32}|old-.*`)
	g := q.Guard(guard.WithExchange(x))
	key := "sk_0123456789abcdef0123456789abcdef"
	q.ImportKey(key, orders)
	wantAllow(t, decide(g, key, read))
	wantAllow(t, decide(g, q.Token(orders), read))
	wantDeny(t, decide(g, key+"0", read), http.StatusUnauthorized, guard.CheckForm)
	wantDeny(t, decide(g, "x"+key, read), http.StatusUnauthorized, guard.CheckForm)
	wantDeny(t, decide(g, "old-"+strings.Repeat("x", 5000), read), http.StatusUnauthorized, guard.CheckExchange)
	wantExchanges(t, q, 1)
	wantDeny(t, decide(g, "old-unknown", read), http.StatusUnauthorized, guard.CheckExchange)
	wantAllow(t, decide(g, q.APIKey(orders), read))
	q.Revoke(q.KeyTarget(key))
	wantDeny(t, decide(g, key, read), http.StatusUnauthorized, guard.CheckTargets)
}

func TestExchangeNeedsAGuardThatRuns(t *testing.T) {
	q := guardtest.New(t)
	g, err := guard.New([]guard.Issuer{q.Issuer()}, guard.WithFollow(q.Follow()), guard.WithExchange(q.Exchange()), guard.WithClock(q.Now))
	if err != nil {
		t.Fatal(err)
	}
	key := q.APIKey(orders)
	wantDeny(t, decide(g, key, read), http.StatusServiceUnavailable, guard.CheckExchange)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	q.WaitReady(g)
	wantAllow(t, decide(g, key, read))
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantDeny(t, decide(g, key, read), http.StatusServiceUnavailable, guard.CheckView)
	wantDeny(t, decide(g, q.APIKey(orders), read), http.StatusServiceUnavailable, guard.CheckExchange)
}

func TestExchangeWorksWithRedisAlone(t *testing.T) {
	q := guardtest.New(t)
	jwks := newServer(t, q.JWKS())
	i := q.Issuer()
	i.JWKSURL = jwks.URL
	g := q.Start([]guard.Issuer{i}, guard.WithRedis(q.Redis()), guard.WithExchange(q.Exchange()))
	q.WaitReady(g)
	key := q.APIKey(orders)
	wantAllow(t, decide(g, key, read))
	q.Revoke(q.KeyTarget(key))
	wantDeny(t, decide(g, key, read), http.StatusUnauthorized, guard.CheckTargets)
	wantDeny(t, decide(g, key, read), http.StatusUnauthorized, guard.CheckExchange)
}

func TestWatchOfAKeyEndsWithIt(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithExchange(q.Exchange()))
	key := q.APIKey(orders)
	ctx, cancel := g.Watch(t.Context(), decide(g, key, read).Token)
	defer cancel()
	q.Revoke(q.KeyTarget(key))
	<-ctx.Done()
	if context.Cause(ctx) != guard.ErrHit {
		t.Errorf("ended by %v", context.Cause(ctx))
	}
}

// TestRevokedKeyOf100CallersIsTakenByNoneAfterwards, while it is being exchanged.
func TestRevokedKeyOf100CallersIsTakenByNoneAfterwards(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithExchange(q.Exchange()))
	for range 20 {
		key := q.APIKey(orders)
		var callers sync.WaitGroup
		revoked := make(chan struct{})
		for i := range 100 {
			callers.Go(func() {
				if i%2 == 0 {
					decide(g, key, read) // one of these exchanges it
				}
				<-revoked
				if d := decide(g, key, read); d.Status != http.StatusUnauthorized {
					t.Errorf("after the revocation: %d %s", d.Status, d.Reason)
				}
			})
		}
		q.Revoke(q.KeyTarget(key))
		close(revoked)
		callers.Wait()
	}
}

// TestNoKeyIsLogged: nor told in a reason.
func TestNoKeyIsLogged(t *testing.T) {
	q := guardtest.New(t)
	core, logs := observer.New(zapcore.DebugLevel)
	g := q.Guard(guard.WithExchange(q.Exchange()), guard.WithLogger(zap.New(core)))
	key := q.APIKey(orders)
	q.StopIssuer()
	reason := decide(g, key, read).Reason
	g.KeyInURL(key)
	eventually(t, func() bool { return len(q.Leaked()) == 1 })
	if logs.Len() < 2 {
		t.Errorf("%d log lines, want one of the failure and one of the leak", logs.Len())
	}
	for _, l := range logs.All() {
		for _, v := range l.ContextMap() {
			if text, _ := v.(string); strings.Contains(text, key[10:]) {
				t.Errorf("a log line has the key in it: %s", l.Message)
			}
		}
	}
	if strings.Contains(reason, key[10:]) {
		t.Error("the reason has the key in it")
	}
}
