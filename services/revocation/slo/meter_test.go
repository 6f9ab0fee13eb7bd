package slo

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// slow is a fleet in which each guard takes its time.
type slow struct {
	took   map[string]time.Duration // by name; negative: it is silent
	fenced string                   // a guard that was past its limit before
	redis  time.Duration            // of the view; 0: there is none
}

func (s *slow) List() []fleet.Guard {
	var out []fleet.Guard
	for name := range s.took {
		g := fleet.Guard{Name: name, Instance: "i-" + name, State: fleet.StateJoined}
		if name == s.fenced {
			g.State = fleet.StateFenced
		}
		out = append(out, g)
	}
	return out
}

func (s *slow) Wait(ctx context.Context, _ fleet.Entry, d time.Duration) (c fleet.Confirmation) {
	began, last := time.Now(), time.Duration(0)
	for name, took := range s.took {
		if took < 0 {
			c.Unconfirmed = append(c.Unconfirmed, fleet.Unconfirmed{Name: name, Instance: "i-" + name})
			last = d
			continue
		}
		c.Confirmed = append(c.Confirmed, fleet.Confirmed{Name: name, Instance: "i-" + name, At: began.Add(took)})
		last = max(last, took)
	}
	if s.redis != 0 {
		c.Redis = &fleet.RedisState{AppliedAt: began.Add(s.redis)}
	}
	select {
	case <-time.After(last):
	case <-ctx.Done():
	}
	return c
}

func measured(t *testing.T, f *slow, runs func(measure func())) Report {
	t.Helper()
	m := New(Config{Fleet: f, Applied: func(context.Context, revoke.Stamp) error { return nil }, Now: time.Now})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	synctest.Wait()
	runs(func() {
		m.Measure(m.Now(), fleet.Entry{At: revoke.Stamp{Epoch: 1, Seq: 1}})
		time.Sleep(2 * longest)
		synctest.Wait() // it is done with f
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return m.Report()
}

func TestTheSlowestGuardSaysHowFastRevocationIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &slow{took: map[string]time.Duration{"orders": 4 * time.Millisecond, "billing": 300 * time.Millisecond}, redis: 50 * time.Millisecond}
		r := measured(t, f, func(measure func()) {
			for i := range 100 {
				if f.took["billing"] = 300 * time.Millisecond; i == 7 {
					f.took["billing"] = 3 * time.Second
				}
				measure()
			}
		})
		w := r.Windows[2]
		if w.Runs != 100 || w.Good != 99 || !w.Met || w.Missed != 0 || w.P50 != 300*time.Millisecond || w.P99 != 300*time.Millisecond || w.Max != 3*time.Second {
			t.Errorf("%+v: want 99 of 100 within a second", w)
		}
		if five := r.Windows[0]; five.Runs != 7 || five.Good != 7 {
			t.Errorf("of the last five minutes: %+v, want 7 runs", five)
		}
		if len(r.Guards) != 3 || r.Guards[0].Name != RedisView || r.Guards[0].P50.Round(time.Millisecond) != 50*time.Millisecond ||
			r.Guards[2].Name != "orders" || r.Guards[2].Max.Round(time.Millisecond) != 4*time.Millisecond || r.Guards[2].Runs != 100 {
			t.Errorf("%+v", r.Guards)
		}
	})
}

// A guard that says nothing makes the objective missed, unless it had been past its limit
// before: then it refuses everything.
func TestASilentGuardMissesTheObjective(t *testing.T) {
	for _, fenced := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := &slow{took: map[string]time.Duration{"orders": time.Millisecond, "silent": -1}}
			if fenced {
				f.fenced = "silent"
			}
			r := measured(t, f, func(measure func()) { measure() })
			w := r.Windows[1]
			if w.Runs != 1 || w.Met != fenced || (w.Missed == 0) != fenced {
				t.Errorf("fenced %t: %+v", fenced, w)
			}
			if len(r.Guards) != 2 && !fenced || fenced && len(r.Guards) != 1 {
				t.Errorf("fenced %t: %+v", fenced, r.Guards)
			}
		})
	}
}

func TestNothingMeasuredIsNotMet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &slow{took: map[string]time.Duration{"orders": time.Millisecond}}
		r := measured(t, f, func(measure func()) {
			measure()
			time.Sleep(25 * time.Hour)
		})
		for _, w := range r.Windows {
			if w.Met || w.Runs != 0 {
				t.Errorf("%+v: want no run, and not met", w)
			}
		}
		r = measured(t, f, func(measure func()) {
			measure()
			time.Sleep(10 * time.Minute)
		})
		if w := r.Windows[1]; w.Met || w.Good != 1 {
			t.Errorf("after ten minutes without: %+v, want it not met", w)
		}
	})
}

// What could not be committed, or was not applied here, is a miss.
func TestWhatCanNotBeCutIsAMiss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Config{
			Fleet: &slow{}, Now: time.Now,
			Applied: func(ctx context.Context, _ revoke.Stamp) error { <-ctx.Done(); return ctx.Err() },
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		synctest.Wait()
		m.Missed()
		for range maxWatched + 5 {
			m.Measure(m.Now(), fleet.Entry{})
		}
		time.Sleep(2 * longest)
		if w := m.Report().Windows[1]; w.Met || w.Runs != maxWatched+6 || w.Missed != w.Runs {
			t.Errorf("%+v, want %d misses", w, maxWatched+6)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
