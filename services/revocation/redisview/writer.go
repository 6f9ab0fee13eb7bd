package redisview

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Log is what the view is a view of: the revocation service's own ledger.
type Log interface {
	// Ready returns nil while View is known to follow the log.
	Ready() error
	View() *revoke.View
	// Tick returns the position of a tick committed after the call.
	Tick(ctx context.Context, urgent bool) (wire.Position, error)
	// WaitApplied returns once View holds everything up to a position.
	WaitApplied(ctx context.Context, s revoke.Stamp) error
	// Holds reports whether the log has this very message there, if known.
	Holds(p wire.Position) (has, known bool)
}

// Config is what a Writer can be told. The zero value is good.
type Config struct {
	Shards int              // N of the deployment, fixed for its life; default 1
	Now    func() time.Time // default time.Now
	Rand   io.Reader        // default crypto/rand.Reader
	Log    *zap.Logger      // nil: none
	// Beat is how often the view is proved to follow. Default wire.RedisBeat.
	Beat time.Duration
	// Takeover is how long another writer's meta stands still before this one
	// takes over. Default 2.5 beats.
	Takeover time.Duration
	// Sweep is how often everything is written again. Default 10 min.
	Sweep time.Duration
	// Timeout bounds one write, and one wait for a tick. Default 5 s.
	Timeout time.Duration
	// Batch is how many states a rebuild writes in one transaction. Default 2,000.
	Batch int
	// Recorded is how many changes are remembered. Default 262,144.
	Recorded int
	// Proof is called when a meta stands above the head of the log, or names a
	// message that the log does not have: the log went back. It returns whether
	// somebody sees to it: then nothing is written until the log is in a new
	// epoch. Nil: nobody does, and the view is rebuilt.
	Proof func(p wire.Position, es revoke.Epochs) bool
}

