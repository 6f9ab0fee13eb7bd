// Package kvstore keeps the issuer's records in JetStream key-value buckets, and
// a watched copy of each in memory for the hot path.
//
// A copy may be behind without an error to show for it: a watch can stall. So
// each replica writes a beat into each bucket, and a copy may be used only while
// a recent beat of its own has come back in the watch. Stamps make a copy that is
// behind by less than that safe: what was revoked meanwhile is hit in the view.
package kvstore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
)

// kind is what a table must know of its records.
type kind[T, R any] struct {
	bucket  string
	toRow   func(T) R
	fromRow func(R) T
	groups  func(T) []string  // nil: none
	end     func(T) time.Time // when the record may vanish by itself; nil: never
	history int64             // revisions that are kept; 0: keepAll
}

// table implements issuer.Table.
type table[T, R any] struct {
	kind[T, R]
	js   jetstream.JetStream
	kv   atomic.Pointer[jetstream.KeyValue] // nil: not open yet
	now  func() time.Time
	log  *zap.Logger
	copy *replica[T]
	beat beat
	// behind has room for one: somebody has missed what was written; see seen.
	behind chan struct{}
}

// seenIn bounds how long a writer waits for its own write to be in the copy.
const seenIn = time.Second

func (t *table[T, R]) decode(e jetstream.KeyValueEntry) (T, error) {
	var row R
	if err := json.Unmarshal(e.Value(), &row); err != nil {
		var zero T
		return zero, fmt.Errorf("record %s/%s at revision %d: %w", t.bucket, e.Key(), e.Revision(), err)
	}
	return t.fromRow(row), nil
}

// open creates the bucket or brings it to its settings.
func (t *table[T, R]) open(ctx context.Context, js jetstream.JetStream, replicas int) error {
	b, err := openBucket(ctx, js, t.bucket, replicas, cmp.Or(t.history, keepAll))
	if err == nil {
		t.kv.Store(&b)
	}
	return err
}

func (t *table[T, R]) store() (jetstream.KeyValue, error) {
	if b := t.kv.Load(); b != nil {
		return *b, nil
	}
	return nil, problem.New(problem.Unavailable, "the record store is not open yet; try again")
}

// load reads from the leader.
func (t *table[T, R]) load(ctx context.Context, key string) (T, uint64, error) {
	var zero T
	b, err := t.store()
	if err != nil {
		return zero, 0, err
	}
	var e jetstream.KeyValueEntry
	for try := 0; try < readTries && (try == 0 || isLostAnswer(err) && ctx.Err() == nil); try++ {
		err = answered(ctx, func(ctx context.Context) (err error) { e, err = b.Get(ctx, key); return err })
	}
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return zero, 0, problem.Wrap(problem.NotFound, err, "there is no such record")
	}
	if err != nil {
		return zero, 0, problem.Wrap(problem.Unavailable, err, "the record store does not answer; try again")
	}
	v, err := t.decode(e)
	return v, e.Revision(), err
}

// answerIn bounds one question to the broker: an answer that was lost along with
// its connection never comes, however long the request may still take. It is
// asked again then.
const (
	answerIn  = 3 * time.Second
	readTries = 3
)

func answered(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	return ask(ctx)
}

// Load implements issuer.Table.
func (t *table[T, R]) Load(ctx context.Context, key string) (T, error) {
	v, _, err := t.load(ctx, key)
	return v, err
}

// Get implements issuer.Table.
func (t *table[T, R]) Get(ctx context.Context, key string) (T, error) {
	if v, ok := t.copy.get(key); ok {
		return v, nil
	}
	return t.Load(ctx, key)
}

// Peek returns what the copy has.
func (t *table[T, R]) Peek(key string) (T, bool) { return t.copy.get(key) }

// ttl returns for how long a record is kept, 0 for ever.
func (t *table[T, R]) ttl(v T) time.Duration {
	if t.end == nil {
		return 0
	}
	end := t.end(v)
	if end.IsZero() {
		return 0
	}
	return max(end.Sub(t.now()).Truncate(time.Second), time.Second)
}

