package signing

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/tink-crypto/tink-go/v2/tink"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
)

// Config is what a Keyring needs.
type Config struct {
	Bucket jetstream.KeyValue // Bucket; read only
	KEK    tink.AEAD
	// State tells what the issuer's own reader has been told of a key by the
	// log: one of the states, "" for nothing. Not what the record says.
	State func(tenant, kid string) string
	// Blocked tells whether the issuer's own view has the target ended or held:
	// (*revoke.View).Blocked.
	Blocked func(revoke.Key) bool
	// Life is the longest life of a token that is signed: a key stops so long
	// before its end. 0: wire.MaxTokenLife.
	Life time.Duration
	Now  func() time.Time
	Log  *zap.Logger
}

// Keyring holds the private keys of an issuer. Its methods are safe for
// concurrent use, and Signer does no I/O while its copy of the bucket has what
// the log speaks of.
type Keyring struct {
	cfg     Config
	tenants atomic.Pointer[map[string]*tenantKeys]
	mu      sync.Mutex // one writer of tenants
	watched atomic.Bool
	reading chan struct{} // holds one: a single read of the bucket after a miss
}

type tenantKeys struct {
	revision uint64
	keys     []*ringKey // newest first
}

type ringKey struct {
	Key
	target revoke.Key
	signer *Signer // nil: it can't sign; why says the reason
	why    error
}

// Signer signs tokens with one key.
type Signer struct {
	KeyID   string
	Alg     string
	End     time.Time // of the key
	method  jwt.SigningMethod
	private crypto.Signer
}

// Sign returns a compact JWS over the claims, with this typ in its header
// ("at+jwt" for an access token).
func (s *Signer) Sign(typ string, claims jwt.Claims) (string, error) {
	t := jwt.NewWithClaims(s.method, claims)
	t.Header["typ"] = typ
	t.Header["kid"] = s.KeyID
	text, err := t.SignedString(s.private)
	if err != nil {
		return "", fmt.Errorf("sign with key %s: %w", s.KeyID, err)
	}
	return text, nil
}

