package app_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quash-project/quash/services/rotator/schedule"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/problem"
)

// Three rotators look at one schedule for 200 firings, over the change of daylight saving:
// each is one rotation.
func TestThreeRotatorsFireEachOfTwoHundredOnce(t *testing.T) {
	n, c := enginetest.NATS(t), newClock("2026-03-29T00:00:30Z")
	replicas := []*planner{plan(t, n, c.now, nil, true), plan(t, n, c.now, nil, true), plan(t, n, c.now, nil, true)}
	x, _, err := replicas[0].Create(t.Context(), asker, "minutely", everyMinute(schedule.Skip))
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for i := range 200 {
		c.move(time.Minute)
		due := c.now().Truncate(time.Minute).UnixMilli()
		for _, p := range replicas {
			p.Kick()
		}
		enginetest.Eventually(t, fmt.Sprint("firing ", i), func() error {
			got, err := replicas[i%3].store.Copy("default", "minutely")
			if err != nil {
				return err
			}
			if got.Last == nil || got.Last.Due != due || got.Claimed != nil {
				return fmt.Errorf("last %+v, claimed %+v, want %d", got.Last, got.Claimed, due)
			}
			ids[got.Last.Rotation] = true
			return nil
		})
	}
	enginetest.Eventually(t, "all rotations are seen and counted", func() error {
		begun := uint64(0) // a mark is counted after it is seen
		for _, p := range replicas {
			begun += p.Stats().Begun
		}
		if got := replicas[0].rotations(t); len(got) != 200 || begun != 200 {
			return fmt.Errorf("%d rotations of 200 firings, of which %d were marked", len(got), begun)
		}
		return nil
	})
	if len(ids) != 200 {
		t.Errorf("%d rotations in the record of %s, want 200", len(ids), x.Name)
	}
}

