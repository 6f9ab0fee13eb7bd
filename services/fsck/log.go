package fsck

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/audit/natstrail"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// leastLife is the shortest TTL of any message in the log: nothing leaves it sooner.
const leastLife = time.Hour

// message is what is kept of one in the log.
type message struct {
	seq    uint64
	stored time.Time
	id     string
	epoch  uint64 // of the place where it stands, which is not always that of its publisher
	kind   string // empty: it can't be read
	digest digestOf
	canary bool // the audit trail leaves it out
}

func (m *message) stamp() revoke.Stamp { return revoke.Stamp{Epoch: m.epoch, Seq: m.seq} }

// statement is what one entry says of one target.
type statement struct {
	seq   uint64
	key   revoke.Key
	state revoke.State
}

// epochAt is an epoch and its message.
type epochAt struct {
	revoke.Epoch
	message
}

// gap is a run of sequences that the log does not have.
type gap struct {
	from, to uint64
	after    time.Time // they were stored after this
}

// history is the log as it was read.
type history struct {
	c          *checker
	head       uint64 // up to which it was read, by the stream's own word
	messages   []message
	statements []statement
	epochs     []epochAt
	gaps       []gap
	ids        map[string]uint64
	last       uint64    // of the newest message that was read
	lastTime   time.Time // when that was stored
	orphans    int       // messages before any epoch
}

func newHistory(c *checker, made time.Time) *history {
	return &history{c: c, ids: map[string]uint64{}, lastTime: made}
}

func (h *history) readTo(ctx context.Context, upTo uint64) error {
	r := reading{js: h.c.js, name: wire.Stream, take: h.take, stuck: func(from, to uint64, why error) {
		h.c.differ(Log, "stuck", span(from, to), "%s", why)
	}}
	if err := r.read(ctx, h.head+1, upTo); err != nil {
		return err
	}
	h.passGap(upTo)
	h.head = max(h.head, upTo)
	return nil
}

// epoch is the newest one.
func (h *history) epoch() uint64 {
	if len(h.epochs) == 0 {
		return 0
	}
	return h.epochs[len(h.epochs)-1].Number
}

func (h *history) headStamp() revoke.Stamp { return revoke.Stamp{Epoch: h.epoch(), Seq: h.head} }

func (h *history) knows(epoch uint64) bool {
	return slices.ContainsFunc(h.epochs, func(e epochAt) bool { return e.Number == epoch })
}

// neverWas reports whether a position is of an epoch that the log does not have, and
// that no later one says is lost.
func (h *history) neverWas(at revoke.Stamp) bool {
	return !at.IsZero() && !h.knows(at.Epoch) && !h.lost(at)
}

// lost reports whether a later epoch says that what was at a position is not in this history
// any more. What stands there now may have been written before anybody noticed.
func (h *history) lost(at revoke.Stamp) bool { return h.epochsUpTo(h.head).Clamp(at) != at }

// epochsUpTo returns the epochs that begin at or below a sequence.
func (h *history) epochsUpTo(seq uint64) revoke.Epochs {
	var es revoke.Epochs
	for _, e := range h.epochs {
		if e.seq <= seq {
			es = es.With(e.Epoch)
		}
	}
	return es
}

// at returns the message at a sequence.
func (h *history) at(seq uint64) (message, bool) {
	i, ok := slices.BinarySearchFunc(h.messages, seq, func(m message, seq uint64) int { return cmp.Compare(m.seq, seq) })
	if !ok {
		return message{}, false
	}
	return h.messages[i], true
}

func (h *history) differ(name string, seq uint64, format string, args ...any) {
	h.c.differ(Log, name, fmt.Sprint(seq), format, args...)
}

// take adds the next message.
func (h *history) take(msg jetstream.Msg, meta *jetstream.MsgMetadata) {
	seq := meta.Sequence.Stream
	h.passGap(seq - 1)
	h.last, h.lastTime = seq, meta.Timestamp
	header := msg.Headers()
	m := message{seq: seq, stored: meta.Timestamp, epoch: h.epoch(), digest: digest(msg.Subject(), header, msg.Data())}
	d, err := decode(header)
	if err != nil {
		h.differ("unreadable", seq, "%s", err)
		h.messages = append(h.messages, m)
		return
	}
	m.id, m.kind, m.canary = d.ID, d.Kind, natstrail.LeftOut(msg.Data())
	if first, ok := h.ids[d.ID]; ok {
		h.differ("same-id", seq, "it has the id %s of the message at %d", d.ID, first)
	}
	h.ids[d.ID] = seq
	h.place(&d, &m)
	h.messages = append(h.messages, m)
	if err := compare(&d, msg.Subject(), msg.Data()); err != nil {
		h.differ("body", seq, "its two parts do not say the same: %s", err)
	}
	h.checkTTL(&d, &m, header)
	h.c.compareReceipt(&m, msg.Data())
	for k, s := range d.states(m.stamp()) {
		h.statements = append(h.statements, statement{seq, k, s})
	}
}

