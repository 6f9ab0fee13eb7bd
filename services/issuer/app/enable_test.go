package app_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/commit"
)

// TestEnablingLiftsNoHoldOfAResponder: neither one that came before the key was disabled nor
// one that came since; of API keys and client secrets alike.
func TestEnablingLiftsNoHoldOfAResponder(t *testing.T) {
	w := newWorld(t)
	tok := w.token(w.operator).AccessToken
	body := map[string]any{"reason": "a test"}
	client := w.newClient(map[string]any{"name": "shop", "grants": []string{"client_credentials"}, "scopes": []string{"orders:read"}})
	enable := func(id string, want int) {
		t.Helper()
		a := w.api(tok, "POST", "/v1/keys/"+id+"/enable", body)
		if a.status != want || want == http.StatusConflict && !strings.Contains(string(a.body), "quash release key:"+id) {
			t.Errorf("enable: %d %s, want %d and who can lift it", a.status, a.body, want)
		}
	}
	held := func(id string, want bool) {
		t.Helper()
		var k madeKey
		w.must(200, "GET", "/v1/keys/"+id, nil, &k)
		if (k.State == "held") != want {
			t.Errorf("state %q, want it held: %t", k.State, want)
		}
	}
	for _, id := range []string{w.newKey(map[string]any{"owner": "pat"}).ID, client.SecretID} {
		path := "/v1/keys/" + id
		w.must(200, "POST", path+"/disable", body, nil)
		w.commit(commit.Hold, "key:"+id)
		enable(id, http.StatusConflict)
		held(id, true)
		w.must(200, "POST", path+"/disable", body, nil) // on top of it
		enable(id, http.StatusConflict)
		held(id, true)
		w.commit(commit.Release, "key:"+id)
		held(id, false)
		w.must(200, "POST", path+"/disable", body, nil)
		w.must(200, "POST", path+"/disable", body, nil)
		enable(id, 200)
		held(id, false)
		w.commit(commit.Hold, "key:"+id)
		enable(id, http.StatusConflict)
		held(id, true)
		w.commit(commit.Release, "key:"+id)
	}
}
