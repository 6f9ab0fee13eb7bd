package attempts

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
)

// Life is how long attempts are kept after the last of them: they have addresses of
// callers. Never longer than their receipt.
const Life = 90 * 24 * time.Hour

// Prefix is before a receipt's id in the key of its record, in the bucket of receipts.
const Prefix = "a."

// Bounds of the work.
const (
	lookEvery = 250 * time.Millisecond
	spacing   = 2 * time.Second        // between two writes of a replica for one receipt
	retry     = time.Second            // after a write that failed
	notYet    = 500 * time.Millisecond // while the receipt is not written
	giveUp    = 10 * time.Minute       // after so long without a receipt
	maxRound  = 16                     // receipts written in a round
	maxHeard  = 20_000                 // counts that wait
	maxOfOne  = 2_000                  // of them, of one server
	maxRaces  = 8
)

// Receipts is what a Keeper needs of the receipts; *receipts.Keeper is one.
type Receipts interface {
	IDAt(at revoke.Stamp) (id string, ok bool)
	Stored(ctx context.Context, id string) (receipts.Receipt, error)
	Find(ctx context.Context, tenant, id string, wait time.Duration) (receipts.Receipt, error)
	Bucket(ctx context.Context) (jetstream.KeyValue, error)
	PutBeside(ctx context.Context, key string, data []byte, revision uint64, life time.Duration) error
}

// Config is what a Keeper needs; Receipts is required.
type Config struct {
	Receipts Receipts
	Now      func() time.Time
	Log      *zap.Logger
	// First is called with the record of a first attempt, on every replica once, whoever
	// has written it.
	First func(Record)
}

// Keeper is safe for concurrent use.
type Keeper struct {
	cfg Config
	log *zap.Logger

	mu      sync.Mutex
	waiting map[revoke.Stamp]*waiting
	heard   int            // counts that wait
	heardOf map[string]int // of them, by server

	counted, firsts, dropped atomic.Uint64
}

// waiting is what was heard of one entry, and is not written yet.
type waiting struct {
	since, due time.Time
	counts     map[source]wire.Attempts
}

// New returns a Keeper.
func New(cfg Config) *Keeper {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.First == nil {
		cfg.First = func(Record) {}
	}
	return &Keeper{cfg: cfg, log: cfg.Log, waiting: map[revoke.Stamp]*waiting{}, heardOf: map[string]int{}}
}

// Heard takes a report of the guard with this name, for which the broker vouches.
func (k *Keeper) Heard(server string, r wire.AttemptsReport) {
	now := k.cfg.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range r.Attempts {
		w := k.waiting[a.At]
		if w == nil {
			w = &waiting{since: now, due: now, counts: map[source]wire.Attempts{}}
		}
		if k.take(w, source{server, r.Instance, a.Target, a.Began}, a) {
			k.waiting[a.At] = w
		}
	}
}

// take notes what was heard of a count; false: there is no room. The caller holds mu.
func (k *Keeper) take(w *waiting, from source, a wire.Attempts) bool {
	if is, ok := w.counts[from]; ok {
		w.counts[from] = joined(is, a)
		return true
	}
	if k.heard >= maxHeard || k.heardOf[from.server] >= maxOfOne {
		k.dropped.Add(1)
		return false
	}
	k.heard++
	k.heardOf[from.server]++
	w.counts[from] = a
	return true
}

// Run writes what is heard, and tells of first attempts, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var following sync.WaitGroup
	following.Go(func() { k.follow(ctx) })
	defer following.Wait()
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			k.round(ctx)
		}
	}
}

// round writes what is due.
func (k *Keeper) round(ctx context.Context) {
	for at, counts := range k.due() {
		wait, err := k.write(ctx, at, counts)
		if err != nil && ctx.Err() == nil {
			k.log.Debug("attempts are not written yet; trying again", zap.Error(err))
		}
		k.done(at, counts, wait, err == nil)
	}
}

func (k *Keeper) due() map[revoke.Stamp]map[source]wire.Attempts {
	now := k.cfg.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []revoke.Stamp
	for at, w := range k.waiting {
		if now.Before(w.due) && w.due.Sub(now) <= spacing { // the clock may have been set back
			continue
		}
		if len(w.counts) == 0 {
			delete(k.waiting, at)
			continue
		}
		list = append(list, at)
	}
	slices.SortFunc(list, func(a, b revoke.Stamp) int {
		return cmp.Or(k.waiting[a].due.Compare(k.waiting[b].due), a.Compare(b))
	})
	out := map[revoke.Stamp]map[source]wire.Attempts{}
	for _, at := range list[:min(len(list), maxRound)] {
		w := k.waiting[at]
		out[at], w.counts = w.counts, map[source]wire.Attempts{}
		k.heard -= len(out[at])
		for from := range out[at] {
			if k.heardOf[from.server]--; k.heardOf[from.server] == 0 {
				delete(k.heardOf, from.server)
			}
		}
	}
	return out
}

// done puts back what could not be written, unless it has waited for too long.
func (k *Keeper) done(at revoke.Stamp, counts map[source]wire.Attempts, wait time.Duration, written bool) {
	now := k.cfg.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.waiting[at]
	w.due = now.Add(wait)
	switch {
	case written:
		w.since = now
	case now.Sub(w.since) >= giveUp:
		k.dropped.Add(uint64(len(counts)))
		if len(w.counts) == 0 {
			delete(k.waiting, at)
		}
	default:
		for from, a := range counts {
			k.take(w, from, a)
		}
	}
}

