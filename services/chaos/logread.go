package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/guard/natsfeed"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// reasonPrefix, with the number of a change, is the reason of its entry, by which
// it is found in the log.
const reasonPrefix = "chaos: change "

func reasonOf(change int) string { return reasonPrefix + strconv.Itoa(change) }

// logReader folds the log by itself, with every right and past all links.
type logReader struct {
	nc     *nats.Conn
	view   *revoke.View
	epoch  uint64
	next   uint64
	stored map[int]int // entries by change
}

func (l *logReader) connect(w *world) error {
	set, err := identity.Load(filepath.Join(w.dir, "identities"))
	if err != nil {
		return err
	}
	creds := filepath.Join(w.dir, "secrets", "chaos.creds")
	if err := set.Admin(creds, identity.Log); err != nil {
		return err
	}
	l.nc, _, err = natsfeed.Connect(w.env["QUASH_NATS_URL"], creds, "chaos", nil, nats.RootCAs(w.caFile()))
	return err
}

func (l *logReader) close() {
	if l.nc != nil {
		l.nc.Close()
	}
}

// again forgets what was read: the log has gone back.
func (l *logReader) again() { l.view = nil }

// read reads on to the head, and returns how many entries each change has, and
// what the log says of tokens.
func (l *logReader) read(ctx context.Context, w *world, tokens []*Token) (map[int]int, map[int]Verdict, error) {
	if l.nc == nil {
		if err := l.connect(w); err != nil {
			return nil, nil, err
		}
	}
	if l.view == nil {
		l.view, l.stored, l.epoch, l.next = revoke.NewView(), map[int]int{}, 0, 1
	}
	if err := until(ctx, time.Now().Add(quietTime), func() error { return l.readOn(ctx) }); err != nil {
		return nil, nil, err
	}
	fold := map[int]Verdict{}
	for _, t := range tokens {
		fold[t.ID] = Allowed
		for _, key := range t.Targets {
			if l.view.Hit(key, t.Stamp) {
				fold[t.ID] = Dead
			}
		}
	}
	return maps.Clone(l.stored), fold, nil
}

// A consumer whose node was killed does not say so, and another one is soon made.
func (l *logReader) readOn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	js, err := jetstream.New(l.nc)
	if err != nil {
		return err
	}
	stream, err := js.Stream(ctx, wire.Stream)
	if err != nil {
		return err
	}
	head := stream.CachedInfo().State.LastSeq
	if head < l.next {
		return nil
	}
	c, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: l.next})
	if err != nil {
		return err
	}
	messages, err := c.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for l.next <= head {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if err := l.take(meta.Sequence.Stream, m); err != nil {
			return fmt.Errorf("sequence %d of the log: %w", meta.Sequence.Stream, err)
		}
		l.next = meta.Sequence.Stream + 1
	}
	return nil
}

// take folds one message. One of who had not heard of an epoch that stands before
// it counts as of that epoch.
func (l *logReader) take(seq uint64, m jetstream.Msg) error {
	msg, err := wire.Decode([]byte(m.Headers().Get(wire.Header)))
	if err != nil {
		return err
	}
	if e, ok := msg.EpochState(); ok {
		l.view.MergeEpoch(e)
	}
	l.epoch = max(l.epoch, msg.Epoch)
	for k, s := range msg.States(revoke.Stamp{Epoch: l.epoch, Seq: seq}) {
		l.view.Merge(k, s)
	}
	var event struct{ Data struct{ Reason string } }
	if err := json.Unmarshal(m.Data(), &event); err != nil {
		return nil //nolint:nilerr // ticks and their like have no body
	}
	if text, ok := strings.CutPrefix(event.Data.Reason, reasonPrefix); ok {
		if n, err := strconv.Atoi(text); err == nil {
			l.stored[n]++
		}
	}
	return nil
}
