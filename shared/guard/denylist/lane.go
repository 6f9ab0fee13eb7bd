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

var errNotRead = fmt.Errorf("%w: it has not been read yet", ErrIncomplete)

// lane is one connection and what was seen on it, by shard.
type lane struct {
	conn   Conn
	busy   chan struct{} // holds one token while somebody uses the lane
	tracks []track       // owned by whoever holds busy
	metas  []parsed      // likewise
	proved []atomic.Bool // by shard: the last read found the view complete
}

func newLane(c Conn, shards int) *lane {
	return &lane{
		conn: c, busy: make(chan struct{}, 1), tracks: make([]track, shards), metas: make([]parsed, shards), proved: make([]atomic.Bool, shards),
	}
}

func (l *lane) try() bool {
	select {
	case l.busy <- struct{}{}:
		return true
	default:
		return false
	}
}

func (l *lane) acquire(ctx context.Context) error {
	select {
	case l.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: no free connection to Redis: %w", ErrIncomplete, ctx.Err())
	}
}

func (l *lane) release() { <-l.busy }

func (l *lane) forget(n int) {
	l.tracks[n] = track{}
	l.proved[n].Store(false)
}

// answer is one MGET: the meta, why it is no proof of a complete view (if so),
// and the raw values of the targets.
type answer struct {
	meta      wire.RedisMeta
	values    []any
	why       error
	staleness time.Duration
}

