// Package kvstore keeps the rotator's records in three JetStream buckets.
package kvstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
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

// Store implements rotator.Store. Until Run has found or made the buckets,
// everything is problem.Unavailable.
type Store struct {
	js       jetstream.JetStream
	replicas int
	log      *zap.Logger
	buckets  atomic.Pointer[buckets]

	mu      sync.Mutex
	all     bool                       // every rotation that there was has been seen
	known   map[string]seen            // by id
	of      map[string]map[string]bool // by tenant, ids
	tenants map[string]bool            // see Tenants
	changed chan struct{}
}

type buckets struct{ keys, rotations jetstream.KeyValue }

type seen struct {
	rotation rotator.Rotation
	revision uint64
}

var (
	errOpening = errors.New("the buckets have not been found yet")
	errReading = errors.New("the rotations have not been read yet")
)

// New returns a store whose buckets are made with so many replicas.
func New(js jetstream.JetStream, replicas int, log *zap.Logger) *Store {
	return &Store{js: js, replicas: replicas, log: log, known: map[string]seen{}, of: map[string]map[string]bool{}, tenants: map[string]bool{}, changed: make(chan struct{})}
}

// Run finds the buckets, makes those that are missing, and follows them until
// ctx ends.
func (s *Store) Run(ctx context.Context) error {
	b, err := s.find(ctx)
	if err != nil {
		return nil // ctx has ended
	}
	s.buckets.Store(b)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.follow(ctx, b.rotations, s.rotation) })
	g.Go(func() error { return s.followTenants(ctx) })
	g.Go(func() error {
		return s.follow(ctx, b.keys, func(e jetstream.KeyValueEntry) {
			if e != nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.wake()
			}
		})
	})
	return g.Wait()
}

func (s *Store) find(ctx context.Context) (*buckets, error) {
	pause := 50 * time.Millisecond
	for {
		b, err := s.try(ctx)
		if err == nil {
			return b, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		s.log.Info("waiting for JetStream", zap.Error(err))
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
			pause = min(2*pause, 2*time.Second)
		}
	}
}

