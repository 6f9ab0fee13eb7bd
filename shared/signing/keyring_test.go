package signing_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/keys"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

const tenant = "default"

// world is a bucket, and what an issuer's reader knows.
type world struct {
	t      testing.TB
	bucket jetstream.KeyValue
	kek    *seal.KEK
	set    signing.Set

	mu      sync.Mutex
	known   map[string]string
	blocked map[revoke.Key]bool
	now     time.Time
}

func newKEK(t testing.TB) *seal.KEK {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek.json")
	if err := seal.CreateKEK(path); err != nil {
		t.Fatal(err)
	}
	kek, err := seal.LoadKEK(path)
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

func newWorld(t testing.TB) *world {
	t.Helper()
	js, err := jetstream.New(enginetest.NATS(t).Conn(t, "rotator"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := js.CreateKeyValue(t.Context(), signing.BucketConfig(1))
	if err != nil {
		t.Fatal(err)
	}
	return &world{
		t: t, bucket: b, kek: newKEK(t), now: time.Now(), set: signing.Set{Tenant: tenant, Issuer: "http://issuer"},
		known: map[string]string{}, blocked: map[revoke.Key]bool{},
	}
}

func (w *world) ring(kek *seal.KEK) *signing.Keyring {
	w.t.Helper()
	k, err := signing.NewKeyring(signing.Config{
		Bucket: w.bucket, KEK: kek,
		State: func(name, kid string) string {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.known[name+"/"+kid]
		},
		Blocked: func(key revoke.Key) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.blocked[key]
		},
		Now: func() time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.now
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

func (w *world) run(k *signing.Keyring) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	w.t.Cleanup(func() { cancel(); <-done })
}

// add makes a key, writes the record, and tells nobody.
func (w *world) add(alg, state string) *signing.Key {
	w.t.Helper()
	key, err := signing.Generate(rand.Reader, w.kek, tenant, alg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.set.Born++
	key.Number, key.State, key.End = w.set.Born, state, w.now.Add(24*time.Hour).Unix()
	w.set.Keys = append(w.set.Keys, key)
	w.write()
	return &w.set.Keys[len(w.set.Keys)-1]
}

func (w *world) write() {
	w.t.Helper()
	data, err := json.Marshal(w.set)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.bucket.Put(w.t.Context(), tenant, data); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tell(kid, state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known[tenant+"/"+kid] = state
}

func (w *world) want(k *signing.Keyring, kid string) {
	w.t.Helper()
	s, err := k.Signer(w.t.Context(), tenant)
	switch {
	case kid == "" && err == nil:
		w.t.Errorf("key %s signs, and none may", s.KeyID)
	case kid == "" && problem.KindOf(err) != problem.Unavailable:
		w.t.Errorf("got %v, want it unavailable", err)
	case kid != "" && err != nil:
		w.t.Errorf("got %v, want %s to sign", err, kid)
	case kid != "" && s.KeyID != kid:
		w.t.Errorf("%s signs, want %s", s.KeyID, kid)
	}
}

func TestKeySignsOnlyOnceTheLogHasToldSo(t *testing.T) {
	w := newWorld(t)
	k := w.ring(w.kek)
	w.run(k)
	w.want(k, "")
	a := w.add(signing.ES256, signing.Signing)
	w.want(k, "") // the record says so, the log does not
	w.tell(a.ID, signing.Published)
	w.want(k, "")
	w.tell(a.ID, signing.Signing)
	w.want(k, a.ID)
	enginetest.Eventually(t, "the keyring is ready", func() error { return k.Ready(tenant) })
	b := w.add(signing.EdDSA, signing.Signing)
	w.want(k, a.ID)
	w.tell(b.ID, signing.Signing)
	// Of two the newer, once the watch has brought it.
	enginetest.Eventually(t, "the newer key signs", func() error {
		s, err := k.Signer(t.Context(), tenant)
		if err == nil && s.KeyID != b.ID {
			err = errors.New(s.KeyID)
		}
		return err
	})
	w.tell(a.ID, signing.Retiring)
	w.want(k, b.ID)
	if jwks := k.Public(tenant); len(jwks) != 2 {
		t.Errorf("JWKS: %v, want the key that signs, and the one whose tokens live on", jwks)
	}
}

// A watch can stall without an error: then the copy lacks the key of which the
// log speaks, and the bucket is asked.
func TestKeyIsFoundAlthoughTheWatchStalls(t *testing.T) {
	w := newWorld(t)
	k := w.ring(w.kek) // not run: a watch that brings nothing
	a := w.add(signing.ES256, signing.Signing)
	w.tell(a.ID, signing.Signing)
	w.want(k, a.ID)
	aID, b := a.ID, w.add(signing.ES256, signing.Signing)
	w.tell(b.ID, signing.Signing)
	w.tell(aID, signing.Retiring)
	w.want(k, b.ID)
}

func TestRevokedOrHeldKeyDoesNotSign(t *testing.T) {
	w := newWorld(t)
	k := w.ring(w.kek)
	a := w.add(signing.ES256, signing.Signing)
	w.tell(a.ID, signing.Signing)
	w.want(k, a.ID) // without Run: a miss reads the bucket
	target, err := signing.Target(tenant, a.ID)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.blocked[target.Key()] = true
	w.mu.Unlock()
	w.want(k, "")
	if jwks := k.Public(tenant); len(jwks) != 0 {
		t.Errorf("JWKS: %v, want it empty", jwks)
	}
	w.mu.Lock()
	delete(w.blocked, target.Key())
	w.mu.Unlock()
	w.want(k, a.ID)
	w.tell(a.ID, signing.Revoked)
	w.want(k, "")
}

func TestKeyStopsOneTokenLifeBeforeItsEnd(t *testing.T) {
	w := newWorld(t)
	k := w.ring(w.kek)
	a := w.add(signing.ES256, signing.Signing)
	w.tell(a.ID, signing.Signing)
	at := func(now time.Time) {
		w.mu.Lock()
		w.now = now
		w.mu.Unlock()
	}
	at(a.EndTime().Add(-wire.MaxTokenLife))
	w.want(k, a.ID)
	at(a.EndTime().Add(-wire.MaxTokenLife + time.Second))
	w.want(k, "")
	if n := len(k.Public(tenant)); n != 1 {
		t.Errorf("JWKS: %d keys, want 1: its tokens live", n)
	}
	at(a.EndTime())
	if n := len(k.Public(tenant)); n != 0 {
		t.Errorf("JWKS past the end: %d keys, want 0", n)
	}
}

func TestKeyThatCantBeOpenedSignsNothingAndIsNamed(t *testing.T) {
	t.Run("wrong KEK", func(t *testing.T) {
		w := newWorld(t)
		a := w.add(signing.ES256, signing.Signing)
		w.tell(a.ID, signing.Signing)
		k := w.ring(newKEK(t))
		w.want(k, "")
		if err := k.Ready(tenant); err == nil {
			t.Error("ready with a key that can't be opened")
		}
		if _, err := k.Signer(t.Context(), tenant); !strings.Contains(err.Error(), "another key-encryption key") {
			t.Errorf("the error does not say what is wrong: %v", err)
		}
	})
	t.Run("tampered", func(t *testing.T) {
		w := newWorld(t)
		a := w.add(signing.ES256, signing.Signing)
		w.tell(a.ID, signing.Signing)
		a.Sealed.Ciphertext[20] ^= 1
		w.write()
		w.want(w.ring(w.kek), "")
	})
	t.Run("another key's box", func(t *testing.T) {
		w := newWorld(t)
		w.add(signing.ES256, signing.Signing)
		b := w.add(signing.ES256, signing.Published)
		a := &w.set.Keys[0]
		w.tell(a.ID, signing.Signing)
		a.Sealed = b.Sealed
		w.write()
		w.want(w.ring(w.kek), "")
		// Nor when its label is changed to fit.
		forged := *b.Sealed
		forged.KeyID = a.ID
		a.Sealed = &forged
		w.write()
		w.want(w.ring(w.kek), "")
	})
	t.Run("another public key", func(t *testing.T) {
		w := newWorld(t)
		a := w.add(signing.ES256, signing.Signing)
		w.tell(a.ID, signing.Signing)
		a.Alg = signing.EdDSA
		w.write()
		w.want(w.ring(w.kek), "")
	})
}

func TestTokensVerifyByTheJWKAsReadersTakeIt(t *testing.T) {
	_, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	trust := []string{signing.TrustString(identity.Public().(ed25519.PublicKey))}
	for _, alg := range []string{signing.ES256, signing.EdDSA} {
		t.Run(alg, func(t *testing.T) {
			w := newWorld(t)
			a := w.add(alg, signing.Signing)
			w.tell(a.ID, signing.Signing)
			s, err := w.ring(w.kek).Signer(t.Context(), tenant)
			if err != nil {
				t.Fatal(err)
			}
			text, err := s.Sign("at+jwt", jwt.MapClaims{"sub": "alice"})
			if err != nil {
				t.Fatal(err)
			}
			jws, err := signing.SignState(identity, w.set.StateOf(a))
			if err != nil {
				t.Fatal(err)
			}
			set, err := keys.NewSet(tenant, w.set.Issuer, trust, keys.OwnAlgs())
			if err != nil {
				t.Fatal(err)
			}
			if err := set.Apply(wire.Message{Kind: wire.KindKey, KeyID: a.ID, JWS: jws}, w.now); err != nil {
				t.Fatalf("a reader does not take the key message: %v", err)
			}
			if k := set.Lookup(a.ID); k == nil || k.State != signing.Signing || k.End != a.End {
				t.Errorf("a reader has %+v", k)
			}
			parsed, err := jwt.Parse(text, func(tok *jwt.Token) (any, error) {
				if tok.Header["kid"] != a.ID || tok.Header["typ"] != "at+jwt" {
					t.Errorf("header %v", tok.Header)
				}
				return publicKey(t, a.JWK), nil
			}, jwt.WithValidMethods([]string{alg}))
			if err != nil || !parsed.Valid {
				t.Errorf("the token does not verify: %v", err)
			}
		})
	}
}

func publicKey(t testing.TB, jwk map[string]string) any {
	t.Helper()
	raw := func(name string) []byte {
		b, err := jwt.NewParser().DecodeSegment(jwk[name])
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if jwk["kty"] == "OKP" {
		return ed25519.PublicKey(raw("x"))
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, raw("x")...), raw("y")...))
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

func TestRecordOfAnotherTenantIsNotTaken(t *testing.T) {
	w := newWorld(t)
	a := w.add(signing.ES256, signing.Signing)
	data, err := json.Marshal(w.set)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.bucket.Put(t.Context(), "acme", data); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.known["acme/"+a.ID] = signing.Signing
	w.mu.Unlock()
	if s, err := w.ring(w.kek).Signer(t.Context(), "acme"); err == nil {
		t.Errorf("key %s signs for another tenant", s.KeyID)
	}
}

func TestOddTenantsAreNoReads(t *testing.T) {
	w := newWorld(t)
	k := w.ring(w.kek)
	for _, name := range []string{"", "*", ">", "a b", "..", strings.Repeat("x", 300)} {
		if s, err := k.Signer(t.Context(), name); err == nil {
			t.Errorf("tenant %q: key %s signs", name, s.KeyID)
		}
	}
}

// FuzzParseTrust: what parses is the one spelling of a key.
func FuzzParseTrust(f *testing.F) {
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signing.TrustString(pub))
	f.Add("ed25519:")
	f.Add(signing.TrustString(pub) + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		if pub, err := keys.ParseTrust(text); err == nil && signing.TrustString(pub) != text {
			t.Errorf("%q parses as %q", text, signing.TrustString(pub))
		}
	})
}

// BenchmarkSigner is the way of every token: no I/O.
func BenchmarkSigner(b *testing.B) {
	w := newWorld(b)
	a := w.add(signing.ES256, signing.Signing)
	w.tell(a.ID, signing.Signing)
	k := w.ring(w.kek)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Signer(b.Context(), tenant); err != nil {
			b.Fatal(err)
		}
	}
}
