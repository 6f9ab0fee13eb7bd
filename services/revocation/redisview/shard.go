package redisview

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// written is what a writer has put into Redis, or tried to: the meta, and up to
// which place of the recorder the states are there.
type written struct {
	meta  wire.RedisMeta
	raw   string
	place uint64
}

// shard writes one shard. All fields above mu are owned by run.
type shard struct {
	w       *Writer
	n       int
	key     string
	kicked  chan struct{}
	looking chan struct{}

	mine *written // the last write that was answered; nil: somebody else writes
	try  *written // a write whose outcome is not known

	seen   string    // the meta as it was last read, when it was somebody else's
	stands time.Time // since when it is the same
	top    revoke.Stamp
	// evicted is that of the server when the view was last known to be whole. At the
	// start nobody knows when keys were evicted: only 0 is as good as never.
	evicted uint64

	sweep   sweep
	missing deficit
	beside  sync.WaitGroup // of what run started

	mu      sync.Mutex
	st      Status
	applied []appliedAt
	moved   chan struct{} // closed when applied grows
}

func newShard(w *Writer, n int) *shard {
	return &shard{
		w: w, n: n, key: wire.RedisMetaKey(n),
		kicked: make(chan struct{}, 1), looking: make(chan struct{}, 1), moved: make(chan struct{}),
		st: Status{Reason: errors.New("the Redis view has not been looked at yet")},
	}
}

func (s *shard) kick() { poke(s.kicked) }

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (s *shard) run(ctx context.Context) {
	t := time.NewTicker(s.w.cfg.Beat)
	defer t.Stop()
	defer s.beside.Wait()
	s.report(ctx, s.round(ctx))
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.report(ctx, s.round(ctx))
		case <-s.kicked:
			if s.mine == nil {
				continue
			}
			wrote, err := s.flush(ctx)
			if err != nil && s.mine == nil { // lost, and not only unknown
				err = s.round(ctx)
			}
			if wrote {
				s.report(ctx, err)
			}
		case <-s.looking:
			if s.mine == nil {
				s.report(ctx, s.look(ctx))
			}
		}
	}
}

// report keeps why the view is not as it should be, and logs when that changes.
func (s *shard) report(ctx context.Context, err error) {
	if err != nil && ctx.Err() != nil {
		return // it is being stopped
	}
	s.mu.Lock()
	was := s.st.Reason
	s.st.Reason, s.st.Writing = err, s.mine != nil
	s.mu.Unlock()
	switch {
	case err != nil && (was == nil || was.Error() != err.Error()):
		s.w.log.Warn("the Redis view can't be kept; trying again with each beat", zap.Int("shard", s.n), zap.Error(err))
	case err == nil && was != nil:
		s.w.log.Info("the Redis view is kept", zap.Int("shard", s.n), zap.Bool("writing", s.mine != nil))
	}
}

// look reads the meta that somebody else writes, for those who wait for it.
func (s *shard) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.w.cfg.Timeout)
	defer cancel()
	raw, err := s.w.store.Get(ctx, s.key)
	if err != nil {
		return err
	}
	if m, err := wire.ParseRedisMeta(raw); err == nil {
		s.note(m)
	}
	return nil
}

// round is one beat: look at the meta, and do what it asks for.
func (s *shard) round(ctx context.Context) error {
	began := time.Now() // bounds work within a beat, and is compared with nothing else
	if err := s.w.source.Ready(); err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, s.w.cfg.Timeout)
	defer cancel()
	raw, err := s.w.store.Get(short, s.key)
	if err != nil {
		return fmt.Errorf("read the meta: %w", err)
	}
	h, err := s.w.checked(short)
	if errors.Is(err, errEvicting) {
		return errors.Join(err, s.suspend(short, raw))
	}
	if err != nil {
		return err
	}
	m, todo, why := s.classify(raw, h)
	switch todo {
	case doBeat:
		m.Beat++
		if err := s.advance(short, written{meta: m, raw: raw, place: s.mine.place}); err != nil {
			return s.orRebuild(ctx, raw, h, err)
		}
		return s.sweepSome(ctx, began)
	case doTakeOver:
		return s.orRebuild(ctx, raw, h, s.takeOver(short, m, raw))
	case doRebuild:
		return s.rebuild(ctx, raw, h, why)
	}
	return nil
}

