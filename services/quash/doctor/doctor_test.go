package doctor

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/client"
)

// issuer is one that says what a test has it say.
type issuer struct {
	srv   *httptest.Server
	date  string // of every answer; empty: the right one
	keys  string
	fleet string
	more  []string // further revocation endpoints
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if i.date != "" {
		w.Header().Set("Date", i.date)
	}
	answer := map[string]string{"/jwks": i.keys, "/v1/fleet": i.fleet, "/oauth/token": `{"access_token":"t","expires_in":600}`}[r.URL.Path]
	if strings.HasPrefix(r.URL.Path, "/.well-known/") {
		data, _ := json.Marshal(client.Metadata{
			Issuer: i.srv.URL, TokenEndpoint: i.srv.URL + "/oauth/token", JWKSURI: i.srv.URL + "/jwks",
			Revocation: append([]string{i.srv.URL + "/v1/revocations"}, i.more...), Rotation: []string{i.srv.URL + "/v1/rotations"},
		})
		answer = string(data)
	}
	if answer == "403" {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		answer = `{"type":"https://quash.dev/problems/forbidden","status":403}`
	}
	_, _ = w.Write([]byte(answer))
}

const (
	twoKeys = `{"keys":[{"kid":"a"},{"kid":"b"}]}`
	wellOff = `{"items":[{"name":"orders","instance":"i1","limit":"15s","past":"deny","state":"joined","staleness":"2s"}],"redis":{"complete":true}}`
)

// start serves it; serve is httptest.NewServer or the like by TLS.
func start(t *testing.T, i *issuer, serve func(http.Handler) *httptest.Server) {
	t.Helper()
	i.srv = serve(i)
	t.Cleanup(i.srv.Close)
}

// examine looks with what every test has, changed by it.
func examine(t *testing.T, i *issuer, change func(*Config)) []Finding {
	t.Helper()
	cfg := Config{SignedIn: true, HTTP: i.srv.Client(), Now: time.Now}
	if change != nil {
		change(&cfg)
	}
	var err error
	if cfg.API, err = client.New(i.srv.URL, client.Options{Key: func() (string, error) { return "key", nil }, HTTP: cfg.HTTP, Now: cfg.Now}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return Examine(ctx, cfg)
}

// want wants one finding whose check begins so, of a state, with a text in its
// detail or mend; and that whatever is wrong has a mend, and nothing else is wrong.
func want(t *testing.T, found []Finding, state, check, text string) {
	t.Helper()
	is := func(f Finding) string {
		switch {
		case f.NotLooked:
			return "unseen"
		case f.OK:
			return "good"
		}
		return "wrong"
	}
	hit := false
	for _, f := range found {
		if is(f) == "wrong" && f.Mend == "" {
			t.Errorf("%s is wrong, and nothing says how to mend it", f.Check)
		}
		if strings.HasPrefix(f.Check, check) && is(f) == state && strings.Contains(f.Detail+" "+f.Mend, text) {
			hit = true
		} else if is(f) == "wrong" && state != "wrong" {
			t.Errorf("%s is wrong: %s", f.Check, f.Detail)
		}
	}
	if !hit {
		t.Errorf("no %s %q with %q in %+v", state, check, text, found)
	}
}

func TestServicesAreLookedAt(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, c := range map[string]struct {
		issuer             issuer
		change             func(*Config)
		state, check, text string
	}{
		"all well":            {issuer{}, nil, "good", "clock", "less than"},
		"keys":                {issuer{}, nil, "good", "signing keys", "2 published"},
		"guards":              {issuer{}, nil, "good", "fleet", "orders, 2s"},
		"the view":            {issuer{}, nil, "good", "Redis view", "complete"},
		"on this machine":     {issuer{}, nil, "good", "TLS of", "none"},
		"NATS without a word": {issuer{}, nil, "unseen", "NATS", "QUASH_NATS_URL"},
		"Redis alike":         {issuer{}, nil, "unseen", "Redis", "QUASH_REDIS_URL"},
		"no key":              {issuer{}, func(c *Config) { c.SignedIn = false }, "unseen", "fleet", "sign-in"},
		"no right":            {issuer{fleet: "403"}, nil, "unseen", "fleet", "auditor"},
		"another clock":       {issuer{date: time.Now().Add(-5 * time.Minute).UTC().Format(http.TimeFormat)}, nil, "wrong", "clock", "5m"},
		"a little off":        {issuer{date: time.Now().Add(-2 * time.Minute).UTC().Format(http.TimeFormat)}, nil, "good", "clock", "less than 2m"},
		"no clock":            {issuer{date: "noon"}, nil, "wrong", "clock", "Date"},
		"one key":             {issuer{keys: `{"keys":[{"kid":"a"}]}`}, nil, "wrong", "signing keys", "at least two"},
		"one key twice":       {issuer{keys: `{"keys":[{"kid":"a"},{"kid":"a"}]}`}, nil, "wrong", "signing keys", "at least two"},
		"a private key":       {issuer{keys: `{"keys":[{"kid":"a","d":"x"},{"kid":"b"}]}`}, nil, "wrong", "signing keys", "--emergency"},
		"no keys":             {issuer{keys: "<html>"}, nil, "wrong", "signing keys", "rotator"},
		"a stale guard": {
			issuer{fleet: `{"items":[{"name":"orders","instance":"i1","limit":"15s","past":"deny","state":"fenced"}]}`},
			nil,
			"wrong", "guard orders", "quash fleet out i1",
		},
		"one that allows": {issuer{fleet: `{"items":[{"name":"open","limit":"15s","past":"allow","state":"joined"}]}`}, nil, "good", "fleet", "allow: open"},
		"one that left":   {issuer{fleet: `{"items":[{"name":"x","limit":"15s","past":"deny","state":"out"}]}`}, nil, "good", "fleet", "1 guards, 0 within"},
		"a view in pieces": {
			issuer{fleet: `{"items":[],"redis":{"complete":false,"reason":"keys were evicted"}}`},
			nil,
			"wrong", "Redis view", "evicted",
		},
		"a replica is away": {issuer{more: []string{gone.URL + "/v1/revocations"}}, nil, "wrong", "service at " + host(gone.URL), "revocation_urls"},
		"not a URL":         {issuer{more: []string{"nowhere"}}, nil, "wrong", "metadata", "revocation_urls"},
	} {
		t.Run(name, func(t *testing.T) {
			i := &c.issuer
			if i.keys == "" {
				i.keys = twoKeys
			}
			if i.fleet == "" {
				i.fleet = wellOff
			}
			start(t, i, httptest.NewServer)
			want(t, examine(t, i, c.change), c.state, c.check, c.text)
		})
	}
}

func TestNobodyThere(t *testing.T) {
	i := &issuer{srv: httptest.NewServer(nil)}
	i.srv.Close()
	found := examine(t, i, nil)
	want(t, found, "wrong", "metadata", "QUASH_URL")
	want(t, found, "wrong", "metadata", "start Quash")
	creds := filepath.Join(t.TempDir(), "none")
	found = examine(t, i, func(c *Config) { c.NATSURL, c.Creds, c.RedisURL = "nats://127.0.0.1:1", creds, "redis://127.0.0.1:1" })
	want(t, found, "wrong", "NATS 127.0.0.1:1", "quash nats init")
	want(t, found, "wrong", "Redis", "start that redis-server")
}
