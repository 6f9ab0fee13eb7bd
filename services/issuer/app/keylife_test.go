package app_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/services/issuer/app"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// exchangeFrom exchanges a key by a trusted proxy's word.
func (w *world) exchangeFrom(secret, forwarded string) answer {
	w.t.Helper()
	return w.postFrom("/oauth/token", exchangeForm(secret), forwarded)
}

func (w *world) postFrom(path string, form url.Values, forwarded string) answer {
	w.t.Helper()
	req, err := http.NewRequest(http.MethodPost, w.http.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if forwarded != "" {
		req.Header.Set("X-Forwarded-For", forwarded)
	}
	return w.do(req)
}

// A key from elsewhere has the answer of one that does not exist.
func TestKeyIsGoodFromItsNetworksAlone(t *testing.T) {
	w := newWorld(t, func(c *app.Config) { c.TrustedProxies = []string{"127.0.0.1"} })
	k := w.newKey(map[string]any{"owner": "pat", "networks": []string{"192.0.2.0/24", "2001:db8::1"}})
	unknown := w.exchangeFrom(k.Secret[:len(k.Secret)-1], "192.0.2.7")
	for from, want := range map[string]int{
		"192.0.2.7": 200, "2001:db8::1": 200, "198.51.100.1, 192.0.2.7": 200,
		"198.51.100.1": 400, "192.0.2.7, 198.51.100.1": 400, "2001:db8::2": 400, "nobody": 400, "": 400,
	} {
		a := w.exchangeFrom(k.Secret, from)
		if a.status != want || want == 400 && string(a.body) != string(unknown.body) {
			t.Errorf("from %q: %d %s, want %d and, if refused, the answer for an unknown key", from, a.status, a.body, want)
		}
	}
	// As a client of its own, too.
	about := url.Values{"token": {"x"}, "client_id": {k.ClientID}, "client_secret": {k.Secret}}
	for _, path := range []string{"/oauth/introspect", "/oauth/revoke"} {
		if in, out := w.postFrom(path, about, "192.0.2.7"), w.postFrom(path, about, "198.51.100.1"); in.status != 200 || out.status != 401 {
			t.Errorf("%s: %d from within, %d from without; want 200 and 401", path, in.status, out.status)
		}
	}
	tok := w.token(w.operator).AccessToken
	for _, networks := range [][]string{{"192.0.2.1/24"}, {"everywhere"}, {""}, slices.Repeat([]string{"192.0.2.0/24"}, 51)} {
		if a := w.api(tok, "POST", "/v1/keys", map[string]any{"owner": "pat", "networks": networks}); a.status != 422 || !strings.Contains(string(a.body), `"networks"`) {
			t.Errorf("%.40q: %d %s, want 422 and the field", networks, a.status, a.body)
		}
	}
}

// Without a trusted proxy nobody can say that they are somebody else.
func TestForwardedHeadersOfStrangersSayNothing(t *testing.T) {
	w := newWorld(t)
	elsewhere := w.newKey(map[string]any{"owner": "pat", "networks": []string{"192.0.2.0/24"}})
	here := w.newKey(map[string]any{"owner": "pat", "networks": []string{"127.0.0.0/8"}})
	if a := w.exchangeFrom(elsewhere.Secret, "192.0.2.7"); a.status != 400 {
		t.Errorf("from where the header says: %d, want 400", a.status)
	}
	if a := w.exchangeFrom(here.Secret, "192.0.2.7"); a.status != 200 {
		t.Errorf("from where the connection comes: %d, want 200", a.status)
	}
}

func TestKeyIsExchangedAsOftenAsItsRateLimitSays(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "pat", "rate_limit": 3})
	free := w.newKey(map[string]any{"owner": "pat"})
	for range 3 {
		w.token(k.Secret)
	}
	a := w.post("/oauth/token", exchangeForm(k.Secret))
	if wait := a.header.Get("Retry-After"); a.status != 429 || a.code(t) != "temporarily_unavailable" || wait != "20" && wait != "19" {
		t.Errorf("the fourth: %d %s, Retry-After %q; want 429 and some 20 s", a.status, a.body, wait)
	}
	for range 10 {
		w.token(free.Secret)
	}
	for _, n := range []int{-1, 1_000_001} {
		if a := w.api(w.token(w.operator).AccessToken, "POST", "/v1/keys", map[string]any{"owner": "pat", "rate_limit": n}); a.status != 422 {
			t.Errorf("rate_limit %d: %d %s, want 422", n, a.status, a.body)
		}
	}
}

