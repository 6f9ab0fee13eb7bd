package follow_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/shared/guard/follow"
	"github.com/quash-project/quash/shared/guard/follow/followtest"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

// Promise 4: whatever the network does, a reader never claims to be fresher than
// it is; and promise 1: when it calms down, every view is the fold of the log.
func TestStalenessIsNeverUnderstated(t *testing.T) {
	for name, faults := range map[string]followtest.Faults{
		"good network": {},
		"latency":      {Latency: 80 * time.Millisecond},
		"lost":         {Lose: 0.2},
		"repeated":     {Repeat: 0.5, Delay: 20 * time.Second},
		"reordered":    {Late: 0.5},
		"very late":    {Late: 0.1, Delay: 20 * time.Second},
		"late ticks":   {LateTicks: 3 * time.Second},
		"lost answers": {LoseAnswer: 0.3},
		"lost asks":    {LoseRequest: 0.3},
		"everything":   {Lose: 0.1, Repeat: 0.2, Late: 0.2, LoseAnswer: 0.1, LoseRequest: 0.1, Latency: 20 * time.Millisecond, LateTicks: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, followtest.Config{Tail: 7})
				rnd := rand.New(rand.NewPCG(1, uint64(len(name))))
				ms := []*member{s.member(nil), s.member(nil), s.member(func(c *follow.Config) { c.Limit = 2 * time.Second })}
				for _, m := range ms {
					m.link.SetFaults(faults)
					m.run(t)
					defer m.stop()
				}
				accepted, rounds := 0, 1500
				if raced {
					rounds = 100
				}
				for i := range rounds {
					if rnd.IntN(3) == 0 {
						s.end()
					}
					time.Sleep(time.Duration(rnd.Int64N(int64(200 * time.Millisecond))))
					for _, m := range ms {
						s.truthful(m)
						if m.accepts() {
							accepted++
						}
						switch rnd.IntN(400) {
						case 0:
							m.link.Lost()
						case 1:
							bad := faults
							bad.Cut, bad.Frozen = rnd.IntN(2) == 0, rnd.IntN(2) == 0
							m.link.SetFaults(bad)
						case 2, 3:
							m.link.SetFaults(faults)
						}
					}
					if i%300 == 299 {
						s.log.Expire(2, s.log.Head().Seq-50)
					}
				}
				if accepted < 3*rounds/10 {
					t.Errorf("accepted %d of %d times: the test shows little", accepted, 3*rounds)
				}
				for _, m := range ms {
					m.link.SetFaults(followtest.Faults{})
				}
				time.Sleep(time.Minute)
				for _, m := range ms {
					s.whole(m)
					if st := m.Status(); !st.Synced || !m.accepts() || m.Position() != s.log.Head() {
						t.Errorf("after quiet at %v, log at %v: %+v", m.Position(), s.log.Head(), st)
					}
				}
			})
		})
	}
}

func TestFreshSharesAProbeSentAfterItWasAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{GatherUrgent: 8 * time.Millisecond})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		s.log.Counts()
		m.link.SetFaults(followtest.Faults{Cut: true})
		e := s.end() // not on the feed
		m.link.SetFaults(followtest.Faults{})
		start := time.Now()
		done := make(chan error, 100)
		for range 100 {
			go func() {
				err := m.Fresh(t.Context())
				if err == nil && !m.View().State(e.key).Ended {
					err = errors.New("fresh, but lacks what was committed before")
				}
				done <- err
			}()
		}
		for range 100 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %s", took)
		}
		if c := s.log.Counts(); c.Probe > 3 {
			t.Errorf("%d probes for 100 callers", c.Probe)
		}
		if staleness, err := m.Check(); err != nil || staleness > time.Second {
			t.Errorf("after Fresh: %s, %v", staleness, err)
		}
		// Those who ask while a probe is on its way get the next one.
		time.Sleep(time.Second)
		go func() { done <- m.Fresh(t.Context()) }()
		time.Sleep(5 * time.Millisecond)
		asked := time.Now()
		if err := m.Fresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if staleness, _ := m.Check(); staleness > time.Since(asked) {
			t.Errorf("was satisfied by a probe of before it asked: %s > %s", staleness, time.Since(asked))
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		// The tick itself is lost.
		m.link.SetFaults(followtest.Faults{Cut: true})
		asked = time.Now()
		if err := m.Fresh(t.Context()); err != nil || time.Since(asked) > time.Second {
			t.Errorf("without a feed: %v after %s", err, time.Since(asked))
		}
		m.link.SetFaults(followtest.Faults{Frozen: true})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := m.Fresh(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("frozen: %v", err)
		}
	})
}

func TestIdleReaderIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		ms := make([]*member, 20)
		for i := range ms {
			ms[i] = s.member(nil).run(t)
			defer ms[i].stop()
			time.Sleep(337 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		s.log.Counts()
		const hour = 3600
		time.Sleep(hour * time.Second)
		c := s.log.Counts()
		// A request has an answer; ticks are those of one replica, whatever the fleet.
		own := float64(2*(c.Probe+c.Sync+c.Page+c.Join)+c.Report) / hour / float64(len(ms))
		ticks := float64(c.Tick) / hour
		t.Logf("%.3f messages a second for each reader, and %.3f ticks; %+v", own, ticks, c)
		if own > 0.5 || ticks > 1 {
			t.Errorf("%.3f messages a second and %.3f ticks", own, ticks)
		}
		for _, m := range ms {
			if !m.accepts() {
				t.Errorf("%+v", m.Status())
			}
		}
	})
}

func TestReportsAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, followtest.Config{})
		m := s.member(nil).run(t)
		defer m.stop()
		s.ready(m)
		time.Sleep(time.Second)
		s.log.Counts()
		first := s.end()
		synctest.Wait()
		if got := s.log.Reported(m.Instance()); got.Seq != first.seq {
			t.Fatalf("the first was not reported at once: %v", got)
		}
		for range 1000 {
			s.end()
			time.Sleep(time.Millisecond)
		}
		time.Sleep(300 * time.Millisecond)
		if c := s.log.Counts(); c.Report > 6 {
			t.Errorf("%d reports in 1.3 s", c.Report)
		}
		if got, head := s.log.Reported(m.Instance()), m.Position(); got != head {
			t.Errorf("reported %v, at %v", got, head)
		}
		for range 50 {
			s.log.Tick()
			time.Sleep(300 * time.Millisecond)
		}
		if c := s.log.Counts(); c.Report != 0 {
			t.Errorf("%d reports for ticks", c.Report)
		}
	})
}

func TestWrongClockIsNotReady(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead": 5 * time.Minute, "behind": -5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var wrong atomic.Int64
				wrong.Store(int64(off))
				s := newSim(t, followtest.Config{Now: func() time.Time { return time.Now().Add(time.Duration(wrong.Load())) }})
				m := s.member(nil).run(t)
				defer m.stop()
				time.Sleep(10 * time.Second)
				if _, err := m.Check(); !errors.Is(err, follow.ErrClock) {
					t.Fatalf("with a difference of %s: %v", off, err)
				}
				wrong.Store(int64(3 * time.Minute))
				eventually(t, 10*time.Second, "accepts within a third of the slack", m.accepts)
			})
		})
	}
}
