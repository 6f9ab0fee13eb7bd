package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/quash-project/quash/shared/guard"
)

// A key that a hundred callers use all the time: whatever becomes of it holds from its
// answer on, for what is asked afterwards and for every token of before.
func TestKeyOfAHundredCallersIsDisabledRenewedAndDeleted(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	admin := s.token(s.operator)
	g := s.guard(guard.WithNATS(s.nats.URL, s.nats.Creds(t, "orders")))
	g.ready()
	key, _ := s.issue(admin, "alice")
	path := "/v1/keys/" + key.ID
	tried := func(want int) error {
		if _, r := s.tryExchange(key.Secret); r.status != want {
			return fmt.Errorf("exchange: status %d, want %d: %.200s", r.status, want, r.body)
		}
		return nil
	}
	gives := func(want int) { // at once: the issuer has answered what was done
		t.Helper()
		if err := tried(want); err != nil {
			t.Fatal(err)
		}
	}
	do := func(what string) {
		t.Helper()
		s.decode(s.api(admin, http.MethodPost, path+"/"+what, map[string]any{"reason": "test"}), http.StatusOK, &ignored)
	}
	use := func() *exchanges {
		t.Helper()
		x := s.exchanging(key.Secret, 100)
		eventually(t, "all callers have tokens", func() error {
			if n := len(x.tokens()); n < 200 {
				return fmt.Errorf("%d tokens", n)
			}
			return nil
		})
		return x
	}

	x := use()
	do("disable")
	gives(http.StatusBadRequest)
	x.end()
	x.dead(g, guard.Requirement{})
	held := x.tokens()

	do("enable")
	gives(http.StatusOK)
	g.until(held[len(held)-1], http.StatusOK) // a hold that ends gives back what it held

	x = use()
	s.commit(admin, "revoke", "key:"+key.ID)
	eventually(t, "the issuer has heard of it", func() error { return tried(http.StatusBadRequest) })
	x.end()
	x.dead(g, guard.Requirement{})

	key, _ = s.issue(admin, "alice")
	path = "/v1/keys/" + key.ID
	x = use()
	before := x.tokens()
	s.commit(admin, "revoke", "principal:alice")
	do("renew")
	gives(http.StatusOK)
	x.end()
	(&exchanges{s: s, got: before}).dead(g, guard.Requirement{})
	fresh, _ := s.tryExchange(key.Secret)
	g.until(fresh, http.StatusOK)

	x = use()
	r := s.api(admin, http.MethodDelete, path+"?reason=test", nil)
	if r.status/100 != 2 {
		t.Fatalf("delete: %d: %s", r.status, r.body)
	}
	gives(http.StatusBadRequest)
	x.end()
	x.dead(g, guard.Requirement{})
}
