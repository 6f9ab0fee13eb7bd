package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/wire"
)

// sweepEvery is how often what has ended is dropped from the view.
const sweepEvery = time.Minute

// Run creates the stream, reads it and follows it until ctx ends. It waits for
// the broker as long as it must and logs what it waits for.
func (l *Ledger) Run(ctx context.Context) error {
	defer l.notReady("it is stopping")
	defer l.ticks.close()
	defer l.looking.Wait()
	if !l.untilDone(ctx, "set up the stream", l.setUpStream) {
		return nil
	}
	stop, err := l.broker.Follow(l.feed)
	if err != nil {
		return err
	}
	defer stop()
	connected := l.broker.Connected(ctx)
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	recheck := time.NewTicker(clockCheckEvery)
	defer recheck.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()

	if !l.untilDone(ctx, "read the log", l.start) {
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-l.feed:
			if err := l.onFeed(ctx, m); err != nil {
				l.log.Warn("the feed has a gap that the log did not fill", zap.Error(err))
				l.again(ctx, "read the log again after a gap")
			}
		case is := <-connected:
			if is {
				l.again(ctx, "read the log again after a reconnect")
			} else {
				l.notReady("there is no connection to NATS")
			}
		case p := <-l.proofs:
			l.onProof(ctx, p)
		case <-l.lost:
			if l.vanished(ctx) {
				l.log.Error("the log's stream is gone; it is made again, and filled with what is remembered")
				l.again(ctx, "make the log again, which is gone")
			}
		case <-recheck.C:
			if _, early := l.early(); !early && l.doubts(l.Epoch()) { // its proof found no place
				l.again(ctx, "begin a new epoch, since the log went back")
			}
			l.recheckClock(ctx)
		case <-look.C:
			l.lookBackLater(ctx)
		case <-sweep.C:
			l.view.Drop(l.cfg.Now().Unix())
		}
	}
}

func (l *Ledger) again(ctx context.Context, what string) {
	l.notReady("%s", what)
	if l.untilDone(ctx, what, l.resync) && l.unlooked {
		l.unlooked = false
		l.lookBackLater(ctx)
	}
}

// start reads the whole log for the first time, and begins the first epoch if
// there is none.
func (l *Ledger) start(ctx context.Context) error {
	if l.owed != nil || l.Head().Seq > 0 {
		// A try before this one has read something, which the log may have lost since.
		if err := l.catchUp(ctx); err != nil {
			return err
		}
	} else if err := l.readFirst(ctx); err != nil {
		return err
	}
	if err := l.finishEpoch(ctx); err != nil {
		return err
	}
	if l.own != nil {
		l.view.SettleEpochs(l.own.view.Epochs())
		l.own = nil
	}
	l.ready()
	l.log.Info("the log has been read", zap.Stringer("head", l.Head().Stamp), zap.Int("targets", l.view.Len()))
	return nil
}

func (l *Ledger) readFirst(ctx context.Context) error {
	l.connections = l.broker.Reconnects()
	err := l.firstEpoch(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) { // it was deleted since it was set up
		if err = l.setUpStream(ctx); err == nil {
			err = l.firstEpoch(ctx)
		}
	}
	if err != nil {
		return err
	}
	if err := l.reload(ctx); err != nil {
		return err
	}
	if why := l.foundHole(); why != "" {
		return l.newEpoch(ctx, l.ownProof(why))
	}
	return nil
}

// resync is for a lost connection or a gap.
func (l *Ledger) resync(ctx context.Context) error {
	if err := l.catchUp(ctx); err != nil {
		return err
	}
	l.ready()
	return nil
}

