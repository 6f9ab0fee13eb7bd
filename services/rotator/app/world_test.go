package app_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	issuerapp "github.com/quash-project/quash/services/issuer/app"
	revocationapp "github.com/quash-project/quash/services/revocation/app"
	"github.com/quash-project/quash/services/rotator"
	"github.com/quash-project/quash/services/rotator/app"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

const issuerURL = "http://127.0.0.1:8420"

// service is what the three services have in common.
type service interface {
	Handler() http.Handler
	Run(ctx context.Context) error
	Ready() error
}

// world is the three services on a real NATS, and a guard beside them.
type world struct {
	t        testing.TB
	nats     *enginetest.NATSServer
	cfg      app.Config
	trust    string
	operator string
	issuer   *httptest.Server
	issuing  *issuerapp.Service
	rotator  *httptest.Server
	rotating *app.Service
	stop     map[string]func()
}

func logger(t testing.TB) *zap.Logger {
	if os.Getenv("QUASH_TEST_LOG") == "" {
		return zap.NewNop()
	}
	return zaptest.NewLogger(t)
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, nats: enginetest.NATS(t), stop: map[string]func(){}}
	dir := t.TempDir()
	w.cfg = app.Config{
		Issuer: issuerURL, IdentityFile: filepath.Join(dir, "identity.pem"), KEKFile: filepath.Join(dir, "kek.json"), NoLead: true,
	}
	pub, err := rotator.CreateIdentity(w.cfg.IdentityFile, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w.trust = signing.TrustString(pub)
	if err := seal.CreateKEK(w.cfg.KEKFile); err != nil {
		t.Fatal(err)
	}
	return w
}

// run starts a service; it is stopped in order at the end of the test.
func (w *world) run(name string, s service) *httptest.Server {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	srv := httptest.NewServer(s.Handler())
	w.stop[name] = sync.OnceFunc(func() {
		srv.Close()
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("%s: Run: %v", name, err)
		}
	})
	w.t.Cleanup(w.stop[name])
	return srv
}

func (w *world) startRotator(name string) *app.Service {
	w.t.Helper()
	s, err := app.New(w.t.Context(), w.cfg, app.Deps{Log: logger(w.t), NATS: w.nats.Dial(w.t, "rotator")})
	if err != nil {
		w.t.Fatal(err)
	}
	srv := w.run(name, s)
	if w.rotator == nil || name == "rotator" {
		w.rotator, w.rotating = srv, s
	}
	return s
}

func (w *world) startRevocation() *revocationapp.Service {
	w.t.Helper()
	s, err := revocationapp.New(w.t.Context(), revocationapp.Config{URL: issuerURL, Trust: []string{w.trust}, SyncAlways: true, ProofKEKFile: enginetest.KEK(w.t)},
		revocationapp.Deps{Log: logger(w.t), NATS: w.nats.Dial(w.t, "revocation"), Control: w.nats.Dial(w.t, "control-reader")})
	if err != nil {
		w.t.Fatal(err)
	}
	w.run("revocation", s)
	return s
}

func (w *world) startIssuer() {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "operator")
	s, err := issuerapp.New(w.t.Context(), issuerapp.Config{URL: issuerURL, Trust: []string{w.trust}, KEKFile: w.cfg.KEKFile, OperatorKeyFile: file},
		issuerapp.Deps{Log: logger(w.t), NATS: w.nats.Dial(w.t, "issuer")})
	if err != nil {
		w.t.Fatal(err)
	}
	w.issuing, w.issuer = s, w.run("issuer", s)
	if w.operator == "" {
		w.ready("issuer", s)
		key, err := seal.ReadSecretFile(file)
		if err != nil {
			w.t.Fatal(err)
		}
		w.operator = strings.TrimSpace(string(key))
	}
}

func (w *world) ready(name string, s interface{ Ready() error }) {
	w.t.Helper()
	enginetest.Eventually(w.t, name+" is ready", s.Ready)
}

// start runs all three. The rotator and the issuer come before what they need.
func start(t testing.TB) *world {
	t.Helper()
	w := newWorld(t)
	w.startRotator("rotator")
	rev := w.startRevocation()
	w.startIssuer()
	w.ready("revocation", rev)
	w.ready("rotator", w.rotating)
	return w
}

// guard joins a guard to the fleet.
func (w *world) guard(name string) *guard.Guard {
	w.t.Helper()
	g, err := guard.New([]guard.Issuer{{URL: issuerURL, Trust: []string{w.trust}}},
		guard.WithNATS(w.nats.URL, w.nats.Creds(w.t, name)), guard.WithLogger(logger(w.t)))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("guard: %v", err)
		}
	})
	w.ready("guard "+name, g)
	return g
}

// token exchanges the operator's API key.
func (w *world) token() (string, error) {
	form := url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token_type": {"urn:quash:token-type:api-key"}, "subject_token": {w.operator},
	}
	resp, err := http.PostForm(w.issuer.URL+"/oauth/token", form)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var a struct {
		AccessToken string `json:"access_token"`
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("exchange: status %d: %s %w", resp.StatusCode, body, err)
	}
	return a.AccessToken, json.Unmarshal(body, &a)
}

func (w *world) mustToken() string {
	w.t.Helper()
	form := func() (string, error) {
		text, err := w.token()
		return text, err
	}
	text, err := form()
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

type shown struct {
	ID, KID, Previous, State string
	SignsAt                  time.Time `json:"signs_at"`
	Lacking                  []string
}

// call asks the rotator's API.
func (w *world) call(srv *httptest.Server, method, path, key string, body any, into any) int {
	w.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	if body == nil {
		data = nil
	}
	req, err := http.NewRequest(method, srv.URL+path, bytes.NewReader(data))
	if err != nil {
		w.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	req.Header.Set("Authorization", "Bearer "+w.mustToken())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			w.t.Fatalf("%s %s: status %d, %s: %v", method, path, resp.StatusCode, answer, err)
		}
	}
	if resp.StatusCode >= 500 {
		w.t.Logf("%s %s: %s", method, path, answer)
	}
	return resp.StatusCode
}

// rotate rotates, and returns when the new key signs.
func (w *world) rotate(key string, emergency bool) shown {
	w.t.Helper()
	var r shown
	body := map[string]any{"kind": "signing-key", "reason": "a test"}
	if emergency {
		body["emergency"] = true
	}
	if status := w.call(w.rotator, "POST", "/v1/rotations?wait=30s", key, body, &r); status != http.StatusOK || r.State != "signing" {
		w.t.Fatalf("rotation: status %d, %+v", status, r)
	}
	return r
}

func kid(t testing.TB, token string) string {
	t.Helper()
	var h struct {
		KID string `json:"kid"`
	}
	segment(t, token, &h)
	return h.KID
}

var _ = wire.MaxTokenLife
