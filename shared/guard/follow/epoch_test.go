package follow_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/follow/followtest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

func TestNewEpochNeedsTheWholeStateAndAnotherJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		s.end()
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		s.log.Counts()
		old := s.log.Epoch()
		d := s.log.Head().Stamp
		s.log.BeginEpoch(d)
		synctest.Wait()
		if _, err := m.Check(); !errors.Is(err, follow.ErrNewEpoch) && !errors.Is(err, follow.ErrNotJoined) {
			t.Fatalf("accepts in an epoch that it has not joined: %v", err)
		}
		if es := m.View().Epochs(); es.Current().Number <= old || es.Current().D != d {
			t.Fatalf("epochs %v", es)
		}
		s.ready(m)
		if c := s.log.Counts(); c.Page == 0 || c.Join != 1 || m.Position().Epoch != s.log.Epoch() || m.Stamp().Epoch != s.log.Epoch() {
			t.Fatalf("%+v, at %v with stamp %s", c, m.Position(), m.Stamp())
		}
	})
}

func TestLogThatWentBackUnderAConnectedReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		kept := s.end()
		lost := s.end()
		synctest.Wait()
		s.rollBack(kept.seq)
		refilled := s.end() // at the sequence of the lost one
		if refilled.seq != lost.seq {
			t.Fatal("the simulation is wrong")
		}
		synctest.Wait()
		// The service, told at once, may have begun the new epoch already.
		if _, err := m.Check(); !errors.Is(err, follow.ErrIncomplete) && !errors.Is(err, follow.ErrNotJoined) {
			t.Fatalf("accepts with proof that the log went back: %v", err)
		}
		eventually(t, 10*time.Second, "accepts in the new epoch", m.accepts)
		if es := m.View().Epochs(); len(es) != 2 || es.Current().D.Seq != kept.seq {
			t.Fatalf("epochs %v, want D at %d", es, kept.seq)
		}
		for _, e := range []committed{kept, lost, refilled} {
			if !m.View().State(e.key).Ended {
				t.Errorf("lacks %d: nothing learnt is thrown away", e.seq)
			}
		}
	})
}

// A release was read here and lost with the log's tail, and whoever has the log now has
// not seen it: the hold that the log has holds.
func TestReleaseThatTheLogHasLostDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		k := revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: revoke.KindPrincipal, ID: "alice"}.Key()
		held := s.log.Commit(wire.Message{Kind: wire.KindEntry, Hold: []revoke.Key{k}})
		synctest.Wait()
		at := held.Position().Stamp
		released := s.log.Commit(wire.Message{Kind: wire.KindEntry, Release: map[revoke.Key]revoke.Stamp{k: at}})
		synctest.Wait()
		if m.View().Blocked(k) {
			t.Fatal("the release was not read")
		}
		s.rollBack(at.Seq)
		s.log.Restart()
		s.log.BeginEpoch(at)
		synctest.Wait()
		eventually(t, 10*time.Second, "accepts in the new epoch", m.accepts)
		if !m.View().Blocked(k) {
			t.Error("lets through what the log holds")
		}
		// Nor when it comes once more, late.
		m.link.Inject(released, nil)
		synctest.Wait()
		if !m.View().Blocked(k) {
			t.Error("lets through what the log holds, after a late message")
		}
		eventually(t, 10*time.Second, "accepts after a late message", m.accepts)
		// One that is made anew counts.
		s.log.Commit(wire.Message{Kind: wire.KindEntry, Release: map[revoke.Key]revoke.Stamp{k: at}})
		synctest.Wait()
		if m.View().Blocked(k) {
			t.Error("is held after its release")
		}
	})
}

