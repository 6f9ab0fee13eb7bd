package follow

import (
	"cmp"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// What a reader keeps of the feed while it can't go on from its position.
const (
	backlogMost    = 1 << 16 // messages
	backlogTargets = 1 << 20 // of all of them
)

// backlog is what came on the feed and could not be applied yet, in the order of
// arrival.
type backlog struct {
	messages []wire.Stored
	targets  int
}

// add reports whether there was room.
func (b *backlog) add(m wire.Stored) bool {
	n := len(m.Message.Cut) + len(m.Message.End) + len(m.Message.Hold) + len(m.Message.Release)
	if len(b.messages) >= backlogMost || b.targets+n > backlogTargets {
		*b = backlog{}
		return false
	}
	b.messages, b.targets = append(b.messages, m), b.targets+n
	return true
}

// deliver takes one message of the feed.
func (r *Reader) deliver(m wire.Stored, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.publish()
	switch {
	case r.stopped:
	case err != nil:
		r.log.Error("a message of the feed can't be read; nothing is accepted until a sync has it",
			zap.Uint64("sequence", m.Sequence), zap.Error(err))
		r.unreadable(m.Sequence)
	case m.Message.Epoch == 0 || m.Sequence == 0 || m.Message.ID == "":
		// The adapter gives an error for such a one; nothing can be said of it.
		r.unfollow(wantGap)
	case r.following:
		r.follow(m)
	default:
		r.learn(m)
		r.keep(m)
	}
}

// lost hears that the feed may have left something out.
func (r *Reader) lost() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unfollow(wantLost)
	r.publish()
}

// follow judges a message by its place. The caller has made sure that the feed
// goes on from the position.
func (r *Reader) follow(m wire.Stored) {
	switch {
	case m.Message.Epoch > r.pos.Epoch:
		r.learn(m)
		r.keep(m)
	case m.Sequence <= r.pos.Seq:
		r.learn(m)
		r.compare(m)
	case m.Message.Epoch < r.pos.Epoch:
		// Late, from a history that was lost, or by a service that has not heard of
		// the new one. The log itself knows which.
		r.learn(m)
		r.unfollow(wantGap)
	case m.Sequence == r.pos.Seq+1:
		r.apply(m, &r.track)
	default:
		r.learn(m)
		r.unfollow(wantGap)
		r.keep(m)
	}
}

// keep puts a message aside until a sync has brought the position near to it.
func (r *Reader) keep(m wire.Stored) {
	if !r.feed.add(m) {
		r.want(wantLost) // once more after the one that is under way
		return
	}
	if r.onlyGap() && m.Message.Epoch == r.pos.Epoch && m.Sequence == r.pos.Seq+1 {
		r.fillGap() // it was late, not lost
	}
}

// onlyGap reports whether nothing but the next sequence keeps the reader from
// following the feed, and no sync is under way.
func (r *Reader) onlyGap() bool {
	return r.loaded && !r.following && !r.sync.busy && r.sync.want == wantGap && r.complete()
}

// fillGap goes on without a sync, if what was put aside has no gap any more.
func (r *Reader) fillGap() {
	next := r.pos.Seq + 1
	slices.SortStableFunc(r.feed.messages, func(a, b wire.Stored) int { return cmp.Compare(a.Sequence, b.Sequence) })
	for _, m := range r.feed.messages {
		if m.Sequence > next || m.Message.Epoch != r.pos.Epoch {
			return
		}
		if m.Sequence == next {
			next++
		}
	}
	r.sync.want = wantNothing
	r.drain()
}

// drain follows the feed again, beginning with what was put aside.
func (r *Reader) drain() {
	aside := r.feed.messages
	r.feed = backlog{}
	r.following = true
	for _, m := range aside {
		if r.following {
			r.follow(m)
		} else {
			r.keep(m)
		}
	}
}

// learn merges what a message says before its turn has come. Merging is
// commutative and idempotent (promise 3), so a revocation counts at once, even
// while something before it is missing; only the watermark has to wait. Of an older
// history only what refuses counts: the log may have lost its releases, and a sync brings
// those that it has.
func (r *Reader) learn(m wire.Stored) {
	if m.Message.Epoch > r.top {
		r.beginEpoch(m.Position())
	}
	if m.Message.Epoch < r.top {
		m.Message.Release = nil
	}
	r.merge(m.Message, m.Position().Stamp)
}

