package redisview

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

var errWentBack = errors.New("the Redis view stands above the log: the log went back; waiting for its new epoch")

// rebuild writes the view anew under a generation of its own, which it claims in
// the meta first: until the last write the meta says that it is not complete.
func (s *shard) rebuild(ctx context.Context, raw string, h Health, why string) error {
	s.setComplete(false)
	s.mine, s.try = nil, nil
	claim, err := s.claim(ctx, raw)
	if err != nil {
		return err
	}
	began := time.Now() // for the log line
	s.w.log.Info("rebuilding the Redis view", zap.Int("shard", s.n), zap.String("because", why))
	// What is merged from here on is recorded from this place on.
	claim.place = s.w.rec.end()
	keys := keysOf(s.w.source.View())
	for len(keys) > 0 {
		n := min(len(keys), s.w.cfg.Batch)
		next := claim
		next.meta.Beat++ // other writers see that this one is alive
		next.raw = next.meta.String()
		won, err := s.swap(ctx, claim.raw, next.raw, s.entries(keys[:n]))
		if err != nil || !won {
			return s.lost(err)
		}
		claim, keys = next, keys[n:]
	}
	if claim.meta.Series, err = wire.NewID(s.w.cfg.Rand); err != nil {
		return err
	}
	claim.meta.Beat, claim.meta.Complete = 1, true
	n, err := s.head(ctx, claim.place)
	if err != nil {
		return fmt.Errorf("finish the rebuild: %w", err)
	}
	if err := s.put(ctx, claim, n); err != nil {
		return err
	}
	s.evicted = h.Evicted
	s.top = n.at.Stamp
	s.missing.rebuilt()
	s.sweep.start(s.w.cfg.Now())
	s.w.log.Info("the Redis view is rebuilt", zap.Int("shard", s.n), zap.Duration("took", time.Since(began)))
	return nil
}

// claim puts a new, unfinished generation into the meta.
func (s *shard) claim(ctx context.Context, raw string) (written, error) {
	short, cancel := context.WithTimeout(ctx, s.w.cfg.Timeout)
	defer cancel()
	n, err := s.head(short, s.w.rec.end())
	if err != nil {
		return written{}, err
	}
	if old, err := wire.ParseRedisMeta(raw); err == nil {
		if err := s.judgeOld(old, n); err != nil {
			return written{}, err
		}
	}
	m := wire.RedisMeta{
		Shard: s.n, Shards: s.w.cfg.Shards, Position: n.at, Stamp: n.stamp, Beat: 1,
		Epochs: s.w.source.View().Epochs(),
	}
	if m.Epochs.Current().Number != n.at.Epoch {
		return written{}, fmt.Errorf("the view is between epochs %d and %d", m.Epochs.Current().Number, n.at.Epoch)
	}
	if m.Generation, err = wire.NewID(s.w.cfg.Rand); err != nil {
		return written{}, err
	}
	if m.Series, err = wire.NewID(s.w.cfg.Rand); err != nil {
		return written{}, err
	}
	c := written{meta: m, raw: m.String()}
	won, err := s.swap(short, raw, c.raw, nil)
	if err != nil || !won {
		return written{}, s.lost(err)
	}
	return c, nil
}

// judgeOld holds the meta that is about to be replaced against the log: it may
// be proof that the log went back. What Redis holds and the log lacks is the
// ledger's to read, before it is ready in its new epoch.
func (s *shard) judgeOld(old wire.RedisMeta, n news) error {
	has, known := s.w.source.Holds(old.Position)
	if n.at.Stamp.Less(old.Position.Stamp) || old.Position.Epoch == n.at.Epoch && known && !has {
		// When nobody sees to it the view is rebuilt; readers that knew the meta
		// stay incomplete until the log has passed it.
		if s.w.cfg.Proof != nil && s.w.cfg.Proof(old.Position, old.Epochs) {
			return errWentBack
		}
	}
	return nil
}

// keysOf copies the keys only: nobody waits for Redis with the view in hand.
func keysOf(v *revoke.View) []revoke.Key {
	keys := make([]revoke.Key, 0, v.Len())
	v.All(func(k revoke.Key, _ revoke.State) bool {
		keys = append(keys, k)
		return true
	})
	return keys
}

