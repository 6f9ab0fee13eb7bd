package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// maxAhead is how far above this service's clock an epoch may be that somebody shows.
const maxAhead = 24 * time.Hour

// ownName stands for this service where somebody has noticed something.
const ownName = "revocation"

// proof is why the log is believed to have gone back.
type proof struct {
	why    string
	by     string          // who noticed
	epoch  uint64          // the epoch in which it was noticed
	recent []wire.Position // what the log had, newest first
	shown  uint64          // the highest epoch that was shown
	order  *EpochOrder     // it is no proof, but an operator's word
	done   chan<- error    // of an order: told how it ended
}

// EpochOrder is an operator's word that the log was restored by other means than
// quash restore.
type EpochOrder struct {
	Actor, Reason string
	// Backup is when the backup was made: what the log has from then on does not
	// count as shared. Zero: found by the log's own silence; see sharedUntil.
	Backup time.Time
	// Last is the sequence at which a restored log ends, for BeginRestored.
	Last uint64
}

// BeginEpoch begins a new epoch, marked as one of a restore, and returns its
// number and the last position that it shares with what was before. An error
// leaves open whether it was begun.
func (l *Ledger) BeginEpoch(ctx context.Context, o EpochOrder) (revoke.Epoch, error) {
	if err := l.Ready(); err != nil {
		return revoke.Epoch{}, err
	}
	done := make(chan error, 1)
	p := l.ownProof(o.Reason)
	p.by, p.recent, p.order, p.done = o.Actor, nil, &o, done
	select {
	case l.proofs <- p:
	case <-ctx.Done():
		return revoke.Epoch{}, problem.Wrap(problem.Unavailable, context.Cause(ctx), "the service is busy with the log; try again")
	}
	select {
	case err := <-done:
		return l.view.Epochs().Current(), err
	case <-ctx.Done():
		return revoke.Epoch{}, problem.Wrap(problem.UnknownOutcome, context.Cause(ctx), "a new epoch may have begun: see quash doctor")
	}
}

func (l *Ledger) ownProof(why string) proof {
	l.mu.Lock()
	defer l.mu.Unlock()
	return proof{why: why, by: ownName, epoch: l.epoch, recent: l.ring.positions(l.ring.len())}
}

// wentBack tells Run that the log went back, as this service itself saw.
func (l *Ledger) wentBack(why string) { l.tell(l.ownProof(why)) }

func (l *Ledger) doubts(epoch uint64) bool { return l.whyDoubted(epoch) != "" }

// whyDoubted says why an epoch is doubted, empty if it is not.
func (l *Ledger) whyDoubted(epoch uint64) string {
	if d := l.doubt.Load(); d != nil && d.epoch == epoch {
		return d.why
	}
	return ""
}

func (l *Ledger) tell(p proof) {
	if p.by == ownName && p.epoch == l.Epoch() { // one that comes late says nothing of the next
		l.doubt.Store(&doubt{p.epoch, p.why})
	}
	select {
	case l.proofs <- p:
	default: // one is waiting already, and one is enough
	}
}

// onProof begins a new epoch, at most one a minute.
func (l *Ledger) onProof(ctx context.Context, p proof) {
	if p.epoch < l.Epoch() && p.shown <= l.Epoch() {
		// That history is over already.
		p.end(problem.New(problem.Conflict, "another epoch, %d, has begun meanwhile; see whether yours is still needed", l.Epoch()))
		return
	}
	since, early := l.early()
	if early && p.order == nil {
		l.log.Warn("the log is said to have gone back, less than a minute after a new epoch: not believed yet",
			zap.String("why", p.why), zap.String("by", p.by), zap.Duration("since", since))
		if p.by == ownName { // nobody repeats it; a reader does
			time.AfterFunc(l.cfg.EpochGap-since, func() { l.tell(p) })
		}
		return
	}
	l.notReady("the log went back; a new epoch begins")
	done := l.untilDone(ctx, "begin a new epoch", func(ctx context.Context) error {
		l.drain()
		return l.newEpoch(ctx, p)
	})
	if done {
		p.end(nil)
	} else {
		p.end(errStopped)
	}
}

