package app_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/quash-project/quash/services/issuer/app"
	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/holds"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/services/revocation/natsapi"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

const (
	tenant = "default"
	apiURL = "http://127.0.0.1:8420" // the issuer; requests go to a test server
)

// world is an issuer on a real NATS with the real log, and one signing key.
type world struct {
	t        testing.TB
	nats     *enginetest.NATSServer
	ledger   *ledger.Ledger
	app      *app.Service
	cfg      app.Config
	http     *httptest.Server
	logs     *logs
	operator string // the first operator's API key
	stopLog  func() // stops the revocation service
	stopApp  func()
	identity ed25519.PrivateKey
	signing  signing.Set
	now      func() time.Time // nil: time.Now
}

// logs keeps every log line, for tests that look for secrets in them.
type logs struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func (l *logs) Sync() error { return nil }

func (l *logs) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.String()
}

func newWorld(t testing.TB, change ...func(*app.Config)) *world {
	t.Helper()
	w := &world{t: t, nats: enginetest.NATS(t), logs: &logs{}}
	w.configure()
	for _, c := range change {
		c(&w.cfg)
	}
	w.startLog()
	w.makeSigningKey(signing.ES256)
	w.startApp()
	w.readOperator()
	return w
}

func (w *world) configure() {
	w.t.Helper()
	_, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	w.identity = identity
	dir := w.t.TempDir()
	w.cfg = app.Config{
		URL: apiURL, Trust: []string{signing.TrustString(identity.Public().(ed25519.PublicKey))},
		KEKFile: filepath.Join(dir, "kek"), OperatorKeyFile: filepath.Join(dir, "operator"),
	}
	if err := seal.CreateKEK(w.cfg.KEKFile); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) readOperator() {
	w.t.Helper()
	key, err := seal.ReadSecretFile(w.cfg.OperatorKeyFile)
	if err != nil {
		w.t.Fatal(err)
	}
	w.operator = strings.TrimSpace(string(key))
}

func (w *world) log() *zap.Logger {
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), w.logs, zap.DebugLevel))
}

// startLog runs what the revocation service does for readers and services.
func (w *world) startLog() {
	w.t.Helper()
	nc := w.nats.Conn(w.t, "revocation")
	l, err := ledger.New(ledger.Config{NATS: nc, Log: w.log(), SyncAlways: true})
	if err != nil {
		w.t.Fatal(err)
	}
	held := holds.New(l, holds.Config{})
	l.Observe(held)
	l.AskHolders(held)
	f := fleet.New(fleet.Config{Log: l})
	l.Observe(f)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = l.Run(ctx) })
	enginetest.Eventually(w.t, "the log is ready", l.Ready)
	running.Go(func() { _ = (&natsapi.Server{NATS: nc, Ledger: l, Fleet: f, Log: w.log()}).Run(ctx) })
	w.ledger = l
	w.stopLog = sync.OnceFunc(func() { cancel(); running.Wait() })
	w.t.Cleanup(func() { w.stopLog() })
}

// makeSigningKey does what the rotator does at its first start.
func (w *world) makeSigningKey(alg string) {
	w.t.Helper()
	kek, err := seal.LoadKEK(w.cfg.KEKFile)
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := signing.Generate(rand.Reader, kek, tenant, alg)
	if err != nil {
		w.t.Fatal(err)
	}
	key.State, key.End = signing.Signing, time.Now().Add(30*24*time.Hour).Unix()
	w.signing.Tenant, w.signing.Issuer = tenant, apiURL
	w.signing.Keys = append(w.signing.Keys, key)
	js, err := jetstream.New(w.nats.Conn(w.t, "rotator"))
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := js.CreateOrUpdateKeyValue(w.t.Context(), signing.BucketConfig(1))
	if err != nil {
		w.t.Fatal(err)
	}
	data, err := json.Marshal(w.signing)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := b.Put(w.t.Context(), tenant, data); err != nil {
		w.t.Fatal(err)
	}
	w.sendKeyState(&w.signing.Keys[len(w.signing.Keys)-1])
}

func (w *world) sendKeyState(k *signing.Key) {
	w.t.Helper()
	jws, err := signing.SignState(w.identity, w.signing.StateOf(k))
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = w.ledger.CommitKey(w.t.Context(), commit.KeyRequest{Tenant: tenant, KeyID: k.ID, JWS: jws, Until: k.End + int64(wire.Slack/time.Second)}, "rotator")
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) startApp() {
	w.t.Helper()
	w.launchApp()
	enginetest.Eventually(w.t, "the issuer is ready", w.app.Ready)
}

