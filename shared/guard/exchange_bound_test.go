package guard_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardhttp"
	"github.com/quash-project/quash/shared/guard/guardtest"
	"github.com/quash-project/quash/shared/guard/peer"
)

// by is what a request from an address asks for.
func by(address string) guard.Requirement {
	r := read
	r.Request = &http.Request{RemoteAddr: netip.AddrPortFrom(netip.MustParseAddr(address), 4711).String()}
	return r
}

// office is where the keys of these tests may be used.
var office = netip.MustParsePrefix("192.0.2.0/24")

// probingBy takes no view that is older than its request: the clock of the test goes on by leaps.
func probingBy(address string) guard.Requirement {
	r := by(address)
	r.MaxStale = guard.Probe
	return r
}

func boundKey(q *guardtest.Quash, networks ...netip.Prefix) string {
	key := q.APIKey(orders)
	q.BindKey(key, networks...)
	return key
}

func TestBoundKeyIsTakenFromItsNetworksAlone(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithExchange(q.Exchange()))
	key := boundKey(q, office, netip.MustParsePrefix("2001:db8::/32"))
	for range 3 {
		wantAllow(t, decide(g, key, by("192.0.2.7")))
		wantAllow(t, decide(g, key, by("::ffff:192.0.2.7"))) // the same
	}
	wantExchanges(t, q, 1)
	wantAllow(t, decide(g, key, by("192.0.2.8"))) // not by the token of its neighbour
	wantAllow(t, decide(g, key, by("2001:db8::1")))
	wantExchanges(t, q, 3)
	for range 3 { // though a token of it lies here
		d := decide(g, key, by("198.51.100.1"))
		if wantDeny(t, d, http.StatusUnauthorized, guard.CheckExchange); d.Reason != "the API key is not good: it is unknown, expired, revoked or held, or not for this network" {
			t.Errorf("reason %q", d.Reason)
		}
	}
	wantExchanges(t, q, 4) // the refusal is kept, for that address alone
	wantAllow(t, decide(g, key, by("192.0.2.7")))
	wantAllow(t, decide(g, key, by("192.0.2.9")))
	wantExchanges(t, q, 5)
	// Who called is not known: refused, though nothing is wrong with the key.
	wantDeny(t, decide(g, key, read), http.StatusUnauthorized, guard.CheckExchange)
	if e := g.Explain(t.Context(), key, by("198.51.100.1")); e.Allowed() {
		t.Errorf("explained as %+v", e.Decision)
	}
	q.Revoke(q.KeyTarget(key))
	wantDeny(t, decide(g, key, by("192.0.2.7")), http.StatusUnauthorized, guard.CheckTargets)
}

// TestUnboundKeyIsExchangedOnceForAllAddresses, also where they come at once.
func TestUnboundKeyIsExchangedOnceForAllAddresses(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithExchange(q.Exchange()))
	key := q.APIKey(orders)
	var callers sync.WaitGroup
	for i := range 100 {
		callers.Go(func() { wantAllow(t, decide(g, key, by(fmt.Sprintf("198.51.100.%d", i)))) })
	}
	callers.Wait()
	wantExchanges(t, q, 1)
}

// TestStrangersDoNotKeepABoundKeyFromItsOwner: neither what the issuer refuses them, nor
// their exchange which is under way.
func TestStrangersDoNotKeepABoundKeyFromItsOwner(t *testing.T) {
	q := guardtest.New(t)
	stranger, asked := make(chan struct{}), make(chan struct{}, 1)
	srv := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Forwarded-For") == "198.51.100.1" {
			asked <- struct{}{}
			<-stranger
		}
		q.Endpoints().ServeHTTP(w, r)
	}))
	g := q.Guard(guard.WithExchange(guard.Exchange{TokenURL: srv.URL + "/oauth/token"}))
	key := boundKey(q, office)
	var callers sync.WaitGroup
	callers.Go(func() {
		wantDeny(t, decide(g, key, by("198.51.100.1")), http.StatusUnauthorized, guard.CheckExchange)
	})
	<-asked
	for i := range 10 {
		callers.Go(func() { wantAllow(t, decide(g, key, by(fmt.Sprintf("192.0.2.%d", i)))) })
	}
	close(stranger)
	callers.Wait()
	wantExchanges(t, q, 11)
}

// TestGuardThatIsNotBelievedTakesNoBoundKey: an issuer for which the guard is no proxy
// holds the networks against the guard's own address, which may well be in them.
func TestGuardThatIsNotBelievedTakesNoBoundKey(t *testing.T) {
	q := guardtest.New(t)
	srv := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("X-Forwarded-For")
		q.Endpoints().ServeHTTP(w, r)
	}))
	g := q.Guard(guard.WithExchange(guard.Exchange{TokenURL: srv.URL + "/oauth/token"}))
	here := boundKey(q, netip.MustParsePrefix("127.0.0.0/8"))
	for range 3 {
		wantDeny(t, decide(g, here, by("198.51.100.1")), http.StatusServiceUnavailable, guard.CheckExchange)
		wantDeny(t, decide(g, here, read), http.StatusServiceUnavailable, guard.CheckExchange)
	}
	wantExchanges(t, q, 2)
	wantAllow(t, decide(g, here, by("127.0.0.1"))) // of which it has the right idea
	wantDeny(t, decide(g, here, by("198.51.100.1")), http.StatusServiceUnavailable, guard.CheckExchange)
	wantDeny(t, decide(g, boundKey(q, office), by("192.0.2.7")), http.StatusUnauthorized, guard.CheckExchange)
	wantAllow(t, decide(g, q.APIKey(orders), by("198.51.100.1")))
}

