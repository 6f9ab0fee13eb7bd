package bench

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/issuer/app"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/logging"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

// issuing is the world with what an issuer needs: a sealed signing key of which the
// log says that it signs, and an operator.
type issuing struct {
	*world
	cfg      app.Config
	jwk      map[string]string // of the key with which it signs
	url      string            // where it is asked
	http     *http.Client
	operator string // a token
}

func newIssuing(b *testing.B, n *enginetest.NATSServer) *issuing {
	b.Helper()
	w := &issuing{world: newWorldOn(b, n), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	b.Cleanup(w.http.CloseIdleConnections)
	dir := b.TempDir()
	w.cfg = app.Config{
		URL: issuerURL, Trust: []string{w.trust}, KEKFile: filepath.Join(dir, "kek"), OperatorKeyFile: filepath.Join(dir, "operator"),
		NATS: app.NATS{URL: n.URL, Creds: n.Creds(b, identity.Issuer)},
	}
	if err := seal.CreateKEK(w.cfg.KEKFile); err != nil {
		b.Fatal(err)
	}
	w.sealKey(b)
	return w
}

// sealKey does what the rotator does at its first start.
func (w *issuing) sealKey(b *testing.B) {
	b.Helper()
	kek, err := seal.LoadKEK(w.cfg.KEKFile)
	if err != nil {
		b.Fatal(err)
	}
	key, err := signing.Generate(rand.Reader, kek, "default", signing.ES256)
	if err != nil {
		b.Fatal(err)
	}
	key.State, key.End, w.jwk = signing.Signing, time.Now().Add(24*time.Hour).Unix(), key.JWK
	set := signing.Set{Tenant: "default", Issuer: issuerURL, Keys: []signing.Key{key}}
	js, err := jetstream.New(w.nats.Conn(b, identity.Rotator))
	if err != nil {
		b.Fatal(err)
	}
	bucket, err := js.CreateOrUpdateKeyValue(b.Context(), signing.BucketConfig(1))
	if err != nil {
		b.Fatal(err)
	}
	data, err := json.Marshal(set)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := bucket.Put(b.Context(), set.Tenant, data); err != nil {
		b.Fatal(err)
	}
	jws, err := signing.SignState(w.identity, set.StateOf(&key))
	if err != nil {
		b.Fatal(err)
	}
	_, err = w.ledger.CommitKey(b.Context(), commit.KeyRequest{
		Tenant: set.Tenant, KeyID: key.ID, JWS: jws, Until: key.End + 600, Actor: "bench", Reason: "bench",
	}, "rotator")
	if err != nil {
		b.Fatal(err)
	}
}

// startIssuer runs an issuer until ctx ends and stopped has returned. It logs as in a
// deployment, to where nothing is kept.
func startIssuer(ctx context.Context, cfg app.Config) (s *app.Service, stopped func(), err error) {
	sink, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, nil, err
	}
	log := logging.New(cfg.Log, sink)
	nc, _, err := natsfeed.Connect(cfg.NATS.URL, cfg.NATS.Creds, "bench", log)
	if err != nil {
		return nil, nil, err
	}
	if s, err = app.New(ctx, cfg, app.Deps{Log: log, NATS: nc}); err != nil {
		return nil, nil, err
	}
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	return s, func() { running.Wait(); nc.Close(); _ = sink.Close() }, nil
}

// start runs the issuer in this process.
func (w *issuing) start(b *testing.B) *app.Service {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, stopped, err := startIssuer(ctx, w.cfg)
	if err != nil {
		cancel()
		b.Fatal(err)
	}
	b.Cleanup(func() { cancel(); stopped() })
	enginetest.Eventually(b, "the issuer is ready", s.Ready)
	server := httptest.NewServer(s.Handler())
	b.Cleanup(server.Close)
	w.url = server.URL
	w.signIn(b)
	return s
}

// signIn takes a token for the first operator's key.
func (w *issuing) signIn(b *testing.B) {
	b.Helper()
	secret, err := os.ReadFile(w.cfg.OperatorKeyFile)
	if err != nil {
		b.Fatal(err)
	}
	req, err := exchangeRequest(w.url, strings.TrimSpace(string(secret)))
	if err != nil {
		b.Fatal(err)
	}
	var out tokenBody
	if err := send(w.http, req, http.StatusOK, &out); err != nil {
		b.Fatal(err)
	}
	w.operator = out.AccessToken
}

// api asks as the operator.
func (w *issuing) api(b *testing.B, method, path string, body any, status int, into any) {
	b.Helper()
	req, err := apiRequest(method, w.url+path, w.operator, body)
	if err == nil {
		err = send(w.http, req, status, into)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// madeClient is a client with its secret.
type madeClient struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret"`
}

// client makes a client that may read orders, and introspect tokens for the issuer's
// own audience.
func (w *issuing) client(b *testing.B, grants ...string) (c madeClient) {
	b.Helper()
	w.api(b, http.MethodPost, "/v1/clients", map[string]any{
		"name": "bench", "grants": grants, "scopes": []string{"orders:read", "orders:write"}, "serves": []string{issuerURL},
	}, http.StatusCreated, &c)
	return c
}

// clientKey makes an API key of a client's, and returns its secret.
func (w *issuing) clientKey(b *testing.B, client string) string {
	b.Helper()
	var out struct{ Secret string }
	w.api(b, http.MethodPost, "/v1/keys", map[string]any{
		"owner": "alice", "client_id": client, "scopes": []string{"orders:read", "orders:write"},
	}, http.StatusCreated, &out)
	return out.Secret
}