var errNoReceipt = errors.New("its receipt is not written yet")

// write merges counts into the record of their receipt, and returns when to look again.
func (k *Keeper) write(ctx context.Context, at revoke.Stamp, counts map[source]wire.Attempts) (time.Duration, error) {
	id, ok := k.cfg.Receipts.IDAt(at)
	if !ok {
		return notYet, errNoReceipt
	}
	r, err := k.cfg.Receipts.Stored(ctx, id)
	if err != nil {
		return retry, err
	}
	if r.At() != at {
		return spacing, nil // of a log that is gone: its receipt tells of another entry now
	}
	b, err := k.cfg.Receipts.Bucket(ctx)
	if err != nil {
		return retry, err
	}
	for range maxRaces {
		rec, rev, err := kv.Get[Record](ctx, b, Prefix+id)
		if err != nil && problem.KindOf(err) != problem.NotFound {
			return retry, err
		}
		if err != nil || rec.At() != at { // of an entry that the log has lost
			rec = Record{Receipt: id, Tenant: r.Tenant, Epoch: r.Epoch, Sequence: r.Sequence, Committed: r.CommittedAt, Counts: []Count{}}
		}
		more, changed := k.mergeAll(&rec, &r, counts)
		if !changed {
			return spacing, nil
		}
		rec.Version++
		err = k.put(ctx, &r, &rec, rev)
		if errors.Is(err, receipts.ErrRaced) {
			continue
		}
		if err != nil {
			return retry, err
		}
		k.written(&rec, more)
		return spacing, nil
	}
	return retry, receipts.ErrRaced
}

// mergeAll takes what is of the receipt's targets. Of anything else a guard can't know by
// that entry: it is left out.
func (k *Keeper) mergeAll(rec *Record, r *receipts.Receipt, counts map[source]wire.Attempts) (more uint64, changed bool) {
	now, targets := k.cfg.Now().UnixMilli(), r.TargetKeys()
	for from, a := range counts {
		target, ok := targets[from.target]
		if !ok {
			k.dropped.Add(1)
			continue
		}
		a = clamp(a, r.CommittedAt, now)
		m, c := rec.merge(from, target, &a, now)
		more, changed = more+m, changed || c
	}
	return more, changed
}

func (k *Keeper) put(ctx context.Context, r *receipts.Receipt, rec *Record, revision uint64) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	left := time.UnixMilli(r.KeepUntil).Sub(k.cfg.Now())
	return k.cfg.Receipts.PutBeside(ctx, Prefix+rec.Receipt, data, revision, min(Life, left))
}

func (k *Keeper) written(rec *Record, more uint64) {
	k.counted.Add(more)
	if rec.Version != 1 {
		return
	}
	k.firsts.Add(1)
	l := rec.Lines()
	if len(l) == 0 {
		return
	}
	k.log.Warn("somebody tries with what was revoked or is held", zap.String("receipt", rec.Receipt), zap.String("tenant", rec.Tenant),
		zap.String("server", l[0].Server)) // not the address: logs are kept as long as whoever has them likes
}

// follow tells of first attempts, whichever replica has written them.
func (k *Keeper) follow(ctx context.Context) {
	var last uint64
	for ctx.Err() == nil {
		err := k.watch(ctx, &last)
		if ctx.Err() != nil {
			return
		}
		k.log.Debug("first attempts are not heard of; following again", zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}

var errEnded = errors.New("the watch has ended")

func (k *Keeper) watch(ctx context.Context, last *uint64) error {
	b, err := k.cfg.Receipts.Bucket(ctx)
	if err != nil {
		return err
	}
	from := jetstream.WatchOpt(jetstream.UpdatesOnly())
	if *last > 0 {
		from = jetstream.ResumeFromRevision(*last + 1)
	}
	w, err := b.Watch(ctx, Prefix+"*", from, jetstream.IgnoreDeletes())
	if err != nil {
		return err
	}
	defer func() { _ = w.Stop() }() // the connection may be gone: then so is the watch
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-w.Updates():
			if !ok {
				return errEnded
			}
			if e == nil {
				continue // what there was has been read
			}
			*last = max(*last, e.Revision())
			var rec Record
			if json.Unmarshal(e.Value(), &rec) == nil && rec.Version == 1 && len(rec.Counts) > 0 {
				k.cfg.First(rec)
			}
		}
	}
}

// Find returns the attempts with what a receipt of the tenant is of; problem.NotFound
// where there is no such receipt.
func (k *Keeper) Find(ctx context.Context, tenant, id string) (Record, error) {
	r, err := k.cfg.Receipts.Find(ctx, tenant, id, 0)
	if err != nil {
		return Record{}, err
	}
	b, err := k.cfg.Receipts.Bucket(ctx)
	if err != nil {
		return Record{}, err
	}
	rec, _, err := kv.Get[Record](ctx, b, Prefix+id)
	if err != nil && problem.KindOf(err) == problem.NotFound || err == nil && rec.At() != r.At() {
		return Record{Receipt: id, Tenant: tenant, Epoch: r.Epoch, Sequence: r.Sequence}, nil
	}
	return rec, err
}

// Status tells how the counting goes, of this replica since its start.
type Status struct {
	Counted uint64 // attempts that it has written
	Firsts  uint64 // receipts of which it has written the first
	Dropped uint64 // counts that it could not keep
	Waiting int    // counts that are not written yet
}

// Status returns it as it is now.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Status{k.counted.Load(), k.firsts.Load(), k.dropped.Load(), k.heard}
}