// early reports whether a new epoch has begun so short a time ago that another one is
// not begun yet.
func (l *Ledger) early() (since time.Duration, early bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since = time.Since(l.lastBegin)
	return since, !l.lastBegin.IsZero() && since < l.cfg.EpochGap
}

// end tells whoever has ordered it how it ended.
func (p *proof) end(err error) {
	if p.done != nil {
		p.done <- err // has room for one
	}
}

// firstEpoch begins the first history, if the log has none. It may have had one
// that Redis remembers: then the new one is above that.
func (l *Ledger) firstEpoch(ctx context.Context) error {
	_, err := l.getLast(ctx, wire.LogEpoch)
	if !errors.Is(err, ErrNoMessage) {
		return err
	}
	former, err := l.formerEpoch(ctx)
	if err != nil {
		return err
	}
	number, err := l.numberAbove(former)
	if err != nil {
		return err
	}
	err = l.publishEpoch(ctx, newEpochMessage(number, revoke.Stamp{}, false), 0, ownName, "the log is new")
	var exists errExists
	if errors.As(err, &exists) {
		return nil // another replica was first
	}
	return err
}

// latestEpoch is the highest number that is believed to be one of an epoch.
func (l *Ledger) latestEpoch() uint64 { return uint64(l.cfg.Now().Add(maxAhead).UnixMilli()) }

// newestEpoch is the highest one that a state names.
func newestEpoch(s revoke.State) uint64 {
	return max(s.Cut.Epoch, s.Held.Epoch, s.Released.Epoch)
}

// formerEpoch is the newest that Redis remembers, 0 for none. Without Redis, where
// there should be one, nobody knows what an empty log has lost.
func (l *Ledger) formerEpoch(ctx context.Context) (newest uint64, err error) {
	if l.cfg.Remembered == nil {
		return 0, nil
	}
	most := l.latestEpoch()
	err = l.cfg.Remembered(ctx, func(_ revoke.Key, s revoke.State) bool {
		if e := newestEpoch(s); e <= most {
			newest = max(newest, e)
		}
		return ctx.Err() == nil
	})
	if err != nil {
		return 0, fmt.Errorf("the log is empty, and what Redis may remember of a former one can't be read: %w", err)
	}
	return newest, ctx.Err()
}

// numberAbove returns the number of an epoch after a known one: the time, in
// milliseconds. Where a clock is behind what is known it is by chance, within 66 s: the log may lose
// that epoch as well, and who begins the next has not heard of it. Two histories under
// one number could not be told apart.
func (l *Ledger) numberAbove(known uint64) (uint64, error) {
	if now := uint64(l.cfg.Now().UnixMilli()); now > known {
		return now, nil
	}
	var b [2]byte
	if _, err := io.ReadFull(l.cfg.Rand, b[:]); err != nil {
		return 0, fmt.Errorf("number of an epoch: %w", err)
	}
	return known + 1 + uint64(binary.LittleEndian.Uint16(b[:])), nil
}

func newEpochMessage(number uint64, d revoke.Stamp, restored bool) wire.Message {
	return wire.Message{Kind: wire.KindEpoch, Epoch: number, D: &d, Restore: restored}
}

// publishEpoch stores an epoch's message after the one at a sequence.
func (l *Ledger) publishEpoch(ctx context.Context, m wire.Message, after uint64, actor, why string) (err error) {
	if m.ID, err = wire.NewID(l.cfg.Rand); err != nil {
		return err
	}
	now := l.cfg.Now()
	m.At = now.UnixMilli()
	body, err := newEvent(m, now, EventData{Op: "epoch", Service: ownName, Actor: actor, Reason: why})
	if err != nil {
		return err
	}
	_, err = l.publish(ctx, outgoing{subject: wire.LogEpoch, message: m, body: body, expect: &after})
	return err
}