// NewKeyring returns an empty keyring; Run fills it.
func NewKeyring(cfg Config) (*Keyring, error) {
	if cfg.Bucket == nil || cfg.KEK == nil || cfg.State == nil || cfg.Blocked == nil {
		return nil, errors.New("signing: a keyring needs Bucket, KEK, State and Blocked")
	}
	if cfg.Life == 0 {
		cfg.Life = wire.MaxTokenLife
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	k := &Keyring{cfg: cfg, reading: make(chan struct{}, 1)}
	k.tenants.Store(&map[string]*tenantKeys{})
	return k, nil
}

// Signer returns the key that signs for a tenant now: the newest one of which
// the issuer's own reader has been told that it signs, which is neither ended
// nor held, and whose end is more than one token life away.
func (k *Keyring) Signer(ctx context.Context, tenant string) (*Signer, error) {
	s, _ := k.pick(tenant)
	if s != nil {
		return s, nil
	}
	// The log can be ahead of our copy of the bucket, and watches can stall
	// without an error.
	if err := k.reread(ctx, tenant); err != nil {
		return nil, err
	}
	s, why := k.pick(tenant)
	if s == nil {
		return nil, problem.New(problem.Unavailable, "no key can sign tokens of tenant %q now: %s", tenant, why)
	}
	return s, nil
}

func (k *Keyring) pick(tenant string) (*Signer, string) {
	set := (*k.tenants.Load())[tenant]
	if set == nil || len(set.keys) == 0 {
		return nil, "it has none yet"
	}
	latest := k.cfg.Now().Add(k.cfg.Life)
	why := "none has begun to"
	for _, r := range set.keys {
		switch {
		case k.cfg.State(tenant, r.ID) != Signing:
			continue
		case k.cfg.Blocked(r.target):
			why = "key " + r.ID + " is revoked or held"
		case latest.After(r.EndTime()):
			why = "key " + r.ID + " is within one token life of its end"
		case r.signer == nil:
			// An older key that still signs by the log must not take over
			// from one that can't be opened: it may be about to retire.
			return nil, r.why.Error()
		default:
			return r.signer, ""
		}
	}
	return nil, why
}

// Public returns the JWKs that the JWKS endpoint serves: every key that has
// been announced and may have living tokens, newest first.
func (k *Keyring) Public(tenant string) []map[string]string {
	out := []map[string]string{}
	set := (*k.tenants.Load())[tenant]
	if set == nil {
		return out
	}
	now := k.cfg.Now()
	for _, r := range set.keys {
		switch k.cfg.State(tenant, r.ID) {
		case Published, Signing, Retiring:
			if now.Before(r.EndTime()) && !k.cfg.Blocked(r.target) {
				out = append(out, r.JWK)
			}
		}
	}
	return out
}

// Ready returns nil once the bucket has been read and a key can sign for tenant.
func (k *Keyring) Ready(tenant string) error {
	if !k.watched.Load() {
		return errors.New("the bucket of signing keys has not been read yet")
	}
	if s, why := k.pick(tenant); s == nil {
		return fmt.Errorf("no key can sign tokens of tenant %q: %s", tenant, why)
	}
	return nil
}

// Run follows the bucket until ctx ends.
func (k *Keyring) Run(ctx context.Context) error {
	for {
		err := k.watch(ctx)
		if ctx.Err() != nil {
			return nil
		}
		k.cfg.Log.Warn("watch of the signing keys ended; starting it again", zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

func (k *Keyring) watch(ctx context.Context) error {
	return kv.Watch(ctx, k.cfg.Bucket, func(e jetstream.KeyValueEntry) {
		switch {
		case e == nil:
			k.watched.Store(true)
		case e.Operation() != jetstream.KeyValuePut:
			k.drop(e.Key(), e.Revision())
		default:
			k.load(e.Key(), e.Value(), e.Revision())
		}
	})
}

func (k *Keyring) reread(ctx context.Context, tenant string) error {
	select {
	case k.reading <- struct{}{}:
	case <-ctx.Done():
		return problem.Wrap(problem.Unavailable, ctx.Err(), "the signing keys could not be read in time; try again")
	}
	defer func() { <-k.reading }()
	if s, _ := k.pick(tenant); s != nil {
		return nil // whoever was before us has read it
	}
	e, err := k.cfg.Bucket.Get(ctx, tenant)
	if errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrInvalidKey) {
		return nil
	}
	if err != nil {
		return problem.Wrap(problem.Unavailable, err, "the signing keys can't be read now; try again")
	}
	k.load(e.Key(), e.Value(), e.Revision())
	return nil
}

// load takes a revision of a tenant's record, unless it has a newer one.
func (k *Keyring) load(tenant string, value []byte, revision uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := (*k.tenants.Load())[tenant]
	if old != nil && old.revision >= revision {
		return
	}
	var set Set
	if err := json.Unmarshal(value, &set); err != nil || set.Tenant != tenant {
		k.cfg.Log.Error("record of signing keys can't be read", zap.String("tenant", tenant),
			zap.Uint64("revision", revision), zap.Error(err))
		return
	}
	next := &tenantKeys{revision: revision}
	for _, key := range slices.Backward(set.Keys) {
		next.keys = append(next.keys, k.ring(tenant, key, old))
	}
	k.store(tenant, next)
}

func (k *Keyring) drop(tenant string, revision uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := (*k.tenants.Load())[tenant]; old == nil || old.revision < revision {
		k.store(tenant, &tenantKeys{revision: revision})
	}
}

func (k *Keyring) store(tenant string, set *tenantKeys) {
	all := maps.Clone(*k.tenants.Load())
	all[tenant] = set
	k.tenants.Store(&all)
}

// ring opens a key, or takes what was opened before: a kid is the thumbprint
// of its key, so the same kid is the same key.
func (k *Keyring) ring(tenant string, key Key, old *tenantKeys) *ringKey {
	r := &ringKey{Key: key}
	if old != nil {
		for _, o := range old.keys {
			if o.ID == key.ID && o.signer != nil {
				r.target, r.signer = o.target, o.signer
				return r
			}
		}
	}
	t, err := Target(tenant, key.ID)
	if err != nil {
		r.why = err
		return r
	}
	r.target = t.Key()
	if key.Sealed == nil {
		r.why = fmt.Errorf("key %s can't sign any more", key.ID)
		return r
	}
	private, err := unseal(k.cfg.KEK, tenant, &key)
	if err != nil {
		r.why = err
		k.cfg.Log.Error("a signing key can't be used", zap.String("kid", key.ID), zap.Error(err))
		return r
	}
	r.signer = &Signer{KeyID: key.ID, Alg: key.Alg, End: key.EndTime(), private: private, method: method(key.Alg)}
	return r
}

func method(alg string) jwt.SigningMethod {
	if alg == EdDSA {
		return jwt.SigningMethodEdDSA
	}
	return jwt.SigningMethodES256
}