func (c *Config) defaults() error {
	if c.Shards == 0 {
		c.Shards = 1
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Beat == 0 {
		c.Beat = wire.RedisBeat
	}
	if c.Takeover == 0 {
		c.Takeover = c.Beat * 5 / 2
	}
	if c.Sweep == 0 {
		c.Sweep = 10 * time.Minute
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	if c.Batch == 0 {
		c.Batch = 2000
	}
	if c.Recorded == 0 {
		c.Recorded = defaultRecorded
	}
	var errs []error
	if c.Shards < 1 || c.Shards > wire.MaxRedisShards {
		errs = append(errs, fmt.Errorf("redisview: Shards %d: want 1 to %d", c.Shards, wire.MaxRedisShards))
	}
	if c.Beat < 0 || c.Takeover < c.Beat || c.Sweep < 0 || c.Timeout < 0 || c.Batch < 0 || c.Recorded < 2 {
		errs = append(errs, errors.New("redisview: Beat, Takeover (above Beat), Sweep, Timeout, Batch and Recorded must be positive"))
	}
	return errors.Join(errs...)
}

// Writer is one replica's writer of the view. It observes the ledger.
type Writer struct {
	cfg    Config
	log    *zap.Logger
	store  Store
	source Log
	rec    recorder
	shards []*shard

	health struct {
		sync.Mutex
		at   time.Time
		last Health
		err  error
	}
}

// New returns a Writer; register it with the ledger's Observe before its Run.
func New(store Store, source Log, cfg Config) (*Writer, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	w := &Writer{cfg: cfg, log: cfg.Log.Named("redisview"), store: store, source: source, rec: recorder{limit: cfg.Recorded}}
	for n := range cfg.Shards {
		w.shards = append(w.shards, newShard(w, n))
	}
	return w, nil
}

// Restarted implements the ledger's Observer.
func (w *Writer) Restarted() { w.rec.restart() }

// Applied implements the ledger's Observer: it takes note and returns at once.
func (w *Writer) Applied(s wire.Stored) {
	w.rec.add(s)
	if s.Message.Kind != wire.KindEntry {
		return // the next beat's tick stands for it
	}
	for _, sh := range w.shards {
		sh.kick()
	}
}

// Run keeps the view until ctx ends. What fails is tried again with each beat,
// and logged when it changes.
func (w *Writer) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, sh := range w.shards {
		wg.Go(func() { sh.run(ctx) })
	}
	wg.Wait()
	return nil
}

// Metas returns what Redis itself says now, shard by shard; a missing or
// unreadable one is left out. At the start of a service a position in it above
// the log's head, or with another id there, proves that the log went back.
func (w *Writer) Metas(ctx context.Context) ([]wire.RedisMeta, error) {
	var ms []wire.RedisMeta
	for n := range w.shards {
		text, err := w.store.Get(ctx, wire.RedisMetaKey(n))
		if err != nil {
			return nil, fmt.Errorf("read the Redis view's meta: %w", err)
		}
		if m, err := wire.ParseRedisMeta(text); err == nil {
			ms = append(ms, m)
		}
	}
	return ms, nil
}

// States yields every state that Redis holds and that can be read, until yield
// returns false: memory of last resort after the log went back. A target may
// come more than once.
func (w *Writer) States(ctx context.Context, yield func(revoke.Key, revoke.State) bool) error {
	for n := range w.shards {
		more := true
		err := w.store.Scan(ctx, wire.RedisTargetPrefix(n), func(key, value string) bool {
			k, err1 := wire.ParseRedisTargetKey(n, key)
			s, err2 := wire.ParseRedisState(value)
			if err1 == nil && err2 == nil {
				more = yield(k, s)
			}
			return more
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// AppliedAt returns when the whole view was first known to hold everything up to
// a position. The writing replica knows it from the answer to its write; another
// looks when it is asked, and knows it when it is asked again.
func (w *Writer) AppliedAt(s revoke.Stamp) (at time.Time, ok bool) {
	for _, sh := range w.shards {
		t, ok := sh.appliedAt(s)
		if !ok {
			poke(sh.looking)
			return time.Time{}, false
		}
		if at.Before(t) {
			at = t
		}
	}
	return at, true
}

// WaitApplied waits for AppliedAt.
func (w *Writer) WaitApplied(ctx context.Context, s revoke.Stamp) (time.Time, error) {
	for _, sh := range w.shards {
		if err := sh.waitApplied(ctx, s); err != nil {
			return time.Time{}, err
		}
	}
	at, _ := w.AppliedAt(s)
	return at, nil
}

// FencedBy is the moment from which no reader takes an older view for complete:
// Redis can fall back, so this is promised of any commit.
func FencedBy(committed time.Time) time.Time { return committed.Add(wire.RedisLimit) }

// Status is what this replica knows of the view.
type Status struct {
	Writing  bool          // this replica writes every shard
	Complete bool          // every shard was complete when it was last seen
	Position wire.Position // of the shard that is furthest behind
	SeenAt   time.Time     // when, the least recent of the shards
	Reason   error         // why it is not complete, or not written
}

// Status asks nobody.
func (w *Writer) Status() Status {
	st := Status{Writing: true, Complete: true}
	for i, sh := range w.shards {
		one := sh.status()
		st.Writing = st.Writing && one.Writing
		st.Complete = st.Complete && one.Complete
		st.Reason = errors.Join(st.Reason, one.Reason)
		if i == 0 || one.Position.Stamp.Less(st.Position.Stamp) {
			st.Position = one.Position
		}
		if i == 0 || one.SeenAt.Before(st.SeenAt) {
			st.SeenAt = one.SeenAt
		}
	}
	return st
}

// checked returns the server's health, asked at most once in half a beat for all
// shards, or why the view must not be written there.
func (w *Writer) checked(ctx context.Context) (Health, error) {
	w.health.Lock()
	defer w.health.Unlock()
	if now := w.cfg.Now(); w.health.at.IsZero() || now.Sub(w.health.at) >= w.cfg.Beat/2 || now.Before(w.health.at) {
		w.health.last, w.health.err = w.store.Health(ctx)
		w.health.at = now
	}
	h, err := w.health.last, w.health.err
	switch {
	case err != nil:
		return h, err
	case !h.Primary:
		return h, errReplica
	case h.Policy != "noeviction":
		return h, fmt.Errorf("%w: maxmemory-policy is %.40q; set it to noeviction", errEvicting, h.Policy)
	}
	return h, nil
}

var (
	errReplica  = errors.New("the Redis server is not a primary: the view is written to primaries only")
	errEvicting = errors.New("the Redis server may evict keys, so the view can't be complete there")
)