func (s *Store) try(ctx context.Context) (*buckets, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	keys, err := bucket(ctx, s.js, signing.BucketConfig(s.replicas))
	if err != nil {
		return nil, err
	}
	rotations, err := bucket(ctx, s.js, jetstream.KeyValueConfig{
		Bucket: RotationsBucket, History: 64, Storage: jetstream.FileStorage, Replicas: s.replicas, TTL: rotationLife,
		Description: "rotations, and how far they are",
	})
	return &buckets{keys, rotations}, err
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

// in returns the buckets once they are there.
func (s *Store) in() (*buckets, error) {
	if b := s.buckets.Load(); b != nil {
		return b, nil
	}
	return nil, problem.Wrap(problem.Unavailable, errOpening, "the record store is not there yet; try again")
}

// Set implements rotator.Store.
func (s *Store) Set(ctx context.Context, tenant string) (signing.Set, error) {
	b, err := s.in()
	if err != nil {
		return signing.Set{}, err
	}
	set, _, err := kv.Get[signing.Set](ctx, b.keys, tenant)
	return set, err
}

// CreateSet implements rotator.Store.
func (s *Store) CreateSet(ctx context.Context, set signing.Set) error {
	b, err := s.in()
	if err != nil {
		return err
	}
	_, err = kv.Create(ctx, b.keys, set.Tenant, set)
	return err
}

// ChangeSet implements rotator.Store.
func (s *Store) ChangeSet(ctx context.Context, tenant string, fn func(*signing.Set) error) (signing.Set, error) {
	b, err := s.in()
	if err != nil {
		return signing.Set{}, err
	}
	set, _, err := kv.Change(ctx, b.keys, tenant, func(cur signing.Set) (signing.Set, error) {
		cur = cur.Clone()
		return cur, fn(&cur)
	})
	return set, err
}

// RemoveSet implements rotator.Store.
func (s *Store) RemoveSet(ctx context.Context, seen signing.Set) error {
	b, err := s.in()
	if err != nil {
		return err
	}
	return kv.Remove(ctx, b.keys, seen.Tenant, func(now signing.Set) bool { return reflect.DeepEqual(now, seen) })
}

// Rotation implements rotator.Store.
func (s *Store) Rotation(ctx context.Context, id string) (rotator.Rotation, error) {
	b, err := s.in()
	if err != nil {
		return rotator.Rotation{}, err
	}
	r, _, err := kv.Get[rotator.Rotation](ctx, b.rotations, id)
	return r, err
}

// CreateRotation implements rotator.Store.
func (s *Store) CreateRotation(ctx context.Context, r rotator.Rotation) error {
	b, err := s.in()
	if err != nil {
		return err
	}
	rev, err := kv.Create(ctx, b.rotations, r.ID, r)
	if err == nil {
		s.see(r, rev)
	}
	return err
}

// ChangeRotation implements rotator.Store.
func (s *Store) ChangeRotation(ctx context.Context, id string, fn func(*rotator.Rotation) error) (rotator.Rotation, error) {
	b, err := s.in()
	if err != nil {
		return rotator.Rotation{}, err
	}
	r, rev, err := kv.Change(ctx, b.rotations, id, func(cur rotator.Rotation) (rotator.Rotation, error) {
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
	for id := range s.of[tenant] {
		if v := s.known[id]; v.rotation.State == rotator.Waiting {
			out = append(out, v.rotation)
		}
	}
	return out, nil
}

// Rotations implements rotator.Store.
func (s *Store) Rotations(tenant string) (ids []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.all {
		return nil, problem.Wrap(problem.Unavailable, errReading, "the rotations have not been read yet; try again")
	}
	return slices.Collect(maps.Keys(s.of[tenant])), nil
}

// RemoveRotation implements rotator.Store.
func (s *Store) RemoveRotation(ctx context.Context, id string) error {
	b, err := s.in()
	if err != nil {
		return err
	}
	return kv.Remove(ctx, b.rotations, id, func(rotator.Rotation) bool { return true })
}

// Changed implements rotator.Store.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// see takes a revision of a rotation. Finished and removed ones stay, small, so that an
// older revision which comes late does not open them again.
func (s *Store) see(r rotator.Rotation, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.known[r.ID]
	if ok && old.revision >= revision {
		return
	}
	if r.State != rotator.Waiting {
		r = rotator.Rotation{ID: r.ID, Tenant: r.Tenant, State: r.State}
	}
	if s.known[r.ID] = (seen{r, revision}); old.rotation.Tenant != r.Tenant {
		if delete(s.of[old.rotation.Tenant], r.ID); len(s.of[old.rotation.Tenant]) == 0 {
			delete(s.of, old.rotation.Tenant)
		}
		if r.Tenant != "" && s.of[r.Tenant] == nil {
			s.of[r.Tenant] = map[string]bool{}
		}
		if r.Tenant != "" {
			s.of[r.Tenant][r.ID] = true
		}
	}
	s.wake()
}

// wake is called with the lock held.
func (s *Store) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
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
		s.see(rotator.Rotation{ID: e.Key()}, e.Revision())
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
	return follow(ctx, s.log, b, take)
}

func follow(ctx context.Context, log *zap.Logger, b jetstream.KeyValue, take func(jetstream.KeyValueEntry)) error {
	const renew = 5 * time.Minute
	for ctx.Err() == nil {
		err := watch(ctx, b, renew, take)
		if err == nil || ctx.Err() != nil {
			continue
		}
		log.Warn("watch ended; starting it again", zap.String("bucket", b.Bucket()), zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

func watch(ctx context.Context, b jetstream.KeyValue, renew time.Duration, take func(jetstream.KeyValueEntry)) error {
	renewed, cancel := context.WithTimeout(ctx, renew)
	defer cancel()
	if err := kv.Watch(renewed, b, take); renewed.Err() == nil {
		return err
	}
	return nil
}