// place takes the epoch of a message, and gives it that of its place: the one that
// was begun last before it, whatever its publisher had heard of.
func (h *history) place(d *head, m *message) {
	if d.Kind != wire.KindEpoch {
		switch {
		case len(h.epochs) == 0:
			m.epoch = d.Epoch
			h.orphans++
		case d.Epoch > h.epoch():
			h.differ("unknown-epoch", m.seq, "it names the epoch %d, and the newest before it is %d", d.Epoch, h.epoch())
		}
		return
	}
	if d.Epoch <= h.epoch() {
		h.differ("epoch-order", m.seq, "the epoch %d begins after %d: the numbers must ascend", d.Epoch, h.epoch())
		return
	}
	m.epoch = d.Epoch
	shared := *d.D // readers, who have read it too, refuse one without
	if !shared.IsZero() && (!h.knows(shared.Epoch) || shared.Seq >= m.seq) {
		h.differ("epoch-shared", m.seq, "the epoch %d shares the history before it up to %s, where this log has never been", d.Epoch, shared)
	}
	h.epochs = append(h.epochs, epochAt{revoke.Epoch{Number: d.Epoch, D: shared, Restore: d.Restore}, *m})
}

// checkTTL wants a message to stay for as long as what it says counts, and to leave
// then.
func (h *history) checkTTL(d *head, m *message, header map[string][]string) {
	ttl, has := ttlOf(header)
	switch {
	case d.Kind == wire.KindEpoch:
		if has {
			h.differ("ttl", m.seq, "an epoch has to stay for ever, and leaves after %s", ttl)
		}
	case !kinds[d.Kind]:
	case !has:
		h.differ("ttl", m.seq, "a message of the kind %s would stay for ever", d.Kind)
	case ttl < leastLife:
		h.differ("ttl", m.seq, "it leaves after %s, and nothing may before %s", ttl, leastLife)
	case m.stored.Add(ttl).Unix() < d.Until:
		h.differ("ttl", m.seq, "it leaves at %s, and counts until %s", m.stored.Add(ttl).UTC().Format(time.RFC3339), time.Unix(d.Until, 0).UTC().Format(time.RFC3339))
	}
}

// passGap notes that nothing was read up to a sequence.
func (h *history) passGap(upTo uint64) {
	if h.last < upTo {
		h.gaps = append(h.gaps, gap{h.last + 1, upTo, h.lastTime})
		h.last = upTo
	}
}

// explained reports whether what stood at a sequence may have left by its TTL. By the
// broker's clock where that is ahead: it is the one that counts for a TTL.
func (h *history) explained(seq uint64) bool {
	now := h.c.cfg.Now()
	if h.lastTime.After(now) {
		now = h.lastTime
	}
	for _, g := range h.gaps {
		if g.from <= seq && seq <= g.to {
			return !g.after.After(now.Add(-leastLife))
		}
	}
	return false
}

// finish judges what the whole log shows.
func (h *history) finish() {
	for _, g := range h.gaps {
		if !h.explained(g.from) {
			h.c.differ(Log, "gap", span(g.from, g.to), "they are missing, and were stored after %s: nothing leaves within %s", g.after.UTC().Format(time.RFC3339), leastLife)
		}
	}
	if len(h.epochs) == 0 && h.head > 0 {
		h.differ("no-epoch", 1, "the log has no epoch, and epochs never leave")
	}
	// A service that has not noticed yet that the log is new may be the first to write.
	if h.orphans > 0 && len(h.epochs) > 0 {
		if first := h.messages[0]; first.stored.Before(h.epochs[0].stored.Add(-time.Minute)) {
			h.differ("no-epoch", first.seq, "%d messages stand before the first epoch, which is at %d: an epoch never leaves", h.orphans, h.epochs[0].seq)
		}
	}
}

func span(from, to uint64) string {
	if from == to {
		return fmt.Sprint(from)
	}
	return fmt.Sprintf("%d-%d", from, to)
}

// fold merges what counts after now (Unix seconds; 0: everything) of the entries up to
// a sequence.
func (h *history) fold(upTo uint64, now int64) map[revoke.Key]revoke.State {
	out := map[revoke.Key]revoke.State{}
	for _, s := range h.statements {
		if s.seq <= upTo && (now == 0 || s.state.Until > now) {
			out[s.key] = out[s.key].Merge(s.state)
		}
	}
	return out
}

// digest is over subject, header and body, each with its length before it.
func digest(subject string, header map[string][]string, data []byte) digestOf {
	var b []byte
	head := ""
	if v := header[wire.Header]; len(v) > 0 {
		head = v[0]
	}
	for _, part := range []string{subject, head, string(data)} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return sha256.Sum256(b)
}
