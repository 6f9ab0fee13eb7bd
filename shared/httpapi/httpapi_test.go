package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/problem"
)

// tokens is an Authorizer for tests: a token is the scopes that it has.
type tokens struct{}

func (tokens) Authorize(_ context.Context, token string, scopes []string) (Caller, error) {
	if token == "down" {
		return Caller{}, problem.New(problem.Unavailable, "can't tell")
	}
	have := strings.Split(token, "+")
	c := Caller{Subject: "alice", Client: "app", Tenant: "default", Scopes: have}
	if token == "bad" {
		return Caller{}, problem.New(problem.Unauthorized, "not good")
	}
	for _, s := range scopes {
		if !c.Has(s) {
			return Caller{}, problem.New(problem.Forbidden, "the token lacks the scope %s", s)
		}
	}
	return c, nil
}

type thingInput struct {
	Wait string `query:"wait"`
	Body struct {
		Owner  string   `json:"owner" minLength:"1" maxLength:"5"`
		Scopes []string `json:"scopes,omitempty"`
		Count  int      `json:"count,omitempty"`
	}
}

type thingOutput struct {
	Status int
	Body   struct {
		Owner string `json:"owner"`
		By    string `json:"by"`
		At    Time   `json:"at"`
	}
}

func testServer(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	api := New(mux, "test", tokens{}, zap.NewNop())
	thing := func(ctx context.Context, in *thingInput) (*thingOutput, error) {
		switch in.Body.Owner {
		case "gone":
			return nil, problem.New(problem.Unavailable, "the log can't commit now")
		case "odd":
			return nil, fmt.Errorf("secret cause")
		case "panic":
			panic("secret cause")
		}
		out := &thingOutput{Status: 201}
		out.Body.Owner, out.Body.By, out.Body.At = in.Body.Owner, CallerOf(ctx).Actor(), Millis(1234)
		return out, nil
	}
	Register(api, huma.Operation{OperationID: "create", Method: "POST", Path: "/v1/things"}, "things:write", thing)
	Register(api, huma.Operation{OperationID: "bulk", Method: "POST", Path: "/v1/bulk", MaxBodyBytes: MaxBulkBody}, "things:write", thing)
	Register(api, huma.Operation{OperationID: "list", Method: "GET", Path: "/v1/things"}, "things:read|all:read",
		func(context.Context, *struct {
			Limit int `query:"limit"`
		},
		) (*struct{ Body List[string] }, error) {
			return &struct{ Body List[string] }{ListOf[string](nil, "")}, nil
		})
	Register(api, Timeout(huma.Operation{OperationID: "open", Method: "GET", Path: "/v1/open"}, time.Minute), Public,
		func(ctx context.Context, _ *struct{}) (*struct{ Body string }, error) {
			return &struct{ Body string }{CallerOf(ctx).Subject}, nil
		})
	api.Handle(huma.Operation{OperationID: "feed", Method: "GET", Path: "/v1/feed"}, "things:read", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, CallerOf(r.Context()).Subject)
	})
	srv := httptest.NewServer(Handler(mux, zap.NewNop(), nil))
	t.Cleanup(srv.Close)
	return srv
}

type answer struct {
	*http.Response
	text string
	doc  problem.Document
}

func do(t *testing.T, srv *httptest.Server, method, path, token, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header[headers[i]] = nil
		if v := headers[i+1]; v != "" {
			req.Header[headers[i]] = strings.Split(v, "\n")
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	a := answer{Response: res, text: b.String()}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/problem+json") {
		if err := json.Unmarshal(b.Bytes(), &a.doc); err != nil {
			t.Fatalf("problem document %q: %v", a.text, err)
		}
	}
	return a
}

func TestGoodRequestIsAnswered(t *testing.T) {
	srv := testServer(t)
	a := do(t, srv, "POST", "/v1/things?wait=5s", "things:write", `{"owner":"bob"}`)
	if want := `{"owner":"bob","by":"alice by app","at":"1970-01-01T00:00:01.234Z"}`; a.StatusCode != 201 || strings.TrimSpace(a.text) != want {
		t.Errorf("%d %s, want 201 %s", a.StatusCode, a.text, want)
	}
	if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("X-Request-Id") == "" || a.Header.Get("Link") != "" {
		t.Errorf("headers %v", a.Header)
	}
	a = do(t, srv, "GET", "/v1/things", "all:read", "")
	if want := `{"items":[],"next_page":""}`; a.StatusCode != 200 || strings.TrimSpace(a.text) != want {
		t.Errorf("%d %s, want %s", a.StatusCode, a.text, want)
	}
	if a = do(t, srv, "GET", "/v1/open", "", ""); a.StatusCode != 200 {
		t.Errorf("public operation: %d %s", a.StatusCode, a.text)
	}
	if a = do(t, srv, "GET", "/v1/feed", "things:read", ""); a.text != "alice" {
		t.Errorf("plain handler: %d %s", a.StatusCode, a.text)
	}
	big := `{"owner":"bob","scopes":["` + strings.Repeat("x", 500_000) + `"]}`
	if a = do(t, srv, "POST", "/v1/bulk", "things:write", big); a.StatusCode != 201 {
		t.Errorf("bulk: %d %s", a.StatusCode, a.text)
	}
}

