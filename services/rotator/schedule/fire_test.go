package schedule

import (
	"errors"
	"testing"
	"time"
)

// decided lets a record decide at a moment.
func decided(t *testing.T, x *Schedule, sub Subject, now string) error {
	t.Helper()
	p, err := NewPlan(x)
	if err != nil {
		t.Fatal(err)
	}
	return x.decide(p, sub, instant(t, now))
}

func firing(t *testing.T, due string) *Firing {
	t.Helper()
	at := instant(t, due).UnixMilli()
	return &Firing{Due: at, At: at}
}

func at(t *testing.T, f *Firing) string {
	t.Helper()
	if f == nil {
		return "none"
	}
	return f.AtTime().UTC().Format("2006-01-02T15:04:05")
}

func TestMissedFiringsByPolicy(t *testing.T) {
	for _, c := range []struct {
		name, missed, now string
		windows           []string
		claims            bool
		next              string
		skipped           bool
	}{
		{name: "not due yet", missed: RunOnce, now: "2026-01-02T02:59:59Z", next: "2026-01-02T03:00:00"},
		{name: "in time", missed: Skip, now: "2026-01-02T03:00:00Z", claims: true, next: "2026-01-03T03:00:00"},
		{name: "a minute late is not missed", missed: Skip, now: "2026-01-02T03:01:00Z", claims: true, next: "2026-01-03T03:00:00"},
		{name: "missed for days: once", missed: RunOnce, now: "2026-01-09T12:00:00Z", claims: true, next: "2026-01-10T03:00:00"},
		{name: "missed for days: not at all", missed: Skip, now: "2026-01-09T12:00:00Z", next: "2026-01-10T03:00:00", skipped: true},
		{name: "missed, and no window is open", missed: RunOnce, now: "2026-01-09T12:00:00Z", windows: []string{"daily 02:00-06:00"}, next: "2026-01-10T02:00:00"},
		{name: "missed, within a window", missed: RunOnce, now: "2026-01-09T04:00:00Z", windows: []string{"daily 02:00-06:00"}, claims: true, next: "2026-01-10T03:00:00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := record(Spec{Cron: "0 3 * * *", Missed: c.missed, Windows: c.windows}, instant(t, "2026-01-01T12:00:00Z"))
			x.Next = firing(t, "2026-01-02T03:00:00Z")
			err := decided(t, x, Subject{}, c.now)
			if err != nil && !errors.Is(err, errNothing) {
				t.Fatal(err)
			}
			if got := x.Claimed != nil; got != c.claims || at(t, x.Next) != c.next || (x.LastMissed != nil) != c.skipped {
				t.Errorf("claimed %t, next %s, missed %+v; want %t, %s, %t", got, at(t, x.Next), x.LastMissed, c.claims, c.next, c.skipped)
			}
			if c.claims && x.Claimed.Due != firing(t, "2026-01-02T03:00:00Z").Due {
				t.Errorf("it claims what was due at %d", x.Claimed.Due)
			}
		})
	}
}

// Some seconds without a rotator miss nothing: every firing of these is done.
func TestNothingIsMissedWithinTheGrace(t *testing.T) {
	x := record(Spec{Cron: "* * * * *", Missed: Skip}, instant(t, "2026-01-01T12:00:30Z"))
	x.Next = firing(t, "2026-01-01T12:01:00Z")
	for _, want := range []string{"2026-01-01T12:01:00", "2026-01-01T12:02:00"} {
		if err := decided(t, x, Subject{}, "2026-01-01T12:02:00Z"); err != nil {
			t.Fatal(err)
		}
		if got := at(t, &x.Claimed.Firing); got != want {
			t.Errorf("claimed %s, want %s", got, want)
		}
		x.Claimed = nil
	}
	if err := decided(t, x, Subject{}, "2026-01-01T12:02:00Z"); !errors.Is(err, errNothing) || at(t, x.Next) != "2026-01-01T12:03:00" {
		t.Errorf("then: %v, next %s", err, at(t, x.Next))
	}
}

