package denylist

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// ErrIncomplete is why the view can't say that something is not revoked.
var ErrIncomplete = errors.New("the Redis view is not complete")

// ErrBehind is an ErrIncomplete that may pass by itself within moments: the
// view is whole, and below the token's stamp. Wait a little and check again.
var ErrBehind = fmt.Errorf("%w: behind the token's stamp", ErrIncomplete)

// ConnID names the connection that answered. Two TCP connections never have one
// ConnID, and neither do two servers.
type ConnID struct {
	Number uint64
	Addr   string
}

// Conn is one connection to the view's server, dialled again when it breaks.
// It is used by one caller at a time.
type Conn interface {
	// MGet reads keys, all of one shard, in one round trip; nil for a missing one.
	MGet(ctx context.Context, keys []string) (values []any, conn ConnID, err error)
	// Primary returns an error unless the server of the shard is a primary.
	Primary(ctx context.Context, shard int) error
	Close() error
}

// Config is what a Reader can be told. The zero value is good.
type Config struct {
	// Shards is N of the deployment, which is fixed for its life. Default 1.
	Shards int
	// Limit is the staleness past which the view is incomplete. Default and
	// largest useful value: wire.RedisLimit; receipts count on it, so a longer
	// one is refused.
	Limit time.Duration
	// Poll is how often the beat is looked at. Default 250 ms; a proof is as old
	// as two beats and one poll.
	Poll time.Duration
	// Timeout bounds one read of the poller, and of a Check whose context has no
	// deadline. Default 1 s.
	Timeout time.Duration
	// Conns is how many connections Open makes. Default 4.
	Conns int
	Now   func() time.Time // the wall clock; default time.Now
	Log   *zap.Logger      // nil: none
}

func (c *Config) defaults() error {
	if c.Shards == 0 {
		c.Shards = 1
	}
	if c.Limit == 0 {
		c.Limit = wire.RedisLimit
	}
	if c.Poll == 0 {
		c.Poll = 250 * time.Millisecond
	}
	if c.Timeout == 0 {
		c.Timeout = time.Second
	}
	if c.Conns == 0 {
		c.Conns = 4
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	var errs []error
	if c.Shards < 1 || c.Shards > wire.MaxRedisShards {
		errs = append(errs, fmt.Errorf("denylist: Shards %d: want 1 to %d", c.Shards, wire.MaxRedisShards))
	}
	if c.Limit < 0 || c.Limit > wire.RedisLimit {
		errs = append(errs, fmt.Errorf("denylist: Limit %s: want more than 0 and at most %s, by which receipts say that the view is fenced", c.Limit, wire.RedisLimit))
	}
	if c.Poll < 0 || c.Timeout < 0 || c.Conns < 0 {
		errs = append(errs, errors.New("denylist: Poll, Timeout and Conns can't be negative"))
	}
	return errors.Join(errs...)
}

// Outcome is what the view says. The zero Outcome says nothing.
type Outcome uint8

// The outcomes.
const (
	Incomplete Outcome = iota // it can't tell; the error says why
	Clean                     // none of the targets is revoked, as of Staleness ago at most
	Hit                       // Key is revoked, whatever else is wrong with the view
)

func (o Outcome) String() string {
	switch o {
	case Clean:
		return "clean"
	case Hit:
		return "hit"
	}
	return "incomplete"
}

// Query is what is asked about one token. With neither Foreign nor HoldsOnly
// its Stamp decides what a cut hits.
type Query struct {
	Tenant string
	Keys   []revoke.Key
	Stamp  revoke.Stamp // the token's rseq

	// Foreign is set for a token of a foreign issuer, which has no stamp.
	Foreign  bool
	IssuedAt int64 // its iat, Unix milliseconds
	Skew     int64 // what is allowed to its issuer's clock, milliseconds

	// HoldsOnly is set for what has neither: a principal, client or tenant itself.
	HoldsOnly bool
}

func (q *Query) hits(s revoke.State, es revoke.Epochs) bool {
	switch {
	case q.HoldsOnly:
		return s.Blocked(es)
	case q.Foreign:
		return s.HitsAt(q.IssuedAt, q.Skew, es)
	}
	return s.Hits(q.Stamp, es)
}

// Result is an answer. Its zero value is Incomplete.
type Result struct {
	Outcome Outcome
	// Of a hit: the first key that hits, its place in Query.Keys and its state.
	Key   revoke.Key
	Index int
	State revoke.State
	// Position is up to where the view holds the log, zero if it can't be told.
	Position wire.Position
	// Staleness is how old the view is at most, and Epochs the histories of the log
	// that it knows; only of a complete view.
	Staleness time.Duration
	Epochs    revoke.Epochs
}

// Reader reads the view. Make it with Open or New, and Run it.
type Reader struct {
	cfg    Config
	base   time.Time // of the monotonic clock; its wall reading is not used
	lanes  []*lane
	next   atomic.Uint64
	shards []*shard
}

// New returns a Reader over connections of its own, which it closes when Run
// ends. Open is the usual way.
func New(conns []Conn, cfg Config) (*Reader, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	if len(conns) == 0 {
		return nil, errors.New("denylist: no connection")
	}
	r := &Reader{cfg: cfg, base: time.Now()}
	for range cfg.Shards {
		r.shards = append(r.shards, &shard{why: errNotRead})
	}
	for _, c := range conns {
		r.lanes = append(r.lanes, newLane(c, cfg.Shards))
	}
	return r, nil
}

// Know tells the Reader a position of the log that its owner has learnt
// elsewhere (from the feed, say): a view below it is incomplete from now on.
func (r *Reader) Know(s revoke.Stamp) {
	for _, sh := range r.shards {
		sh.raise(wire.Position{Stamp: s}, nil)
	}
}

// Check reads the targets and the meta in one round trip. The error is nil for
// Clean and Hit. Otherwise the Outcome is Incomplete, and the error is an
// ErrIncomplete, or says why Redis could not be asked.
func (r *Reader) Check(ctx context.Context, q Query) (Result, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.cfg.Timeout)
		defer cancel()
	}
	n := wire.RedisShard(q.Tenant, r.cfg.Shards)
	l, err := r.lane(ctx, n)
	if err != nil {
		return Result{}, err
	}
	defer l.release()
	a, err := r.read(ctx, l, n, wire.RedisKeys(n, q.Keys))
	if err != nil {
		return Result{}, err
	}
	return r.judge(n, &q, a)
}