func TestBadInputGetsAProblemThatNamesTheField(t *testing.T) {
	srv := testServer(t)
	const secret = "quash_key_s3cr3t"
	for name, c := range map[string]struct {
		method, path, body string
		headers            []string
		status             int
		field              string
	}{
		"method":               {"PUT", "/v1/things", `{}`, nil, 405, ""},
		"path":                 {"GET", "/v1/nothing", ``, nil, 404, ""},
		"no body":              {"POST", "/v1/things", ``, nil, 415, ""},
		"empty body":           {"POST", "/v1/things", ` `, nil, 422, ""},
		"no type":              {"POST", "/v1/things", `{}`, []string{"Content-Type", ""}, 415, ""},
		"form":                 {"POST", "/v1/things", `a=b`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, ""},
		"charset":              {"POST", "/v1/things", `{}`, []string{"Content-Type", "application/json; charset=latin1"}, 415, ""},
		"two types":            {"POST", "/v1/things", `{}`, []string{"Content-Type", "application/json\ntext/plain"}, 415, ""},
		"compressed":           {"POST", "/v1/things", `{}`, []string{"Content-Encoding", "gzip"}, 415, ""},
		"duplicate":            {"POST", "/v1/things", `{"owner":"a","owner":"` + secret + `"}`, nil, 422, "owner"},
		"case":                 {"POST", "/v1/things", `{"Owner":"` + secret + `"}`, nil, 422, "Owner"},
		"unknown":              {"POST", "/v1/things", `{"owner":"a","secret":"` + secret + `"}`, nil, 422, "secret"},
		"missing":              {"POST", "/v1/things", `{}`, nil, 422, "owner"},
		"type":                 {"POST", "/v1/things", `{"owner":["` + secret + `"]}`, nil, 422, "owner"},
		"too long":             {"POST", "/v1/things", `{"owner":"` + secret + `"}`, nil, 422, "owner"},
		"number":               {"POST", "/v1/things", `{"owner":"a","count":"` + secret + `"}`, nil, 422, "count"},
		"overflow":             {"POST", "/v1/things", `{"owner":"a","count":1e400}`, nil, 422, "count"},
		"trailing":             {"POST", "/v1/things", `{"owner":"a"} x`, nil, 422, ""},
		"control":              {"POST", "/v1/things", `{"owner":"a\u0001"}`, nil, 422, "owner"},
		"invalid UTF-8":        {"POST", "/v1/things", "{\"owner\":\"\xc3\"}", nil, 422, ""},
		"deep":                 {"POST", "/v1/things", strings.Repeat(`[`, 10_000), nil, 422, ""},
		"deep any":             {"POST", "/v1/things", `{"scopes":` + strings.Repeat(`[`, 10_000), nil, 422, ""},
		"large":                {"POST", "/v1/things", `{"owner":"` + strings.Repeat("x", 64<<10) + `"}`, nil, 413, ""},
		"large bulk":           {"POST", "/v1/bulk", `{"owner":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, ""},
		"unknown query":        {"POST", "/v1/things?weit=5s", `{"owner":"a"}`, nil, 422, "weit"},
		"duplicate query":      {"POST", "/v1/things?wait=5s&wait=6s", `{"owner":"a"}`, nil, 422, "wait"},
		"malformed query":      {"POST", "/v1/things?wait=%zz", `{"owner":"a"}`, nil, 422, ""},
		"control in query":     {"POST", "/v1/things?wait=%00", `{"owner":"a"}`, nil, 422, "wait"},
		"query type":           {"GET", "/v1/things?limit=" + secret, ``, nil, 422, "limit"},
		"body of a GET":        {"GET", "/v1/things", `{"owner":"a"}`, nil, 422, ""},
		"two tokens":           {"GET", "/v1/things", ``, []string{"Authorization", "Bearer things:read\nBearer x"}, 422, "Authorization"},
		"basic authentication": {"GET", "/v1/things", ``, []string{"Authorization", "Basic " + secret}, 401, ""},
		"internal":             {"POST", "/v1/things", `{"owner":"odd"}`, nil, 500, ""},
		"panic":                {"POST", "/v1/things", `{"owner":"panic"}`, nil, 500, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := do(t, srv, c.method, c.path, "things:write+things:read", c.body, c.headers...)
			if a.StatusCode != c.status || a.doc.Status != c.status || a.doc.Type == "" || a.doc.RequestID == "" {
				t.Errorf("answered %d %s, want a problem document of %d", a.StatusCode, a.text, c.status)
			}
			// The path of huma's own errors has no index here; ours has.
			if a.doc.Field != c.field && !strings.HasPrefix(name, "deep") {
				t.Errorf("names %q (%s), want %q", a.doc.Field, a.doc.Detail, c.field)
			}
			if strings.Contains(a.text, secret) || strings.Contains(a.text, "secret cause") {
				t.Errorf("repeats a secret: %s", a.text)
			}
			if a.Header.Get("Cache-Control") != "no-store" {
				t.Error("may be stored")
			}
			if allow := a.Header.Get("Allow"); (c.status == 405) != (allow == "GET, HEAD, POST") {
				t.Errorf("Allow: %q", allow)
			}
		})
	}
}

func TestRefusalsCarryTheirHeaders(t *testing.T) {
	srv := testServer(t)
	for name, c := range map[string]struct {
		token, body    string
		status         int
		auth, retry    string
		path, realPath string
	}{
		"no token":    {"", `{"owner":"a"}`, 401, `Bearer realm="quash"`, "", "/v1/things", ""},
		"bad token":   {"bad", `{"owner":"a"}`, 401, `Bearer realm="quash", error="invalid_token"`, "", "/v1/things", ""},
		"scope":       {"things:read", `{"owner":"a"}`, 403, `Bearer realm="quash", error="insufficient_scope", scope="things:write"`, "", "/v1/things", ""},
		"unavailable": {"down", `{"owner":"a"}`, 503, "", "1", "/v1/things", ""},
		"log down":    {"things:write", `{"owner":"gone"}`, 503, "", "1", "/v1/things", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := do(t, srv, "POST", c.path, c.token, c.body)
			if a.StatusCode != c.status || a.Header.Get("WWW-Authenticate") != c.auth || a.Header.Get("Retry-After") != c.retry {
				t.Errorf("%d, WWW-Authenticate %q, Retry-After %q; want %d, %q, %q", a.StatusCode,
					a.Header.Get("WWW-Authenticate"), a.Header.Get("Retry-After"), c.status, c.auth, c.retry)
			}
		})
	}
}

func TestOpenAPIHasSecurityAndNoSchemaLinks(t *testing.T) {
	srv := testServer(t)
	a := do(t, srv, "GET", "/openapi/test.json", "", "")
	for _, want := range []string{`"3.1.0"`, `"things:write"`, `"bearer"`, "application/problem+json"} {
		if !strings.Contains(a.text, want) {
			t.Errorf("OpenAPI lacks %s", want)
		}
	}
	if strings.Contains(a.text, "$schema") {
		t.Error("OpenAPI has $schema links")
	}
}

func TestOperationWithoutScopeCannotBeRegistered(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("registered an operation that anybody may call")
		}
	}()
	api := New(http.NewServeMux(), "test", tokens{}, nil)
	Register(api, huma.Operation{OperationID: "x", Method: "GET", Path: "/x"}, "", func(context.Context, *struct{}) (*struct{}, error) { return nil, nil })
}

// A redirect would have clients send body and credentials again.
func TestPathsAreServedAsTheyAreWrittenOnly(t *testing.T) {
	srv := testServer(t)
	for _, path := range []string{"//v1/things", "/v1//things", "/v1/./things", "/v1/x/../things", "/v1/things/.", "/v1/things/"} {
		if a := do(t, srv, "GET", path, "", ""); a.StatusCode != http.StatusNotFound || a.doc.Type == "" {
			t.Errorf("GET %s: status %d, %s", path, a.StatusCode, a.text)
		}
	}
}

func TestEmptyOrDoubleIdempotencyKeyIsRefused(t *testing.T) {
	srv := testServer(t)
	for _, keys := range [][]string{{""}, {"a", "b"}} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", srv.URL+"/v1/things", strings.NewReader(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer things:write"}, "Idempotency-Key": keys}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var doc problem.Document
		err = json.NewDecoder(res.Body).Decode(&doc)
		res.Body.Close()
		if err != nil || res.StatusCode != 422 || doc.Field != "Idempotency-Key" {
			t.Errorf("keys %q: status %d, %+v, %v", keys, res.StatusCode, doc, err)
		}
	}
}

func TestStreamsTakeNoUnknownParametersAndNoBody(t *testing.T) {
	srv := testServer(t)
	if a := do(t, srv, "GET", "/v1/feed?unknown=1", "things:read", ""); a.StatusCode != 422 || a.doc.Field != "unknown" {
		t.Errorf("an unknown parameter: status %d, %s", a.StatusCode, a.text)
	}
	if a := do(t, srv, "GET", "/v1/feed", "things:read", "{}"); a.StatusCode != 422 {
		t.Errorf("a body: status %d, %s", a.StatusCode, a.text)
	}
}
