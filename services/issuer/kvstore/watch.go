package kvstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
)

const (
	// beatPeriod is how often a replica writes its beat.
	beatPeriod = time.Minute
	// beatBack is how long a beat may take to come back before the watch is
	// started again.
	beatBack = 10 * time.Second
	// beatLife is how long a beat stays in the bucket: it means something to its
	// writer only, while that watches.
	beatLife = time.Hour
	// copyLife is how old the last own write that came back may be.
	copyLife = 10 * time.Minute
)

// beat is what is known of the own writes: owned by the watch, read by all.
type beat struct {
	key  string // where this replica writes it
	mu   sync.Mutex
	n    uint64
	sent map[uint64]time.Time // not back yet
	back time.Time            // when the newest one that came back was sent
	came chan struct{}        // has room for one
}

func (b *beat) send(now time.Time) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n++
	if b.sent == nil {
		b.sent = map[uint64]time.Time{}
	}
	b.sent[b.n] = now
	return b.n
}

func (b *beat) arrived(n uint64) {
	b.mu.Lock()
	at, ok := b.sent[n]
	if ok && at.After(b.back) {
		b.back = at
	}
	for m := range b.sent {
		if m <= n {
			delete(b.sent, m)
		}
	}
	b.mu.Unlock()
	if ok {
		select {
		case b.came <- struct{}{}:
		default:
		}
	}
}

func (b *beat) age(now time.Time) (time.Duration, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.back.IsZero() {
		return 0, false
	}
	// By the monotonic or the wall clock, whichever says more: machines sleep.
	return max(now.Sub(b.back), now.Round(0).Sub(b.back.Round(0))), true
}

// Ready implements issuer.Table.
func (t *table[T, R]) Ready() error {
	age, ok := t.beat.age(t.now())
	switch {
	case !ok:
		return fmt.Errorf("the copy of %s has not been read yet", t.bucket)
	case age > copyLife:
		return fmt.Errorf("the copy of %s has shown no write for %v", t.bucket, age.Round(time.Second))
	}
	return nil
}

// run keeps the copy until ctx ends.
func (t *table[T, R]) run(ctx context.Context) error {
	for {
		err := t.watch(ctx)
		if ctx.Err() != nil {
			return nil
		}
		t.log.Warn("watch ended; starting it again", zap.String("bucket", t.bucket), zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

var errStalled = errors.New("a write of our own did not come back in time")

// watch reads the whole bucket, then follows it. It ends with an error when the
// watch does, or when a beat does not come back.
func (t *table[T, R]) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b, err := t.store()
	if err != nil {
		return err
	}
	w, err := kv.WatchAll(ctx, cancel, b)
	if err != nil {
		return err
	}
	defer func() { _ = w.Stop() }() // the connection may be gone: then so is the watch

	into := newReplica(t.groups)
	next := time.NewTimer(0)
	defer next.Stop()
	first := time.NewTimer(kv.FirstTime)
	defer first.Stop()
	var overdue <-chan time.Time
	loaded, heard := false, time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-w.Updates():
			heard = time.Now()
			switch {
			case !ok:
				return errors.New("the watch was closed")
			case e == nil:
				t.copy.take(into)
				into, loaded = t.copy, true
				next.Reset(0)
			default:
				first.Reset(kv.FirstTime)
				t.apply(into, e)
			}
		case <-next.C:
			if loaded {
				overdue = time.After(beatBack)
				t.sendBeat(ctx)
			}
			next.Reset(beatPeriod)
		case <-t.beat.came:
			overdue = nil
		case <-overdue:
			return errStalled
		case <-t.behind: // one that still reads is only slow
			if loaded && time.Since(heard) >= seenIn {
				return errStalled
			}
		case <-first.C:
			if !loaded {
				return kv.ErrSilent
			}
		}
	}
}

func (t *table[T, R]) apply(into *replica[T], e jetstream.KeyValueEntry) {
	if len(e.Key()) > len(kv.BeatPrefix) && e.Key()[:len(kv.BeatPrefix)] == kv.BeatPrefix {
		if n, err := strconv.ParseUint(string(e.Value()), 10, 64); err == nil && e.Key() == t.beat.key {
			t.beat.arrived(n)
		}
		into.pass(e.Revision())
		return
	}
	if e.Operation() != jetstream.KeyValuePut {
		into.drop(e.Key(), e.Revision())
		return
	}
	v, err := t.decode(e)
	if err != nil {
		// It is not in the copy, so that whoever needs it meets the same error.
		t.log.Error("a record can't be read", zap.Error(err))
		into.drop(e.Key(), e.Revision())
		return
	}
	into.put(e.Key(), v, e.Revision())
}

// seen waits until a write is in the copy, at most for seenIn, and reports whether it is. If
// not, the watch may be dead: of the consumer of a broker that was killed nothing is left, and
// the client finds that out from missing heartbeats only, some 12 s later.
func (t *table[T, R]) seen(ctx context.Context, rev uint64) bool {
	if t.copy.await(ctx, rev, seenIn) {
		return true
	}
	if ctx.Err() == nil {
		select {
		case t.behind <- struct{}{}:
		default:
		}
	}
	return false
}

// sendBeat writes the beat without waiting for it: if it does not come back, the
// watch is started again.
func (t *table[T, R]) sendBeat(ctx context.Context) {
	subject, data := t.nextBeat()
	_, err := t.js.PublishAsync(subject, data, jetstream.WithMsgTTL(beatLife))
	if err != nil && ctx.Err() == nil {
		t.log.Warn("a beat could not be written", zap.String("bucket", t.bucket), zap.Error(err))
	}
}

func (t *table[T, R]) nextBeat() (subject string, data []byte) {
	return "$KV." + t.bucket + "." + t.beat.key, strconv.AppendUint(nil, t.beat.send(t.now()), 10)
}

// Fresh implements issuer.Table: a beat that has come back came after all that was written
// before it.
func (t *table[T, R]) Fresh(ctx context.Context) error {
	var ack *jetstream.PubAck
	subject, data := t.nextBeat()
	err := answered(ctx, func(ctx context.Context) (err error) {
		ack, err = t.js.Publish(ctx, subject, data, jetstream.WithMsgTTL(beatLife))
		return err
	})
	if err != nil {
		return problem.Wrap(problem.Unavailable, err, "the record store does not answer; try again")
	}
	if !t.seen(ctx, ack.Sequence) {
		return problem.New(problem.Unavailable, "this replica's copy of the records is behind; try again")
	}
	return nil
}