// judge holds an answer against the query: first whether anything hits, which
// counts in any view; then whether the view may say that nothing does.
func (r *Reader) judge(n int, q *Query, a answer) (Result, error) {
	res := Result{Position: a.meta.Position}
	epochs := a.meta.Epochs
	if a.why != nil {
		// Fewer epochs only make fewer hits: those that are left are true.
		epochs = r.shards[n].knownEpochs()
	}
	why := a.why
	for i, v := range a.values {
		if v == nil {
			continue
		}
		s, err := parseState(v)
		if err != nil {
			why = errors.Join(why, fmt.Errorf("%w: the value of target %s was not written by a writer that this reader knows", ErrIncomplete, q.Keys[i]))
			continue
		}
		if q.hits(s, epochs) {
			res.Outcome, res.Key, res.Index, res.State = Hit, q.Keys[i], i, s
			return res, nil
		}
	}
	if why != nil {
		return res, why
	}
	if !q.Foreign && !q.HoldsOnly && a.meta.Position.Stamp.Less(epochs.Clamp(q.Stamp)) {
		return res, fmt.Errorf("%w %s: it is at %s", ErrBehind, q.Stamp, a.meta.Position.Stamp)
	}
	res.Outcome, res.Staleness, res.Epochs = Clean, a.staleness, epochs
	return res, nil
}

func parseState(v any) (revoke.State, error) {
	text, ok := v.(string)
	if !ok {
		return revoke.State{}, fmt.Errorf("redis state is a %T", v)
	}
	return wire.ParseRedisState(text)
}

// lane returns one that is free, or waits for one. The caller releases it. One
// that has just been dialled has seen no beat yet: it is asked only if all are so.
func (r *Reader) lane(ctx context.Context, n int) (*lane, error) {
	start := int(r.next.Add(1) % uint64(len(r.lanes)))
	var waitFor *lane
	for i := range r.lanes {
		l := r.lanes[(start+i)%len(r.lanes)]
		if !l.proved[n].Load() {
			continue
		}
		if l.try() {
			return l, nil
		}
		if waitFor == nil {
			waitFor = l
		}
	}
	if waitFor == nil {
		waitFor = r.lanes[start]
	}
	return waitFor, waitFor.acquire(ctx)
}

// Run looks at the beat of every shard on every connection until ctx ends, so
// that a Check finds the proof of freshness there already; then it closes the
// connections.
func (r *Reader) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, l := range r.lanes {
		wg.Go(func() { r.poll(ctx, l) })
	}
	wg.Wait()
	var errs []error
	for _, l := range r.lanes {
		errs = append(errs, l.conn.Close())
	}
	return errors.Join(errs...)
}

func (r *Reader) poll(ctx context.Context, l *lane) {
	t := time.NewTicker(r.cfg.Poll)
	defer t.Stop()
	for {
		for n := range r.shards {
			r.look(ctx, l, n)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// look reads the meta of one shard on one connection.
func (r *Reader) look(ctx context.Context, l *lane, n int) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	if l.acquire(ctx) != nil {
		return
	}
	defer l.release()
	if err := l.conn.Primary(ctx, n); err != nil {
		l.forget(n)
		r.note(ctx, l, n, fmt.Errorf("%w: %w", ErrIncomplete, err), 0)
		return
	}
	a, err := r.read(ctx, l, n, []string{wire.RedisMetaKey(n)})
	if err == nil {
		err = a.why
	}
	r.note(ctx, l, n, err, a.staleness)
}
