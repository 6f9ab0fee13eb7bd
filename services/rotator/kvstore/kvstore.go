// Package kvstore keeps the rotator's records in two JetStream buckets.
package kvstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/quash-project/quash/services/rotator"
	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/signing"
)

// RotationsBucket is the bucket of rotations, by their id.
const RotationsBucket = "rotations"

// rotationLife is how long a rotation is remembered: for so long the same
// request is the same rotation.
const rotationLife = 90 * 24 * time.Hour

// Store implements rotator.Store.
type Store struct {
	keys, rotations jetstream.KeyValue
	log             *zap.Logger

	mu      sync.Mutex
	all     bool // every rotation that there was has been seen
	open    map[string]seen
	changed chan struct{}
}

type seen struct {
	rotation rotator.Rotation
	revision uint64
}

var errReading = errors.New("the rotations have not been read yet")

// Open finds the buckets, and makes those that are missing.
func Open(ctx context.Context, js jetstream.JetStream, replicas int, log *zap.Logger) (*Store, error) {
	s := &Store{log: log, open: map[string]seen{}, changed: make(chan struct{})}
	var err error
	if s.keys, err = bucket(ctx, js, signing.BucketConfig(replicas)); err != nil {
		return nil, err
	}
	s.rotations, err = bucket(ctx, js, jetstream.KeyValueConfig{
		Bucket: RotationsBucket, History: 64, Storage: jetstream.FileStorage, Replicas: replicas, TTL: rotationLife,
		Description: "rotations, and how far they are",
	})
	return s, err
}

func bucket(ctx context.Context, js jetstream.JetStream, cfg jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	b, err := js.KeyValue(ctx, cfg.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		b, err = js.CreateKeyValue(ctx, cfg)
		if errors.Is(err, jetstream.ErrBucketExists) { // another replica was faster
			b, err = js.KeyValue(ctx, cfg.Bucket)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", cfg.Bucket, err)
	}
	return b, nil
}

// Keys is the bucket of signing keys, for a Keyring in the same process.
func (s *Store) Keys() jetstream.KeyValue { return s.keys }

// Set implements rotator.Store.
func (s *Store) Set(ctx context.Context, tenant string) (signing.Set, error) {
	set, _, err := kv.Get[signing.Set](ctx, s.keys, tenant)
	return set, err
}

// CreateSet implements rotator.Store.
func (s *Store) CreateSet(ctx context.Context, set signing.Set) error {
	_, err := kv.Create(ctx, s.keys, set.Tenant, set)
	return err
}

// ChangeSet implements rotator.Store.
func (s *Store) ChangeSet(ctx context.Context, tenant string, fn func(*signing.Set) error) (signing.Set, error) {
	set, _, err := kv.Change(ctx, s.keys, tenant, func(cur signing.Set) (signing.Set, error) {
		cur = cur.Clone()
		return cur, fn(&cur)
	})
	return set, err
}

// Rotation implements rotator.Store.
func (s *Store) Rotation(ctx context.Context, id string) (rotator.Rotation, error) {
	r, _, err := kv.Get[rotator.Rotation](ctx, s.rotations, id)
	return r, err
}

// CreateRotation implements rotator.Store.
func (s *Store) CreateRotation(ctx context.Context, r rotator.Rotation) error {
	rev, err := kv.Create(ctx, s.rotations, r.ID, r)
	if err == nil {
		s.see(r, rev)
	}
	return err
}

// ChangeRotation implements rotator.Store.
func (s *Store) ChangeRotation(ctx context.Context, id string, fn func(*rotator.Rotation) error) (rotator.Rotation, error) {
	r, rev, err := kv.Change(ctx, s.rotations, id, func(cur rotator.Rotation) (rotator.Rotation, error) {
		return cur, fn(&cur)
	})
	if err == nil {
		s.see(r, rev)
	}
	return r, err
}

// Open implements rotator.Store.
func (s *Store) Open(tenant string) ([]rotator.Rotation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.all {
		return nil, problem.Wrap(problem.Unavailable, errReading, "the rotations have not been read yet; try again")
	}
	var out []rotator.Rotation
	for _, v := range s.open {
		if v.rotation.Tenant == tenant && v.rotation.State == rotator.Waiting {
			out = append(out, v.rotation)
		}
	}
	return out, nil
}

// Changed implements rotator.Store.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// see takes a revision of a rotation. Finished ones stay, small, so that an
// older revision which comes late does not open them again.
func (s *Store) see(r rotator.Rotation, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.open[r.ID]; ok && old.revision >= revision {
		return
	}
	if r.State != rotator.Waiting {
		r = rotator.Rotation{ID: r.ID, State: r.State}
	}
	s.open[r.ID] = seen{r, revision}
	s.wake()
}

// wake is called with the lock held.
func (s *Store) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Run follows both buckets until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.follow(ctx, s.rotations, s.rotation) })
	g.Go(func() error {
		return s.follow(ctx, s.keys, func(e jetstream.KeyValueEntry) {
			if e != nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.wake()
			}
		})
	})
	return g.Wait()
}

func (s *Store) rotation(e jetstream.KeyValueEntry) {
	if e == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all = true
		s.wake()
		return
	}
	if e.Operation() != jetstream.KeyValuePut {
		return
	}
	var r rotator.Rotation
	if err := json.Unmarshal(e.Value(), &r); err != nil || r.ID != e.Key() {
		s.log.Error("record of a rotation can't be read", zap.String("key", e.Key()), zap.Error(err))
		return
	}
	s.see(r, e.Revision())
}

// follow starts the watch again when it ends, and now and then: one can stall
// without an error.
func (s *Store) follow(ctx context.Context, b jetstream.KeyValue, take func(jetstream.KeyValueEntry)) error {
	const renew = 5 * time.Minute
	for ctx.Err() == nil {
		err := watch(ctx, b, renew, take)
		if err == nil || ctx.Err() != nil {
			continue
		}
		s.log.Warn("watch ended; starting it again", zap.String("bucket", b.Bucket()), zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

func watch(ctx context.Context, b jetstream.KeyValue, renew time.Duration, take func(jetstream.KeyValueEntry)) error {
	ctx, cancel := context.WithTimeout(ctx, renew)
	defer cancel()
	w, err := b.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = w.Stop() }() // the connection may be gone: then so is the watch
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Updates():
			if !ok {
				return errors.New("the watch was closed")
			}
			take(e)
		}
	}
}
