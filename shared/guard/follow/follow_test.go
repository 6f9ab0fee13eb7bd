package follow_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/follow/followtest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

func TestAcceptsOnceJoinedAndFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		before := s.end()
		m := s.member(nil)
		if _, err := m.Check(); !errors.Is(err, follow.ErrNotStarted) {
			t.Fatalf("before Run: %v", err)
		}
		m.run(t)
		defer m.stop()
		s.ready(m)
		st := m.Status()
		if !st.Joined || !st.Complete || !st.Synced || !st.StalenessKnown || st.Reason != nil || st.Limit != wire.DefaultLimit || st.Past != wire.PastDeny {
			t.Fatalf("status %+v", st)
		}
		if !m.View().State(before.key).Ended {
			t.Fatal("lacks what was there before it started")
		}
		changed := m.Changed()
		e := s.end()
		synctest.Wait()
		select {
		case <-changed:
		default:
			t.Fatal("Changed was not closed")
		}
		if !m.View().State(e.key).Ended || m.Position().Seq != e.seq || m.Stamp().Seq != e.seq {
			t.Fatalf("at %s with stamp %s, want %d", m.Position().Stamp, m.Stamp(), e.seq)
		}
		s.log.Tick()
		synctest.Wait()
		if m.Stamp().Seq != e.seq || m.Position().Seq != e.seq+1 {
			t.Fatalf("a tick moved the stamp to %s", m.Stamp())
		}
	})
}

func TestStampOfASyncIsTheServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		e := s.end()
		s.log.Tick()
		s.log.Expire(1, e.seq)
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		if want := (revoke.Stamp{Epoch: s.log.Epoch(), Seq: e.seq}); m.Stamp() != want {
			t.Fatalf("stamp %s, want %s: what is made now would be born dead", m.Stamp(), want)
		}
	})
}

func TestWholeStateBringsKeysBeforeItIsComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		for i := range 40 {
			s.log.Commit(wire.Message{Kind: wire.KindKey, KeyID: fmt.Sprint("k", i), JWS: "a.b.c", Until: time.Now().Add(time.Hour).Unix()})
		}
		var bulk []revoke.Key
		for i := range uint64(30000) { // more than a page
			if bulk = append(bulk, keyOf(1<<40+i)); len(bulk) == wire.MaxTargets {
				s.log.End(bulk...)
				bulk = nil
			}
		}
		s.log.Expire(1, 1000)
		m := s.member(nil)
		incomplete := false
		m.link.SetFaults(followtest.Faults{Latency: 10 * time.Millisecond})
		m.run(t)
		defer m.stop()
		eventually(t, 30*time.Second, "complete", func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			if !m.Status().Complete {
				incomplete = true
				return false
			}
			if len(m.keys) != 40 {
				t.Fatalf("complete with %d of 40 keys", len(m.keys))
			}
			return true
		})
		if c := s.log.Counts(); !incomplete || c.Page < 2 {
			t.Fatalf("%d pages", c.Page)
		}
		s.whole(m)
		s.log.Commit(wire.Message{Kind: wire.KindKey, KeyID: "next", JWS: "a.b.c", Until: time.Now().Add(time.Hour).Unix()})
		eventually(t, time.Second, "the next key", func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.keys[len(m.keys)-1] == "next"
		})
	})
}

func TestFrozenServiceStopsTheReaderAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		m.link.SetFaults(followtest.Faults{Frozen: true}) // the feed goes on, ticks and all
		start := time.Now()
		for time.Since(start) < time.Minute {
			s.log.Tick()
			e := s.end()
			time.Sleep(100 * time.Millisecond)
			if !m.View().State(e.key).Ended {
				t.Fatal("a revocation on the feed did not count at once")
			}
			s.truthful(m)
		}
		if staleness, err := m.Check(); err != nil || staleness < time.Minute {
			t.Fatalf("after a minute without a proof: %s, %v", staleness, err)
		}
		m.link.SetFaults(followtest.Faults{})
		eventually(t, 10*time.Second, "accepts again", m.accepts)
		s.whole(m)
	})
}

func TestCutFeedWithALiveServiceStaysFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		m.link.SetFaults(followtest.Faults{Cut: true})
		for range 300 {
			s.end()
			time.Sleep(200 * time.Millisecond)
			s.truthful(m)
			if !m.accepts() {
				t.Fatalf("stopped: %+v", m.Status())
			}
		}
	})
}

// The last message before silence is lost: nothing on the feed would ever show it.
func TestLostLastMessageIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		m.link.SetFaults(followtest.Faults{Cut: true})
		e := s.end()
		m.link.SetFaults(followtest.Faults{})
		eventually(t, 8*time.Second, "the lost entry", func() bool { return m.View().State(e.key).Ended })
		s.truthful(m)
	})
}

func TestLateMessageFillsItsGapWithoutASync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		s.log.Counts()
		m.link.SetFaults(followtest.Faults{Cut: true})
		late := s.log.End(keyOf(7001))
		m.link.SetFaults(followtest.Faults{})
		next := s.log.End(keyOf(7002))
		synctest.Wait()
		if !m.View().State(keyOf(7002)).Ended || m.Position().Seq >= late.Sequence {
			t.Fatalf("at %s", m.Position().Stamp)
		}
		if m.Stamp().Seq >= late.Sequence {
			t.Fatalf("stamp %s: what is made with it would escape the entry that is missing", m.Stamp())
		}
		m.link.Inject(late, nil)
		synctest.Wait()
		if m.Position().Seq != next.Sequence || !m.Status().Synced {
			t.Fatalf("at %s, want %d", m.Position().Stamp, next.Sequence)
		}
		if c := s.log.Counts(); c.Sync != 0 {
			t.Fatalf("%d syncs", c.Sync)
		}
	})
}

