package guardtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// URL is the issuer of every Quash of this package, and the audience of its
// tokens.
const URL = "https://quash.test"

// Tenant is whose tokens they are.
const Tenant = "default"

// Quash is an issuer and its log. Its methods are safe for concurrent use, and
// fail the test when something is wrong with their arguments.
type Quash struct {
	tb       testing.TB
	identity ed25519.PrivateKey

	feed sync.Mutex // held while messages are delivered, in order

	mu       sync.Mutex
	offset   time.Duration
	epoch    uint64
	messages []wire.Stored // of this epoch, by sequence from 1
	view     *revoke.View
	stamp    revoke.Stamp
	subs     map[*subscription]struct{}
	cut      bool
	keys     []*signingKey // the last one signs

	apiKeys   map[string]apiKey // by their text
	stopped   bool              // the issuer
	exchanges int
	leaked    []string

	attempts []wire.AttemptsReport
	running  []wire.RunningReport

	asking     map[int]func(wire.Question) // who answers questions
	lastAsking int
	answers    []wire.Seen
}

type signingKey struct {
	id      string
	private *ecdsa.PrivateKey
	state   wire.KeyState
}

// New returns a Quash with one signing key, and no guard yet.
func New(tb testing.TB) *Quash {
	tb.Helper()
	_, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatalf("guardtest: %v", err)
	}
	q := &Quash{tb: tb, identity: identity, view: revoke.NewView(), subs: map[*subscription]struct{}{}, apiKeys: map[string]apiKey{}, asking: map[int]func(wire.Question){}}
	q.begin(revoke.Stamp{}, false)
	q.Rotate()
	return q
}

// Now is the time of this Quash: that of the machine, and what was advanced.
func (q *Quash) Now() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.now()
}

func (q *Quash) now() time.Time { return time.Now().Add(q.offset) }

// Advance lets time go by, for the issuer and for every Guard.
func (q *Quash) Advance(d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.offset += d
}

// Attempts returns what guards have reported of who still tries with what was revoked.
func (q *Quash) Attempts() []wire.AttemptsReport {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.attempts)
}

// Running returns what guards have reported of requests that go on although what they were
// admitted with was revoked, in the order of their coming.
func (q *Quash) Running() []wire.RunningReport {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.running)
}

// Issuer returns what a guard needs to know of this Quash.
func (q *Quash) Issuer() guard.Issuer {
	public := q.identity.Public().(ed25519.PublicKey)
	return guard.Issuer{URL: URL, Tenant: Tenant, Trust: []string{"ed25519:" + base64.RawURLEncoding.EncodeToString(public)}}
}

// Follow returns what a reader needs to follow this log; see guard.WithFollow.
func (q *Quash) Follow() follow.Config {
	return follow.Config{Source: (*service)(q), Feed: (*service)(q)}
}

// Guard returns a guard that follows this log, running and ready; it stops when
// the test ends. Options come after those that make it follow.
func (q *Quash) Guard(opts ...guard.Option) *guard.Guard {
	q.tb.Helper()
	g := q.Start([]guard.Issuer{q.Issuer()}, append([]guard.Option{guard.WithFollow(q.Follow())}, opts...)...)
	q.WaitReady(g)
	return g
}

// Start makes a guard of one's own, with this Quash's clock, and runs it until
// the test ends. It waits for nothing.
func (q *Quash) Start(issuers []guard.Issuer, opts ...guard.Option) *guard.Guard {
	q.tb.Helper()
	g, err := guard.New(issuers, append([]guard.Option{guard.WithClock(q.Now)}, opts...)...)
	if err != nil {
		q.tb.Fatalf("guardtest: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	q.tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			q.tb.Errorf("guardtest: the guard ended with: %v", err)
		}
	})
	return g
}

// WaitReady waits until the guard may accept, for ten seconds at most.
func (q *Quash) WaitReady(g *guard.Guard) {
	q.tb.Helper()
	q.Wait("the guard to be ready", g.Ready)
}

