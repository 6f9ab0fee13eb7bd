package itest

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/wire"
)

func TestReadersOfEveryAccountFollowTheRealLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.end()
	var ms []*member
	for _, name := range []string{"orders", "billing", "issuer", "rotator"} {
		ms = append(ms, w.member(name, nil))
	}
	w.ready(ms...)
	for range 50 {
		w.end()
		for _, m := range ms {
			w.truthful(m)
		}
	}
	w.caughtUp(ms...)
	for _, m := range ms {
		if err := m.WaitFor(t.Context(), w.log.Stamp()); err != nil {
			t.Fatal(err)
		}
		if m.Stamp() != w.log.Stamp() || !m.View().State(first.key).Ended {
			t.Errorf("stamp %s, the log's %s", m.Stamp(), w.log.Stamp())
		}
		if err := m.Fresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	last := w.end()
	c := w.fleet.Wait(t.Context(), fleet.Entry{At: last.when, CommittedAt: last.at}, time.Minute)
	if !c.Complete || len(c.Confirmed) != len(ms) {
		t.Fatalf("confirmed by %d of %d: %+v", len(c.Confirmed), len(ms), c)
	}
	ms[0].stop()
	enginetest.Eventually(t, "out of the fleet", func() error {
		for _, g := range w.fleet.List() {
			if g.Instance == ms[0].Instance() && g.State == "in" {
				return fmt.Errorf("%+v", g)
			}
		}
		return nil
	})
}

func TestReaderStartsBeforeEverythingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.end()
	w.stop()
	w.nats.Stop()
	m := w.member("orders", nil)
	time.Sleep(300 * time.Millisecond)
	if _, err := m.Check(); !errors.Is(err, follow.ErrNotStarted) {
		t.Fatalf("with nobody there: %v", err)
	}
	w.nats.Start(t)
	w.serve()
	w.ready(m)
	w.caughtUp(m)
}

func TestBrokerRestartLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ms := []*member{w.member("orders", nil), w.member("billing", nil)}
	w.ready(ms...)
	epoch := w.log.Epoch()
	for range 3 {
		w.end()
		w.nats.Restart(t)
		enginetest.Eventually(t, "the service is ready", w.log.Ready)
		w.end()
		for _, m := range ms {
			w.truthful(m)
		}
	}
	w.caughtUp(ms...)
	w.ready(ms...)
	if w.log.Epoch() != epoch {
		t.Errorf("a restart began a new epoch")
	}
}

func TestFrozenLineStopsTheReaderAtItsLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m, other := w.member("orders", nil), w.member("billing", nil)
	w.ready(m, other)
	m.line.freeze()
	frozen := time.Now()
	for time.Since(frozen) < 3*time.Second {
		w.end()
		w.truthful(m)
		w.truthful(other)
		time.Sleep(50 * time.Millisecond)
	}
	if err := m.accepts(); err == nil {
		t.Fatal("accepts after 3 s of silence with a limit of 2 s")
	}
	if err := other.accepts(); err != nil {
		t.Fatalf("the other reader: %v", err)
	}
	m.line.thaw()
	w.ready(m)
	w.caughtUp(m)
	m.line.cut()
	w.end()
	w.caughtUp(m)
	w.ready(m)
}

// The log's files are put back to an older copy while the readers live on.
func TestRestoredCopyBeginsANewEpochForConnectedReaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ms := []*member{w.member("orders", nil), w.member("billing", nil)}
	w.ready(ms...)
	shared := w.end()
	w.caughtUp(ms...)
	w.nats.Stop()
	copied := t.TempDir() + "/copy"
	copyTree(t, streamFiles(w.nats), copied)
	w.nats.Start(t)
	enginetest.Eventually(t, "the service is ready", w.log.Ready)
	for range 5 {
		w.end() // these are lost with the restore, but not to those who have them
	}
	for _, m := range ms {
		if err := m.WaitFor(t.Context(), w.log.Stamp()); err != nil {
			t.Fatal(err)
		}
	}
	before := ms[0].Position()

	w.stop()
	w.nats.Stop()
	if err := os.RemoveAll(streamFiles(w.nats)); err != nil {
		t.Fatal(err)
	}
	copyTree(t, copied, streamFiles(w.nats))
	w.nats.Start(t)
	w.serve() // a new process: it remembers nothing
	enginetest.Eventually(t, "a new epoch", func() error {
		for _, m := range ms {
			if m.Position().Epoch <= before.Epoch {
				return fmt.Errorf("%+v", m.Status())
			}
		}
		return nil
	})
	enginetest.Eventually(t, "the service is ready", w.log.Ready)
	w.end()
	w.caughtUp(ms...)
	w.ready(ms...)
	es := ms[0].View().Epochs()
	if d := es.Current().D; d.Less(shared.when) || !d.Less(before.Stamp) {
		t.Errorf("D is %s; %s was shared, and %s lost", d, shared.when, before.Stamp)
	}
}

func TestIdleReaderOnTheRealLogIsQuiet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.member("orders", func(c *follow.Config) { c.Limit = wire.DefaultLimit })
	w.ready(m)
	nc := w.nats.Admin(t, "GUARDS")
	asked, err := nc.SubscribeSync(wire.GuardPrefix + ">")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(11 * time.Second)
	n, _, err := asked.Pending()
	if err != nil {
		t.Fatal(err)
	}
	if n < 2 || n > 3 {
		t.Errorf("asked %d times in 11 s with a limit of 15 s, want one in 5 s", n)
	}
	if err := m.accepts(); err != nil {
		t.Error(err)
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
