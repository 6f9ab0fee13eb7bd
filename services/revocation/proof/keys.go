package proof

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/tink-crypto/tink-go/v2/tink"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/signing"
)

// Record is the key of the record in the bucket.
const Record = "proof.keys"

// Config is what Keys need. Bucket and KEK are required.
type Config struct {
	// Bucket returns the bucket once it is there, or problem.Unavailable.
	Bucket func(context.Context) (jetstream.KeyValue, error)
	KEK    tink.AEAD
	Now    func() time.Time
	Rand   io.Reader
	Log    *zap.Logger
}

// How long what was read counts: whoever signs hears of another replica's new
// key after readAgain, and signs with an old one no longer than keepFor while
// the bucket can't be read.
const (
	readAgain = time.Minute
	keepFor   = 10 * time.Minute
	// tryAgain is how long a failed try counts, and tryFor how long one may take:
	// whoever asks meanwhile hears of it, and queues for nothing.
	tryAgain = time.Second
	tryFor   = 5 * time.Second
)

// Keys are the proof keys of an installation. Safe for concurrent use.
type Keys struct {
	cfg     Config
	reading singleflight.Group

	mu      sync.Mutex // never held while something is read
	record  Set
	private ed25519.PrivateKey
	kid     string
	read    time.Time // zero: never
	tried   time.Time // and it failed, with err
	err     error
}

// New returns Keys. It asks nothing of the bucket yet.
func New(cfg Config) *Keys {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Keys{cfg: cfg}
}

// Signer returns the key that signs now, and its id.
func (k *Keys) Signer(ctx context.Context) (kid string, signer crypto.Signer, err error) {
	if err := k.refresh(ctx); err != nil {
		return "", nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.private == nil {
		return "", nil, problem.New(problem.Unavailable, "no proof key signs; the log of the revocation service says why")
	}
	return k.kid, k.private, nil
}

// Public returns the keys that sign or have signed, oldest first.
func (k *Keys) Public(ctx context.Context) (KeySet, error) {
	if err := k.refresh(ctx); err != nil {
		return KeySet{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	set := KeySet{Keys: []PublicKey{}}
	for i := range k.record.Keys {
		set.Keys = append(set.Keys, k.record.Keys[i].public())
	}
	return set, nil
}

// refresh reads the record if it has to, or makes it. Of many that want it at once
// one does, and each waits for as long as its own ctx allows.
func (k *Keys) refresh(ctx context.Context) error {
	if done, err := k.known(); done {
		return err
	}
	ch := k.reading.DoChan(Record, func() (any, error) {
		if done, err := k.known(); done {
			return nil, err // somebody has just read it
		}
		reading, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryFor)
		defer cancel()
		now := k.cfg.Now()
		r, err := k.load(reading, now)
		k.mu.Lock()
		defer k.mu.Unlock()
		if err == nil {
			k.take(r)
			k.read, k.err = now, nil
			return nil, nil
		}
		k.tried, k.err = k.cfg.Now(), problem.Wrap(problem.Unavailable, err, "the proof keys can't be read now; try again")
		return nil, k.standing(k.tried)
	})
	select {
	case r := <-ch:
		return r.Err
	case <-ctx.Done():
		k.mu.Lock()
		defer k.mu.Unlock()
		if within(k.cfg.Now(), k.read, keepFor) {
			return nil
		}
		return problem.Wrap(problem.Unavailable, ctx.Err(), "the proof keys can't be read now; try again")
	}
}

// known reports whether nothing has to be read now, and what holds then.
func (k *Keys) known() (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.cfg.Now()
	if within(now, k.read, readAgain) {
		return true, nil
	}
	if k.err != nil && within(now, k.tried, tryAgain) {
		return true, k.standing(now)
	}
	return false, nil
}

// standing is what a failed try means; k.mu is held.
func (k *Keys) standing(now time.Time) error {
	if within(now, k.read, keepFor) {
		return nil
	}
	return k.err
}

func within(now, since time.Time, d time.Duration) bool {
	age := now.Sub(since)
	return !since.IsZero() && age >= 0 && age < d
}

// load reads the record. Where there is none, one is made: of several replicas
// that do so one succeeds, and the others read what it has made.
func (k *Keys) load(ctx context.Context, now time.Time) (Set, error) {
	bucket, err := k.cfg.Bucket(ctx)
	if err != nil {
		return Set{}, err
	}
	r, _, err := kv.Get[Set](ctx, bucket, Record)
	if err == nil || problem.KindOf(err) != problem.NotFound {
		return r, err
	}
	made, err := generate(k.cfg.Rand, k.cfg.KEK, now)
	if err != nil {
		return Set{}, err
	}
	r = Set{Keys: []Key{made}, Meta: signing.Meta{Actor: "revocation", Reason: "the first proof key", At: now.UnixMilli()}}
	_, err = kv.Create(ctx, bucket, Record, r)
	switch {
	case err == nil:
		k.cfg.Log.Info("made the proof key", zap.String("kid", made.ID))
	case problem.KindOf(err) == problem.Conflict || problem.KindOf(err) == problem.Unavailable:
		// Another replica was faster, or this one's answer was lost.
		r, _, err = kv.Get[Set](ctx, bucket, Record)
	}
	return r, err
}

// take takes a record into use. A private half that can't be opened leaves the
// public ones readable: what was signed before can still be verified.
func (k *Keys) take(r Set) {
	k.record = r
	c := r.current()
	if c != nil && c.ID == k.kid && k.private != nil {
		return
	}
	k.kid, k.private = "", nil
	if c == nil {
		k.cfg.Log.Error("no proof key of the record signs: receipts can't be signed")
		return
	}
	private, err := c.unseal(k.cfg.KEK)
	if err != nil {
		k.cfg.Log.Error("the proof key can't be opened: receipts can't be signed (is proof_kek_file the one that it was sealed with?)", zap.Error(err))
		return
	}
	k.kid, k.private = c.ID, private
}

// Sign returns a compact JWS of a payload in JSON, of a type of its own.
func (k *Keys) Sign(ctx context.Context, typ string, payload []byte) (string, error) {
	kid, signer, err := k.Signer(ctx)
	if err != nil {
		return "", err
	}
	text, err := sign(kid, signer, typ, payload)
	if err != nil {
		return "", fmt.Errorf("sign with proof key %s: %w", kid, err)
	}
	return text, nil
}
