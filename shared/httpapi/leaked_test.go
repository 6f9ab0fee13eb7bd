package httpapi

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/apikey"
)

func TestSecretInAURLIsRefusedAndTold(t *testing.T) {
	made, err := apikey.Generate(rand.Reader, apikey.Key)
	if err != nil {
		t.Fatal(err)
	}
	key := made.Reveal()
	const imported = "sk_live+4eC39Hq/Lyj=="
	served := 0
	mux := http.NewServeMux()
	serve := func(http.ResponseWriter, *http.Request) { served++ }
	mux.HandleFunc("GET /v1/things/{id}", serve)
	mux.HandleFunc("/oauth/token", serve)
	var told []string
	var where string
	srv := httptest.NewServer(Handler(mux, zap.NewNop(), nil, Leaks{
		Told:  func(_ *http.Request, at string, secrets []string) { where, told = at, secrets },
		Known: func(text string) bool { return text == imported },
	}))
	t.Cleanup(srv.Close)
	escaped := "%71" + url.QueryEscape(key[1:])
	for path, want := range map[string]int{
		"/v1/things/" + key: 422, "/v1/things/1?key=" + key: 422, "/v1/things/1?" + key: 422, "/v1/things/1?key=" + escaped: 422,
		"/nothing/" + key: 422, "/oauth/token?subject_token=" + key: 400,
	} {
		told = nil
		a := do(t, srv, "GET", path, "", "")
		if a.StatusCode != want || !slices.Equal(told, []string{key}) || strings.Contains(a.text+where, key[10:40]) {
			t.Errorf("%s: %d %s, told of %d secrets %q; want %d, and that it was told", apikey.Redact(path), a.StatusCode, a.text, len(told), where, want)
		}
	}
	for path, field := range map[string]string{
		"/v1/things/1?api_key=" + imported: `"api_key"`, "/v1/things/1?x=1&api_key=" + url.QueryEscape(imported): `"api_key"`,
		"/v1/things/1?" + url.QueryEscape(imported): "", "/v1/things/" + url.PathEscape(imported): "",
	} {
		told = nil
		a := do(t, srv, "GET", path, "", "")
		if a.StatusCode != 422 || !slices.Equal(told, []string{imported}) || strings.Contains(a.text+where, imported) || !strings.Contains(a.text, field) {
			t.Errorf("an imported key in %s: %d %s, told of %d; want 422 that names %s", path, a.StatusCode, a.text, len(told), field)
		}
	}
	if where == "" || served > 0 {
		t.Errorf("told %q, served %d times", where, served)
	}
	told = nil
	if a := do(t, srv, "GET", "/v1/things/"+key[:30], "", ""); a.StatusCode != 200 || told != nil {
		t.Errorf("what is no secret: %d, told of %d", a.StatusCode, len(told))
	}
}