// orRebuild rebuilds a view that can't be gone on with; any other error stays.
func (s *shard) orRebuild(ctx context.Context, raw string, h Health, err error) error {
	if errors.Is(err, errDropped) || errors.Is(err, errBelow) || errors.Is(err, errNewer) {
		return s.rebuild(ctx, raw, h, err.Error())
	}
	return err
}

type todo uint8

const (
	doNothing todo = iota
	doBeat
	doTakeOver
	doRebuild
)

// classify decides from the meta as it is in Redis. A meta that is not exactly
// what this writer wrote last, or tried to, is somebody else's, whatever it says.
func (s *shard) classify(raw string, h Health) (wire.RedisMeta, todo, string) {
	m, err := wire.ParseRedisMeta(raw)
	switch {
	case raw == "":
		return m, doRebuild, "its meta is missing"
	case err != nil:
		return m, doRebuild, "its meta can't be read: " + err.Error()
	case m.Shard != s.n || m.Shards != s.w.cfg.Shards:
		return m, doRebuild, fmt.Sprintf("its meta is of shard %d of %d", m.Shard, m.Shards)
	}
	if s.try != nil && s.try.raw == raw {
		s.mine = s.try // it was done, though the answer was lost
	}
	s.try = nil
	if s.mine != nil && s.mine.raw == raw {
		return s.classifyMine(h)
	}
	if s.mine != nil && s.mine.meta.Series == m.Series {
		s.mine = nil
		return m, doRebuild, "its meta went back to an older one of this writer"
	}
	s.mine = nil
	s.note(m)
	switch {
	case m.Position.Stamp.Less(s.top):
		return m, doRebuild, fmt.Sprintf("it went back to %s, after %s", m.Position.Stamp, s.top)
	case raw != s.seen:
		s.seen, s.stands = raw, s.w.cfg.Now()
		return m, doNothing, ""
	case s.w.cfg.Now().Sub(s.stands) < s.w.cfg.Takeover:
		return m, doNothing, ""
	case !m.Complete:
		return m, doRebuild, "its rebuild stands still"
	case h.Evicted != s.evicted:
		return m, doRebuild, "keys were evicted"
	}
	return m, doTakeOver, ""
}

func (s *shard) classifyMine(h Health) (wire.RedisMeta, todo, string) {
	m := s.mine.meta
	switch {
	case !m.Complete:
		return m, doRebuild, "its rebuild was not finished"
	case h.Evicted != s.evicted:
		return m, doRebuild, "keys were evicted"
	case s.missing.shows(s.w, h):
		return m, doRebuild, "keys are missing"
	}
	return m, doBeat, ""
}

// suspend says that a view is not complete, on a server that may evict from it.
func (s *shard) suspend(ctx context.Context, raw string) error {
	m, err := wire.ParseRedisMeta(raw)
	if err != nil || !m.Complete {
		return nil //nolint:nilerr // it is no complete view for anybody
	}
	m.Complete = false
	next := m.String()
	won, err := s.w.store.Swap(ctx, s.key, raw, next, nil)
	if won && s.mine != nil {
		s.mine = &written{meta: m, raw: next}
	}
	s.setComplete(false)
	return err
}

// head returns what has come from place on, up to a tick that was asked for now
// and is applied.
func (s *shard) head(ctx context.Context, place uint64) (news, error) {
	tick, err := s.w.source.Tick(ctx, true)
	if err != nil {
		return news{}, fmt.Errorf("ask for the log's head: %w", err)
	}
	if err := s.w.source.WaitApplied(ctx, tick.Stamp); err != nil {
		return news{}, err
	}
	// Another message may stand there if the log went back meanwhile.
	if has, known := s.w.source.Holds(tick); !has || !known {
		return news{}, fmt.Errorf("the tick at %s is not in the log", tick.Stamp)
	}
	if err := s.w.rec.observed(ctx, tick.Stamp); err != nil {
		return news{}, err
	}
	n, ok := s.w.rec.since(place)
	if !ok {
		return n, errDropped
	}
	return n, nil
}

// Why a view can't be gone on with, and is rebuilt.
var (
	errDropped = errors.New("more targets changed than are remembered")
	errBelow   = errors.New("its meta is above the head of the log")
	errNewer   = errors.New("the log is in a new epoch")
)

