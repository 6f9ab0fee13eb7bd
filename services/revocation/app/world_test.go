package app_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/services/revocation/app"
	"github.com/quash-project/quash/services/revocation/httpapi"
	"github.com/quash-project/quash/services/revocation/redisview"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/process"
	"github.com/quash-project/quash/shared/rights"
	"github.com/quash-project/quash/shared/signing"
)

const issuer = "https://quash.test"

// world has the engines, and what stands for issuer and rotator: a signing key
// in the log, and tokens by it.
type world struct {
	t     *testing.T
	nats  *enginetest.NATSServer
	redis *enginetest.RedisServer // nil: there is no view
	trust string
	key   *ecdsa.PrivateKey
	kid   string
	state commit.KeyRequest
	kek   string // file of the key-encryption key of receipts

	second app.SecondPerson
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, nats: enginetest.NATS(t), kek: enginetest.KEK(t), second: app.SecondPerson{Mode: revocation.SecondNever}}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w.trust = signing.TrustString(public)
	if w.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	jwk, kid, err := signing.PublicJWK(w.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	w.kid = kid
	end := time.Now().Add(24 * time.Hour).Unix()
	jws, err := signing.SignState(private, wire.KeyState{Tenant: "default", Issuer: issuer, KeyID: kid, JWK: jwk, State: signing.Signing, End: end})
	if err != nil {
		t.Fatal(err)
	}
	w.state = commit.KeyRequest{Tenant: "default", KeyID: kid, JWS: jws, Until: end + 600, Actor: "test", Reason: "test"}
	return w
}

// publish puts the signing key into the log.
func (w *world) publish() {
	w.t.Helper()
	client := commit.NewKeyClient(w.nats.Conn(w.t, identity.Rotator))
	enginetest.Eventually(w.t, "the signing key is in the log", func() error {
		_, err := client.CommitKey(w.t.Context(), w.state)
		return err
	})
}

// token is one of a responder, for our own API.
func (w *world) token(scopes ...string) string { return w.tokenOf("resp", scopes...) }

// tokenOf is one that was issued before everything in the log.
func (w *world) tokenOf(subject string, scopes ...string) string {
	w.t.Helper()
	now := time.Now()
	t := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": issuer, "sub": subject, "aud": issuer, "exp": now.Add(10 * time.Minute).Unix(), "iat": now.Unix(), "jti": rand.Text(),
		"client_id": "key_test", "scope": strings.Join(scopes, " "), "tenant": "default", "rseq": "0.0", "via": []string{},
	})
	t.Header["kid"], t.Header["typ"] = w.kid, "at+jwt"
	text, err := t.SignedString(w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

// replica is a running revocation service with a listener, as its main runs it.
type replica struct {
	*app.Service
	url string
	end func() // as SIGTERM does; returns when the process would have ended
}

func (w *world) start(name string) *replica {
	w.t.Helper()
	return w.startWith(name, func(h http.Handler) http.Handler { return h })
}

// around is a service whose handler is wrapped.
type around struct {
	*app.Service
	handler http.Handler
}

func (a around) Handler() http.Handler { return a.handler }

func (w *world) startWith(name string, wrap func(http.Handler) http.Handler) *replica {
	w.t.Helper()
	log := zaptest.NewLogger(w.t, zaptest.Level(zapcore.WarnLevel)).Named(name)
	deps := app.Deps{Log: log, NATS: w.nats.Dial(w.t, identity.Revocation), Control: w.nats.Dial(w.t, identity.ControlReader)}
	if w.redis != nil {
		client, err := redisview.ConnectURL("redis://" + w.redis.Addr)
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { _ = client.Close() })
		deps.Redis = client
	}
	s, err := app.New(w.t.Context(), app.Config{URL: issuer, Trust: []string{w.trust}, SyncAlways: true, ProofKEKFile: w.kek, SecondPerson: w.second}, deps)
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := process.Serve(ctx, process.Listen{Addr: addr}, around{s, wrap(s.Handler())}, log); err != nil {
			w.t.Errorf("%s: %v", name, err)
		}
		deps.NATS.Close()
		deps.Control.Close()
	}()
	end := sync.OnceFunc(func() { cancel(); <-done })
	w.t.Cleanup(end)
	return &replica{Service: s, url: "http://" + addr, end: end}
}

// ready waits until the replicas commit and decide.
func (w *world) ready(rs ...*replica) {
	w.t.Helper()
	for _, r := range rs {
		enginetest.Eventually(w.t, "the service is ready", r.Ready)
	}
}

// try revokes over HTTP; err says that no answer came.
func (w *world) try(r *replica, token, key, target string) (httpapi.Entry, int, error) {
	body, err := json.Marshal(map[string]any{"op": "revoke", "targets": []string{target}, "reason": "a test"})
	if err != nil {
		return httpapi.Entry{}, 0, err
	}
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, r.url+"/v1/revocations", bytes.NewReader(body))
	if err != nil {
		return httpapi.Entry{}, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Idempotency-Key", key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return httpapi.Entry{}, 0, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return httpapi.Entry{}, 0, err
	}
	var e httpapi.Entry
	if resp.StatusCode/100 == 2 {
		err = json.Unmarshal(data, &e)
	}
	return e, resp.StatusCode, err
}

func (w *world) revoke(r *replica, target string) httpapi.Entry {
	w.t.Helper()
	e, status, err := w.try(r, w.token(rights.Revoke), rand.Text(), target)
	if err != nil || status != http.StatusCreated {
		w.t.Fatalf("revoke %s: status %d, %v", target, status, err)
	}
	return e
}

// find asks for an entry and its confirmations, waiting for them.
func (w *world) find(r *replica, id string) (httpapi.Entry, error) {
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, r.url+"/v1/revocations/"+id+"?wait=10s", nil)
	if err != nil {
		return httpapi.Entry{}, err
	}
	req.Header.Set("Authorization", "Bearer "+w.token(rights.Revoke))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return httpapi.Entry{}, err
	}
	defer resp.Body.Close()
	var e httpapi.Entry
	if resp.StatusCode != http.StatusOK {
		return e, fmt.Errorf("status %d", resp.StatusCode)
	}
	return e, json.NewDecoder(resp.Body).Decode(&e)
}
