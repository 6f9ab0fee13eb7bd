package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
)

type rotatedKey struct {
	apiKey
	Until time.Time
	Ended *struct{ Sequence uint64 }
}

type rotation struct {
	Rotation *struct {
		Next     string
		Until    time.Time
		Uses     int64
		UsedFrom string `json:"used_from"`
		UsedBy   string `json:"used_by"`
	}
}

// A key that a hundred callers use all the time is rotated: who goes over to the new one sees
// no error, nobody is refused before the overlap ends, and of the old one nothing is left
// afterwards. In an emergency nothing is left from the answer on.
func TestKeyOfAHundredCallersIsRotated(t *testing.T) {
	t.Parallel()
	s := inProcess(t)
	admin := s.token(s.operator)
	g := s.guard(guard.WithNATS(s.nats.URL, s.nats.Creds(t, "orders")))
	g.ready()
	old, _ := s.issue(admin, "alice")
	path := "/v1/keys/" + old.ID

	// Each caller takes a token at a time, with the secret that it was told last.
	var secret atomic.Pointer[string]
	secret.Store(&old.Secret)
	var over atomic.Bool
	var callers sync.WaitGroup
	var asked atomic.Int64
	for range 100 {
		callers.Go(func() {
			for !over.Load() && t.Context().Err() == nil {
				if _, r := s.tryExchange(*secret.Load()); r.status != http.StatusOK {
					t.Errorf("a caller during the overlap: %d: %.200s", r.status, r.body)
					return
				}
				asked.Add(1)
			}
		})
	}
	more := func(n int64) {
		t.Helper()
		from := asked.Load()
		eventually(t, "callers have tokens", func() error {
			if got := asked.Load() - from; got < n {
				return fmt.Errorf("%d", got)
			}
			return nil
		})
	}
	more(200)
	var next rotatedKey
	s.decode(s.api(admin, http.MethodPost, path+"/rotate", map[string]any{"overlap": "1h", "reason": "a year old"}), http.StatusCreated, &next)
	if next.Until.IsZero() || next.Ended != nil {
		t.Errorf("%+v", next)
	}
	more(200) // with the old one
	before, _ := s.tryExchange(old.Secret)
	secret.Store(&next.Secret)
	more(200)
	over.Store(true)
	callers.Wait()
	after, _ := s.tryExchange(next.Secret)
	g.until(before, http.StatusOK)
	g.until(after, http.StatusOK)
	var shown rotation
	s.decode(s.api(admin, http.MethodGet, path, nil), http.StatusOK, &shown)
	if r := shown.Rotation; r == nil || r.Next != next.ID || r.Uses < 200 || r.UsedFrom == "" || r.UsedBy == "" {
		t.Errorf("the old key shows %+v, want by whom and how often it is used still", r)
	}
	// Its end is near now: nobody waits an hour here.
	s.decode(s.api(admin, http.MethodDelete, path+"?reason=nobody+uses+it", nil), http.StatusOK, &ignored)
	g.until(before, http.StatusUnauthorized)
	if _, r := s.tryExchange(old.Secret); r.status != http.StatusBadRequest {
		t.Errorf("the old key gives %d", r.status)
	}
	g.until(after, http.StatusOK)

	// An emergency, while a hundred callers use it.
	x := s.exchanging(next.Secret, 100)
	eventually(t, "all callers have tokens", func() error {
		if n := len(x.tokens()); n < 200 {
			return fmt.Errorf("%d tokens", n)
		}
		return nil
	})
	var last rotatedKey
	s.decode(s.api(admin, http.MethodPost, "/v1/keys/"+next.ID+"/rotate", map[string]any{"emergency": true, "reason": "stolen"}), http.StatusCreated, &last)
	if _, r := s.tryExchange(next.Secret); r.status != http.StatusBadRequest || last.Ended == nil || last.Ended.Sequence == 0 {
		t.Errorf("after an emergency the old key gives %d; answered %+v", r.status, last)
	}
	x.end()
	x.dead(g, guard.Requirement{})
	fresh, _ := s.tryExchange(last.Secret)
	g.until(fresh, http.StatusOK)

	// The thief of an old secret may have made what came after it.
	var found struct{ Successors []string }
	s.decode(s.api(admin, http.MethodPost, "/v1/lookups", map[string]any{"secret": old.Secret}), http.StatusOK, &found)
	if len(found.Successors) == 0 || found.Successors[len(found.Successors)-1] != last.ID {
		t.Errorf("looked up: %q come after the first key, want %s as the last", found.Successors, last.ID)
	}

	// The key itself, with no right of Quash's: by its secret, and not by a token alone.
	own := s.token(last.Secret)
	if r := s.api(own, http.MethodPost, "/v1/keys/"+last.ID+"/rotate", map[string]any{"reason": "r"}); r.status != http.StatusForbidden {
		t.Errorf("a token alone rotates its key: %d %s", r.status, r.body)
	}
	var mine rotatedKey
	s.decode(s.api(own, http.MethodPost, "/v1/keys/"+last.ID+"/rotate", map[string]any{"current": last.Secret, "reason": "r"}), http.StatusCreated, &mine)
	for _, what := range []string{"rotation", "rollback"} {
		if r := s.api(own, http.MethodPost, "/v1/keys/"+last.ID+"/"+what, map[string]any{"overlap": "1h", "reason": "r"}); r.status != http.StatusForbidden {
			t.Errorf("the key's own %s: %d %s", what, r.status, r.body)
		}
	}
	if _, r := s.tryExchange(mine.Secret); r.status != http.StatusOK {
		t.Errorf("the key that a key has made: %d", r.status)
	}
}