// Wait waits until check returns nil, for ten seconds at most.
func (q *Quash) Wait(what string, check func() error) {
	q.tb.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for err := check(); err != nil; err = check() {
		if time.Now().After(deadline) {
			q.tb.Fatalf("guardtest: waited for %s: %v", what, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// Revoke revokes targets, each "kind:id" as on the command line. Guards that are
// connected have applied it when it returns. It returns the entry's position.
func (q *Quash) Revoke(targets ...string) revoke.Stamp { return q.RevokeTargets(q.parse(targets)...) }

// Hold holds targets: they are refused until Release.
func (q *Quash) Hold(targets ...string) revoke.Stamp { return q.HoldTargets(q.parse(targets)...) }

// Release ends every hold of the targets.
func (q *Quash) Release(targets ...string) revoke.Stamp { return q.ReleaseTargets(q.parse(targets)...) }

func (q *Quash) parse(texts []string) []revoke.Target {
	q.tb.Helper()
	targets := make([]revoke.Target, len(texts))
	for i, text := range texts {
		t, err := revoke.ParseTarget(Tenant, revoke.Own, text)
		if err != nil {
			q.tb.Fatalf("guardtest: %v", err)
		}
		targets[i] = t
	}
	return targets
}

// RevokeTargets is Revoke, also for targets of foreign issuers.
func (q *Quash) RevokeTargets(targets ...revoke.Target) revoke.Stamp {
	m := q.entry()
	for _, t := range targets {
		if t.Kind.Final() {
			m.End = append(m.End, t.Key())
		} else {
			m.Cut = append(m.Cut, t.Key())
		}
	}
	return q.commit(m).Stamp
}

// HoldTargets is Hold, also for targets of foreign issuers.
func (q *Quash) HoldTargets(targets ...revoke.Target) revoke.Stamp {
	m := q.entry()
	for _, t := range targets {
		m.Hold = append(m.Hold, t.Key())
	}
	return q.commit(m).Stamp
}

// ReleaseTargets is Release, also for targets of foreign issuers.
func (q *Quash) ReleaseTargets(targets ...revoke.Target) revoke.Stamp {
	m := q.entry()
	m.Release = map[revoke.Key]revoke.Stamp{}
	for _, t := range targets {
		m.Release[t.Key()] = q.view.State(t.Key()).Held
	}
	return q.commit(m).Stamp
}

func (q *Quash) entry() wire.Message {
	now := q.Now()
	return wire.Message{Kind: wire.KindEntry, At: now.UnixMilli(), Until: now.Add(wire.MaxCredentialLife).Unix()}
}

// Rotate makes another signing key, which signs from now on. Tokens of those
// before stay good.
func (q *Quash) Rotate() {
	q.tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		q.tb.Fatalf("guardtest: %v", err)
	}
	id := "key-" + rand.Text()
	point, err := private.PublicKey.Bytes() // 4, x, y
	if err != nil {
		q.tb.Fatalf("guardtest: %v", err)
	}
	b64 := base64.RawURLEncoding
	k := &signingKey{id: id, private: private, state: wire.KeyState{
		Tenant: Tenant, Issuer: URL, KeyID: id, State: "signing", End: q.Now().Add(90 * 24 * time.Hour).Unix(),
		JWK: map[string]string{
			"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id,
			"x": b64.EncodeToString(point[1:33]), "y": b64.EncodeToString(point[33:]),
		},
	}}
	q.mu.Lock()
	q.keys = append(q.keys, k)
	q.mu.Unlock()
	q.sendKey(k)
}

// KeyID returns the id of the key that signs.
func (q *Quash) KeyID() string { return q.key().id }

func (q *Quash) key() *signingKey {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.keys[len(q.keys)-1]
}

// SetKeyState publishes another state of a key, of wire.KeyStates.
func (q *Quash) SetKeyState(kid, state string) {
	q.tb.Helper()
	q.mu.Lock()
	var found *signingKey
	for _, k := range q.keys {
		if k.id == kid {
			found = k
			k.state.State = state
		}
	}
	q.mu.Unlock()
	if found == nil {
		q.tb.Fatalf("guardtest: no signing key %q", kid)
	}
	q.sendKey(found)
}

func (q *Quash) sendKey(k *signingKey) {
	q.mu.Lock()
	state := k.state
	q.mu.Unlock()
	q.SendKey(state)
}

// SendKey commits a key message that says anything at all, signed by the
// identity key that guards trust.
func (q *Quash) SendKey(state wire.KeyState) {
	q.tb.Helper()
	payload, err := json.Marshal(state)
	if err != nil {
		q.tb.Fatalf("guardtest: %v", err)
	}
	b64 := base64.RawURLEncoding
	text := b64.EncodeToString([]byte(`{"alg":"EdDSA","typ":"`+wire.KeyStateType+`"}`)) + "." + b64.EncodeToString(payload)
	jws := text + "." + b64.EncodeToString(ed25519.Sign(q.identity, []byte(text)))
	q.commit(wire.Message{Kind: wire.KindKey, KeyID: state.KeyID, JWS: jws, Until: state.End + int64(wire.Slack/time.Second)})
}

// JWKS serves the public keys, for guards with Redis alone.
func (q *Quash) JWKS() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var set struct {
			Keys []map[string]string `json:"keys"`
		}
		q.mu.Lock()
		for _, k := range q.keys {
			switch k.state.State {
			case "published", "signing", "retiring":
				set.Keys = append(set.Keys, k.state.JWK)
			}
		}
		q.mu.Unlock()
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_ = json.NewEncoder(w).Encode(set) // the client has gone
	})
}

// Disconnect cuts everybody off: requests fail, and what is committed from now
// on reaches nobody, until Reconnect.
func (q *Quash) Disconnect() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.cut = true
}

// Reconnect ends Disconnect. Guards catch up by themselves, soon.
func (q *Quash) Reconnect() {
	q.mu.Lock()
	q.cut = false
	subs := q.subscriptions()
	q.mu.Unlock()
	for _, s := range subs {
		s.lost()
	}
}

// LoseLog empties the log, as a restored backup or a new stream does, and begins
// another epoch, in which the signing keys are sent again. What guards had
// learnt they keep; tokens made before count as made before everything.
func (q *Quash) LoseLog() { q.lose(false) }

// RestoreLog is LoseLog by the restore of a backup: sign-ins of before are void.
func (q *Quash) RestoreLog() { q.lose(true) }

func (q *Quash) lose(restored bool) {
	q.begin(revoke.Stamp{}, restored)
	q.mu.Lock()
	keys := append([]*signingKey(nil), q.keys...)
	q.mu.Unlock()
	for _, k := range keys {
		q.sendKey(k)
	}
}

var errCut = errors.New("guardtest: disconnected")
