package fsck

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/services/revocation/audit/natstrail"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// seen is a message as the audit trail has seen it.
type seen struct {
	seq     uint64
	stored  time.Time
	digest  digestOf
	removed bool          // of a record: it was taken away
	epoch   string        // the id of the message, if it begins an epoch
	life    time.Duration // for so long at least it stays in the log; negative: for ever
	restart bool          // it is no message: its source was another one from here on
}

// restart is a source that went back, or was made anew, while it was followed.
type restart struct {
	source string
	at     time.Time
	before time.Time // when the newest message before was stored
}

// trail is what the audit trail has seen of its sources.
type trail struct {
	upto     map[string]audit.Place
	log      []seen
	digests  map[digestOf]bool          // of the log
	records  map[string]map[string]seen // the newest by source and key
	bySeq    map[string]map[uint64]seen // of the buckets
	newest   map[string]time.Time       // when the newest message of a source was stored
	restarts []restart
}

// readTrail reads the whole audit trail, which proves itself as it goes.
func (c *checker) readTrail(ctx context.Context) error {
	c.trail = &trail{
		upto: map[string]audit.Place{}, digests: map[digestOf]bool{}, records: map[string]map[string]seen{},
		bySeq: map[string]map[uint64]seen{}, newest: map[string]time.Time{},
	}
	err := c.trail.readEnd(ctx, c.js)
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrMsgNotFound) {
		c.notLookedAt("the audit trail: there is none yet")
		return nil
	}
	if err != nil {
		return err
	}
	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	silent := time.AfterFunc(patience, func() { stop(errSilent) })
	defer silent.Stop()
	sum, err := natstrail.Verify(reading, c.cfg.Log, func(it audit.Item) error {
		silent.Reset(patience)
		c.trail.take(it)
		return nil
	})
	c.report.Items = sum.Items
	if errors.Is(context.Cause(reading), errSilent) {
		c.differ(Audit, "stuck", fmt.Sprintf("after %d items", sum.Items), "%s", errSilent)
		return nil
	}
	if broken := (*audit.Broken)(nil); errors.As(err, &broken) {
		c.differ(Audit, "broken", fmt.Sprint(broken.Number), "%s", broken.Why)
		return nil
	}
	return err
}

// readEnd takes up to where the sources were read, as the last page has it.
func (t *trail) readEnd(ctx context.Context, js jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := js.Stream(ctx, audit.Stream)
	if err != nil {
		return fmt.Errorf("the audit trail: %w", err)
	}
	m, err := s.GetLastMsgForSubject(ctx, audit.Subject)
	if err != nil {
		return fmt.Errorf("the end of the audit trail: %w", err)
	}
	var p audit.Page
	if err := json.Unmarshal(m.Data, &p); err != nil {
		return nil //nolint:nilerr // whoever verifies the chain says so
	}
	t.upto = p.Upto
	return nil
}

func (t *trail) take(it audit.Item) {
	if it.Type == audit.TypeRestart {
		t.restarts = append(t.restarts, restart{it.Source, it.Stored, t.newest[it.Source]})
		delete(t.records, it.Source)
		delete(t.bySeq, it.Source)
		if it.Source == wire.Stream {
			t.log = append(t.log, seen{restart: true})
		}
		return
	}
	s := seen{seq: it.Sequence, stored: it.Stored, digest: it.Digest, removed: it.Type == audit.TypeRemove}
	t.newest[it.Source] = it.Stored
	if it.Source == wire.Stream {
		s.life = leastLife
		s.ofEvent(it.Event)
		t.log = append(t.log, s)
		t.digests[it.Digest] = true
		return
	}
	if t.records[it.Source] == nil {
		t.records[it.Source], t.bySeq[it.Source] = map[string]seen{}, map[uint64]seen{}
	}
	t.records[it.Source][it.Key], t.bySeq[it.Source][it.Sequence] = s, s
}