func TestWhatIsPausedDeletedOrClaimedDecidesNothing(t *testing.T) {
	for name, change := range map[string]func(*Schedule){
		"paused": func(x *Schedule) { x.Paused = true }, "deleted": func(x *Schedule) { x.DeletedAt = 1 }, "claimed": func(x *Schedule) { x.Claimed = &Claim{} },
	} {
		x := record(Spec{Cron: "* * * * *"}, instant(t, "2026-01-01T12:00:30Z"))
		x.Next = firing(t, "2026-01-01T12:01:00Z")
		change(x)
		if err := decided(t, x, Subject{}, "2026-01-02T00:00:00Z"); !errors.Is(err, errNothing) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A key that was rotated otherwise is younger: what was planned for the old one is planned anew.
func TestAnAgeIsLookedAtAgain(t *testing.T) {
	since := instant(t, "2026-01-01T00:00:00Z")
	x := record(Spec{MaxAge: Duration(30 * day)}, since)
	x.Next = firing(t, "2026-01-31T00:00:00Z")
	x.Next.Subject = "a"
	if err := decided(t, x, Subject{ID: "b", Since: since.Add(10 * day)}, "2026-01-31T00:00:00Z"); err != nil {
		t.Fatal(err)
	}
	if x.Claimed != nil || at(t, x.Next) != "2026-02-10T00:00:00" || x.Next.Subject != "b" {
		t.Errorf("claimed %+v, next %s of %s", x.Claimed, at(t, x.Next), x.Next.Subject)
	}
	if err := decided(t, x, Subject{ID: "b", Since: since.Add(10 * day)}, "2026-02-10T00:00:02Z"); err != nil {
		t.Fatal(err)
	}
	if c := x.Claimed; c == nil || c.Subject != "b" || at(t, &c.Firing) != "2026-02-10T00:00:00" || x.Next != nil {
		t.Fatalf("claimed %+v, next %+v; want that of b, and nothing until another one signs", c, x.Next)
	}
	x.Last, x.Claimed = &Fired{Claim: *x.Claimed}, nil
	if err := decided(t, x, Subject{ID: "b", Since: since.Add(10 * day)}, "2026-02-12T00:00:00Z"); !errors.Is(err, errNothing) {
		t.Errorf("while it is under way: %v", err)
	}
	if err := decided(t, x, Subject{ID: "c", Since: since.Add(42 * day)}, "2026-02-12T00:00:00Z"); err != nil || at(t, x.Next) != "2026-03-14T00:00:00" {
		t.Errorf("%v, next %s", err, at(t, x.Next))
	}
	x.Last.Subject, x.Last.Failed, x.Last.ClaimedAt = "c", "held", instant(t, "2026-03-14T00:00:00Z").UnixMilli()
	x.Next = nil
	if err := decided(t, x, Subject{ID: "c", Since: since.Add(42 * day)}, "2026-03-14T00:00:01Z"); err != nil || at(t, x.Next) != "2026-03-14T01:00:00" {
		t.Errorf("what failed is tried again after an hour: %v, next %s", err, at(t, x.Next))
	}
}

func TestAFiringHasOneNameAndAnotherOneAnother(t *testing.T) {
	f := *firing(t, "2026-01-02T03:00:00Z")
	moved := f
	moved.At += 1000
	names := map[string]bool{}
	for _, name := range []string{
		FiringID("a", "x", f), FiringID("a", "y", f), FiringID("b", "x", f), FiringID("a", "x", *firing(t, "2026-01-03T03:00:00Z")),
	} {
		names[name] = true
	}
	if len(names) != 4 || FiringID("a", "x", f) != FiringID("a", "x", moved) {
		t.Errorf("names %v; want four, and none by when it fires", names)
	}
}

func TestTheQueueGivesWhatIsDueOnceAndInOrder(t *testing.T) {
	q, now := newQueue(), instant(t, "2026-01-01T00:00:00Z")
	put := func(name string, revision uint64, due time.Duration, change func(*Schedule)) {
		x := record(Spec{Cron: "* * * * *"}, now)
		x.Next = &Firing{At: now.Add(due).UnixMilli()}
		if change != nil {
			change(x)
		}
		q.take("default", name, revision, x, now)
	}
	put("late", 1, time.Minute, nil)
	put("soon", 2, time.Second, nil)
	put("never", 3, 0, func(x *Schedule) { x.Paused = true })
	if e, wait := q.next(now); e != nil || wait != time.Second {
		t.Fatalf("%+v is due, or waits %s", e, wait)
	}
	now = now.Add(time.Hour)
	a, _ := q.next(now)
	b, _ := q.next(now)
	if a == nil || b == nil || a.name != "soon" || b.name != "late" {
		t.Fatalf("got %+v, then %+v", a, b)
	}
	if c, _ := q.next(now); c != nil {
		t.Fatalf("%s is given, and somebody works on it or it is paused", c.name)
	}
	put("soon", 4, 2*time.Hour, nil)
	put("soon", 1, 0, nil) // an old revision comes late
	q.done(a, false, now, now)
	q.done(b, true, now, now.Add(time.Minute))
	if c, wait := q.next(now); c != nil || wait != time.Minute {
		t.Errorf("%+v, %s; want nothing for a minute", c, wait)
	}
	if n := q.count(); n[Active] != 2 || n[Paused] != 1 {
		t.Errorf("counted %v", n)
	}
	q.take("default", "late", 5, nil, now)
	q.take("default", "never", 6, nil, now)
	if n := q.count(); n[Active] != 1 || n[Paused] != 0 || len(q.names("default")) != 1 {
		t.Errorf("counted %v after two were removed", n)
	}
}

// TestWhatIsTooOldFiresAtOnce: clocks have nanoseconds, and records milliseconds.
func TestWhatIsTooOldFiresAtOnce(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 300_000, time.UTC)
	for name, spec := range map[string]Spec{"max-age": {MaxAge: Duration(30 * day)}, "before-expiry": {BeforeExpiry: Duration(60 * day)}} {
		spec.Reason, spec.Rotate, spec.Missed = "policy", SigningKey, RunOnce
		s := &Schedule{ID: "x", Spec: spec}
		p, err := NewPlan(s)
		if err != nil {
			t.Fatal(err)
		}
		sub := Subject{ID: "k1", Since: now.Add(-80 * day), Expires: now.Add(10 * day)}
		if err := s.decide(p, sub, now); err != nil || s.Claimed == nil || s.Claimed.Subject != "k1" {
			t.Errorf("%s: %v, claimed %+v", name, err, s.Claimed)
		}
	}
}

// TestASuccessorIsNotTooOldAtOnce: otherwise each would be rotated as soon as it signs.
func TestASuccessorIsNotTooOldAtOnce(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p, err := NewPlan(&Schedule{ID: "x", Spec: Spec{BeforeExpiry: Duration(400 * day), Rotate: SigningKey, Missed: RunOnce, Reason: "policy"}})
	if err != nil {
		t.Fatal(err)
	}
	f, ok := p.Next(now, Subject{ID: "k1", Since: now, Expires: now.Add(90 * day)}, nil)
	if want := now.Add(45 * day); !ok || !f.AtTime().Equal(want) {
		t.Errorf("it fires at %s, want %s", f.AtTime(), want)
	}
}

// TestWhatJitterPutsOffIsNotMissed: the firing of one o'clock comes at a quarter to two, say;
// who comes back before that finds it as it was.
func TestWhatJitterPutsOffIsNotMissed(t *testing.T) {
	begun := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, missed := range []string{Skip, RunOnce} {
		s := &Schedule{ID: "x", CreatedAt: begun.UnixMilli(), Spec: Spec{Every: Duration(time.Hour), Jitter: Duration(59 * time.Minute), Rotate: SigningKey, Missed: missed, Reason: "policy"}}
		p, err := NewPlan(s)
		if err != nil {
			t.Fatal(err)
		}
		first, _ := p.Next(begun, Subject{}, nil)
		second, _ := p.Next(first.due(), Subject{}, nil)
		now := second.due().Add(time.Minute)
		if !second.AtTime().After(now) || !first.AtTime().Add(grace).Before(now) {
			t.Fatalf("the jitter of this id proves nothing: %v, %v", first.AtTime(), second.AtTime())
		}
		s.Next = &first
		if err := s.decide(p, Subject{}, now); err != nil || s.Next == nil || *s.Next != second {
			t.Errorf("%s: %v, next %+v, want %+v", missed, err, s.Next, second)
		}
	}
}