// A service that says nothing of it can't make the reader accept.
// The log has lost an epoch of which the reader had heard: its D counts no more, or the
// reader would refuse what every other one lets through.
func TestLostEpochCountsNoMore(t *testing.T) {
	for _, another := range []bool{false, true} { // another one was lost unheard meanwhile
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, followtest.Config{})
			m := s.member(nil).run(t)
			defer m.stop()
			s.ready(m)
			kept := s.end()
			s.log.BeginEpoch(revoke.Stamp{Epoch: s.log.Epoch(), Seq: kept.seq - 1})
			s.ready(m)
			lost := m.View().Epochs().Current()
			s.rollBack(kept.seq)
			s.log.Restart()
			time.Sleep(time.Millisecond)
			want := 2
			if another {
				s.log.BeginEpoch(revoke.Stamp{Epoch: s.log.Epoch(), Seq: kept.seq})
				time.Sleep(time.Millisecond)
				want++
			}
			s.log.BeginEpoch(revoke.Stamp{Epoch: s.log.Epoch(), Seq: kept.seq})
			synctest.Wait()
			eventually(t, 10*time.Second, "accepts in the new epoch", m.accepts)
			if es := m.View().Epochs(); es.Has(lost.Number) || len(es) != want {
				t.Errorf("epochs %v, and the log has lost %d", es, lost.Number)
			}
		})
	}
}

func TestProofStandsUntilANewEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{Blind: true})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		kept := s.end()
		s.end()
		synctest.Wait()
		s.rollBack(kept.seq)
		for range 200 {
			s.end()
			time.Sleep(100 * time.Millisecond)
			if _, err := m.Check(); !errors.Is(err, follow.ErrWentBack) {
				t.Fatalf("accepts: %v, at %v", err, m.Position())
			}
		}
		s.log.BeginEpoch(revoke.Stamp{Epoch: s.log.Epoch(), Seq: kept.seq})
		eventually(t, 10*time.Second, "accepts in the new epoch", m.accepts)
		s.whole(m)
	})
}

// The log loses its tail while nothing is republished: the next tick stands at or
// below what the reader has.
func TestTickBelowThePositionIsProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{Blind: true})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		kept := s.end()
		for range 20 {
			s.end()
		}
		synctest.Wait()
		m.link.SetFaults(followtest.Faults{Cut: true})
		s.rollBack(kept.seq)
		eventually(t, 8*time.Second, "stops", func() bool { _, err := m.Check(); return errors.Is(err, follow.ErrWentBack) })
	})
}

func TestLogThatWentBackWhileDisconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		kept := s.end()
		s.end()
		s.end()
		synctest.Wait()
		m.link.SetFaults(followtest.Faults{Cut: true, Frozen: true})
		s.rollBack(kept.seq)
		s.log.Restart()
		for range 10 {
			s.end() // past the reader's position, with a gap that only ids show
		}
		m.link.Lost()
		m.link.SetFaults(followtest.Faults{})
		for range 100 {
			s.end()
			time.Sleep(100 * time.Millisecond)
			s.truthful(m)
		}
		s.ready(m)
		s.whole(m)
		if es := m.View().Epochs(); len(es) != 2 || es.Current().D.Seq != kept.seq {
			t.Fatalf("epochs %v, want D at %d", es, kept.seq)
		}
	})
}

// The log was filled up again to just where the reader is: its feed goes on
// without a gap, and only the sync that a reconnect asks for shows that the ids
// differ.
func TestLogThatWasRefilledWhileDisconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		kept := s.end()
		s.end()
		s.end()
		synctest.Wait()
		m.link.SetFaults(followtest.Faults{Cut: true})
		s.rollBack(kept.seq)
		s.log.Restart()
		s.end()
		s.end()
		m.link.SetFaults(followtest.Faults{})
		m.link.Lost()
		s.end()
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			s.truthful(m)
		}
		s.ready(m)
		s.whole(m)
		if n := len(m.View().Epochs()); n != 2 {
			t.Fatalf("%d epochs", n)
		}
	})
}

