package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

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

// addRemembered reads what Redis holds.
func (l *Ledger) addRemembered(ctx context.Context) error {
	if l.cfg.Remembered == nil {
		return nil
	}
	l.owed.redis = map[revoke.Key]revoke.State{}
	err := l.cfg.Remembered(ctx, func(k revoke.Key, s revoke.State) bool {
		l.owed.redis[k] = l.owed.redis[k].Merge(s)
		return ctx.Err() == nil
	})
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
// and the log lacks; released holds excepted.
func (l *Ledger) recommit(ctx context.Context, h *history) error {
	missing := map[lost][]revoke.Key{}
	now := l.cfg.Now().Unix()
	epoch := l.Epoch()
	judge := func(k revoke.Key, s revoke.State, redis bool) {
		if s.Until < now {
			return
		}
		for _, x := range l.lacks(k, s, h.view, epoch) {
			x.fromRedis = redis
			missing[x] = append(missing[x], k)
		}
	}
	for k, s := range l.view.All {
		judge(k, s, false)
	}
	for k, s := range l.owed.redis {
		known := l.view.State(k)
		if known.Merge(s) != known {
			judge(k, s, true)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(recommitAtOnce)
	n := 0
	for x, keys := range missing {
		slices.SortFunc(keys, func(a, b revoke.Key) int { return bytes.Compare(a[:], b[:]) })
		for part := range slices.Chunk(keys, wire.MaxTargets) {
			n += len(part)
			g.Go(func() error { return l.commitLost(gctx, x, part, epoch) })
		}
	}
	err := g.Wait()
	l.log.Warn("committed again what the log had lost", zap.Int("targets", n), zap.Error(err))
	return err
}

// lacks returns what s says and the log does not.
func (l *Ledger) lacks(k revoke.Key, s revoke.State, log *revoke.View, epoch uint64) []lost {
	var out []lost
	has, epochs := log.State(k), log.Epochs()
	if !s.Cut.IsZero() && s.Cut.Epoch < epoch && has.Cut.Less(s.Cut) {
		out = append(out, lost{op: wire.OpCut, at: s.Cut, cutAt: s.CutAt, until: s.Until})
	}
	if s.Ended && !has.Ended {
		out = append(out, lost{op: wire.OpEnd, until: s.Until})
	}
	// Whether it was released is judged by the epochs before: the new one makes
	// every release count as less that was made in what was lost.
	held := l.owed.epochs.Clamp(s.Released).Less(s.Held)
	if held && s.Held.Epoch < epoch && !epochs.Clamp(has.Released).Less(has.Held) {
		x := lost{op: wire.OpHold, at: s.Held, until: s.Until}
		if m, ok := l.owed.holds[k]; ok {
			x.holdEnd, x.then = m.HoldEnd, m.Then
		}
		out = append(out, x)
	}
	return out
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
	body, err := newEvent(m, now, EventData{
		Op: x.op, Service: "revocation", Actor: "revocation", TargetKeys: keys, Then: x.then,
		Reason: "the log went back; committed again from what " + from + " held", Entry: name,
	})
	if err != nil {
		return err
	}
	var none uint64
	_, err = l.publish(ctx, outgoing{subject: wire.LogEntry + name, message: m, body: body, ttl: ttlOf(m.Until, now), expect: &none})
	var exists errExists
	if errors.As(err, &exists) {
		return nil
	}
	return err
}

// rescue commits again an entry that a service published before it had seen the
// current epoch: its number is of the former one, and things made meanwhile
// would escape it.
func (l *Ledger) rescue(ctx context.Context, s wire.Stored) {
	first, err := l.getBySeq(ctx, s.Sequence)
	if err == nil && first.err == nil {
		_, err = l.commitStale(ctx, first)
	}
	if err != nil {
		// Whoever asked for it has an unknown outcome, and asks again.
		l.log.Warn("an entry of the former epoch could not be committed again", zap.Uint64("sequence", s.Sequence), zap.Error(err))
	}
}

func (l *Ledger) commitStale(ctx context.Context, first raw) (wire.Position, error) {
	m := first.stored.Message
	name := hashOf("stale", strconv.FormatUint(l.Epoch(), 10), m.ID)
	id, err := wire.NewID(l.cfg.Rand)
	if err != nil {
		return wire.Position{}, err
	}
	m.ID, m.Epoch = id, 0
	var none uint64
	pos, err := l.publish(ctx, outgoing{
		subject: wire.LogEntry + name, message: m, body: first.data, ttl: ttlOf(m.Until, l.cfg.Now()), expect: &none,
	})
	var exists errExists
	if errors.As(err, &exists) {
		again, err := l.getBySeq(ctx, exists.seq)
		if err != nil {
			return wire.Position{}, err
		}
		return again.stored.Position(), again.err
	}
	return pos, err
}
