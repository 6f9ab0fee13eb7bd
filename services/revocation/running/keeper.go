package running

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

// Prefix is before a receipt's id in the key of its record, in the bucket of receipts.
const Prefix = "running."

// Bounds of the work.
const (
	lookEvery = 250 * time.Millisecond
	spacing   = time.Second            // between two writes of a replica for one receipt
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
	Bucket(ctx context.Context) (jetstream.KeyValue, error)
	PutBeside(ctx context.Context, key string, data []byte, revision uint64, life time.Duration) error
}

// Config is what a Keeper needs; Receipts is required.
type Config struct {
	Receipts Receipts
	Now      func() time.Time
	Log      *zap.Logger
}

// Keeper is safe for concurrent use.
type Keeper struct {
	cfg Config

	mu      sync.Mutex
	waiting map[revoke.Stamp]*waiting
	heard   int            // counts that wait
	heardOf map[string]int // of them, by server

	dropped atomic.Uint64
}

// waiting is what was heard of one entry, and is not written yet.
type waiting struct {
	since, due time.Time
	counts     map[source]heard
}

// New returns a Keeper.
func New(cfg Config) *Keeper {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Keeper{cfg: cfg, waiting: map[revoke.Stamp]*waiting{}, heardOf: map[string]int{}}
}

// Heard takes a report of the guard with this name, for which the broker vouches.
func (k *Keeper) Heard(server string, r wire.RunningReport) {
	now := k.cfg.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, n := range r.Running {
		w := k.waiting[n.At]
		if w == nil {
			w = &waiting{since: now, due: now, counts: map[source]heard{}}
		}
		if k.take(w, source{server, r.Instance, n.Target}, heard{n, now.UnixMilli()}) {
			k.waiting[n.At] = w
		}
	}
}

// take notes what was heard of a count; false: there is no room. The caller holds mu.
func (k *Keeper) take(w *waiting, from source, h heard) bool {
	if is, ok := w.counts[from]; ok {
		if h.Told > is.Told {
			w.counts[from] = h
		}
		return true
	}
	if k.heard >= maxHeard || k.heardOf[from.server] >= maxOfOne {
		k.dropped.Add(1)
		return false
	}
	k.heard++
	k.heardOf[from.server]++
	w.counts[from] = h
	return true
}

// Run writes what is heard until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
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
			k.cfg.Log.Debug("what still runs is not written yet; trying again", zap.Error(err))
		}
		k.done(at, counts, wait, err == nil)
	}
}

func (k *Keeper) due() map[revoke.Stamp]map[source]heard {
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
	out := map[revoke.Stamp]map[source]heard{}
	for _, at := range list[:min(len(list), maxRound)] {
		w := k.waiting[at]
		out[at], w.counts = w.counts, map[source]heard{}
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
func (k *Keeper) done(at revoke.Stamp, counts map[source]heard, wait time.Duration, written bool) {
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
		for from, h := range counts {
			k.take(w, from, h)
		}
	}
}

var errNoReceipt = errors.New("its receipt is not written yet")

// write merges counts into the record of their receipt, and returns when to look again.
func (k *Keeper) write(ctx context.Context, at revoke.Stamp, counts map[source]heard) (time.Duration, error) {
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
	for range maxRaces {
		rec, rev, err := k.read(ctx, &r)
		if err != nil {
			return retry, err
		}
		if !k.mergeAll(&rec, &r, counts) {
			return spacing, nil
		}
		data, err := json.Marshal(rec)
		if err != nil {
			return retry, err
		}
		left := time.UnixMilli(r.KeepUntil).Sub(k.cfg.Now())
		err = k.cfg.Receipts.PutBeside(ctx, Prefix+r.ID, data, rev, left)
		if err == nil {
			return spacing, nil
		}
		if !errors.Is(err, receipts.ErrRaced) {
			return retry, err
		}
	}
	return retry, receipts.ErrRaced
}

// read returns the record of a receipt, an empty one if there is none of its entry.
func (k *Keeper) read(ctx context.Context, r *receipts.Receipt) (Record, uint64, error) {
	b, err := k.cfg.Receipts.Bucket(ctx)
	if err != nil {
		return Record{}, 0, err
	}
	rec, rev, err := kv.Get[Record](ctx, b, Prefix+r.ID)
	if err != nil && problem.KindOf(err) != problem.NotFound {
		return rec, 0, err
	}
	if err != nil || rec.At() != r.At() { // of an entry that the log has lost
		rec = Record{Receipt: r.ID, Tenant: r.Tenant, Epoch: r.Epoch, Sequence: r.Sequence, Counts: []Count{}}
	}
	return rec, rev, nil
}

// mergeAll takes what is of the receipt's targets. Of anything else a guard can't know by
// that entry: it is left out.
func (k *Keeper) mergeAll(rec *Record, r *receipts.Receipt, counts map[source]heard) (changed bool) {
	targets := r.TargetKeys()
	for from, h := range counts {
		target, ok := targets[from.target]
		if !ok {
			k.dropped.Add(1)
			continue
		}
		c, kept := rec.merge(from, target, h)
		if !kept {
			k.dropped.Add(1)
		}
		changed = changed || c
	}
	return changed
}

// Of returns what still runs of what a receipt is of, as far as guards have told.
func (k *Keeper) Of(ctx context.Context, r *receipts.Receipt) ([]receipts.Running, error) {
	rec, _, err := k.read(ctx, r)
	if err != nil {
		return nil, err
	}
	return rec.Lines(), nil
}

// Dropped is how many counts this replica could not keep.
func (k *Keeper) Dropped() uint64 { return k.dropped.Load() }