// merge puts what a message says of targets and epochs into the view.
func (r *Reader) merge(m wire.Message, place revoke.Stamp) {
	changed := false
	for k, s := range m.States(place) {
		r.view.Merge(k, s)
		changed = true
	}
	if e, ok := m.EpochState(); ok {
		r.view.MergeEpoch(e)
		changed = true
	}
	if changed {
		r.changed.send()
	}
}

// beginEpoch hears of a history that is newer than the reader's, by a message there.
func (r *Reader) beginEpoch(by wire.Position) {
	r.top, r.toldTop = by.Epoch, by
	if !r.loaded {
		return // it loads the whole state anyway
	}
	r.log.Warn("the log begins a new epoch; loading its state", zap.Uint64("epoch", by.Epoch))
	r.loaded = false
	r.unprove()
	r.unfollow(wantEpoch)
	r.changed.send()
}

// unreadable stops accepting until a sync has got past a message that this
// version can't read: it may have been a revocation.
func (r *Reader) unreadable(seq uint64) {
	r.unread = &unread{seq: seq, round: r.sync.round}
	r.unfollow(wantLost)
}

// compare holds a message that came late or twice against what was applied in
// its place.
func (r *Reader) compare(m wire.Stored) {
	if have, ok := r.recent.at(m.Sequence); ok && have.published == m.Message.Epoch && have.id != m.Message.ID {
		r.wentBack(m.Sequence, "the feed has another message at a position that was read")
	}
}

// wentBack has proof that the log is not the one that was read any more: other
// stands where something else was read. Nothing is accepted until there is a new
// epoch, or until the service, shown the proof, finds the position in its log
// all the same and a probe proves it.
func (r *Reader) wentBack(seq uint64, why string) {
	if r.back == nil {
		r.log.Error("the log went back; nothing is accepted until its new epoch", zap.String("proof", why),
			zap.Stringer("position", r.pos.Stamp), zap.Uint64("sequence", seq))
	}
	r.back = &back{round: r.sync.round}
	if p, ok := r.recent.at(seq); ok {
		r.back.have = []place{p}
	}
	r.unprove()
	r.unfollow(wantProof)
	kick(r.kickProbe)
}

// unfollow stops to apply the feed as it comes, and wants a sync.
func (r *Reader) unfollow(w want) {
	r.following = false
	r.want(w)
}

// readable tells whether this version knows what a message says. An adapter that
// decodes has refused the others already.
func readable(m wire.Message) error {
	switch m.Kind {
	case wire.KindEpoch, wire.KindEntry, wire.KindKey, wire.KindJoin, wire.KindOut, wire.KindTick:
		return nil
	}
	if m.Optional {
		return nil
	}
	return fmt.Errorf("%w: kind %.40q", wire.ErrUnknownKind, m.Kind)
}

// apply puts a message in its place: t is the reader's own track, or that of a
// load. It reports whether the message could be read.
func (r *Reader) apply(m wire.Stored, t *track) bool {
	if err := readable(m.Message); err != nil {
		r.log.Error("the log has a message that this version can't read; nothing is accepted", zap.Error(err))
		r.unreadable(m.Sequence)
		return false
	}
	// The epoch of a place is that of the last epoch message before it; one by a
	// publisher that had not heard of it yet counts as of the new epoch all the
	// same, which refuses more, never less.
	here := revoke.Stamp{Epoch: max(t.pos.Epoch, m.Message.Epoch), Seq: m.Sequence}
	if here.Epoch > r.top {
		r.top, r.toldTop = here.Epoch, wire.Position{Stamp: here, ID: m.Message.ID}
	}
	r.merge(m.Message, here)
	t.pos = wire.Position{Stamp: here, ID: m.Message.ID}
	t.recent.add(place{at: here, published: m.Message.Epoch, id: m.Message.ID, time: m.Time})
	switch m.Message.Kind {
	case wire.KindEntry:
		t.stamp = t.stamp.Max(here)
		r.reportSoon()
	case wire.KindEpoch:
		t.stamp = t.stamp.Max(here)
	case wire.KindKey:
		r.cfg.OnKey(m.Message)
		r.reportSoon() // a key waits for its readers before it may sign
	case wire.KindJoin, wire.KindOut:
		r.seeGuard(m.Message, here)
	}
	if t == &r.track {
		r.settle()
	}
	r.cfg.OnEntry(m)
	return true
}

// settle follows a move of the watermark.
func (r *Reader) settle() {
	if !r.synced.IsZero() && !r.pos.Less(r.synced) {
		r.stamp, r.synced = r.stamp.Max(r.synced), revoke.Stamp{}
	}
	if len(r.probes.pending) > 0 {
		r.provePending()
	}
	r.publish()
}
