package guard_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/guardhttp"
	"github.com/quash-project/quash/shared/guard/guardtest"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// reported is what one target has been counted for, by network.
func reported(q *guardtest.Quash, at revoke.Stamp) (sum uint64, from map[string]uint64) {
	from = map[string]uint64{}
	for _, r := range q.Attempts() {
		for _, a := range r.Attempts {
			if a.At != at {
				continue
			}
			sum = max(sum, a.Count)
			for _, f := range a.From {
				from[f.Network] = max(from[f.Network], f.Count)
			}
		}
	}
	return sum, from
}

// TestOnlyTriesWithWhatWasCutAreCounted: not those with what has expired, is badly
// signed, lacks a scope or is only asked about; under the newest entry that refuses.
func TestOnlyTriesWithWhatWasCutAreCounted(t *testing.T) {
	q := guardtest.New(t)
	g := q.Guard(guard.WithExchange(q.Exchange()))
	bob, key := q.Token(orders), q.APIKey(guardtest.Token{Subject: "carol", Scopes: []string{"orders:read"}})
	expired := q.Token(guardtest.Token{Subject: "bob", Scopes: []string{"orders:read"}, Life: time.Second})
	alice := q.Token(guardtest.Token{Subject: "alice", Scopes: []string{"orders:read"}})
	wantAllow(t, decide(g, key, read))
	hold := q.Hold("principal:bob")
	cut := q.Revoke("principal:bob")
	keyCut := q.Revoke(q.KeyTarget(key))

	decide(g, bob[:len(bob)-4]+"AAAA", read)
	decide(g, alice, guard.Requirement{Scopes: []string{"orders:write"}})
	wantDeny(t, decide(g, bob, guard.Requirement{AnyAudience: true}), http.StatusUnauthorized, guard.CheckTargets)
	g.Explain(t.Context(), bob, read)
	q.Advance(2 * time.Second)
	wantDeny(t, decide(g, expired, probing), http.StatusUnauthorized, guard.CheckTime)
	if s := g.Stats(); s.Attempts != 0 || s.Denied == 0 {
		t.Fatalf("%+v: nobody has tried with what was cut", s)
	}

	asked := func(addr, credential string, opts ...guardhttp.Option) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = addr
		r.Header.Set("Authorization", "Bearer "+credential)
		guardhttp.Require(g, probing, opts...)(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
	}
	for range 3 {
		asked("192.0.2.7:1234", bob)
	}
	asked("[2001:db8::9]:1234", bob)
	asked("127.0.0.1:1", bob, guardhttp.WithCaller(func(*http.Request) netip.Addr { return netip.MustParseAddr("198.51.100.1") }))
	decide(g, bob, probing)
	asked("192.0.2.8:1", key)
	q.Wait("both counts are reported", func() error {
		sum, from := reported(q, cut)
		if sum != 6 || from["192.0.2.7"] != 3 || from["2001:db8::/64"] != 1 || from["198.51.100.1"] != 1 || from[""] != 1 {
			return fmt.Errorf("of the principal: %d, %v", sum, from)
		}
		if sum, from := reported(q, keyCut); sum != 1 || from["192.0.2.8"] != 1 {
			return errors.New("of the key")
		}
		return nil
	})
	if sum, _ := reported(q, hold); sum != 0 {
		t.Errorf("%d are counted under the hold, which is older than the cut", sum)
	}
	if s := g.Stats(); s.Attempts != 7 || s.AttemptsLost != 0 {
		t.Errorf("%+v", s)
	}
}
