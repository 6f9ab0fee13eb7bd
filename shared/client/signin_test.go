package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/problem"
)

// issuer is that of a tenant of an installation with a path, which counts the tokens that it gives and takes those
// that good says.
type issuer struct {
	*httptest.Server
	base   string
	given  int
	good   func(token string) bool
	answer http.HandlerFunc // of the API, to who is signed in
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{good: func(string) bool { return true }}
	mux := http.NewServeMux()
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	i.base = i.URL + "/auth/t/acme"
	mux.HandleFunc("GET /.well-known/oauth-authorization-server/auth/t/acme", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(Metadata{Issuer: i.base, TokenEndpoint: i.base + "/token"})
	})
	mux.HandleFunc("POST /auth/t/acme/token", func(w http.ResponseWriter, _ *http.Request) {
		i.given++
		_, _ = fmt.Fprintf(w, `{"access_token":"t%d","expires_in":600}`, i.given)
	})
	mux.HandleFunc("/auth/v1/", func(w http.ResponseWriter, r *http.Request) {
		if token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); !i.good(token) {
			problem.Write(w, problem.New(problem.Unauthorized, "the token is revoked"), "")
			return
		}
		i.answer(w, r)
	})
	return i
}

func (i *issuer) client(t *testing.T, now func() time.Time) *Client {
	t.Helper()
	c, err := New(i.base+"/", Options{Key: func() (string, error) { return "key", nil }, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestTokenIsKeptUntilItIsNotGood by its time or because it was refused; and who has
// no good one is not asked for ever.
func TestTokenIsKeptUntilItIsNotGood(t *testing.T) {
	i, now := newIssuer(t), time.Now()
	i.answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, `{"id":"k1"}`) }
	c := i.client(t, func() time.Time { return now })
	get := func(given int, ok bool) {
		t.Helper()
		if _, err := c.GetKey(t.Context(), "k1"); (err == nil) != ok || i.given != given {
			t.Errorf("%v after %d tokens, want %t after %d", err, i.given, ok, given)
		}
	}
	get(1, true)
	get(1, true)
	now = now.Add(9*time.Minute + 31*time.Second)
	get(2, true)
	i.good = func(token string) bool { return token == "t3" }
	get(3, true)
	i.good = func(string) bool { return false }
	get(4, false)
	get(5, false) // that one was new, and is refused once
}

// TestAnswersAreReadAndKeptAsTheyCame, and a request has its parameters and body at
// whatever path the issuer is.
func TestAnswersAreReadAndKeptAsTheyCame(t *testing.T) {
	i := newIssuer(t)
	var asked []string
	i.answer = func(w http.ResponseWriter, r *http.Request) {
		var body json.RawMessage
		_ = json.NewDecoder(r.Body).Decode(&body)
		asked = append(asked, r.Method+" "+r.URL.EscapedPath()+"?"+r.URL.RawQuery+" "+string(body))
		_, _ = fmt.Fprint(w, `{"id":"k1","owner":"alice","items":[],"more":1}`)
	}
	c := i.client(t, nil)
	got, err := c.GetKey(t.Context(), "a/b %?")
	if err != nil || got.Value.Owner != "alice" || !strings.Contains(string(got.Raw), `"more":1`) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := c.ListKeys(t.Context(), &api.ListKeysParams{Owner: new("a&b")}, Query(url.Values{"page": {"p 1"}})); err != nil {
		t.Error(err)
	}
	if _, err := c.SetRole(t.Context(), "clerk", api.SetRoleJSONRequestBody{Scopes: []string{}}); err != nil {
		t.Error(err)
	}
	want := []string{
		"GET /auth/v1/keys/a%2Fb%20%25%3F? ",
		"GET /auth/v1/keys?owner=a%26b&page=p+1 ",
		`PUT /auth/v1/roles/clerk? {"scopes":[]}`,
	}
	if strings.Join(asked, "\n") != strings.Join(want, "\n") {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(asked, "\n"), strings.Join(want, "\n"))
	}
}