// A message that contradicts the log comes once; the log itself is what was read.
func TestFalseProofIsClearedByTheServiceAndAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		e := s.log.End(keyOf(9))
		synctest.Wait()
		e.Message.ID = "AAAAAAAAAAAAAAAAAAAAAA"
		m.link.Inject(e, nil)
		synctest.Wait()
		if _, err := m.Check(); !errors.Is(err, follow.ErrWentBack) {
			t.Fatalf("accepts: %v", err)
		}
		eventually(t, 10*time.Second, "accepts again", m.accepts)
		if n := len(m.View().Epochs()); n != 1 {
			t.Fatalf("%d epochs", n)
		}
	})
}

// TestEpochThatNobodyElseHasHeardOfIsShown: the log lost a new epoch as soon as it had
// begun, by a clock that was ahead, and one reader alone has heard of it. It can't go
// back, so it shows that one, or it would wait for it for ever.
func TestEpochThatNobodyElseHasHeardOfIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		lost := wire.Stored{Sequence: s.log.Head().Seq + 1, Time: time.Now().UnixMilli(), Message: wire.Message{
			Kind: wire.KindEpoch, ID: "AwMDAwMDAwMDAwMDAwMDAw", Epoch: s.log.Epoch() + 120_000, D: &revoke.Stamp{Epoch: s.log.Epoch(), Seq: s.log.Head().Seq},
		}}
		m.link.Inject(lost, nil)
		eventually(t, 10*time.Second, "it has heard of the epoch", func() bool { return !m.accepts() })
		eventually(t, time.Minute, "accepts in an epoch above", func() bool {
			return m.accepts() && m.Position().Epoch > lost.Message.Epoch
		})
		s.whole(m)
	})
}

func TestLostTailsUnderFaults(t *testing.T) {
	seeds := uint64(8)
	if raced {
		seeds = 2
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, followtest.Config{Tail: 9})
			rnd := rand.New(rand.NewPCG(seed, 7))
			faults := followtest.Faults{Lose: 0.05, Repeat: 0.1, Late: 0.05, Delay: 300 * time.Millisecond, LoseAnswer: 0.05}
			ms := []*member{s.member(nil), s.member(nil)}
			for _, m := range ms {
				m.link.SetFaults(faults)
				m.run(t)
				defer m.stop()
				s.ready(m)
			}
			for range 12 {
				for range 30 {
					s.end()
					time.Sleep(time.Duration(rnd.Int64N(int64(100 * time.Millisecond))))
					for _, m := range ms {
						s.truthful(m)
					}
				}
				// All readers are cut off at a restart, as clients of a server are.
				for _, m := range ms {
					m.link.SetFaults(followtest.Faults{Cut: true, Frozen: true})
				}
				s.rollBack(s.log.Head().Seq - rnd.Uint64N(20))
				s.log.Restart()
				for _, m := range ms {
					m.link.Lost()
					m.link.SetFaults(faults)
				}
			}
			for _, m := range ms {
				m.link.SetFaults(followtest.Faults{})
			}
			time.Sleep(time.Minute)
			for _, m := range ms {
				s.truthful(m)
				s.whole(m)
				if !m.accepts() || m.Position() != s.log.Head() {
					t.Errorf("seed %d: after quiet at %v, log at %v: %+v", seed, m.Position(), s.log.Head(), m.Status())
				}
			}
		})
	}
}

// A service that had not heard of the new epoch publishes after it.
func TestStragglerOfAnOldEpochCountsInItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		old := s.log.Epoch()
		s.log.BeginEpoch(s.log.Head().Stamp)
		s.ready(m)
		e := s.log.Commit(wire.Message{Kind: wire.KindEntry, Epoch: old, Cut: []revoke.Key{keyOf(5)}})
		eventually(t, time.Second, "has it", func() bool { return m.Position().Seq >= e.Sequence })
		if got, want := m.View().State(keyOf(5)).Cut, (revoke.Stamp{Epoch: s.log.Epoch(), Seq: e.Sequence}); got != want {
			t.Errorf("cut at %s, want %s", got, want)
		}
		eventually(t, time.Second, "accepts", m.accepts)
	})
}
