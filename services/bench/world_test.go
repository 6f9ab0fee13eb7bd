package bench

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/services/revocation/natsapi"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/signing"
)

const issuerURL = "https://bench.quash.test"

// world is the revocation service on a real, synced nats-server, and a signing
// key that its guards trust.
type world struct {
	nats     *enginetest.NATSServer
	ledger   *ledger.Ledger
	identity ed25519.PrivateKey // of the rotator
	trust    string             // its public half
	key      *ecdsa.PrivateKey
	kid      string
	n        int

	keyRequest commit.KeyRequest // the key, for the log
}

func newWorld(b *testing.B) *world {
	b.Helper()
	return newWorldOn(b, enginetest.NATS(b))
}

func newWorldOn(b *testing.B, n *enginetest.NATSServer) *world {
	b.Helper()
	w := &world{nats: n}
	nc := w.nats.Conn(b, "revocation")
	l, err := ledger.New(ledger.Config{NATS: nc, SyncAlways: true})
	if err != nil {
		b.Fatal(err)
	}
	f := fleet.New(fleet.Config{Log: l})
	l.Observe(f)
	w.ledger = l
	s := &natsapi.Server{NATS: nc, Ledger: l, Fleet: f}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{l.Run, s.Run} {
		wg.Add(1)
		go func() { defer wg.Done(); _ = run(ctx) }()
	}
	b.Cleanup(func() { cancel(); wg.Wait() })
	enginetest.Eventually(b, "the ledger is ready", l.Ready)
	w.publishKey(b)
	return w
}

func (w *world) publishKey(b *testing.B) {
	b.Helper()
	w.makeKey(b)
	if _, err := w.ledger.CommitKey(context.Background(), w.keyRequest, "rotator"); err != nil {
		b.Fatal(err)
	}
}

func (w *world) makeKey(b *testing.B) {
	b.Helper()
	pub, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	w.identity, w.trust = identity, signing.TrustString(pub)
	if w.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		b.Fatal(err)
	}
	jwk, kid, err := signing.PublicJWK(w.key.Public())
	if err != nil {
		b.Fatal(err)
	}
	w.kid = kid
	end := time.Now().Add(24 * time.Hour).Unix()
	jws, err := signing.SignState(identity, wire.KeyState{Tenant: "default", Issuer: issuerURL, KeyID: kid, JWK: jwk, State: signing.Signing, End: end})
	if err != nil {
		b.Fatal(err)
	}
	w.keyRequest = commit.KeyRequest{Tenant: "default", KeyID: kid, JWS: jws, Until: end + 600, Actor: "bench", Reason: "bench"}
}

// token issues a token with a jti of its own.
func (w *world) token(b *testing.B, jti string) string {
	b.Helper()
	return w.signed(b, jti, "orders:read")
}

// signed issues a token with a jti and a scope.
func (w *world) signed(b *testing.B, jti, scope string) string {
	b.Helper()
	var stamp revoke.Stamp
	if w.ledger != nil {
		stamp = w.ledger.Stamp()
	}
	now := time.Now()
	t := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": issuerURL, "sub": "alice", "aud": issuerURL, "exp": now.Add(30 * time.Minute).Unix(), "iat": now.Unix(), "jti": jti,
		"client_id": "key_bench", "scope": scope, "roles": []string{}, "tenant": "default", "rseq": stamp.String(), "via": []string{},
	})
	t.Header["kid"], t.Header["typ"] = w.kid, "at+jwt"
	text, err := t.SignedString(w.key)
	if err != nil {
		b.Fatal(err)
	}
	return text
}

// reader is one guard on a connection of its own.
type reader struct {
	guard *guard.Guard
	conn  *nats.Conn
}

func (w *world) guard(b *testing.B, name string, applied func(g *guard.Guard, s wire.Stored)) *reader {
	b.Helper()
	nc, user, err := natsfeed.Connect(w.nats.URL, w.nats.Creds(b, name), name, nil)
	if err != nil {
		b.Fatal(err)
	}
	link, err := natsfeed.New(nc, user)
	if err != nil {
		b.Fatal(err)
	}
	var g *guard.Guard
	cfg := follow.Config{Source: link, Feed: link}
	if applied != nil {
		cfg.OnEntry = func(s wire.Stored) { applied(g, s) }
	}
	g, err = guard.New([]guard.Issuer{{URL: issuerURL, Trust: []string{w.trust}}}, guard.WithFollow(cfg))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done; nc.Close() })
	return &reader{g, nc}
}

func (w *world) cut(b *testing.B, kind revoke.Kind, ids ...string) commit.Answer {
	b.Helper()
	w.n++
	r := commit.Request{Key: fmt.Sprint("bench-", w.n), Tenant: "default", Op: commit.Revoke, Reason: "bench", Actor: "bench"}
	for _, id := range ids {
		r.Targets = append(r.Targets, commit.Target{Kind: kind, ID: id})
	}
	a, err := w.ledger.Commit(context.Background(), r, "bench")
	if err != nil {
		b.Fatal(err)
	}
	return a
}

// bareStream is a stream beside the log, with the same durability and nobody
// following it.
func (w *world) bareStream(b *testing.B) jetstream.JetStream {
	b.Helper()
	js, err := jetstream.New(w.nats.Admin(b, "LOG"))
	if err != nil {
		b.Fatal(err)
	}
	_, err = js.CreateStream(context.Background(), jetstream.StreamConfig{Name: "BENCH", Subjects: []string{"bench.log.>"}})
	if err != nil {
		b.Fatal(err)
	}
	return js
}

// quantile of durations or counts; it sorts them.
func quantile[T cmp.Ordered](d []T, q float64) T {
	slices.Sort(d)
	return d[min(len(d)-1, int(q*float64(len(d))))]
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