// A rotator is killed at every step, before it takes effect and after, and another one goes
// on: each firing is one rotation.
func TestKilledBetweenAnyTwoStepsEachFiringIsOneRotation(t *testing.T) {
	n, c := enginetest.NATS(t), newClock("2026-01-01T00:00:30Z")
	whole := plan(t, n, c.now, nil, false)
	want := 0
	for step := int64(1); step <= 3; step++ { // claim, begin, mark
		for _, lost := range []bool{false, true} {
			name := fmt.Sprintf("step-%d-%t", step, lost)
			if _, _, err := whole.Create(t.Context(), asker, name, everyMinute(schedule.RunOnce)); err != nil {
				t.Fatal(err)
			}
			killed := plan(t, n, c.now, func(f *faulty) { f.failAt, f.lost = step, lost }, false)
			for range 3 {
				c.move(time.Minute)
				want++
				enginetest.Eventually(t, "the record is seen", func() error { _, err := killed.store.Copy("default", name); return err })
				_ = killed.Advance(t.Context(), "default", name)
				enginetest.Eventually(t, name+" fires", func() error {
					if _, err := whole.store.Copy("default", name); err != nil {
						return err
					}
					err := whole.Advance(t.Context(), "default", name)
					x, shown := whole.Show(t.Context(), "default", name)
					if shown != nil || x.Last == nil || x.Last.Due != c.now().Truncate(time.Minute).UnixMilli() || x.Claimed != nil {
						return fmt.Errorf("%+v, %w", x, errors.Join(err, shown))
					}
					return nil
				})
				// What the killed one would do, came it back, is nothing.
				_ = killed.Advance(t.Context(), "default", name)
			}
			if _, err := whole.Delete(t.Context(), asker, name, "over", nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	enginetest.Eventually(t, "all rotations are seen", func() error {
		if got := whole.rotations(t); len(got) != want {
			return fmt.Errorf("%d rotations of %d firings", len(got), want)
		}
		return nil
	})
}

// The same of a key: whoever goes on asks the issuer under the same name, and notes what it said.
func TestKilledBetweenAnyTwoStepsAKeyIsAskedForUnderOneName(t *testing.T) {
	n, c := enginetest.NATS(t), newClock("2026-01-01T00:00:30Z")
	var mu sync.Mutex
	asked := map[string]schedule.KeyRotation{}
	issuer := func(f *faulty) {
		f.keys = func(_ context.Context, r schedule.KeyRotation) (schedule.KeyRotated, error) {
			mu.Lock()
			defer mu.Unlock()
			if before, again := asked[r.ID]; again && before != r {
				t.Errorf("asked for %+v, and before that for %+v", r, before)
			}
			asked[r.ID] = r
			return schedule.KeyRotated{Next: "next-of-" + r.ID, Until: time.UnixMilli(1_800_000_000_000), Outcome: "sealed"}, nil
		}
	}
	whole, want := plan(t, n, c.now, issuer, false), 0
	for step := int64(1); step <= 3; step++ { // claim, ask, mark
		for _, lost := range []bool{false, true} {
			name := fmt.Sprintf("step-%d-%t", step, lost)
			spec := everyMinute(schedule.RunOnce)
			spec.Rotate, spec.Overlap = "key:K", schedule.Duration(time.Hour)
			if _, _, err := whole.Create(t.Context(), asker, name, spec); err != nil {
				t.Fatal(err)
			}
			killed := plan(t, n, c.now, func(f *faulty) { issuer(f); f.failAt, f.lost = step, lost }, false)
			enginetest.Eventually(t, "the record is seen", func() error { _, err := killed.store.Copy("default", name); return err })
			c.move(time.Minute)
			want++
			_ = killed.Advance(t.Context(), "default", name)
			enginetest.Eventually(t, name+" fires", func() error {
				if _, err := whole.store.Copy("default", name); err != nil {
					return err
				}
				err := whole.Advance(t.Context(), "default", name)
				x, shown := whole.Show(t.Context(), "default", name)
				if shown != nil || x.Last == nil || x.Claimed != nil || x.Last.Due != c.now().Truncate(time.Minute).UnixMilli() {
					return fmt.Errorf("%+v, %w", x, errors.Join(err, shown))
				}
				if x.Last.Next == "" || x.Last.Outcome != "sealed" || x.Last.Until != 1_800_000_000_000 {
					t.Errorf("noted: %+v", x.Last)
				}
				return nil
			})
			_ = killed.Advance(t.Context(), "default", name)
			if _, err := whole.Delete(t.Context(), asker, name, "over", nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, r := range asked {
		if r.Key != (schedule.Target{Kind: schedule.Key, ID: "K"}) || r.Overlap != time.Hour || r.Reason != "a test" || !strings.HasPrefix(r.Actor, "schedule:step-") {
			t.Errorf("asked for %+v", r)
		}
	}
	if len(asked) != want {
		t.Errorf("asked under %d names, of %d firings", len(asked), want)
	}
}

// What is claimed by one that is gone is done by another, some seconds later.
func TestAnotherRotatorTakesOverWhatWasClaimed(t *testing.T) {
	n, c := enginetest.NATS(t), newClock("2026-01-01T00:00:30Z")
	dies := plan(t, n, c.now, func(f *faulty) { f.failAt, f.lost = 1, true }, false)
	if _, _, err := dies.Create(t.Context(), asker, "minutely", everyMinute(schedule.Skip)); err != nil {
		t.Fatal(err)
	}
	c.move(time.Minute)
	if err := dies.Advance(t.Context(), "default", "minutely"); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	other := plan(t, n, c.now, nil, true)
	x, err := other.Show(t.Context(), "default", "minutely")
	if err != nil || x.Claimed == nil || x.Last != nil {
		t.Fatalf("%+v, %v: want it claimed, and not done", x, err)
	}
	c.move(6 * time.Second)
	other.Kick()
	enginetest.Eventually(t, "it is done", func() error {
		x, err := other.Show(t.Context(), "default", "minutely")
		if err != nil {
			return err
		}
		if x.Last == nil || x.Claimed != nil {
			return fmt.Errorf("claimed %+v, last %+v", x.Claimed, x.Last)
		}
		return nil
	})
}

func TestSchedulesAreMadeChangedAndDeletedOnce(t *testing.T) {
	n, c := enginetest.NATS(t), newClock("2026-01-01T00:00:30Z")
	p := plan(t, n, c.now, nil, false)
	ctx := t.Context()
	first, made, err := p.Create(ctx, asker, "weekly", everyMinute(schedule.Skip))
	if err != nil || !made {
		t.Fatalf("%t, %v", made, err)
	}
	again, made, err := p.Create(ctx, asker, "weekly", everyMinute(schedule.Skip))
	if err != nil || made || again.ID != first.ID {
		t.Errorf("the same again: %s, made %t, %v; want %s", again.ID, made, err, first.ID)
	}
	if _, _, err := p.Create(ctx, asker, "weekly", everyMinute(schedule.RunOnce)); problem.KindOf(err) != problem.Conflict {
		t.Errorf("another one of the name: %v", err)
	}
	if _, _, err := p.Create(ctx, asker, "calendar", everyMinute(schedule.Skip)); problem.From(err).Field != "name" {
		t.Errorf("a name that is a place: %v", err)
	}
	spec := everyMinute(schedule.Skip)
	spec.Rotate = "key:some"
	if _, _, err := p.Create(ctx, asker, "keys", spec); problem.From(err).Field != "rotate" {
		t.Errorf("a key, and nobody rotates those: %v", err)
	}
	spec = everyMinute(schedule.Skip)
	spec.Cron = "0 0 31 2 *"
	if _, _, err := p.Create(ctx, asker, "never", spec); problem.From(err).Field != "cron" {
		t.Errorf("31 February: %v", err)
	}
	spec = everyMinute(schedule.Skip)
	spec.Freezes = []string{"daily 00:00-24:00"}
	if _, _, err := p.Create(ctx, asker, "never", spec); problem.From(err).Field != "windows" {
		t.Errorf("one that never fires: %v", err)
	}
	x, err := p.Pause(ctx, asker, "weekly", "a holiday", nil)
	if err != nil || !x.Paused || x.Next != nil || x.Meta.Reason != "a holiday" {
		t.Fatalf("paused: %+v, %v", x, err)
	}
	c.move(time.Hour)
	if err := p.Advance(ctx, "default", "weekly"); err == nil {
		t.Error("it did something, and is paused")
	}
	x, err = p.Resume(ctx, asker, "weekly", "back", nil)
	if err != nil || x.Paused || x.Next == nil || x.Next.AtTime().Sub(c.now()) > time.Minute || !x.Next.AtTime().After(c.now()) {
		t.Fatalf("resumed: %+v, %v; want it to fire within the next minute, and nothing to be made up", x.Next, err)
	}
	if x, err = p.Delete(ctx, asker, "weekly", "over", nil); err != nil || x.State() != schedule.Deleted {
		t.Fatalf("deleted: %+v, %v", x, err)
	}
	if _, err := p.Show(ctx, "default", "weekly"); problem.KindOf(err) != problem.NotFound {
		t.Errorf("a deleted one: %v", err)
	}
	if _, err := p.Pause(ctx, asker, "weekly", "again", nil); problem.KindOf(err) != problem.NotFound {
		t.Errorf("pausing a deleted one: %v", err)
	}
	next, made, err := p.Create(ctx, asker, "weekly", everyMinute(schedule.Skip))
	if err != nil || !made || next.ID == first.ID {
		t.Errorf("the name again: %+v, %t, %v", next, made, err)
	}
	if _, err := p.Delete(ctx, asker, "weekly", "over", nil); err != nil {
		t.Fatal(err)
	}
	c.move(25 * time.Hour)                  // then the record goes too
	_ = p.Advance(ctx, "default", "weekly") // says that it has still to hear of what it has done
	if _, err := p.store.Schedule(ctx, "default", "weekly"); problem.KindOf(err) != problem.NotFound {
		t.Errorf("its record: %v", err)
	}
}

// What will never be done is noted, and the next firing is tried as ever; what may be done
// later is not given up.
func TestAFiringThatCantBeDoneIsNotedAndTheNextIsTried(t *testing.T) {
	n, c := enginetest.NATS(t), newClock("2026-01-01T00:00:30Z")
	var answer atomic.Pointer[problem.Error]
	p := plan(t, n, c.now, func(f *faulty) {
		real := f.begin
		f.begin = func(ctx context.Context, b schedule.Begin) (string, error) {
			if err := answer.Load(); err != nil {
				return "", err
			}
			return real(ctx, b)
		}
	}, false)
	if _, _, err := p.Create(t.Context(), asker, "minutely", everyMinute(schedule.Skip)); err != nil {
		t.Fatal(err)
	}
	show := func() schedule.Schedule {
		t.Helper()
		x, err := p.Show(t.Context(), "default", "minutely")
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	answer.Store(problem.New(problem.Unavailable, "not now"))
	c.move(time.Minute)
	if err := p.Advance(t.Context(), "default", "minutely"); err == nil {
		t.Error("it could not be done, and there was no error")
	}
	if x := show(); x.Claimed == nil || x.Last != nil {
		t.Errorf("it was given up: %+v", x)
	}
	answer.Store(problem.FieldError("tenant", "a replica has not seen it yet"))
	if err := p.Advance(t.Context(), "default", "minutely"); err == nil || show().Claimed == nil {
		t.Errorf("it was given up for a tenant that was not seen yet: %v", err)
	}
	answer.Store(problem.New(problem.Forbidden, "not that one"))
	if err := p.Advance(t.Context(), "default", "minutely"); err != nil {
		t.Fatal(err)
	}
	if x := show(); x.Claimed != nil || x.State() != schedule.Failing || x.Last.Failed != "not that one" || x.Next == nil {
		t.Errorf("%+v", x)
	}
	answer.Store(nil)
	c.move(time.Minute)
	if err := p.Advance(t.Context(), "default", "minutely"); err != nil {
		t.Fatal(err)
	}
	if x := show(); x.State() != schedule.Active || x.Last.Rotation == "" {
		t.Errorf("the next: %+v", x)
	}
	if got := p.Stats(); got.Failed != 1 || got.Begun != 1 {
		t.Errorf("counted %+v", got)
	}
}

// growing is a key whose age a test sets.
type growing struct {
	sub atomic.Pointer[schedule.Subject]
}

func (g *growing) Subject(context.Context, string, schedule.Target) (schedule.Subject, error) {
	return *g.sub.Load(), nil
}

// By age each key is rotated once, however long that takes; the next one at its own age.
func TestByAgeEachKeyIsRotatedOnce(t *testing.T) {
	n, c := enginetest.NATS(t), newClock("2026-01-01T00:00:00Z")
	p := plan(t, n, c.now, nil, false)
	g := &growing{}
	g.sub.Store(&schedule.Subject{ID: "a", Since: c.now()})
	p.Subjects = g
	spec := schedule.Spec{Rotate: schedule.SigningKey, MaxAge: schedule.Duration(30 * 24 * time.Hour), Reason: "policy"}
	if _, _, err := p.Create(t.Context(), asker, "by-age", spec); err != nil {
		t.Fatal(err)
	}
	look := func(want int) {
		t.Helper()
		_ = p.Advance(t.Context(), "default", "by-age") // with nothing to do it says so
		enginetest.Eventually(t, "rotations are seen", func() error {
			if got := len(p.rotations(t)); got != want {
				return fmt.Errorf("%d, want %d", got, want)
			}
			return nil
		})
	}
	look(0)
	c.move(30 * 24 * time.Hour)
	look(1)
	c.move(time.Hour) // it waits for guards still
	look(1)
	g.sub.Store(&schedule.Subject{ID: "b", Since: c.now()})
	look(1)
	x, err := p.Show(t.Context(), "default", "by-age")
	if err != nil || x.Next == nil || x.Next.Subject != "b" || x.Next.AtTime().Sub(c.now()) != 30*24*time.Hour {
		t.Fatalf("next %+v, %v; want that of b, at its age", x.Next, err)
	}
	c.move(45 * 24 * time.Hour) // no rotator ran: it is not skipped
	look(2)
}