type shownKey struct {
	madeKey
	Networks     []string
	LastUsedAt   string `json:"last_used_at"`
	LastUsedFrom string `json:"last_used_from"`
	WarnedAt     string `json:"warned_at"`
	ChangedBy    string `json:"changed_by"`
	Imported     bool
	Leaked       *struct{ At, Where, From string }
}

func (w *world) show(id string) (k shownKey) {
	w.t.Helper()
	w.must(200, "GET", "/v1/keys/"+id, nil, &k)
	return k
}

// When a key was used is known at once where it was, and elsewhere a little later; no
// record of the key is written for it.
func TestLastUseIsToldByEveryReplica(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "pat"})
	never := w.newKey(map[string]any{"owner": "pat"})
	if s := w.show(k.ID); s.LastUsedAt != "" {
		t.Errorf("%+v: used before it was", s)
	}
	for range 5 {
		w.token(k.Secret)
	}
	used := w.show(k.ID)
	if used.LastUsedAt == "" || used.LastUsedFrom != "127.0.0.1" || !strings.HasSuffix(used.LastUsedAt, ":00.000Z") {
		t.Errorf("%+v: want when, to the minute, and from where", used)
	}
	first := w.app
	w.launchApp()
	eventually(t, "the other replica is ready", func() bool { return w.app.Ready() == nil })
	eventually(t, "the other replica knows it", func() bool { return w.show(k.ID).LastUsedAt == used.LastUsedAt })
	if w.show(never.ID).LastUsedAt != "" || w.app == first {
		t.Error("a key that was not used counts as used")
	}
	if n := w.revisions("KV_uses", "$KV.uses.default."+k.ID); n != 1 {
		t.Errorf("%d writes of its use, want 1", n)
	}
	if n := w.revisions("KV_keys", "$KV.keys.default."+k.ID); n != 1 {
		t.Errorf("%d revisions of its record, want 1", n)
	}
	w.must(200, "DELETE", "/v1/keys/"+k.ID+"?reason=x", nil, nil)
}

func (w *world) jetStream() jetstream.JetStream {
	w.t.Helper()
	js, err := jetstream.New(w.nats.Admin(w.t, identity.Control))
	if err != nil {
		w.t.Fatal(err)
	}
	return js
}

// revisions counts what was stored under a subject.
func (w *world) revisions(stream, subject string) uint64 {
	w.t.Helper()
	js := w.jetStream()
	s, err := js.Stream(w.t.Context(), stream)
	if err != nil {
		w.t.Fatal(err)
	}
	msg, err := s.GetLastMsgForSubject(w.t.Context(), subject)
	if err != nil {
		w.t.Fatal(err)
	}
	n := uint64(0)
	for seq := uint64(1); seq <= msg.Sequence; seq++ {
		if m, err := s.GetMsg(w.t.Context(), seq); err == nil && m.Subject == subject {
			n++
		}
	}
	return n
}

