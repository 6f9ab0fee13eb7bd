package follow_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/follow/followtest"
	"github.com/quash-project/quash/shared/guard/wire"
)

func TestAcceptsNothingBeforeItsJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil)
		m.link.SetFaults(followtest.Faults{Cut: true, Latency: 100 * time.Millisecond}) // the join is in the log long before it is read
		m.run(t)
		defer m.stop()
		for range 1000 {
			time.Sleep(time.Millisecond)
			synctest.Wait()
			joined := false
			m.mu.Lock()
			for _, e := range m.seen {
				joined = joined || e.Message.Kind == wire.KindJoin && e.Message.Instance == m.Instance()
			}
			m.mu.Unlock()
			if _, err := m.Check(); err == nil && !joined {
				t.Fatal("accepts before its watermark has reached its join")
			}
		}
		s.ready(m)
	})
}

func TestLostJoinAnswerIsNoJoinLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil)
		m.link.SetFaults(followtest.Faults{LoseAnswer: 0.9})
		m.run(t)
		defer m.stop()
		eventually(t, 10*time.Minute, "joined", func() bool { return m.Status().Joined })
		s.truthful(m)
	})
}

func TestOutStopsUntilJoinedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		s.log.Commit(wire.Message{Kind: wire.KindOut, Name: "guard", Instance: "another", By: wire.ByOperator})
		synctest.Wait()
		if !m.accepts() {
			t.Fatal("another instance's out stopped it")
		}
		m.link.SetFaults(followtest.Faults{Frozen: true})
		s.log.Commit(wire.Message{Kind: wire.KindOut, Name: "guard", Instance: m.Instance(), By: wire.ByOperator})
		for range 100 {
			synctest.Wait()
			if _, err := m.Check(); !errors.Is(err, follow.ErrNotJoined) {
				t.Fatalf("accepts after it was put out: %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		m.link.SetFaults(followtest.Faults{})
		eventually(t, 20*time.Second, "accepts after another join", m.accepts)
	})
}

func TestJoinIsRenewedDaily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{Gather: time.Second})
		m := s.member(func(c *follow.Config) { c.Limit = 10 * time.Minute }).run(t)
		defer m.stop()
		s.ready(m)
		s.log.Counts()
		for range 5 * 24 {
			time.Sleep(time.Hour)
			if !m.accepts() {
				t.Fatalf("stopped: %+v", m.Status())
			}
		}
		if c := s.log.Counts(); c.Join < 4 || c.Join > 6 {
			t.Errorf("%d joins in 5 days", c.Join)
		}
	})
}

func TestLargerLimitCountsAfterAnotherJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		m.link.SetFaults(followtest.Faults{Latency: 50 * time.Millisecond})
		s.log.Counts()
		if err := m.SetLimit(10*time.Second, wire.PastDeny); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if st := m.Status(); st.Limit != 10*time.Second || s.log.Counts().Join != 0 {
			t.Fatalf("a smaller limit: %s", st.Limit)
		}
		if err := m.SetLimit(40*time.Second, wire.PastAllow); err != nil {
			t.Fatal(err)
		}
		if st := m.Status(); st.Limit != 15*time.Second || st.Past != wire.PastDeny {
			t.Fatalf("before the join: %s, %s", st.Limit, st.Past)
		}
		time.Sleep(time.Second)
		if st := m.Status(); st.Limit != 40*time.Second || st.Past != wire.PastAllow || s.log.Counts().Join != 1 {
			t.Fatalf("after the join: %s, %s", st.Limit, st.Past)
		}
		if m.SetLimit(0, "") == nil {
			t.Fatal("took no limit")
		}
	})
}

func TestReaderThatDecidesNothingIsNoMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(func(c *follow.Config) { c.NoJoin = true }).run(t)
		s.ready(m)
		s.end()
		time.Sleep(time.Second)
		m.stop()
		if c := s.log.Counts(); c.Join+c.Out+c.Report != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// A whole state says nothing of joins and outs: who was put out meanwhile must
// not go on as if nobody had told.
func TestOutThatAWholeStatePassedByStopsUntilJoinedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		m.link.SetFaults(followtest.Faults{Frozen: true, Cut: true})
		out := s.log.Commit(wire.Message{Kind: wire.KindOut, Name: "guard", Instance: m.Instance(), By: wire.ByOperator})
		s.end()
		time.Sleep(2 * time.Hour)
		s.log.Expire(1, out.Sequence)
		m.link.SetFaults(followtest.Faults{Latency: 20 * time.Millisecond})
		joined := func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return slices.ContainsFunc(m.seen, func(e wire.Stored) bool {
				return e.Message.Kind == wire.KindJoin && e.Message.Instance == m.Instance() && e.Sequence > out.Sequence
			})
		}
		for range 60_000 {
			time.Sleep(time.Millisecond)
			synctest.Wait()
			st := m.Status()
			switch again := joined(); {
			case st.Reason != nil || st.Position.Less(out.Position().Stamp):
			case !again:
				t.Fatal("it goes on, though it was put out")
			default:
				return
			}
		}
		t.Fatal("not joined again in a minute")
	})
}
