package app_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/quash-project/quash/shared/rights"
)

// listed returns the ids of a list of keys.
func (w *world) listed(query string) (ids []string) {
	w.t.Helper()
	var p struct{ Items []madeKey }
	w.must(200, "GET", "/v1/keys?limit=1000"+query, nil, &p)
	for _, k := range p.Items {
		ids = append(ids, k.ID)
	}
	return ids
}

func TestKeysAreFoundByWhatTheyAre(t *testing.T) {
	w := newWorld(t)
	first := w.newKey(map[string]any{"owner": "pat", "labels": map[string]string{"env": "prod", "team": "a/b"}})
	second := w.newKey(map[string]any{"owner": "pat", "labels": map[string]string{"env": "prod"}, "expires_in": "2h"})
	third := w.newKey(map[string]any{"owner": "sam"})
	w.must(200, "POST", "/v1/keys/"+third.ID+"/disable", map[string]any{"reason": "a test"}, nil)
	for query, want := range map[string][]string{
		"&label=env%3Dprod":                        {first.ID, second.ID},
		"&label=env%3Dprod,team%3Da%2Fb":           {first.ID},
		"&label=env%3Dtest":                        nil,
		"&label=nothing":                           nil,
		"&owner=pat&expires_within=3h":             {second.ID},
		"&owner=sam&state=held":                    {third.ID},
		"&owner=pat&state=held":                    nil,
		"&owner=pat&state=active":                  {first.ID, second.ID},
		"&owner=pat&state=active&label=team=a%2Fb": {first.ID},
	} {
		if got := w.listed(query); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	tok := w.token(w.operator).AccessToken
	for query, field := range map[string]string{
		"label=%3Dx":                     "label",
		"label=a%20b":                    "label",
		"label=env=a,env=b":              "label",
		"state=dead":                     "state",
		"expires_within=soon":            "expires_within",
		"page=" + strings.Repeat("A", 8): "page",
	} {
		a := w.api(tok, "GET", "/v1/keys?"+query, nil)
		var p struct{ Field string }
		a.json(t, &p)
		if a.status != 422 || p.Field != field {
			t.Errorf("%s: %d %s, want 422 and the field %s", query, a.status, a.body, field)
		}
	}
	var shown struct {
		Labels    map[string]string `json:"labels"`
		CreatedBy string            `json:"created_by"`
	}
	w.must(200, "GET", "/v1/keys/"+first.ID, nil, &shown)
	if shown.Labels["team"] != "a/b" || !strings.Contains(shown.CreatedBy, "operator") {
		t.Errorf("%+v: want its labels, and who made it", shown)
	}
}

// What a page begins with is sealed: it is good for the same question alone, and tells
// nothing.
func TestTokensOfPagesAreGoodForTheirQuestionAlone(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.newKey(map[string]any{"owner": "pat"})
		w.newKey(map[string]any{"owner": "sam"})
	}
	var p struct {
		Items []madeKey `json:"items"`
		Next  string    `json:"next_page"`
	}
	w.must(200, "GET", "/v1/keys?owner=pat&limit=2", nil, &p)
	tok := w.token(w.operator).AccessToken
	page := func(query, token string) int {
		return w.api(tok, "GET", "/v1/keys?"+query+"&page="+url.QueryEscape(token), nil).status
	}
	if strings.Contains(p.Next, p.Items[1].ID) || page("owner=pat&limit=2", p.Next) != 200 || page("owner=pat&limit=3", p.Next) != 200 {
		t.Error("it is not good for its own question, or can be read")
	}
	changed := []byte(p.Next)
	changed[len(changed)/2] ^= 1
	for query, token := range map[string]string{"owner=sam": p.Next, "": p.Next, "owner=pat&state=active": p.Next, "owner=pat": string(changed)} {
		if s := page(query, token); s != 422 {
			t.Errorf("with %q: %d, want 422", query, s)
		}
	}
}

func TestDisabledKeyComesBack(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "pat", "scopes": []string{"orders:read"}})
	tok := w.token(k.Secret).AccessToken
	refused := func(want bool) {
		t.Helper()
		// It has no right here: 403 while it is good, 401 when it is not.
		used, exchanged := w.api(tok, "GET", "/v1/keys", nil).status, w.post("/oauth/token", exchangeForm(k.Secret)).status
		if (used == 401) != want || (exchanged == 400) != want || used < 400 {
			t.Errorf("token: %d, exchange: %d; want them refused: %t", used, exchanged, want)
		}
	}
	refused(false)
	var e struct {
		Target   string
		Sequence uint64
	}
	w.must(200, "POST", "/v1/keys/"+k.ID+"/disable", map[string]any{"reason": "holiday"}, &e)
	if e.Target != "key:"+k.ID || e.Sequence == 0 {
		t.Errorf("%+v: want the target and where it stands in the log", e)
	}
	refused(true)
	var shown madeKey
	w.must(200, "GET", "/v1/keys/"+k.ID, nil, &shown)
	if shown.State != "held" {
		t.Errorf("state %q, want held", shown.State)
	}
	w.must(200, "POST", "/v1/keys/"+k.ID+"/enable", map[string]any{"reason": "back"}, nil)
	refused(false)
	w.must(http.StatusConflict, "POST", "/v1/keys/"+k.ID+"/enable", map[string]any{"reason": "again"}, nil)
	w.must(http.StatusNotFound, "POST", "/v1/keys/"+strings.Repeat("A", 22)+"/disable", map[string]any{"reason": "x"}, nil)
}

// Whoever may not give what a key has may not bring it back either.
func TestKeyIsEnabledByWhoCouldGiveWhatItHas(t *testing.T) {
	w := newWorld(t)
	w.must(201, "POST", "/v1/roles", map[string]any{"name": "keymaster", "scopes": []string{rights.KeysWrite}}, nil)
	master := w.newKey(map[string]any{"owner": "mel", "roles": []string{"keymaster"}})
	strong := w.newKey(map[string]any{"owner": "olga", "roles": []string{"operator"}})
	client := w.newClient(map[string]any{"name": "strong", "grants": []string{"client_credentials"}, "scopes": []string{rights.Revoke}})
	tok := w.token(master.Secret).AccessToken
	body := map[string]any{"reason": "a test"}
	for name, id := range map[string]string{"an operator's key": strong.ID, "a client secret": client.SecretID} {
		if a := w.api(tok, "POST", "/v1/keys/"+id+"/disable", body); a.status != 200 {
			t.Errorf("%s: disable: %d %s", name, a.status, a.body)
		}
		for _, what := range []string{"enable", "renew"} {
			if a := w.api(tok, "POST", "/v1/keys/"+id+"/"+what, body); a.status != 403 {
				t.Errorf("%s: %s: %d %s, want 403", name, what, a.status, a.body)
			}
		}
	}
}