// catchUp reads what came after the head, if the log still has that very message;
// otherwise the log went back.
func (l *Ledger) catchUp(ctx context.Context) error {
	l.connection()
	l.drain()
	if why := l.whyDoubted(l.Epoch()); why != "" { // also when the epoch was not adopted altogether yet
		return l.newEpoch(ctx, l.ownProof(why))
	}
	if l.owed != nil {
		return l.adopt(ctx)
	}
	same, err := l.sameHistory(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		// It is gone: made again it is empty, which the tick will show.
		if err = l.setUpStream(ctx); err == nil {
			same, err = l.sameHistory(ctx)
		}
	}
	if err != nil {
		return err
	}
	if !same {
		return l.newEpoch(ctx, l.ownProof("the log does not have this service's newest messages"))
	}
	tick, err := repeating(ctx, l.commitTick)
	if errors.Is(err, errWentBack) {
		return l.newEpoch(ctx, l.ownProof("a tick was acknowledged below the head"))
	}
	if err != nil {
		return err
	}
	if err := l.readOn(ctx, tick.Seq); err != nil {
		return err
	}
	if why := l.foundHole(); why != "" {
		return l.newEpoch(ctx, l.ownProof(why))
	}
	return nil
}

// connection notes by which connection everything is read from now on.
func (l *Ledger) connection() {
	if is := l.broker.Reconnects(); is != l.connections {
		l.connections, l.unlooked = is, true
	}
}

// drain forgets what the feed has brought: it is read from the log. Messages of
// a server that was replaced would be taken for those of the new one.
func (l *Ledger) drain() {
	for {
		select {
		case <-l.feed:
		default:
			return
		}
	}
}

// sameHistory reports whether the log has the newest of our messages that it can
// still have.
func (l *Ledger) sameHistory(ctx context.Context) (bool, error) {
	l.mu.Lock()
	recent := l.ring.positions(wire.MaxRecent)
	l.mu.Unlock()
	if len(recent) == 0 {
		return true, nil
	}
	for i, p := range recent {
		// The newest ones, then less and less of the older: what has ended, ended for
		// all of them, and each is a question that has to be answered.
		if i >= 4 && i&(i+1) != 0 {
			continue
		}
		m, err := repeating(ctx, func(ctx context.Context) (raw, error) { return l.getBySeq(ctx, p.Seq) })
		switch {
		case errors.Is(err, ErrNoMessage):
			continue // it may have ended; or the log ends before it, which the tick tells
		case err != nil:
			return false, err
		}
		return m.err == nil && m.stored.Message.ID == p.ID, nil
	}
	return true, nil
}

var errReconnected = errors.New("the connection is another one")

// onFeed applies one message of the feed.
func (l *Ledger) onFeed(ctx context.Context, m *nats.Msg) error {
	// The client counts a reconnect before it reads anything from the new server,
	// whose log may be another one.
	connection := l.connections
	if l.broker.Reconnects() != connection {
		return errReconnected
	}
	if m.Subject == wire.FeedAsk { // a question to the guards, with the headers of an epoch that may be over
		return nil
	}
	s, err := wire.FromHeader(m.Header)
	if s.Sequence == 0 {
		return err
	}
	if err != nil {
		l.incomplete(s, err)
		return nil
	}
	head := l.Head()
	switch {
	case s.Sequence <= head.Seq:
		if has, known := l.Holds(s.Position()); known && !has {
			l.wentBack(fmt.Sprintf("the feed brought another message at %d", s.Sequence))
		}
		return nil
	case s.Sequence > head.Seq+1:
		readCtx, cancel := context.WithTimeout(ctx, gapPatience)
		defer cancel()
		if err := l.readOn(readCtx, s.Sequence-1); err != nil {
			return err
		}
		if l.broker.Reconnects() != connection { // and this message is from before
			return errReconnected
		}
		if why := l.foundHole(); why != "" {
			l.wentBack(why)
		}
	}
	return l.take(ctx, s, m.Header.Get(wire.Header))
}

// incomplete stops everything: what could not be read may be a revocation.
func (l *Ledger) incomplete(s wire.Stored, err error) {
	l.log.Error("a message of the log can't be read; this service accepts nothing until it runs a version that can", zap.Uint64("sequence", s.Sequence), zap.Error(err))
	l.notReady("the message at %d of the log can't be read by this version", s.Sequence)
}