// TestWhoeverHasManyAddressesPutsOutNobodyElse: what a bound key takes has its own room,
// and its exchanges at once are few.
func TestWhoeverHasManyAddressesPutsOutNobodyElse(t *testing.T) {
	q := guardtest.New(t)
	x := q.Exchange()
	x.Cache = 32 << 10
	g := q.Guard(guard.WithExchange(x))
	var keys []string
	for range 10 { // they fill less than their part
		keys = append(keys, q.APIKey(orders))
		wantAllow(t, decide(g, keys[len(keys)-1], by("198.51.100.1")))
	}
	bound := boundKey(q, netip.MustParsePrefix("2001:db8::/32"))
	for i := range 500 {
		wantAllow(t, decide(g, bound, by(fmt.Sprintf("2001:db8::%x", i))))
	}
	before := q.Exchanges()
	for _, key := range keys {
		wantAllow(t, decide(g, key, by("198.51.100.1")))
	}
	wantExchanges(t, q, before)
}

func TestExchangesOfOneKeyAreFew(t *testing.T) {
	q := guardtest.New(t)
	gate := make(chan struct{})
	key, other := boundKey(q, netip.MustParsePrefix("2001:db8::/32")), q.APIKey(orders)
	srv := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("subject_token") == key && r.Header.Get("X-Forwarded-For") != "2001:db8::ffff" {
			<-gate
		}
		q.Endpoints().ServeHTTP(w, r)
	}))
	g := q.Guard(guard.WithExchange(guard.Exchange{TokenURL: srv.URL + "/oauth/token"}))
	first := decide(g, key, by("2001:db8::ffff")) // from then on it is known to be bound
	wantAllow(t, first)
	const many, most = 40, 32
	answers := make(chan guard.Decision, many)
	for i := range many {
		go func() { answers <- decide(g, key, probingBy(fmt.Sprintf("2001:db8::%x", i+1))) }()
	}
	for range many - most {
		wantDeny(t, <-answers, http.StatusServiceUnavailable, guard.CheckExchange)
	}
	wantAllow(t, decide(g, other, by("2001:db8::1")))
	wantAllow(t, decide(g, key, by("2001:db8::ffff")))
	q.Advance(9*time.Minute + 45*time.Second) // and whoever was there before gets the next token
	eventually(t, func() bool { return decide(g, key, probingBy("2001:db8::ffff")).Token.ID != first.Token.ID })
	close(gate)
	for range most {
		wantAllow(t, <-answers)
	}
}

func TestTokenOfABoundKeyIsReplacedBeforeItEnds(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithExchange(q.Exchange()))
	key := boundKey(q, office)
	here, there := probingBy("192.0.2.7"), probingBy("192.0.2.8")
	first := decide(g, key, here)
	wantAllow(t, first)
	q.Advance(9*time.Minute + 45*time.Second)
	wantAllow(t, decide(g, key, here))
	eventually(t, func() bool { return decide(g, key, here).Token.ID != first.Token.ID })
	wantExchanges(t, q, 2)
	wantAllow(t, decide(g, key, there))
	q.ForgetKey(key)
	q.Advance(9*time.Minute + 45*time.Second)
	wantAllow(t, decide(g, key, there))
	eventually(t, func() bool { return decide(g, key, there).Check == guard.CheckExchange })
}

// TestCallersSayNothingAboutTheirAddress: only proxies do, which the server believes.
func TestCallersSayNothingAboutTheirAddress(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithExchange(q.Exchange()))
	key := boundKey(q, office)
	proxies, err := peer.ParseProxies([]string{"10.0.0.0/28"})
	if err != nil {
		t.Fatal(err)
	}
	done := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	open := guardhttp.Require(g, read)(done)
	behind := guardhttp.Require(g, read, guardhttp.WithCaller(proxies.Caller))(done)
	for name, c := range map[string]struct {
		h            http.Handler
		peer, header string
		want         int
	}{
		"its network":   {open, "192.0.2.7", "", 204},
		"a made-up one": {open, "198.51.100.1", "192.0.2.7", 401},
		"by a proxy of the network, of which the server was not told": {open, "192.0.2.7", "198.51.100.1", 401},
		"by a proxy":                {behind, "10.0.0.1", "192.0.2.7", 204},
		"by a proxy, from without":  {behind, "10.0.0.1", "198.51.100.1", 401},
		"made up before the proxy":  {behind, "10.0.0.1", "192.0.2.7, 198.51.100.1", 401},
		"no proxy of ours":          {behind, "10.0.1.1", "192.0.2.7", 401},
		"a proxy that says nothing": {behind, "10.0.0.1", "unknown", 401},
	} {
		r := httptest.NewRequest(http.MethodGet, "/orders", http.NoBody)
		r.RemoteAddr = c.peer + ":4711"
		r.Header.Set("Authorization", "Bearer "+key)
		if c.header != "" {
			r.Header.Set("X-Forwarded-For", c.header)
		}
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s: %d, want %d", name, w.Code, c.want)
		}
	}
}