// newEpoch begins a new history of the log: it finds what the log still shares
// with the proof, says so in the epoch's message, reads everything again and
// commits again what the log lacks.
func (l *Ledger) newEpoch(ctx context.Context, p proof) error {
	l.connection()
	if err := l.setUpStream(ctx); err != nil { // it may be gone altogether
		return err
	}
	last, err := l.getLast(ctx, wire.LogEpoch)
	if err != nil && !errors.Is(err, ErrNoMessage) {
		return err
	}
	if has := last.stored.Message.Epoch; last.err == nil && has > max(p.epoch, p.shown) && !l.doubts(has) {
		return l.adopt(ctx) // begun already: by another replica, or by a try whose answer was lost
	}
	var d revoke.Stamp
	if p.order != nil {
		d, err = l.sharedUntil(ctx, p.order.Backup)
	} else {
		d, err = l.shared(ctx, p.recent)
	}
	if err != nil {
		return err
	}
	known := max(p.epoch, p.shown, l.newest, l.view.Epochs().Current().Number, last.stored.Message.Epoch)
	number, err := l.numberAbove(known)
	if err != nil {
		return err
	}
	l.log.Error("the log went back; a new epoch begins",
		zap.String("why", p.why), zap.String("by", p.by), zap.Uint64("epoch", number), zap.Stringer("shared", d))
	actor, why := ownName, fmt.Sprintf("the log went back, noticed by %s: %s", p.by, p.why)
	if p.order != nil {
		actor, why = p.order.Actor, p.order.Reason
	}
	restored := p.order != nil || l.lostRestore(last.stored.Message.Epoch)
	err = l.publishEpoch(ctx, newEpochMessage(number, d, restored), last.seq, actor, why)
	var exists errExists
	if err != nil && !errors.As(err, &exists) {
		return err // also when the outcome is unknown: the next try finds its message there
	}
	return l.adopt(ctx)
}

// lostRestore reports whether an epoch above the log's newest was begun by a restore: what
// that made void stays void in the epoch that takes its place.
func (l *Ledger) lostRestore(newest uint64) bool {
	return slices.ContainsFunc(l.view.Epochs(), func(e revoke.Epoch) bool { return e.Restore && e.Number > newest })
}

// shared returns the newest of the positions that the log has, else the zero stamp.
func (l *Ledger) shared(ctx context.Context, recent []wire.Position) (revoke.Stamp, error) {
	if len(recent) == 0 {
		return revoke.Stamp{}, nil
	}
	ids := make(map[uint64]string, len(recent))
	from, to := recent[0].Seq, recent[0].Seq
	for _, p := range recent {
		from, to = min(from, p.Seq), max(to, p.Seq)
	}
	err := l.read(ctx, from, to, func(s wire.Stored, _ string) error {
		ids[s.Sequence] = s.Message.ID
		return nil
	})
	if err != nil {
		return revoke.Stamp{}, err
	}
	var d revoke.Stamp
	for _, p := range recent {
		if ids[p.Seq] == p.ID {
			d = d.Max(p.Stamp)
		}
	}
	return d, nil
}

// adopt takes over the newest epoch that the log has, and commits again under it
// what this service remembers and the log lacks. What is owed stays owed until
// that is done: resync goes on with it.
func (l *Ledger) adopt(ctx context.Context) error {
	l.remember()
	l.mu.Lock()
	l.lastBegin = time.Now()
	l.begunAt = l.cfg.Now()
	l.mu.Unlock()
	if err := l.addRemembered(ctx, l.owed); err != nil {
		return err
	}
	// The log is read after Redis was: what it lacks then, it lacks.
	if err := l.readWhole(ctx); err != nil {
		return err
	}
	if l.owed == nil {
		return nil // another epoch was among what was read, and adopting it did all of this
	}
	if err := l.aboveLog(l.owed); err != nil {
		return err
	}
	l.view.SettleEpochs(l.own.view.Epochs())
	l.whole.forget()
	if err := l.recommit(ctx, l.owed); err != nil {
		return err
	}
	tick, err := l.commitTick(ctx)
	if err != nil {
		return err
	}
	if err := l.readOn(ctx, tick.Seq); err != nil {
		return err
	}
	l.owed, l.own = nil, nil
	l.ready()
	l.log.Warn("a new epoch stands", zap.Uint64("epoch", l.Epoch()), zap.Stringer("head", l.Head().Stamp))
	return nil
}
