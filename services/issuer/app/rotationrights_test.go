package app_test

import (
	"net/http"
	"strings"
	"testing"
)

// TestRotationIsMovedByWhoCouldGiveTheKey: letting the old key live longer, or for good again,
// gives what it gives to whoever has its secret. Whoever is an operator for an hour does it
// for no longer; letting it end sooner takes away, and is free to them.
func TestRotationIsMovedByWhoCouldGiveTheKey(t *testing.T) {
	w := newWorld(t)
	type m = map[string]any
	jim := w.newKey(m{"owner": "jim", "owner_roles": true})
	w.must(201, "POST", "/v1/bindings", m{"subject": "jim", "role": "operator", "expires_in": "1h"}, nil)
	old := w.newKey(m{"owner": "olga", "roles": []string{"operator"}})
	plain := w.newKey(m{"owner": "pat", "scopes": []string{"orders:read"}})
	for _, k := range []madeKey{old, plain} {
		w.must(201, "POST", "/v1/keys/"+k.ID+"/rotate", m{"overlap": "24h"}, nil)
	}
	tok := w.token(jim.Secret).AccessToken
	until := func() string {
		var k struct{ Rotation struct{ Until, Next string } }
		w.must(200, "GET", "/v1/keys/"+old.ID, nil, &k)
		return k.Rotation.Until + " " + k.Rotation.Next
	}
	before := until()
	for _, c := range []struct {
		name, id, what string
		body           m
		want           int
	}{
		{"longer", old.ID, "rotation", m{"overlap": "48h"}, http.StatusForbidden},
		{"for good", old.ID, "rollback", m{"reason": "r"}, http.StatusForbidden},
		{"an application's, longer", plain.ID, "rotation", m{"overlap": "48h"}, http.StatusOK},
		{"an application's, for good", plain.ID, "rollback", m{"reason": "r"}, http.StatusOK},
		{"sooner, though not in an hour", old.ID, "rotation", m{"overlap": "3h"}, http.StatusOK},
		{"sooner", old.ID, "rotation", m{"overlap": "30m"}, http.StatusOK},
		{"longer again", old.ID, "rotation", m{"overlap": "3h"}, http.StatusForbidden},
		{"longer, within the hour", old.ID, "rotation", m{"overlap": "45m"}, http.StatusOK},
	} {
		a := w.api(tok, "POST", "/v1/keys/"+c.id+"/"+c.what, c.body)
		if a.status != c.want || c.want == http.StatusForbidden && !strings.Contains(string(a.body), "yourself") {
			t.Errorf("%s: %d %s, want %d", c.name, a.status, a.body, c.want)
		}
		if c.id == old.ID && before != "" {
			if now := until(); c.want == http.StatusForbidden && now != before {
				t.Errorf("%s: refused, and yet it has changed from %s to %s", c.name, before, now)
			}
			before = until()
		}
	}
}