// read asks for the meta, keys[0], and targets. The floor and the time are taken
// before the question leaves: what others learn meanwhile says nothing against
// this answer, and the view may be as old as the question.
func (r *Reader) read(ctx context.Context, l *lane, n int, keys []string) (answer, error) {
	if l.tracks[n].conn == (ConnID{}) {
		// What a replica says is old. The poller asks for the role too, and may come later
		// than the beats that make the view complete here.
		if err := l.conn.Primary(ctx, n); err != nil {
			l.forget(n)
			return answer{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
		}
	}
	sh := r.shards[n]
	floor := sh.known()
	before := r.now()
	values, conn, err := l.conn.MGet(ctx, keys)
	if err != nil {
		l.forget(n)
		return answer{}, fmt.Errorf("%w: Redis was not read: %w", ErrIncomplete, err)
	}
	if len(values) != len(keys) {
		l.forget(n)
		return answer{}, fmt.Errorf("%w: Redis answered %d values to %d keys", ErrIncomplete, len(values), len(keys))
	}
	a := answer{values: values[1:]}
	meta, err := r.meta(l, n, values[0])
	if err != nil {
		l.forget(n)
		a.why = err
		return a, nil
	}
	a.meta = meta
	if a.why = judgeMeta(meta, floor); a.why != nil {
		l.forget(n)
		return a, nil
	}
	if last := l.tracks[n].conn; last != (ConnID{}) && last != conn {
		l.forget(n)
		return r.read(ctx, l, n, keys) // once: whoever answers now is asked for its role first
	}
	sh.raise(meta.Position, meta.Epochs)
	proved, ok := l.tracks[n].see(meta, conn, before)
	if !ok {
		l.proved[n].Store(false)
		a.why = fmt.Errorf("%w: its beat has not been watched for long enough", ErrIncomplete)
		return a, nil
	}
	if a.staleness = r.now().since(proved); a.staleness > r.cfg.Limit {
		a.why = fmt.Errorf("%w: its beat stands still, it may be %s old", ErrIncomplete, a.staleness.Round(time.Millisecond))
	}
	l.proved[n].Store(a.why == nil)
	return a, nil
}

// parsed is a meta that was read, and its text: it changes once a beat, and reading it
// costs more than all else that is done with an answer.
type parsed struct {
	text string
	meta wire.RedisMeta
}

func (r *Reader) meta(l *lane, n int, v any) (wire.RedisMeta, error) {
	if v == nil {
		return wire.RedisMeta{}, fmt.Errorf("%w: its meta %s is missing", ErrIncomplete, wire.RedisMetaKey(n))
	}
	text, ok := v.(string)
	if !ok {
		return wire.RedisMeta{}, fmt.Errorf("%w: its meta is a %T", ErrIncomplete, v)
	}
	last := &l.metas[n]
	if text == last.text && text != "" {
		return last.meta, nil
	}
	m, err := wire.ParseRedisMeta(text)
	if err != nil {
		return wire.RedisMeta{}, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	if m.Shard != n || m.Shards != r.cfg.Shards {
		return wire.RedisMeta{}, fmt.Errorf("%w: its meta is of shard %d of %d, not %d of %d", ErrIncomplete, m.Shard, m.Shards, n, r.cfg.Shards)
	}
	*last = parsed{text, m}
	return m, nil
}

// judgeMeta holds a meta against what the reader knew before it asked.
func judgeMeta(m wire.RedisMeta, floor wire.Position) error {
	switch {
	case !m.Complete:
		return fmt.Errorf("%w: it is being rebuilt", ErrIncomplete)
	case m.Position.Epoch < floor.Epoch:
		return fmt.Errorf("%w: it is in epoch %d, and epoch %d is known", ErrIncomplete, m.Position.Epoch, floor.Epoch)
	case m.Position.Stamp.Less(floor.Stamp):
		return fmt.Errorf("%w: it is at %s, and %s is known", ErrIncomplete, m.Position.Stamp, floor.Stamp)
	case m.Position.Stamp == floor.Stamp && floor.ID != "" && m.Position.ID != floor.ID:
		return fmt.Errorf("%w: another message than known is at %s", ErrIncomplete, floor.Stamp)
	}
	return nil
}

// sight is a beat, and the last time before whose read it was still the newest.
type sight struct {
	beat uint64
	at   instant
}

// track is what was seen of a shard's beat on one connection. Anything but the
// same series of the same generation on the same connection, counting up,
// starts it anew: another connection may lead to a server that is behind.
type track struct {
	conn       ConnID
	generation string
	series     string
	seen       []sight // ascending, the last few
}

// see takes in what a read that began at before has shown. It returns the time
// to which the view is proved to reach: all that was committed before it is in.
//
// Beat j was the newest at t1, so j+1 was written after t1; the tick that j+2
// stands for was asked for after that, so it is above all committed before t1.
func (t *track) see(m wire.RedisMeta, conn ConnID, before instant) (proved instant, ok bool) {
	last := len(t.seen) - 1
	if last < 0 || t.conn != conn || t.generation != m.Generation || t.series != m.Series || m.Beat < t.seen[last].beat {
		*t = track{conn: conn, generation: m.Generation, series: m.Series, seen: []sight{{m.Beat, before}}}
		return instant{}, false
	}
	for _, s := range t.seen {
		if m.Beat >= 2 && s.beat <= m.Beat-2 {
			proved, ok = s.at, true
		}
	}
	if t.seen[last].beat == m.Beat {
		t.seen[last].at = before
	} else {
		t.seen = append(t.seen, sight{m.Beat, before})
	}
	// Of four distinct beats the oldest but one is two below the newest.
	if n := len(t.seen); n > 4 {
		t.seen = append(t.seen[:0], t.seen[n-4:]...)
	}
	return proved, ok
}

// instant is one moment on both clocks of this machine.
type instant struct {
	wall time.Time     // without its monotonic reading
	mono time.Duration // since the reader was made
}

// now reads both clocks. The monotonic one is not taken from Config.Now, whose
// answer may have lost it (UTC and Round strip it): a wall clock that is set back
// would make a view fresh that stands still.
func (r *Reader) now() instant {
	return instant{wall: r.cfg.Now().Round(0), mono: time.Since(r.base)}
}

// since is how long ago earlier was by the monotonic or the wall clock, whichever
// says more: machines sleep, and the monotonic clock may sleep with them.
func (i instant) since(earlier instant) time.Duration {
	return max(i.mono-earlier.mono, i.wall.Sub(earlier.wall))
}

// shard is what the reader knows of a shard from all its connections.
type shard struct {
	mu        sync.Mutex
	floor     wire.Position
	epochs    revoke.Epochs
	why       error // of the last look of the poller
	staleness time.Duration
	lookedAt  instant
}

func (s *shard) known() wire.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.floor
}

func (s *shard) knownEpochs() revoke.Epochs {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epochs
}

func (s *shard) raise(p wire.Position, es revoke.Epochs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.floor.Stamp.Less(p.Stamp) || s.floor.Stamp == p.Stamp && s.floor.ID == "" {
		s.floor = p
	}
	if es.Current().Number >= s.epochs.Current().Number && es != nil {
		s.epochs = es
	}
}

// note keeps what the poller found on one connection. The view is complete if it
// is so on any: Check asks there.
func (r *Reader) note(ctx context.Context, l *lane, n int, why error, staleness time.Duration) {
	if ctx.Err() != nil && errors.Is(why, context.Canceled) {
		return // the reader is being stopped
	}
	if why != nil {
		for _, other := range r.lanes {
			if other != l && other.proved[n].Load() {
				return
			}
		}
	}
	sh := r.shards[n]
	sh.mu.Lock()
	was := sh.why
	sh.why, sh.staleness, sh.lookedAt = why, staleness, r.now()
	sh.mu.Unlock()
	switch {
	case was != nil && why == nil:
		r.cfg.Log.Info("the Redis view is complete", zap.Int("shard", n), zap.Duration("staleness", staleness))
	case was == nil && why != nil:
		r.cfg.Log.Warn("the Redis view can't be used", zap.Int("shard", n), zap.Error(why))
	}
}

// Status is what the poller found last.
type Status struct {
	Complete  bool
	Reason    error         // why it is not complete
	Staleness time.Duration // of the stalest shard, if complete
	Position  wire.Position // of the shard that is furthest behind
}

// Status returns the state of all shards together. It asks nobody.
func (r *Reader) Status() Status {
	now := r.now()
	st := Status{Complete: true}
	for i, sh := range r.shards {
		sh.mu.Lock()
		why, age, floor := sh.why, sh.staleness+now.since(sh.lookedAt), sh.floor
		sh.mu.Unlock()
		if why == nil && age > r.cfg.Limit {
			why = fmt.Errorf("%w: it has not been looked at for %s", ErrIncomplete, age.Round(time.Millisecond))
		}
		if why != nil && st.Reason == nil {
			st.Complete, st.Reason = false, fmt.Errorf("shard %d: %w", i, why)
		}
		st.Staleness = max(st.Staleness, age)
		if i == 0 || floor.Stamp.Less(st.Position.Stamp) {
			st.Position = floor
		}
	}
	if !st.Complete {
		st.Staleness = 0
	}
	return st
}