// advance writes what has come since base.place, and base.meta with the new
// position, if Redis still has base.raw.
func (s *shard) advance(ctx context.Context, base written) error {
	expected := s.w.source.View().Len()
	n, err := s.head(ctx, base.place)
	if err != nil {
		return err
	}
	if n.at.Stamp.Less(base.meta.Position.Stamp) {
		return errBelow // judged by the rebuild
	}
	if n.at.Epoch != base.meta.Position.Epoch {
		return errNewer
	}
	if err := s.put(ctx, base, n); err != nil {
		return err
	}
	s.missing.expect(expected)
	return nil
}

// put is the one write of states and meta: compare-and-set from base.raw.
func (s *shard) put(ctx context.Context, base written, n news) error {
	next := written{meta: base.meta, place: n.end}
	next.meta.Position, next.meta.Stamp = n.at, n.stamp
	next.meta.Epochs = s.w.source.View().Epochs()
	if next.meta.Epochs.Current().Number != n.at.Epoch {
		return fmt.Errorf("the view is between epochs %d and %d", next.meta.Epochs.Current().Number, n.at.Epoch)
	}
	next.raw = next.meta.String()
	entries := s.entries(n.keys)
	for len(entries) > s.w.cfg.Batch {
		won, err := s.swap(ctx, base.raw, "", entries[:s.w.cfg.Batch])
		if err != nil || !won {
			return s.lost(err)
		}
		entries = entries[s.w.cfg.Batch:]
	}
	s.try = &next
	won, err := s.swap(ctx, base.raw, next.raw, entries)
	if err != nil {
		return s.lost(err)
	}
	s.try = nil
	if !won {
		return s.lost(nil)
	}
	s.mine = &next
	s.note(next.meta)
	return nil
}

func (s *shard) swap(ctx context.Context, old, next string, entries []Entry) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.w.cfg.Timeout)
	defer cancel()
	return s.w.store.Swap(ctx, s.key, old, next, entries)
}

// lost says why a write was not done, or not known to be. The next round reads
// the meta and decides anew.
func (s *shard) lost(err error) error {
	if err != nil {
		return fmt.Errorf("write the view: %w", err)
	}
	s.mine = nil
	return errors.New("somebody else wrote the view's meta")
}

// entries are the states of the keys, without those that have come to their end.
func (s *shard) entries(keys []revoke.Key) []Entry {
	out := make([]Entry, 0, len(keys))
	view, now := s.w.source.View(), s.w.cfg.Now().Unix()
	prefix := wire.RedisTargetPrefix(s.n)
	var buf []byte
	for _, k := range keys {
		state := view.State(k)
		end := state.Until + int64(wire.Slack/time.Second)
		if end <= now {
			continue
		}
		buf = wire.AppendRedisState(buf[:0], state)
		out = append(out, Entry{Key: prefix + k.String(), Value: string(buf), ExpireAt: end})
	}
	return out
}

// flush writes what has come since the last write, without a beat, and reports whether
// there was anything that it might write.
func (s *shard) flush(ctx context.Context) (wrote bool, err error) {
	if s.try != nil || !s.mine.meta.Complete || s.w.source.Ready() != nil {
		return false, nil // the next round decides
	}
	n, ok := s.w.rec.since(s.mine.place)
	if !ok || !s.mine.meta.Position.Stamp.Less(n.at.Stamp) || n.at.Epoch != s.mine.meta.Position.Epoch {
		return false, nil
	}
	return true, s.put(ctx, *s.mine, n)
}

// takeOver goes on from somebody else's meta if all that came after its position
// is remembered here and the log has that position; otherwise it rebuilds.
func (s *shard) takeOver(ctx context.Context, m wire.RedisMeta, raw string) error {
	has, known := s.w.source.Holds(m.Position)
	place, ok := s.w.rec.after(m.Position.Stamp)
	if !has || !known || !ok {
		return fmt.Errorf("%w: its writer stands still at %s", errDropped, m.Position.Stamp)
	}
	series, err := wire.NewID(s.w.cfg.Rand)
	if err != nil {
		return err
	}
	m.Series, m.Beat = series, 1
	if err := s.advance(ctx, written{meta: m, raw: raw, place: place}); err != nil {
		return err
	}
	s.sweep.start(s.w.cfg.Now())
	s.w.log.Info("took the Redis view over from a writer that stands still", zap.Int("shard", s.n))
	return nil
}
