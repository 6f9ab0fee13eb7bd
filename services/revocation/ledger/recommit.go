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
	epochs revoke.Epochs               // before the new one
	holds  map[revoke.Key]wire.Message // holds with an end, by target
	redis  map[revoke.Key]revoke.State
}

// remember keeps what is about to be replaced, unless something is owed already.
func (l *Ledger) remember() {
	if l.owed != nil {
		return
	}
	m := &memory{epochs: l.view.Epochs(), holds: map[revoke.Key]wire.Message{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.ring.len() {
		s, err := l.ring.at(i).stored()
		if err != nil || s.Message.HoldEnd == 0 {
			continue
		}
		for _, k := range s.Message.Hold {
			m.holds[k] = s.Message
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
	m.redis = map[revoke.Key]revoke.State{}
	var err error
	for try := range rememberTries {
		if try > 0 && !pause(ctx, rememberPause) {
			break
		}
		err = l.cfg.Remembered(ctx, func(k revoke.Key, s revoke.State) bool {
			m.redis[k] = m.redis[k].Merge(s)
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

// lost is one statement about targets that the log lacks; those with the same
// statement go into one entry.
type lost struct {
	op        string
	at        revoke.Stamp // where it stood
	cutAt     int64
	until     int64
	holdEnd   int64
	then      string
	fromRedis bool
}

// recommit commits again, under the current epoch, what memory and Redis hold
// and the log lacks: cuts, ends, holds that were not released, and releases of
// those that would count again.
func (l *Ledger) recommit(ctx context.Context, m *memory, log *revoke.View) error {
	j := l.newJudge(m, log)
	for k, s := range l.view.All {
		j.hear(k, s, false)
	}
	for k, s := range m.redis {
		if known := l.view.State(k); known.Merge(s) != known {
			j.hear(k, s, true)
		}
	}
	return l.commitMissing(ctx, j)
}

// finishEpoch commits again what Redis holds and the log lacks, at a start soon
// after an epoch began: the first one of a log that was lost, or whoever began it
// may have died before it was done.
func (l *Ledger) finishEpoch(ctx context.Context) error {
	epochs := l.view.Epochs()
	young := time.UnixMilli(int64(epochs.Current().Number)).After(l.cfg.Now().Add(-maxAhead))
	if l.cfg.Remembered == nil || len(epochs) == 0 || !young {
		return nil
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
	return l.recommit(ctx, m, l.view)
}

// judge gathers what a log lacks.
type judge struct {
	memory  *memory
	log     *revoke.View
	epoch   uint64
	begin   revoke.Stamp // where it begins
	now     int64
	missing map[lost][]revoke.Key
}

func (l *Ledger) newJudge(m *memory, log *revoke.View) *judge {
	return &judge{memory: m, log: log, epoch: l.Epoch(), begin: l.epochAt(), now: l.cfg.Now().Unix(), missing: map[lost][]revoke.Key{}}
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
	has, epochs := j.log.State(k), j.log.Epochs()
	// What the log has may say as much, and leave it before what was lost would have.
	ends := has.Until < s.Until
	if !s.Cut.IsZero() && s.Cut.Epoch < j.epoch && (ends || has.Cut.Less(s.Cut)) {
		add(lost{op: wire.OpCut, at: s.Cut, cutAt: s.CutAt, until: s.Until})
	}
	if s.Ended && (ends || !has.Ended) {
		add(lost{op: wire.OpEnd, until: s.Until})
	}
	// Whether it was released is judged by the epochs before: the new one makes
	// every release count as less that was made in what was lost.
	held := j.memory.epochs.Clamp(s.Released).Less(s.Held)
	logHeld := epochs.Clamp(has.Released).Less(has.Held)
	released := lost{op: wire.OpRelease, until: j.now + int64((longestLife+releaseMore(wire.OpRelease))/time.Second) + 1}
	switch {
	case held && s.Held.Epoch < j.epoch && has.Held.Less(s.Held):
		// Also where an older one holds: whoever releases that has not seen this one.
		x := lost{op: wire.OpHold, at: s.Held, until: s.Until}
		if m, ok := j.memory.holds[k]; ok {
			x.holdEnd, x.then = m.HoldEnd, m.Then
		}
		add(x)
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

func (l *Ledger) commitMissing(ctx context.Context, j *judge) error {
	if len(j.missing) == 0 {
		return nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(recommitAtOnce)
	n := 0
	for x, keys := range j.missing {
		slices.SortFunc(keys, func(a, b revoke.Key) int { return bytes.Compare(a[:], b[:]) })
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
	case wire.OpHold:
		m.Hold, m.First, m.HoldEnd, m.Then = keys, map[revoke.Key]revoke.Stamp{}, x.holdEnd, x.then
		for _, k := range keys {
			m.First[k] = x.at
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
	name := hashOf("lost", strconv.FormatUint(epoch, 10), x.op, x.at.String(), fmt.Sprint(x.cutAt, x.until, x.holdEnd), string(all))
	return l.commitNamed(ctx, name, m, EventData{
		Op: x.op, Service: ownName, Actor: ownName, TargetKeys: keys, Then: x.then,
		Reason: "the log went back; committed again from what " + from + " held", Entry: name,
	})
}
