package rotator

import (
	"context"
	"crypto/ed25519"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/guard/keys"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/signing"
)

// bucket is the world's record of keys as an issuer's keyring reads it.
type bucket struct {
	jetstream.KeyValue
	w *world
}

type bucketEntry struct {
	jetstream.KeyValueEntry
	value    []byte
	revision uint64
}

func (e bucketEntry) Key() string                     { return tenant }
func (e bucketEntry) Value() []byte                   { return e.value }
func (e bucketEntry) Revision() uint64                { return e.revision }
func (e bucketEntry) Operation() jetstream.KeyValueOp { return jetstream.KeyValuePut }
func (b bucket) entry() (e bucketEntry, changed <-chan struct{}) {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	return bucketEntry{value: b.w.sets[tenant], revision: b.w.revision}, b.w.changed
}

func (b bucket) Get(context.Context, string) (jetstream.KeyValueEntry, error) {
	e, _ := b.entry()
	if e.value == nil {
		return nil, jetstream.ErrKeyNotFound
	}
	return e, nil
}

// WatchAll follows the record until ctx ends.
func (b bucket) WatchAll(ctx context.Context, _ ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	w := watcher{updates: make(chan jetstream.KeyValueEntry)}
	send := func(e jetstream.KeyValueEntry) {
		select {
		case w.updates <- e:
		case <-ctx.Done():
		}
	}
	go func() {
		for first := true; ctx.Err() == nil; first = false {
			e, changed := b.entry()
			if e.value != nil {
				send(e)
			}
			if first {
				send(nil) // the end of what was there
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return w, nil
}

type watcher struct {
	jetstream.KeyWatcher
	updates chan jetstream.KeyValueEntry
}

func (w watcher) Updates() <-chan jetstream.KeyValueEntry { return w.updates }
func (w watcher) Stop() error                             { return nil }

// reader is what a guard and an issuer know of keys: what the log told them, as
// far as the rotator's identity key signed it.
type reader struct {
	*keys.Set
	read int
}

func (r *reader) follow(t *testing.T, w *world) {
	t.Helper()
	log := w.entries()
	for _, m := range log[r.read:] {
		if m.state == nil {
			continue
		}
		if err := r.Apply(wire.Message{Kind: wire.KindKey, KeyID: m.state.KeyID, JWS: m.jws}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	r.read = len(log)
}

// alive is a token that was signed, and has not expired.
type alive struct {
	kid string
	exp time.Time
}

// Promise 7 over most of a year: keys come and go by their age, by hand, and in an
// emergency, while a token is made every 20 minutes. Whoever reads the log or
// the JWKS knows the key of each when it is made, and as long as it lives.
func TestPromise7NoTokenIsEverWithoutItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const step, life = 20 * time.Minute, wire.MaxTokenLife
		w := newWorld(t, time.Now)
		set, err := keys.NewSet(tenant, "http://issuer", []string{signing.TrustString(w.identity.Public().(ed25519.PublicKey))}, keys.OwnAlgs())
		if err != nil {
			t.Fatal(err)
		}
		known := &reader{Set: set}
		ring, err := signing.NewKeyring(signing.Config{
			Bucket: bucket{w: w}, KEK: w.kek, Now: time.Now,
			State: func(_, kid string) string {
				if k := known.Lookup(kid); k != nil {
					return k.State
				}
				return ""
			},
			Blocked: func(k revoke.Key) bool { return w.Ended(k) },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer func() { cancel(); synctest.Wait() }()
		r := w.rotator()
		r.cfg.Idle = time.Hour
		go func() { _ = ring.Run(ctx) }()
		go func() { _ = r.Run(ctx) }()
		synctest.Wait()

		var tokens []alive
		seen := map[string]time.Time{} // in the JWKS since
		signed := map[string]bool{}
		began := time.Now()
		hurried := "" // the key that was promoted in an emergency
		for at := time.Duration(0); at < 220*24*time.Hour; at += step {
			switch at {
			case 100 * 24 * time.Hour:
				start(t, w, request("by hand", false))
			case 200 * 24 * time.Hour:
				hurried = inState(w.set(), signing.Published)[0].ID
				start(t, w, request("stolen", true))
			}
			synctest.Wait()
			known.follow(t, w)
			now := time.Now()
			published := map[string]bool{}
			for _, jwk := range ring.Public(tenant) {
				published[jwk["kid"]] = true
				if _, ok := seen[jwk["kid"]]; !ok {
					seen[jwk["kid"]] = now
				}
			}
			signer, err := ring.Signer(ctx, tenant)
			if err != nil {
				t.Fatalf("day %d: %v", at/(24*time.Hour), err)
			}
			if exp := now.Add(life); exp.After(signer.End) {
				t.Fatalf("day %d: a token outlives its key by %s", at/(24*time.Hour), exp.Sub(signer.End))
			}
			if !signed[signer.KeyID] && len(signed) > 0 && signer.KeyID != hurried && now.Sub(seen[signer.KeyID]) < DefaultLead {
				t.Errorf("day %d: key %s signs, and is in the JWKS for %s", at/(24*time.Hour), signer.KeyID, now.Sub(seen[signer.KeyID]))
			}
			signed[signer.KeyID] = true
			tokens = append(tokens, alive{signer.KeyID, now.Add(life)})
			for len(tokens) > 0 && !now.Before(tokens[0].exp) {
				tokens = tokens[1:]
			}
			for _, tok := range tokens {
				k := known.Lookup(tok.kid)
				stolen := k != nil && k.State == signing.Revoked
				if k == nil || !stolen && (k.Usable(now) != nil || !published[tok.kid]) {
					t.Fatalf("day %d: a token lives for another %s, and its key is %+v, in the JWKS %t", at/(24*time.Hour), tok.exp.Sub(now), k, published[tok.kid])
				}
				if stolen && published[tok.kid] {
					t.Fatalf("day %d: a stolen key is in the JWKS", at/(24*time.Hour))
				}
			}
			if len(published) > 3 {
				t.Fatalf("day %d: %d keys in the JWKS: those that are over do not leave it", at/(24*time.Hour), len(published))
			}
			time.Sleep(step)
		}
		if len(signed) < 5 {
			t.Errorf("%d keys signed in %s: want one every 90 days, one by hand and one in an emergency", len(signed), time.Since(began))
		}
		w.checkLog()
	})
}