// Create implements issuer.Table.
func (t *table[T, R]) Create(ctx context.Context, key string, v T) error {
	b, err := t.store()
	if err != nil {
		return err
	}
	data, err := json.Marshal(t.toRow(v))
	if err != nil {
		return err
	}
	var opts []jetstream.KVCreateOpt
	if d := t.ttl(v); d > 0 {
		opts = append(opts, jetstream.KeyTTL(d))
	}
	var rev uint64
	err = answered(ctx, func(ctx context.Context) (err error) { rev, err = b.Create(ctx, key, data, opts...); return err })
	if err != nil {
		// A lost answer is not a lost write, and a refusal on a replicated stream
		// not always one: what stands there tells.
		var e jetstream.KeyValueEntry
		readErr := answered(ctx, func(ctx context.Context) (err error) { e, err = b.Get(ctx, key); return err })
		switch {
		case readErr == nil && bytes.Equal(e.Value(), data):
			rev = e.Revision()
		case readErr == nil:
			return problem.Wrap(problem.Conflict, err, "it exists already")
		default:
			return problem.Wrap(problem.Unavailable, err, "the record store does not answer; it may or may not have been written")
		}
	}
	t.seen(ctx, rev)
	return nil
}

// Change implements issuer.Table.
func (t *table[T, R]) Change(ctx context.Context, key string, fn func(T) (T, error)) (T, error) {
	var zero T
	var last error
	for try := 0; try < changeTries && ctx.Err() == nil; try++ {
		cur, rev, err := t.load(ctx, key)
		if err != nil {
			return zero, err
		}
		next, err := fn(cur)
		if err != nil {
			return zero, err
		}
		rev, err = t.update(ctx, key, next, rev)
		if err == nil {
			t.seen(ctx, rev)
			return next, nil
		}
		if last = err; !isLostRace(err) && !isLostAnswer(err) {
			break
		}
	}
	if last == nil {
		last = context.Cause(ctx)
	}
	return zero, problem.Wrap(problem.Unavailable, last, "the record store does not answer; it may or may not have been written")
}

// changeTries bounds a Change: each lost race means that somebody else has won.
const changeTries = 20

// isLostAnswer reports whether a write may have been done all the same.
func isLostAnswer(err error) bool {
	return errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded)
}

// update writes over a revision. KeyValue.Update would drop the record's time to
// live.
func (t *table[T, R]) update(ctx context.Context, key string, v T, rev uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	b, err := t.store()
	if err != nil {
		return 0, err
	}
	data, err := json.Marshal(t.toRow(v))
	if err != nil {
		return 0, err
	}
	d := t.ttl(v)
	if d == 0 {
		return b.Update(ctx, key, data, rev)
	}
	ack, err := t.js.Publish(ctx, "$KV."+t.bucket+"."+key, data,
		jetstream.WithExpectLastSequencePerSubject(rev), jetstream.WithMsgTTL(d))
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == inFlight):
		return 0, errors.Join(jetstream.ErrKeyRevisionMismatch, err)
	case err != nil:
		return 0, err
	}
	return ack.Sequence, nil
}

// inFlight is the error code of a replicated stream whose subject is being
// written to just now.
const inFlight = 10164

// Remove implements issuer.Table.
func (t *table[T, R]) Remove(ctx context.Context, key string, ok func(T) bool) error {
	b, err := t.store()
	if err != nil {
		return err
	}
	var last error
	for try := 0; try < changeTries && ctx.Err() == nil; try++ {
		cur, rev, err := t.load(ctx, key)
		if problem.KindOf(err) == problem.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		if !ok(cur) {
			return nil
		}
		// Not Purge: the audit follower may not have read the history yet. And
		// without an end of its own: a marker that vanished before what it hides
		// would let that be seen again.
		err = answered(ctx, func(ctx context.Context) error { return b.Delete(ctx, key, jetstream.LastRevision(rev)) })
		if err == nil {
			t.copy.awaitGone(ctx, key, rev, seenIn)
			return nil
		}
		if last = err; !isLostRace(err) && !isLostAnswer(err) {
			break
		}
	}
	if last == nil {
		last = context.Cause(ctx)
	}
	return problem.Wrap(problem.Unavailable, last, "the record store does not answer; it may or may not have been removed")
}

// All implements issuer.Table.
func (t *table[T, R]) All() iter.Seq2[string, T] { return t.copy.all() }

// Walk implements issuer.Table.
func (t *table[T, R]) Walk(group string) iter.Seq[T] { return t.copy.walk(group) }

// Size implements issuer.Table.
func (t *table[T, R]) Size(group string) int { return t.copy.size(group) }

// Stored implements issuer.Table.
func (t *table[T, R]) Stored(ctx context.Context, tenant string) ([]string, error) {
	b, err := t.store()
	if err != nil {
		return nil, err
	}
	keys, err := kv.Keys(ctx, b, tenant+".>")
	if err != nil {
		return nil, problem.Wrap(problem.Unavailable, err, "the record store does not answer; try again")
	}
	return keys, nil
}

// Group implements issuer.Table.
func (t *table[T, R]) Group(name string) []T { return t.copy.group(name) }
