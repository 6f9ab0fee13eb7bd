package fsck

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// receiptSubject is before the id of a receipt.
const receiptSubject = "$KV." + receipts.Bucket + ".r."

// readReceipts reads what is said of entries, before the log is read: whatever a receipt
// is of was there by then.
func (c *checker) readReceipts(ctx context.Context) error {
	c.receipts, c.receiptOf = map[string]receipts.Receipt{}, map[string]string{}
	info, err := streamInfo(ctx, c.js, receipts.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil // none was made yet
	}
	if err != nil {
		return err
	}
	newest := map[string][]byte{}
	r := reading{js: c.js, name: receipts.Stream, stuck: func(from, to uint64, why error) {
		c.differ(Receipts, "stuck", span(from, to), "%s", why)
	}}
	r.take = func(m jetstream.Msg, _ *jetstream.MsgMetadata) {
		id, ok := strings.CutPrefix(m.Subject(), receiptSubject)
		switch {
		case !ok:
		case m.Headers().Get("KV-Operation") != "" || m.Headers().Get(jetstream.MarkerReasonHeader) != "":
			delete(newest, id)
		default:
			newest[id] = m.Data()
		}
	}
	if err := r.read(ctx, 1, info.State.LastSeq); err != nil {
		return err
	}
	for id, data := range newest {
		var x receipts.Receipt
		if err := json.Unmarshal(data, &x); err != nil || x.ID != id || x.Message == "" || x.Sequence == 0 {
			c.differ(Receipts, "unreadable", id, "it is no receipt of that id")
			continue
		}
		c.receipts[id], c.receiptOf[x.Message] = x, id
		if why := contradiction(&x); why != "" {
			c.differ(Receipts, "contradicts-itself", id, "it is complete, and %s", why)
		}
	}
	c.report.Receipts = len(c.receipts)
	return nil
}

// contradiction says what a complete receipt can't say.
func contradiction(r *receipts.Receipt) string {
	if !r.Complete {
		return ""
	}
	for _, u := range r.Unconfirmed {
		if u.Open {
			return u.Name + "/" + u.Instance + " is open"
		}
		if !u.Fenced || u.FencedBy > r.JudgedAt {
			return u.Name + "/" + u.Instance + " is neither confirmed nor fenced"
		}
	}
	switch {
	case r.JudgedAt == 0:
		return "nobody has judged it"
	case r.Redis != nil && r.Redis.AppliedAt == 0:
		return "the Redis view has not applied it"
	}
	return ""
}

// compareReceipt holds a message of the log against its receipt.
func (c *checker) compareReceipt(m *message, data []byte) {
	id, ok := c.receiptOf[m.id]
	if !ok {
		return
	}
	r := c.receipts[id]
	var b body
	if json.Unmarshal(data, &b) != nil {
		return // which is named as a difference of the log
	}
	targets := []string{}
	for _, t := range b.Data.Targets {
		targets = append(targets, revoke.Target{Kind: t.Kind, ID: t.ID}.String())
	}
	for _, k := range b.Data.TargetKeys {
		targets = append(targets, k.String())
	}
	for _, x := range []struct{ what, says, is string }{
		{"id", r.ID, b.Data.Entry},
		{"position", r.At().String(), m.stamp().String()},
		{"tenant", r.Tenant, b.Data.Tenant},
		{"op", r.Op, b.Data.Op},
		{"actor", r.Actor, b.Data.Actor},
		{"reason", r.Reason, b.Data.Reason},
	} {
		if x.says != x.is {
			c.differ(Receipts, "log-differs", id, "its %s is %q, and that of the entry %q", x.what, x.says, x.is)
		}
	}
	if !slices.Equal(r.Targets, targets) {
		c.differ(Receipts, "log-differs", id, "it has other targets than the entry at %d", m.seq)
	}
}

// judgeReceipts wants every receipt to be of a place where the log has been, with no
// other message there, unless it was lost when the log went back.
func (c *checker) judgeReceipts() {
	for id, r := range c.receipts {
		at := r.At()
		switch m, has := c.log.at(at.Seq); {
		case c.log.neverWas(at):
			c.differ(Receipts, "unknown-epoch", id, "it is of %s, and the log has no epoch %d", at, at.Epoch)
		case c.log.headStamp().Less(at):
			c.differ(Receipts, "above-head", id, "it is of %s, and the log ends at %s", at, c.log.headStamp())
		case has && m.epoch == at.Epoch && m.id != r.Message && !c.log.lost(at):
			c.differ(Receipts, "another-message", id, "at %s the log has the message %s, and it is of %s", at, m.id, r.Message)
		}
	}
}
