package fsck

import (
	"fmt"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// text is a state as a person reads it.
func text(s revoke.State) string {
	if s == (revoke.State{}) {
		return "nothing"
	}
	ended := ""
	if s.Ended {
		ended = " ended"
	}
	return fmt.Sprintf("cut %s at %d%s, held %s, released %s, until %s",
		s.Cut, s.CutAt, ended, s.Held, s.Released, time.Unix(s.Until, 0).UTC().Format(time.RFC3339))
}

// unexplained returns what a value in Redis says that the whole log does not, and that
// no entry which has left the log can have said. The part of a merged state that an
// entry with an earlier end has brought outlives that entry.
func (c *checker) unexplained(s, log revoke.State) (why []string) {
	epochs := c.log.epochsUpTo(c.log.head)
	gone := false // something of it may be from what has left
	say := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	if log.Cut.Less(s.Cut) {
		if c.mayHaveLeft(s.Cut) {
			gone = true
		} else {
			say("no entry at %s cuts or ends it", s.Cut)
		}
	}
	if log.Held.Less(s.Held) {
		switch {
		case c.mayHaveLeft(s.Held), epochs.Clamp(s.Held) != s.Held && !s.Blocked(epochs):
			gone = true // a hold that was lost after its release is not committed again
		default:
			say("no entry at %s holds it", s.Held)
		}
	}
	if log.Released.Less(s.Released) {
		lost := epochs.Clamp(s.Released) != s.Released
		switch {
		case lost, c.mayHaveLeft(s.Released), c.was(s.Released) && s.Released.Compare(s.Held) <= 0 && gone, c.passed(s.Released, log.Held):
			gone = true
		default:
			say("no entry releases the hold at %s", s.Released)
		}
	}
	if s.Ended && !log.Ended && !gone {
		say("no entry ends it")
	}
	if s.CutAt > log.CutAt && !gone {
		say("no entry cuts it at %d", s.CutAt)
	}
	if s.Until > log.Until && !gone && len(why) == 0 {
		say("no entry about it counts until %d", s.Until)
	}
	return why
}

// passed reports whether the release of one hold may have been lost with a part of the
// log while a later hold stands: it then opens nothing, and nobody commits it again.
func (c *checker) passed(released, held revoke.Stamp) bool {
	return released.Less(held) && c.log.knows(released.Epoch) && released.Epoch < c.log.epoch()
}

// was reports whether the log has a message at a position.
func (c *checker) was(p revoke.Stamp) bool {
	m, ok := c.log.at(p.Seq)
	return ok && m.epoch == p.Epoch
}

// mayHaveLeft reports whether the log can have had an entry at a position that has
// ended.
func (c *checker) mayHaveLeft(p revoke.Stamp) bool {
	if _, ok := c.log.at(p.Seq); ok || p.Seq > c.log.head || !c.log.knows(p.Epoch) {
		return false
	}
	return c.log.explained(p.Seq)
}

// judgeMeta wants the meta of a shard to name a position of this log.
func (c *checker) judgeMeta(s *shardView) {
	m, at := s.meta, wire.RedisMetaKey(s.n)
	there, ok := c.log.at(m.Position.Seq)
	switch {
	case c.log.headStamp().Less(m.Position.Stamp):
		c.differ(Redis, "above-head", at, "it stands at %s, and the log ends at %s", m.Position.Stamp, c.log.headStamp())
	case ok && (there.epoch != m.Position.Epoch || there.id != m.Position.ID):
		c.differ(Redis, "position", at, "it stands at %s with the id %s, and the log has %s with %s there", m.Position.Stamp, m.Position.ID, there.stamp(), there.id)
	case !ok && !c.log.explained(m.Position.Seq):
		c.differ(Redis, "position", at, "it stands at %s, where the log has nothing", m.Position.Stamp)
	}
	if newest := c.log.newestUpTo(m.Position.Seq); m.Stamp.Less(newest) {
		c.differ(Redis, "stamp", at, "its newest entry or epoch is %s, and that of the log is %s", m.Stamp, newest)
	}
	want := c.log.epochsUpTo(m.Position.Seq)
	for _, e := range want {
		if !slices.Contains(m.Epochs, e) {
			c.differ(Redis, "epochs", at, "it does not have the epoch %d as the log has it", e.Number)
		}
	}
	for _, e := range m.Epochs {
		if known := c.log.epochsUpTo(c.log.head); c.log.neverWas(revoke.Stamp{Epoch: e.Number, Seq: 1}) || known.Has(e.Number) && !slices.Contains(known, e) {
			c.differ(Redis, "epochs", at, "it has an epoch %d shared up to %s, and the log does not", e.Number, e.D)
		}
	}
}

// newestUpTo is the newest entry or epoch at or below a sequence.
func (h *history) newestUpTo(seq uint64) revoke.Stamp {
	for i := len(h.messages) - 1; i >= 0; i-- {
		if m := &h.messages[i]; m.seq <= seq && (m.kind == wire.KindEntry || m.kind == wire.KindEpoch) {
			return m.stamp()
		}
	}
	return revoke.Stamp{}
}
