package ledger

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// recommitAtOnce is how many entries are committed again at the same time.
const recommitAtOnce = 16

// memory is what is kept beside the view over a new epoch, to judge what the
// log lacks by what was known before.
type memory struct {
	epochs revoke.Epochs            // before the new one
	holds  map[revoke.Key]timedHold // the newest hold by target, if it has an end
	redis  map[revoke.Key]revoke.State
	// before has what was known of targets that the log has cut again since, or whose
	// holds it has released: a state keeps the newest cut alone, and the log's may end
	// sooner; and who committed the release again may not have known the newest hold.
	before map[revoke.Key]revoke.State
}

// timedHold is a hold that the service ends.
type timedHold struct {
	first revoke.Stamp
	end   int64
	then  string
}

// overtaken notes what is known of a target before a state of the log is merged into it.
func (m *memory) overtaken(k revoke.Key, known, next revoke.State) {
	cut := !known.Cut.IsZero() && known.Cut.Less(next.Cut)
	held := m.epochs.Clamp(known.Released).Less(known.Held) && known.Released.Less(next.Released)
	if _, ok := m.before[k]; !ok && (cut || held) {
		m.before[k] = known
	}
}

// remember keeps what is about to be replaced, unless something is owed already.
func (l *Ledger) remember() {
	if l.owed != nil {
		return
	}
	m := &memory{epochs: l.view.Epochs(), holds: map[revoke.Key]timedHold{}, before: map[revoke.Key]revoke.State{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.ring.len() {
		s, err := l.ring.at(i).stored()
		if err != nil {
			continue
		}
		for k, st := range s.Message.States(s.Position().Stamp) {
			switch {
			case st.Held.IsZero():
			case s.Message.HoldEnd == 0:
				delete(m.holds, k) // one without an end is not ended by that of another
			default:
				m.holds[k] = timedHold{st.Held, s.Message.HoldEnd, s.Message.Then}
			}
		}
	}
	l.owed = m
}

// rememberTries and rememberPause are how often Redis is asked, and how long one
// that fails over is waited for: then the log goes on without it.
const (
	rememberTries = 10
	rememberPause = 500 * time.Millisecond
)

// addRemembered reads what Redis holds.
func (l *Ledger) addRemembered(ctx context.Context, m *memory) error {
	if l.cfg.Remembered == nil {
		return nil
	}
	if m.redis == nil { // what a try before this one has read counts too
		m.redis = map[revoke.Key]revoke.State{}
	}
	most := l.latestEpoch()
	var err error
	for try := range rememberTries {
		if try > 0 && !pause(ctx, rememberPause) {
			break
		}
		err = l.cfg.Remembered(ctx, func(k revoke.Key, s revoke.State) bool {
			// No writer has written another one, and it could not be committed.
			if newestEpoch(s) <= most && s.Until > 0 && (s.Cut.IsZero() || s.CutAt > 0) {
				m.redis[k] = m.redis[k].Merge(s)
			}
			return ctx.Err() == nil
		})
		if err == nil {
			break
		}
	}
	if err != nil {
		// Redis is a view: without it the log is as good as memory makes it.
		l.log.Warn("Redis could not be read for the new epoch; what only it remembers stays lost", zap.Error(err))
	}
	return ctx.Err()
}

// aboveLog returns an error if an epoch above the log's is known, here or to Redis: the log
// has lost it, and nothing of it can be said again before there is one above.
func (l *Ledger) aboveLog(m *memory) error {
	for _, s := range m.redis {
		l.newest = max(l.newest, newestEpoch(s))
	}
	if l.newest <= l.Epoch() {
		return nil
	}
	l.wentBack(fmt.Sprintf("the epoch %d, which is remembered, is not in the log", l.newest))
	return errWentBack
}

// lost is one statement about targets that the log lacks; those with the same
// statement go into one entry.
type lost struct {
	op        string
	at        revoke.Stamp // where it stood; zero of a hold that is made anew
	upTo      revoke.Stamp // of a release: the newest hold that is known to be older
	cutAt     int64
	until     int64
	holdEnd   int64
	then      string
	fromRedis bool
}

// recommit commits again, under the current epoch, what memory and Redis hold
// and the log lacks: cuts, ends, holds that were not released, and releases of
// those that would count again.
func (l *Ledger) recommit(ctx context.Context, m *memory) error {
	return l.commitMissing(ctx, l.missing(m))
}

func (l *Ledger) missing(m *memory) *judge {
	j := l.newJudge(m)
	for k, s := range l.view.All {
		j.hear(k, s, false)
	}
	for k, s := range m.before {
		j.hear(k, s, false)
	}
	for k, s := range m.redis {
		if known := l.view.State(k); known.Merge(s) != known {
			j.hear(k, s, true)
		}
	}
	return j
}

// finishEpoch commits again what Redis holds and the log lacks, at a start soon
// after an epoch began: the first one of a log that was lost, or whoever began it
// may have died before it was done.
func (l *Ledger) finishEpoch(ctx context.Context) error {
	epochs := l.view.Epochs()
	young := time.UnixMilli(int64(epochs.Current().Number)).After(l.cfg.Now().Add(-maxAhead))
	if l.cfg.Remembered == nil || len(epochs) == 0 || !young || l.own == nil {
		return nil // without an own fold an epoch has just been adopted, which did all of this
	}
	m := &memory{epochs: epochs[:len(epochs)-1]}
	if err := l.addRemembered(ctx, m); err != nil {
		return err
	}
	tick, err := l.commitTick(ctx)
	if err != nil {
		return err
	}
	if err := l.readOn(ctx, tick.Seq); err != nil {
		return err
	}
	if l.view.Epochs().Current().Number != epochs.Current().Number {
		return nil // another epoch was among what was read, and adopting it did all of this
	}
	if err := l.aboveLog(m); err != nil {
		return err
	}
	// All that is remembered here is the log itself.
	j := l.newJudge(m)
	for k, s := range m.redis {
		j.hear(k, s, true)
	}
	return l.commitMissing(ctx, j)
}

// judge gathers what a log lacks.
type judge struct {
	memory  *memory
	log     *fold
	epoch   uint64
	begin   revoke.Stamp // where it begins
	now     int64
	missing map[lost][]revoke.Key
}

func (l *Ledger) newJudge(m *memory) *judge {
	return &judge{memory: m, log: l.own, epoch: l.Epoch(), begin: l.epochAt(), now: l.cfg.Now().Unix(), missing: map[lost][]revoke.Key{}}
}

// hear takes what is remembered of a target.
func (j *judge) hear(k revoke.Key, s revoke.State, redis bool) {
	if s.Until < j.now {
		return
	}
	add := func(x lost) {
		x.fromRedis = redis
		j.missing[x] = append(j.missing[x], k)
	}
	has, epochs := j.log.view.State(k), j.log.view.Epochs()
	// What the log has may say as much, and leave it before what was lost would have.
	cut := func(has revoke.State) bool { return !has.Cut.Less(s.Cut) }
	if !s.Cut.IsZero() && s.Cut.Epoch < j.epoch && !j.log.says(k, s.Until, cut) {
		add(lost{op: wire.OpCut, at: s.Cut, cutAt: s.CutAt, until: s.Until})
	}
	if s.Ended && !j.log.says(k, s.Until, func(has revoke.State) bool { return has.Ended }) {
		add(lost{op: wire.OpEnd, until: s.Until})
	}
	// Whether it was released is judged by the epochs before: the new one makes
	// every release count as less that was made in what was lost.
	held := j.memory.epochs.Clamp(s.Released).Less(s.Held)
	logHeld := epochs.Clamp(has.Released).Less(has.Held)
	released := lost{op: wire.OpRelease, until: j.now + int64((longestLife+releaseMore(wire.OpRelease))/time.Second) + 1}
	if s.Held.Epoch < j.epoch {
		released.upTo = s.Held
	}
	switch {
	case held && s.Held.Epoch < j.epoch:
		if x, ok := j.lostHold(k, s, logHeld); ok {
			add(x)
		}
	case !held && logHeld && !epochs.Clamp(s.Released).Less(has.Held):
		// The hold is there, and its release is not.
		released.at = epochs.Clamp(s.Released)
		if released.at.Less(s.Held) {
			// Nor is a later hold that was released too: whoever remembers that one
			// would hold again.
			released.at = j.begin
		}
		add(released)
	case !held && !logHeld && epochs.Clamp(s.Released.Max(has.Released)).Less(s.Held):
		// Both are lost, and whoever remembers them would hold again. The beginning
		// of this history is after that hold, and the log has none.
		released.at = j.begin
		add(released)
	}
}

// lostHold returns the hold that is remembered, if the log lacks it.
func (j *judge) lostHold(k revoke.Key, s revoke.State, logHeld bool) (lost, bool) {
	has := j.log.view.State(k)
	x := lost{op: wire.OpHold, at: s.Held, until: s.Until}
	if h, ok := j.memory.holds[k]; ok && h.first == s.Held {
		x.holdEnd, x.then = h.end, h.then
	}
	if j.log.view.Epochs().Clamp(has.Released).Less(s.Held) {
		// Also where an older one holds: whoever releases that has not seen this one.
		return x, has.Held.Less(s.Held)
	}
	// A release of this epoch has a position after every older one. Where it was committed
	// again by a memory that lacked this hold, it does not speak of it: held anew.
	x.at = revoke.Stamp{}
	return x, !logHeld && j.log.reach[k].Less(s.Held)
}

func (l *Ledger) commitMissing(ctx context.Context, j *judge) error {
	if len(j.missing) == 0 {
		return nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(recommitAtOnce)
	n := 0
	for x, keys := range j.missing {
		slices.SortFunc(keys, func(a, b revoke.Key) int { return bytes.Compare(a[:], b[:]) })
		keys = slices.Compact(keys) // two memories may say the same
		for part := range slices.Chunk(keys, wire.MaxTargets) {
			n += len(part)
			g.Go(func() error { return l.commitLost(gctx, x, part, j.epoch) })
		}
	}
	err := g.Wait()
	l.log.Warn("committed again what the log had lost", zap.Int("targets", n), zap.Error(err))
	return err
}

// commitLost commits one entry under a subject made of the epoch and what it
// says, so that replicas with the same memory commit it once.
func (l *Ledger) commitLost(ctx context.Context, x lost, keys []revoke.Key, epoch uint64) error {
	id, err := wire.NewID(l.cfg.Rand)
	if err != nil {
		return err
	}
	now := l.cfg.Now()
	m := wire.Message{Kind: wire.KindEntry, ID: id, Epoch: epoch, At: now.UnixMilli(), Until: x.until}
	switch x.op {
	case wire.OpCut:
		m.Cut, m.Recommitted, m.At = keys, &x.at, x.cutAt
	case wire.OpEnd:
		m.End = keys
	case wire.OpRelease:
		m.Release = map[revoke.Key]revoke.Stamp{}
		for _, k := range keys {
			m.Release[k] = x.at
		}
		if !x.upTo.IsZero() {
			m.Recommitted = &x.upTo
		}
	case wire.OpHold:
		m.Hold, m.First, m.HoldEnd, m.Then = keys, map[revoke.Key]revoke.Stamp{}, x.holdEnd, x.then
		for _, k := range keys {
			if !x.at.IsZero() {
				m.First[k] = x.at
			}
		}
	}
	from := "memory"
	if x.fromRedis {
		from = "Redis"
	}
	var all []byte
	for _, k := range keys {
		all = append(all, k[:]...)
	}
	name := hashOf("lost", strconv.FormatUint(epoch, 10), x.op, x.at.String(), x.upTo.String(), fmt.Sprint(x.cutAt, x.until, x.holdEnd), string(all))
	return l.commitNamed(ctx, name, m, EventData{
		Op: x.op, Service: ownName, Actor: ownName, TargetKeys: keys, Then: x.then,
		Reason: "the log went back; committed again from what " + from + " held", Entry: name,
	})
}