// launchApp waits for nothing.
func (w *world) launchApp() {
	w.t.Helper()
	nc := w.nats.Dial(w.t, "issuer")
	s, err := app.New(w.t.Context(), w.cfg, app.Deps{Log: w.log(), NATS: nc, Now: w.now})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.app = s
	w.http = httptest.NewServer(s.Handler())
	w.stopApp = sync.OnceFunc(func() {
		w.http.Close()
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
		nc.Close()
	})
	w.t.Cleanup(w.stopApp)
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) json(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("status %d, body %s: %v", a.status, a.body, err)
	}
}

func (a answer) code(t testing.TB) string {
	t.Helper()
	var e struct{ Error, Type string }
	a.json(t, &e)
	if e.Error != "" {
		return e.Error
	}
	return e.Type
}

func (w *world) do(req *http.Request) answer {
	w.t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, body}
}

// post sends a form to an OAuth endpoint. user and password are for Basic.
func (w *world) post(path string, form url.Values, basic ...string) answer {
	w.t.Helper()
	req, err := http.NewRequest(http.MethodPost, w.http.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if len(basic) == 2 {
		req.SetBasicAuth(url.QueryEscape(basic[0]), url.QueryEscape(basic[1]))
	}
	return w.do(req)
}

func exchangeForm(secret string, more ...string) url.Values {
	f := url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token_type": {"urn:quash:token-type:api-key"}, "subject_token": {secret},
	}
	for i := 0; i+1 < len(more); i += 2 {
		f.Add(more[i], more[i+1])
	}
	return f
}

type tokenAnswer struct {
	AccessToken     string `json:"access_token"`
	IssuedTokenType string `json:"issued_token_type"`
	TokenType       string `json:"token_type"`
	ExpiresIn       int    `json:"expires_in"`
	Scope           string `json:"scope"`
}

// token exchanges an API key, which must succeed.
func (w *world) token(secret string, more ...string) tokenAnswer {
	w.t.Helper()
	a := w.post("/oauth/token", exchangeForm(secret, more...))
	if a.status != http.StatusOK {
		w.t.Fatalf("exchange: status %d, %s", a.status, a.body)
	}
	var tok tokenAnswer
	a.json(w.t, &tok)
	return tok
}

// api calls the management API with a token; body nil: none.
func (w *world) api(token, method, path string, body any) answer {
	w.t.Helper()
	var r io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		r = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, w.http.URL+path, r)
	if err != nil {
		w.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return w.do(req)
}

// must is api with the operator's token; the status must be want.
func (w *world) must(want int, method, path string, body, into any) {
	w.t.Helper()
	a := w.api(w.token(w.operator).AccessToken, method, path, body)
	if a.status != want {
		w.t.Fatalf("%s %s: status %d, want %d: %s", method, path, a.status, want, a.body)
	}
	if into != nil {
		a.json(w.t, into)
	}
}

type madeKey struct {
	ID        string   `json:"id"`
	Secret    string   `json:"secret"`
	State     string   `json:"state"`
	HitBy     []string `json:"hit_by"`
	ClientID  string   `json:"client_id"`
	CreatedAt string   `json:"created_at"`
	ExpiresAt string   `json:"expires_at"`
}

func (w *world) newKey(body map[string]any) madeKey {
	w.t.Helper()
	var k madeKey
	w.must(http.StatusCreated, "POST", "/v1/keys", body, &k)
	return k
}

type madeClient struct {
	ID       string `json:"client_id"`
	Secret   string `json:"client_secret"`
	SecretID string `json:"secret_id"`
}

func (w *world) newClient(body map[string]any) madeClient {
	w.t.Helper()
	var c madeClient
	w.must(http.StatusCreated, "POST", "/v1/clients", body, &c)
	return c
}

// commit puts an entry into the log by the revocation service, and waits until
// the issuer's view has it.
func (w *world) commit(op commit.Op, targets ...string) commit.Answer {
	w.t.Helper()
	r := commit.Request{Key: rand.Text(), Tenant: tenant, Op: op, Reason: "a test", Actor: "test"}
	for _, text := range targets {
		t, err := revoke.ParseTarget(tenant, "", text)
		if err != nil {
			w.t.Fatal(err)
		}
		r.Targets = append(r.Targets, commit.Target{Kind: t.Kind, ID: t.ID})
	}
	a, err := w.ledger.Commit(w.t.Context(), r, "revocation")
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.app.Reader().WaitFor(w.t.Context(), a.Stamp()); err != nil {
		w.t.Fatal(err)
	}
	return a
}

// claims decodes the payload of a token without checking anything.
func claims(t testing.TB, token string) map[string]any {
	t.Helper()
	var c map[string]any
	segment(t, token, 1, &c)
	return c
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	enginetest.Eventually(t, what, func() error {
		if ok() {
			return nil
		}
		return context.DeadlineExceeded
	})
}
