// Package kv keeps records in JetStream key-value buckets by compare-and-set.
package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/problem"
)

// answerIn is how long the broker may take to answer one question. Without a
// bound of its own a lost acknowledgement holds up all that its caller does.
const answerIn = 3 * time.Second

// Get reads a record and its revision. A missing one is problem.NotFound.
func Get[T any](ctx context.Context, b jetstream.KeyValue, key string) (T, uint64, error) {
	var v T
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	e, err := b.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return v, 0, problem.Wrap(problem.NotFound, err, "there is no such record")
	}
	if err != nil {
		return v, 0, problem.Wrap(problem.Unavailable, err, "the record store does not answer; try again")
	}
	if err := json.Unmarshal(e.Value(), &v); err != nil {
		return v, 0, fmt.Errorf("record %s/%s at revision %d: %w", b.Bucket(), key, e.Revision(), err)
	}
	return v, e.Revision(), nil
}

// Create writes a record that must not exist yet; otherwise problem.Conflict.
func Create[T any](ctx context.Context, b jetstream.KeyValue, key string, v T) (uint64, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	rev, err := b.Create(ctx, key, data)
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return 0, problem.Wrap(problem.Conflict, err, "it exists already")
	}
	if err != nil {
		return 0, problem.Wrap(problem.Unavailable, err, "the record store does not answer; it may or may not have been written")
	}
	return rev, nil
}

// Change rewrites the value under key with fn only if nobody wrote in between;
// after a lost race it reads again and calls fn again, until ctx ends. fn must
// be pure; its error leaves the key as it was and is returned as it is. It
// returns what was written and its revision.
func Change[T any](ctx context.Context, b jetstream.KeyValue, key string, fn func(T) (T, error)) (T, uint64, error) {
	var zero T
	for ctx.Err() == nil {
		cur, rev, err := Get[T](ctx, b, key)
		if err != nil {
			return zero, 0, err
		}
		next, err := fn(cur)
		if err != nil {
			return zero, 0, err
		}
		data, err := json.Marshal(next)
		if err != nil {
			return zero, 0, err
		}
		rev, err = update(ctx, b, key, data, rev)
		if err == nil {
			return next, rev, nil
		}
		// On replicated streams 10164 comes to a lone writer too: decide on
		// the content, after reading again.
		if !errors.Is(err, jetstream.ErrKeyRevisionMismatch) && !errors.Is(err, jetstream.ErrKeyExists) {
			return zero, 0, problem.Wrap(problem.Unavailable, err, "the record store does not answer; it may or may not have been written")
		}
	}
	return zero, 0, context.Cause(ctx)
}

// Remove removes the value under key if ok says so of what stands there. One that is gone
// already is no error; one of which ok says no is problem.Conflict.
func Remove[T any](ctx context.Context, b jetstream.KeyValue, key string, ok func(T) bool) error {
	cur, rev, err := Get[T](ctx, b, key)
	switch {
	case problem.KindOf(err) == problem.NotFound && err != nil:
		return nil
	case err != nil:
		return err
	case !ok(cur):
		return problem.New(problem.Conflict, "it was changed meanwhile; look at it again")
	}
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	err = b.Delete(ctx, key, jetstream.LastRevision(rev))
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.Is(err, jetstream.ErrKeyExists) {
		return problem.Wrap(problem.Conflict, err, "it was changed meanwhile; look at it again")
	}
	if err != nil {
		return problem.Wrap(problem.Unavailable, err, "the record store does not answer; it may or may not have been removed")
	}
	return nil
}

// Keys returns the keys in a bucket that fit a filter, in no order. The error is that of the
// broker, or of ctx: its end ends the list, which is not a whole one then.
func Keys(ctx context.Context, b jetstream.KeyValue, filter string) ([]string, error) {
	list, err := b.ListKeysFiltered(ctx, filter)
	if err != nil {
		return nil, err
	}
	defer func() { _ = list.Stop() }() // it has ended, or ctx has
	var keys []string
	for key := range list.Keys() {
		keys = append(keys, key)
	}
	return keys, context.Cause(ctx)
}

func update(ctx context.Context, b jetstream.KeyValue, key string, data []byte, rev uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	return b.Update(ctx, key, data, rev)
}