func TestUnknownKindRefusesUnlessOptional(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		s.log.Commit(wire.Message{Kind: "poem", Optional: true})
		s.log.Tick()
		synctest.Wait()
		if !m.accepts() {
			t.Fatalf("an optional message stopped it: %v", m.Status().Reason)
		}
		odd := s.log.Commit(wire.Message{Kind: "purge"})
		for range 200 {
			synctest.Wait()
			if _, err := m.Check(); !errors.Is(err, follow.ErrUnknown) || !errors.Is(err, follow.ErrIncomplete) {
				t.Fatalf("accepts past a message that it can't read: %v", err)
			}
			s.log.Tick()
			time.Sleep(100 * time.Millisecond)
		}
		s.log.Expire(odd.Sequence, odd.Sequence)
		eventually(t, 20*time.Second, "accepts once it has ended", m.accepts)
	})
}

func TestUnreadableFeedMessageIsMadeUpForBySync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		m.link.SetFaults(followtest.Faults{Cut: true})
		e := s.end()
		m.link.SetFaults(followtest.Faults{})
		m.link.Inject(wire.Stored{Sequence: e.seq}, wire.ErrMalformed)
		synctest.Wait()
		if m.accepts() {
			t.Fatal("accepts though it could not read what may be a revocation")
		}
		eventually(t, 5*time.Second, "accepts again", m.accepts)
		if !m.View().State(e.key).Ended {
			t.Fatal("lacks the entry")
		}
	})
}

func TestServiceDownAtStartIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		core, logs := observer.New(zap.InfoLevel)
		m := s.member(func(c *follow.Config) { c.Log = zap.New(core) })
		m.link.SetFaults(followtest.Faults{Frozen: true})
		m.run(t)
		defer m.stop()
		time.Sleep(10 * time.Minute)
		if _, err := m.Check(); err == nil || m.Status().Waiting == "" {
			t.Fatalf("status %+v", m.Status())
		}
		if n := logs.Len(); n != 1 {
			t.Fatalf("said so %d times: %v", n, logs.All())
		}
		m.link.SetFaults(followtest.Faults{})
		eventually(t, 15*time.Second, "accepts", m.accepts)
		if m.Status().Waiting != "" {
			t.Fatalf("still waits: %s", m.Status().Waiting)
		}
	})
}

func TestWaitForAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		s.ready(m)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := m.WaitFor(ctx, m.Position().Stamp); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 2)
		next := revoke.Stamp{Epoch: s.log.Epoch(), Seq: s.log.Head().Seq + 1}
		go func() { done <- m.WaitFor(ctx, next) }()
		synctest.Wait()
		s.log.Tick()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		short, cancelShort := context.WithTimeout(ctx, time.Second)
		defer cancelShort()
		far := revoke.Stamp{Epoch: next.Epoch, Seq: next.Seq + 1e6}
		if err := m.WaitFor(short, far); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		go func() { done <- m.WaitFor(ctx, far) }()
		synctest.Wait()
		m.stop()
		if err := <-done; !errors.Is(err, follow.ErrStopped) {
			t.Fatal(err)
		}
		if _, err := m.Check(); !errors.Is(err, follow.ErrStopped) {
			t.Fatalf("accepts after its end: %v", err)
		}
		if c := s.log.Counts(); c.Out != 1 {
			t.Fatalf("said %d times that it is out", c.Out)
		}
		if err := m.Run(ctx); err == nil {
			t.Fatal("ran twice")
		}
	})
}

func TestEndedTargetsAreDroppedByTheSlowerClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		s := newSim(t, followtest.Config{})
		m := s.member(func(c *follow.Config) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		}).run(t)
		defer m.stop()
		s.ready(m)
		key := revoke.Key{1}
		s.log.Commit(wire.Message{Kind: wire.KindEntry, End: []revoke.Key{key}, Until: time.Now().Add(2 * time.Hour).Unix()})
		time.Sleep(30 * time.Minute)
		ahead.Store(int64(48 * time.Hour))
		time.Sleep(30 * time.Minute)
		if _, err := m.Check(); !errors.Is(err, follow.ErrClock) && !errors.Is(err, follow.ErrNotJoined) {
			t.Fatalf("two days ahead: %v", err)
		}
		if !m.View().State(key).Ended {
			t.Fatal("a clock that ran ahead threw a revocation away")
		}
		ahead.Store(0)
		time.Sleep(time.Hour + 5*time.Minute)
		if m.View().State(key).Ended {
			t.Fatal("kept past its end")
		}
	})
}

func TestConfigNamesAllThatIsWrong(t *testing.T) {
	_, err := follow.New(follow.Config{Limit: -1, Past: "maybe"})
	if err == nil {
		t.Fatal("took it")
	}
	for _, part := range []string{"source", "feed", "limit"} {
		if !contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
}
