package bench

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// entries is how many live entries a guard starts with.
const entries = 1_000_000

// BenchmarkStart: a guard from nothing to ready with a million live entries. The
// peer reads as many bytes, in as large messages, from one core request stream
// into a Go map.
func BenchmarkStart(b *testing.B) {
	w := newWorld(b)
	for i := 0; i < entries; i += wire.MaxTargets {
		ids := make([]string, wire.MaxTargets)
		for j := range ids {
			ids[j] = fmt.Sprintf("user-%d", i+j)
		}
		w.cut(b, revoke.KindPrincipal, ids...)
	}
	enginetest.Eventually(b, "the ledger has them all", func() error {
		if n := w.ledger.View().Len(); n < entries {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	id, err := wire.NewID(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	pages, err := wire.EncodePages(wire.Snapshot{ID: id, Epochs: w.ledger.View().Epochs(), States: w.ledger.View().All})
	if err != nil {
		b.Fatal(err)
	}
	server, client := w.nats.Dial(b, "revocation"), w.nats.Admin(b, "LOG")
	if _, err := server.Subscribe("quash.guard.bench.page.*", func(m *nats.Msg) {
		_ = m.Respond(pages[binary.BigEndian.Uint32(m.Data)])
	}); err != nil {
		b.Fatal(err)
	}
	if err := server.Flush(); err != nil {
		b.Fatal(err)
	}
	var ours, theirs []time.Duration
	for b.Loop() {
		theirs = append(theirs, readBare(b, client, len(pages)))
		t0 := time.Now()
		r := w.guard(b, "starter", nil)
		for r.guard.Ready() != nil {
			if time.Since(t0) > time.Minute {
				b.Fatal(r.guard.Ready())
			}
			time.Sleep(time.Millisecond)
		}
		ours = append(ours, time.Since(t0))
		if n := r.guard.Reader().View().Len(); n < entries {
			b.Fatalf("ready with %d of %d entries", n, entries)
		}
	}
	o, t := quantile(ours, 0.5), quantile(theirs, 0.5)
	b.ReportMetric(millis(o), "ready-ms")
	b.ReportMetric(millis(t), "bare-ms")
	b.ReportMetric(float64(o)/float64(t), "ratio")
}

func readBare(b *testing.B, nc *nats.Conn, pages int) time.Duration {
	b.Helper()
	t0 := time.Now()
	m := map[[16]byte][16]byte{}
	for i := range pages {
		msg, err := nc.Request("quash.guard.bench.page.x", binary.BigEndian.AppendUint32(nil, uint32(i)), 10*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		const record = 40 // about what an entry has on the wire
		for d := msg.Data; len(d) >= record; d = d[record:] {
			m[[16]byte(d)] = [16]byte(d[16:])
		}
	}
	return time.Since(t0)
}

// idleFor is how long an idle guard is watched.
const idleFor = 60 * time.Second

// BenchmarkIdle: how many messages an idle guard sends and receives a second.
func BenchmarkIdle(b *testing.B) {
	w := newWorld(b)
	r := w.guard(b, "idle", nil)
	enginetest.Eventually(b, "the guard is ready", r.guard.Ready)
	for b.Loop() {
		before := r.conn.Stats()
		time.Sleep(idleFor)
		after := r.conn.Stats()
		n := after.InMsgs - before.InMsgs + after.OutMsgs - before.OutMsgs
		b.ReportMetric(float64(n)/idleFor.Seconds(), "msgs/s")
	}
}