// TestAllPagesAreOne list, with what stands beside the items of the first, and each is
// asked for with what the question had.
func TestAllPagesAreOne(t *testing.T) {
	i := newIssuer(t)
	var asked []string
	i.answer = func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		next := map[string]string{"": "two", "two": "three"}[r.URL.Query().Get("page")]
		_, _ = fmt.Fprintf(w, `{"items":[{"id":"k%d"}],"next_page":%q,"beside":%d}`, len(asked), next, len(asked))
	}
	c := i.client(t, nil)
	list, err := All(func(page api.RequestEditorFn) (api.Answer[api.ListKey], error) {
		return c.ListKeys(t.Context(), &api.ListKeysParams{Owner: new("alice")}, page)
	})
	if err != nil || len(list.Value.Items) != 3 || list.Value.Items[2].ID != "k3" || list.Value.NextPage != "" || !strings.Contains(string(list.Raw), `"beside":1`) {
		t.Errorf("%v %s", err, list.Raw)
	}
	if got := strings.Join(asked, " "); got != "owner=alice owner=alice&page=two owner=alice&page=three" {
		t.Errorf("asked for %s", got)
	}
	i.answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, `{}`) }
	list, err = All(func(page api.RequestEditorFn) (api.Answer[api.ListKey], error) {
		return c.ListKeys(t.Context(), nil, page)
	})
	if err != nil || !strings.Contains(string(list.Raw), `"items":[]`) {
		t.Errorf("%v %s: want no items", err, list.Raw)
	}
}

// TestARecordIsChangedAsItWasSeen: the answer says which it was, the request asks for that.
func TestARecordIsChangedAsItWasSeen(t *testing.T) {
	i := newIssuer(t)
	var match string
	i.answer = func(w http.ResponseWriter, r *http.Request) {
		match = r.Header.Get("If-Match")
		w.Header().Set("ETag", `"7"`)
		_, _ = fmt.Fprint(w, `{}`)
	}
	c := i.client(t, nil)
	seen, err := c.GetRole(t.Context(), "clerk")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteRole(t.Context(), "clerk", nil, IfMatch(seen.Header.Get("ETag"))); err != nil || match != `"7"` {
		t.Errorf("%v, If-Match %s", err, match)
	}
}

// TestProblemsAreTyped, and what is none of ours is an error all the same.
func TestProblemsAreTyped(t *testing.T) {
	i := newIssuer(t)
	c := i.client(t, nil)
	ask := func(answer http.HandlerFunc) (refused *Refused) {
		t.Helper()
		i.answer = answer
		if _, err := c.GetKey(t.Context(), "k1"); !errors.As(err, &refused) {
			t.Fatalf("%v: want a refusal", err)
		}
		return refused
	}
	r := ask(func(w http.ResponseWriter, _ *http.Request) {
		problem.Write(w, problem.FieldError("id", "is no id"), "r1")
	})
	if r.Kind() != problem.Invalid || r.Status != problem.Invalid.Status() || r.Doc.Field != "id" || r.Doc.RequestID != "r1" || Unknown(r) {
		t.Errorf("%+v", r)
	}
	r = ask(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) })
	if r.Kind() != problem.Internal || r.Status != http.StatusBadGateway || r.Error() != "Bad Gateway" {
		t.Errorf("%+v", r)
	}
	i.answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, `{"id":7}`) }
	if _, err := c.GetKey(t.Context(), "k1"); err == nil {
		t.Error("an answer that is not as documented is taken")
	}
}

func TestOnlyAnIssuersURLIsTaken(t *testing.T) {
	for _, bad := range []string{"", "x", "ftp://x", "http://", "https://x?a=b", "https://x#f", "https://u:swordfish@x", "https://u:swordfish@%zz"} {
		if _, err := New(bad, Options{}); err == nil {
			t.Errorf("%q is taken", bad)
		} else if strings.Contains(err.Error(), "swordfish") {
			t.Errorf("%v: it has the password", err)
		}
	}
	c, err := New("http://127.0.0.1:1", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Token(t.Context()); problem.KindOf(err) != problem.Unauthorized {
		t.Errorf("without an API key: %v", err)
	}
}