func TestUnusedKeysAreFound(t *testing.T) {
	w := newWorld(t)
	used := w.newKey(map[string]any{"owner": "pat"})
	unused := w.newKey(map[string]any{"owner": "pat"})
	w.token(used.Secret)
	at := url.QueryEscape(time.Now().Add(time.Hour).Format(time.RFC3339))
	for query, want := range map[string][]string{
		"90d":                  nil, // neither was there then
		"2020-01-31T00:00:00Z": nil,
		at:                     {used.ID, unused.ID},
	} {
		if got := w.listed("&owner=pat&unused_since=" + query); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	if got := w.listed("&owner=pat&expires_within=91d"); len(got) != 2 {
		t.Errorf("within 91 days: %q", got)
	}
	tok := w.token(w.operator).AccessToken
	for _, text := range []string{"soon", "-1d", "0d", "d", "99999999d", "2026-01-31"} {
		if a := w.api(tok, "GET", "/v1/keys?unused_since="+text, nil); a.status != 422 || !strings.Contains(string(a.body), "unused_since") {
			t.Errorf("%s: %d %s, want 422", text, a.status, a.body)
		}
	}
}

func TestLifeOfKeysIsThatOfThePolicy(t *testing.T) {
	w := newWorld(t, func(c *app.Config) { c.KeyLife, c.MaxKeyLife = 24*time.Hour, 48*time.Hour })
	k := w.newKey(map[string]any{"owner": "pat"})
	made, err1 := time.Parse(time.RFC3339, k.CreatedAt)
	ends, err2 := time.Parse(time.RFC3339, k.ExpiresAt)
	if err1 != nil || err2 != nil || ends.Sub(made) != 24*time.Hour {
		t.Errorf("from %s to %s, want a day", k.CreatedAt, k.ExpiresAt)
	}
	w.newKey(map[string]any{"owner": "pat", "expires_in": "2d"})
	tok := w.token(w.operator).AccessToken
	if a := w.api(tok, "POST", "/v1/keys", map[string]any{"owner": "pat", "expires_in": "49h"}); a.status != 422 || !strings.Contains(string(a.body), "2 days") {
		t.Errorf("49h: %d %s, want 422 and the most", a.status, a.body)
	}
	if a := w.api(tok, "POST", "/v1/clients", map[string]any{"name": "n", "grants": []string{"client_credentials"}, "secret_expires_in": "49h"}); a.status != 422 {
		t.Errorf("a secret of 49h: %d %s, want 422", a.status, a.body)
	}
	for name, change := range map[string]func(*app.Config){
		"max_key_life": func(c *app.Config) { c.MaxKeyLife = 401 * 24 * time.Hour }, "key_life": func(c *app.Config) { c.KeyLife, c.MaxKeyLife = 2*time.Hour, time.Hour },
		"leaked_keys": func(c *app.Config) { c.LeakedKeys = "shrug" }, "trusted_proxies": func(c *app.Config) { c.TrustedProxies = []string{"all"} },
		"expiry_warnings": func(c *app.Config) { c.ExpiryWarnings = []time.Duration{time.Second} },
		"key_overlap":     func(c *app.Config) { c.KeyOverlap = 31 * 24 * time.Hour }, "self_rotation": func(c *app.Config) { c.SelfRotation = "sometimes" },
	} {
		cfg := w.cfg
		change(&cfg)
		if _, err := app.New(t.Context(), cfg, app.Deps{NATS: w.nats.Conn(t, "issuer")}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want an error that names it", name, err)
		}
	}
}

// Two replicas find that a key's end is near; one of them tells, once.
func TestEndOfAKeyIsToldOnce(t *testing.T) {
	w := newWorld(t, func(c *app.Config) { c.ExpiryWarnings = []time.Duration{2 * time.Minute, time.Minute} })
	k := w.newKey(map[string]any{"owner": "pat", "name": "shop", "expires_in": "3m"})
	w.newKey(map[string]any{"owner": "sam", "expires_in": "1m"}) // its end was near when it was made
	sub, err := w.nats.Conn(t, "control-reader").SubscribeSync(wire.EventAll)
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	w.now = func() time.Time { return time.Now().Add(75 * time.Second) }
	w.stopApp()
	for range 2 {
		w.launchApp()
	}
	m, err := sub.NextMsg(20 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	schematest.Load(t).Valid(t, "issuer-event.json", m.Data)
	var e struct {
		Subject string
		Data    struct {
			Owner, Name   string
			BeforeSeconds int `json:"before_seconds"`
		}
	}
	if err := json.Unmarshal(m.Data, &e); err != nil {
		t.Fatal(err)
	}
	if m.Subject != "quash.event.issuer.default.key-expiring" || e.Subject != "key:"+k.ID || e.Data.Owner != "pat" || e.Data.BeforeSeconds != 120 {
		t.Errorf("%s %s", m.Subject, m.Data)
	}
	eventually(t, "the issuer is ready", func() bool { return w.app.Ready() == nil })
	if s := w.show(k.ID); s.WarnedAt == "" || s.ChangedBy != "system:issuer" {
		t.Errorf("%+v: want that the record says so", s)
	}
	if m, err := sub.NextMsg(3 * time.Second); err == nil {
		t.Errorf("told once more: %s", m.Data)
	}
	if n := strings.Count(w.logs.text(), "a key comes to its end"); n != 1 {
		t.Errorf("%d log lines, want 1", n)
	}
}
