package idempotency

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
)

// Bucket is Notes in a bucket that forgets them by itself.
type Bucket struct {
	late *kv.Late
	log  *zap.Logger
}

// NewBucket returns a bucket that answers "unavailable" until Run has opened it.
func NewBucket(nc *nats.Conn, replicas int, log *zap.Logger) (*Bucket, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	cfg := kv.StreamOf(identity.Requests, "requests of the last day that had an idempotency key", replicas)
	cfg.MaxAge = Life
	return &Bucket{late: kv.NewLate(js, cfg, "requests can't be remembered yet; nothing was done, try again"), log: log}, nil
}

const answerIn = 3 * time.Second

// Run makes the bucket, trying until it can or ctx ends.
func (b *Bucket) Run(ctx context.Context) error {
	_ = b.late.Open(ctx, func(err error) {
		b.log.Warn("requests with an Idempotency-Key are refused until their bucket can be opened", zap.Error(err))
	})
	return nil
}

// Begin implements Notes.
func (b *Bucket) Begin(ctx context.Context, name string, n Note) (Note, uint64, error) {
	store, err := b.late.Bucket(ctx)
	if err != nil {
		return Note{}, 0, err
	}
	rev, err := kv.Create(ctx, store, name, n)
	if err == nil {
		return n, rev, nil
	}
	// It is there already, or the answer was lost: what stands there tells.
	stands, rev, readErr := kv.Get[Note](ctx, store, name)
	if readErr != nil {
		return Note{}, 0, problem.Wrap(problem.Unavailable, errors.Join(err, readErr), "the request could not be noted; nothing was done, try again")
	}
	return stands, rev, nil
}

// Find returns what is noted under a name, and its revision; problem.NotFound if nothing is.
func (b *Bucket) Find(ctx context.Context, name string) (Note, uint64, error) {
	store, err := b.late.Bucket(ctx)
	if err != nil {
		return Note{}, 0, err
	}
	return kv.Get[Note](ctx, store, name)
}

// Write implements Notes.
func (b *Bucket) Write(ctx context.Context, name string, n Note, revision uint64) (uint64, error) {
	store, err := b.late.Bucket(ctx)
	if err != nil {
		return 0, err
	}
	data, err := json.Marshal(n)
	if err != nil {
		return 0, err
	}
	askCtx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	rev, err := store.Update(askCtx, name, data, revision)
	if err == nil {
		return rev, nil
	}
	// On a replicated stream a refusal comes to a lone writer too.
	stands, rev, readErr := kv.Get[Note](ctx, store, name)
	if readErr == nil && same(stands, n) {
		return rev, nil
	}
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.Is(err, jetstream.ErrKeyExists) {
		return 0, problem.Wrap(problem.Conflict, err, "another try of this request is under way; repeat it in a moment")
	}
	return 0, problem.Wrap(problem.Unavailable, err, "the request could not be noted; try again")
}

// Stored returns the names of the notes of a tenant.
func (b *Bucket) Stored(ctx context.Context, tenant string) ([]string, error) {
	store, err := b.late.Bucket(ctx)
	if err != nil {
		return nil, err
	}
	names, err := kv.Keys(ctx, store, tenant+".>")
	if err != nil {
		return nil, problem.Wrap(problem.Unavailable, err, "the remembered requests can't be read now; try again")
	}
	return names, nil
}

// Forget removes a note, whatever it says.
func (b *Bucket) Forget(ctx context.Context, name string) error {
	store, err := b.late.Bucket(ctx)
	if err != nil {
		return err
	}
	return kv.Remove(ctx, store, name, func(Note) bool { return true })
}

func same(a, b Note) bool {
	one, err1 := json.Marshal(a)
	two, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(one) == string(two)
}

// Drop implements Notes.
func (b *Bucket) Drop(ctx context.Context, name string, revision uint64) error {
	store, err := b.late.Bucket(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	err = store.Delete(ctx, name, jetstream.LastRevision(revision))
	if err != nil && !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return problem.Wrap(problem.Unavailable, err, "the request could not be forgotten")
	}
	return nil
}