// sweep writes everything again now and then, a part in each beat: it mends what
// a stranger changed.
type sweep struct {
	last    time.Time
	keys    []revoke.Key
	garbage chan []string // answers a search for values that nobody can read; nil: none goes on
}

func (sw *sweep) start(now time.Time) { *sw = sweep{last: now} }

// sweepSome goes on with the sweep for what is left of half a beat.
func (s *shard) sweepSome(ctx context.Context, began time.Time) error {
	sw := &s.sweep
	if err := s.scrub(ctx); err != nil {
		return err
	}
	if len(sw.keys) == 0 && s.w.cfg.Now().Sub(sw.last) >= s.w.cfg.Sweep {
		sw.last, sw.keys = s.w.cfg.Now(), keysOf(s.w.source.View())
		if sw.garbage == nil {
			found := make(chan []string, 1)
			sw.garbage = found
			s.beside.Go(func() { found <- s.findGarbage(ctx) })
		}
	}
	for len(sw.keys) > 0 && time.Since(began) < s.w.cfg.Beat/2 {
		n := min(len(sw.keys), s.w.cfg.Batch)
		won, err := s.swap(ctx, s.mine.raw, "", s.entries(sw.keys[:n]))
		if err != nil || !won {
			return s.lost(err)
		}
		sw.keys = sw.keys[n:]
	}
	return nil
}

// scrub mends the values that a search has found which nobody can read: they
// make their tokens incomplete. It writes what the log says of the target, and
// removes what it says nothing of.
func (s *shard) scrub(ctx context.Context) error {
	var found []string
	select {
	case found = <-s.sweep.garbage: // nil: never
		s.sweep.garbage = nil
	default:
		return nil
	}
	var entries []Entry
	for _, key := range found {
		e := []Entry{{Key: key}}
		if k, err := wire.ParseRedisTargetKey(s.n, key); err == nil {
			if now := s.entries([]revoke.Key{k}); len(now) > 0 {
				e = now
			}
		}
		entries = append(entries, e...)
	}
	if len(entries) == 0 {
		return nil
	}
	won, err := s.swap(ctx, s.mine.raw, "", entries)
	if err != nil || !won {
		return s.lost(err)
	}
	s.w.log.Warn("mended values of the Redis view that no writer of ours wrote", zap.Int("shard", s.n), zap.Int("count", len(entries)))
	return nil
}

// findGarbage finds at most one batch. It runs beside the beats.
func (s *shard) findGarbage(ctx context.Context) []string {
	var out []string
	err := s.w.store.Scan(ctx, wire.RedisTargetPrefix(s.n), func(key, value string) bool {
		_, err1 := wire.ParseRedisTargetKey(s.n, key)
		_, err2 := wire.ParseRedisState(value)
		if err1 != nil || err2 != nil {
			out = append(out, key)
		}
		return len(out) < s.w.cfg.Batch
	})
	if err != nil && ctx.Err() == nil {
		s.w.log.Warn("the Redis view could not be read through", zap.Int("shard", s.n), zap.Error(err))
	}
	return out
}

// deficit holds the number of keys in the database against what must be there:
// everything that was in the service's view before the last beat's tick was
// asked for. Keys of others in the same database hide a deficit, and never make
// one.
type deficit struct {
	expected  int64 // keys of one shard after the last beat; 0: not known
	tolerated int64 // what the count lacked right after a rebuild
	learn     bool
	times     int
}

func (d *deficit) rebuilt() { *d = deficit{learn: true} }

func (d *deficit) expect(states int) { d.expected = int64(states) + 1 }

// shows reports whether keys are missing for the second time in a row: the count
// is of a moment shortly before the meta was read.
func (d *deficit) shows(w *Writer, h Health) bool {
	if d.expected == 0 || !w.Status().Complete {
		return false
	}
	lacks := d.expected*int64(w.cfg.Shards) - h.Keys
	if d.learn {
		d.learn, d.tolerated = false, max(lacks, 0)
	}
	if lacks <= d.tolerated {
		d.times = 0
		return false
	}
	d.times++
	return d.times > 1
}