// gapPatience bounds the reading of what the feed has left out: meanwhile nothing else
// is heard. A longer gap is read by resync.
const gapPatience = 10 * time.Second

// adoptPatience bounds one try to adopt an epoch that another replica has begun.
const adoptPatience = 30 * time.Second

// take applies the next message, or a new epoch.
func (l *Ledger) take(ctx context.Context, s wire.Stored, rawHeader string) error {
	if s.Sequence <= l.Head().Seq {
		return nil // a new epoch among what is being read has brought more than was asked for
	}
	if s.Message.Kind == wire.KindEpoch && s.Message.Epoch > l.Epoch() {
		l.log.Warn("another replica has begun a new epoch", zap.Uint64("epoch", s.Message.Epoch))
		l.notReady("it reads the log again, since a new epoch has begun")
		// Bounded, as everything that asks the broker: what is owed is done by resync then.
		ctx, cancel := context.WithTimeout(ctx, adoptPatience)
		defer cancel()
		return l.adopt(ctx)
	}
	l.apply(s, rawHeader)
	return nil
}

// placed returns the message under the epoch of the place where it stands: that
// of the last epoch message before it. A publisher that had not heard of that
// one yet has named the former, and things made meanwhile would escape its cut.
// Every reader does the same.
func placed(s wire.Stored, here uint64) wire.Stored {
	if s.Message.Kind != wire.KindEpoch {
		s.Message.Epoch = max(s.Message.Epoch, here)
	}
	return s
}

// apply folds a message and tells the observers. It is called by Run's goroutine alone.
func (l *Ledger) apply(s wire.Stored, rawHeader string) {
	s = placed(s, l.here)
	m := s.Message
	l.passes(s.Sequence, s.Time)
	if m.Kind == wire.KindEpoch && m.Epoch > l.here {
		l.holes = nil
	}
	l.here = max(l.here, m.Epoch)
	if l.own != nil {
		l.own.take(s)
	}
	pos := s.Position()
	for k, st := range m.States(pos.Stamp) {
		if l.owed != nil {
			l.owed.overtaken(k, l.view.State(k), st)
		}
		l.view.Merge(k, st)
	}
	if e, ok := m.EpochState(); ok {
		l.view.MergeEpoch(e)
	}
	l.mu.Lock()
	l.ring.add(item{seq: s.Sequence, time: s.Time, epoch: m.Epoch, id: m.ID, raw: rawHeader})
	l.head, l.headTime = pos, s.Time
	l.seen = max(l.seen, s.Sequence)
	another := l.wasAcked(s)
	switch m.Kind {
	case wire.KindEntry:
		l.stamp = l.stamp.Max(pos.Stamp)
	case wire.KindEpoch:
		l.stamp = l.stamp.Max(pos.Stamp)
		if m.Epoch > l.epoch {
			l.seen, l.acked = s.Sequence, map[uint64]string{}
		}
		if m.Epoch >= l.epoch {
			l.epoch, l.epochSeq = m.Epoch, s.Sequence
		}
	case wire.KindKey:
		l.keepKey(s)
	}
	l.mu.Unlock()
	if another {
		l.wentBack(fmt.Sprintf("another message than was acknowledged stands at %d", s.Sequence))
	}
	if m.Kind == wire.KindTick {
		l.clock.stored(s)
	}
	for _, o := range l.observers {
		o.Applied(s)
	}
	l.mu.Lock()
	l.observed = pos.Stamp
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
}

// keepKey keeps the newest message about each signing key, for whole states. The
// rotator sends states in their order, so that the newest is the greatest.
func (l *Ledger) keepKey(s wire.Stored) {
	now := l.cfg.Now().Unix()
	for kid, have := range l.keys {
		if have.Message.Until < now {
			delete(l.keys, kid)
		}
	}
	if have, ok := l.keys[s.Message.KeyID]; !ok || have.Position().Less(s.Position().Stamp) {
		l.keys[s.Message.KeyID] = s
	}
}