// ofEvent takes from the body of a message how long it stays in the log at least.
func (s *seen) ofEvent(event json.RawMessage) {
	var b body
	if json.Unmarshal(event, &b) != nil {
		return
	}
	switch b.Type {
	case eventPrefix + wire.KindEpoch:
		s.epoch, s.life = b.ID, -1
	case eventPrefix + wire.KindEntry:
		for _, t := range b.Data.Targets {
			if t.Issuer == revoke.Own && t.Kind != revoke.KindToken && !b.Data.Record {
				s.life = wire.MaxCredentialLife
			}
		}
	}
}

// left reports whether the message may have left the log by now.
func (s *seen) left(now time.Time) bool { return s.life >= 0 && s.stored.Add(s.life).Before(now) }

// judgeTrail holds the audit trail against the log: what it has seen must be there as
// it was, but for what has ended, or was lost by a history that went before.
func (c *checker) judgeTrail() {
	epochs := c.log.epochsUpTo(c.log.head)
	numbers := map[string]uint64{}
	for _, e := range c.log.epochs {
		numbers[e.id] = e.Number
	}
	here, now := uint64(0), c.cfg.Now()
	for _, s := range c.trail.log {
		if s.restart {
			here = 0
			continue
		}
		if s.epoch != "" {
			here = numbers[s.epoch] // 0: that one is lost, and all in it
		}
		at := revoke.Stamp{Epoch: here, Seq: s.seq}
		if here == 0 || epochs.Clamp(at) != at {
			continue // of a history that was lost, as a later epoch says
		}
		m, ok := c.log.at(s.seq)
		switch {
		case ok && m.digest != s.digest:
			c.differ(Audit, "log-differs", at.String(), "the log has another message there now, %s, stored %s", m.id, m.stored.UTC().Format(time.RFC3339))
		case !ok && s.seq > c.log.head:
			c.differ(Audit, "log-ends-before", at.String(), "the trail has seen it, and the log ends at %s", c.log.headStamp())
		case !ok && !s.left(now):
			c.differ(Audit, "log-lacks", at.String(), "the trail has seen it, and it can't have left the log by its end")
		}
	}
	c.judgeReach()
	c.judgeRestarts()
}

// judgeReach wants the trail to have what the log has, up to where it says that it has
// read it. Until it has followed into a new epoch that is of the history before.
func (c *checker) judgeReach() {
	place, ok := c.trail.upto[wire.Stream]
	if !ok {
		return
	}
	n := len(c.log.epochs)
	followed := n == 0 || !c.log.epochs[n-1].stored.After(c.trail.newest[wire.Stream])
	if followed && place.Sequence > c.log.head {
		c.differ(Audit, "ahead", fmt.Sprint(place.Sequence), "the trail has read the log up to there, and it ends at %s", c.log.headStamp())
	}
	for i := range c.log.messages {
		m := &c.log.messages[i]
		switch {
		case m.kind == wire.KindTick || m.canary || c.trail.digests[m.digest]:
		case followed && m.seq <= place.Sequence:
			c.differ(Audit, "lacks", m.stamp().String(), "the trail has read the log up to %d, and does not have this message of the kind %s", place.Sequence, m.kind)
		default:
			c.report.Unaudited++
		}
	}
}

// judgeRestarts wants every bucket that went back to have been restored: by an epoch
// that says so.
func (c *checker) judgeRestarts() {
	for _, r := range c.trail.restarts {
		if r.source != wire.Stream && !c.restoredSince(r.before) {
			c.differ(Buckets, "went-back", r.source, "it went back or was made anew, as the audit trail noticed at %s, and no epoch says that anything was restored; begin one: quash epoch new", r.at.UTC().Format(time.RFC3339))
		}
	}
}

// restoredSince reports whether the log has an epoch of a restore that began after a
// time.
func (c *checker) restoredSince(t time.Time) bool {
	for _, e := range c.log.epochs {
		if e.Restore && e.stored.After(t) {
			return true
		}
	}
	return false
}
