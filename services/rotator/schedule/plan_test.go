package schedule

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/problem"
)

func mustPlan(t testing.TB, spec Spec, created string) *Plan {
	t.Helper()
	p, err := NewPlan(record(spec, instant(t, created)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func record(spec Spec, created time.Time) *Schedule {
	if spec.Rotate == "" {
		spec.Rotate = SigningKey
	}
	if spec.Missed == "" {
		spec.Missed = RunOnce
	}
	if spec.Reason == "" {
		spec.Reason = "because"
	}
	return &Schedule{ID: "id", Tenant: "default", Name: "weekly", Spec: spec, CreatedAt: created.UnixMilli(), CreatedBy: "alice"}
}

func mustNext(t testing.TB, p *Plan, after string) Firing {
	t.Helper()
	f, ok := p.Next(instant(t, after), Subject{}, nil)
	if !ok {
		t.Fatalf("nothing after %s", after)
	}
	return f
}

func TestAnIntervalIsCountedFromWhenItWasMade(t *testing.T) {
	p := mustPlan(t, Spec{Every: Duration(36 * time.Hour)}, "2026-03-28T10:00:00.250Z")
	at := "2026-03-28T10:00:00.250Z"
	// Over the change of daylight saving too: an interval is time that passes.
	for _, want := range []string{"2026-03-29T22:00:00.25Z", "2026-03-31T10:00:00.25Z", "2026-04-01T22:00:00.25Z"} {
		f := mustNext(t, p, at)
		if got := f.AtTime().UTC().Format(time.RFC3339Nano); got != want || f.Due != f.At {
			t.Fatalf("after %s: %s, want %s", at, got, want)
		}
		at = want
	}
	if f := mustNext(t, p, "2027-01-01T00:00:00Z"); f.AtTime().Sub(p.anchor)%(36*time.Hour) != 0 {
		t.Errorf("a year later it fires at %s: the interval has slipped", f.AtTime())
	}
}

func TestJitterIsTheSameEverywhereAndNeverReachesTheNext(t *testing.T) {
	spec := Spec{Cron: "*/5 * * * *", Jitter: Duration(time.Hour)}
	a, b := mustPlan(t, spec, "2026-01-01T00:00:00Z"), mustPlan(t, spec, "2026-01-01T00:00:00Z")
	other := record(spec, instant(t, "2026-01-01T00:00:00Z"))
	other.ID = "another"
	c, err := NewPlan(other)
	if err != nil {
		t.Fatal(err)
	}
	at, moved, differs := instant(t, "2026-01-01T00:00:00Z"), 0, 0
	for range 500 {
		f, _ := a.Next(at, Subject{}, nil)
		g, _ := b.Next(at, Subject{}, nil)
		h, _ := c.Next(at, Subject{}, nil)
		if f != g {
			t.Fatalf("two replicas: %+v and %+v", f, g)
		}
		if d := f.At - f.Due; d < 0 || d >= (5*time.Minute).Milliseconds() {
			t.Fatalf("due at %d, fires at %d", f.Due, f.At)
		}
		if f.At != f.Due {
			moved++
		}
		if f.At != h.At {
			differs++
		}
		at = f.due().Add(5*time.Minute - 1)
	}
	if moved < 450 || differs < 450 {
		t.Errorf("%d of 500 are moved, %d differ from those of another schedule", moved, differs)
	}
}

func TestWindowsAndFreezesMoveFirings(t *testing.T) {
	for _, c := range []struct {
		name  string
		spec  Spec
		after string
		want  []string // at
	}{
		{"within it stays", Spec{Cron: "0 3 * * 6", Windows: []string{"Sat 02:00-06:00"}}, "2026-01-01T00:00:00Z", []string{"2026-01-03T03:00:00Z"}},
		{"outside it goes to the next begin", Spec{Cron: "0 12 * * *", Windows: []string{"Sat 02:00-06:00"}}, "2026-01-01T00:00:00Z", []string{"2026-01-03T02:00:00Z", "2026-01-10T02:00:00Z"}},
		{"the begin is by the zone", Spec{Cron: "0 12 1 * *", TimeZone: "Europe/Berlin", Windows: []string{"Sat 02:00-06:00"}}, "2026-07-01T00:00:00Z", []string{"2026-07-04T00:00:00Z"}},
		{"the nearest of several", Spec{Cron: "0 12 1 1 *", Windows: []string{"Sat 02:00-06:00", "Fri 20:00-22:00"}}, "2025-12-31T00:00:00Z", []string{"2026-01-02T20:00:00Z"}},
		{"a freeze moves it to its end", Spec{Cron: "0 12 24 12 *", Freezes: []string{"0 0 20 12 * for 14d"}}, "2026-12-01T00:00:00Z", []string{"2027-01-03T00:00:00Z"}},
		{"a freeze over a window", Spec{Cron: "0 3 * * 6", Windows: []string{"Sat 02:00-06:00"}, Freezes: []string{"0 0 20 12 * for 14d"}}, "2026-12-19T12:00:00Z", []string{"2027-01-09T02:00:00Z", "2027-01-09T03:00:00Z"}},
		{"a freeze within a window", Spec{Cron: "0 3 * * 6", Windows: []string{"Sat 02:00-06:00"}, Freezes: []string{"daily 02:30-04:00"}}, "2026-01-01T00:00:00Z", []string{"2026-01-03T04:00:00Z"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, at := mustPlan(t, c.spec, "2025-01-01T00:00:00Z"), c.after
			for _, want := range c.want {
				f := mustNext(t, p, at)
				if got := f.AtTime().UTC().Format(time.RFC3339); got != want {
					t.Fatalf("after %s: %s, want %s", at, got, want)
				}
				at = want
			}
		})
	}
}

func TestWhatIsMovedIntoOneWindowIsOneFiring(t *testing.T) {
	p := mustPlan(t, Spec{Cron: "*/15 * * * *", Windows: []string{"Sat 02:00-03:00"}}, "2025-01-01T00:00:00Z")
	at := instant(t, "2026-01-01T00:00:00Z")
	var got []string
	for range 6 {
		f, _ := p.Next(at, Subject{}, nil)
		at = f.AtTime()
		got = append(got, at.UTC().Format("02T15:04"))
	}
	if want := "03T02:00 03T02:15 03T02:30 03T02:45 10T02:00 10T02:15"; strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Whatever is asked for: always later, and never outside of the windows.
func TestFiringsGoForwardAndStayInTheWindows(t *testing.T) {
	specs := []Spec{
		{Cron: "*/20 * * * *"}, {Cron: "30 2 * * *"}, {Cron: "0 0 29 2 *"}, {Every: Duration(7 * time.Hour)}, {Cron: "0 1 * * MON#1"},
	}
	sets := [][2][]string{
		{}, {{"Sat,Sun 02:00-06:00"}, nil}, {{"daily 01:00-03:00"}, nil}, {{"Mon-Fri 22:00-06:00", "0 2 1 * * for 4h"}, {"0 0 20 12 * for 14d"}}, {nil, {"Mon-Fri 08:00-18:00"}},
	}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		spec, set := specs[r.IntN(len(specs))], sets[r.IntN(len(sets))]
		spec.TimeZone, spec.Windows, spec.Freezes = someZones[r.IntN(len(someZones))], set[0], set[1]
		if r.IntN(2) > 0 {
			spec.Jitter = Duration(time.Duration(1+r.IntN(120)) * time.Minute)
		}
		p := mustPlan(t, spec, "2026-01-01T00:00:00Z")
		at := instant(t, "2026-01-01T00:00:00Z").Add(time.Duration(r.Int64N(int64(1000 * day))))
		due := int64(0)
		for range 40 {
			f, ok := p.Next(at, Subject{}, nil)
			if !ok || !f.AtTime().After(at) || f.Due <= due || f.At < f.Due {
				t.Fatalf("seed %d, %+v: after %s (due %d) comes %+v, %t", seed, spec, at, due, f, ok)
			}
			if !p.windows.allows(f.AtTime()) {
				t.Fatalf("seed %d, %+v: fires at %s, outside of the windows", seed, spec, f.AtTime())
			}
			at, due = f.AtTime(), f.Due
		}
	}
}

func TestAgeSaysWhenAndIsNeverExceededForAWindow(t *testing.T) {
	since := instant(t, "2026-01-01T00:00:00Z")
	sub := Subject{ID: "kid", Since: since, Expires: since.AddDate(0, 6, 0)}
	for _, c := range []struct {
		name, after, want string
		spec              Spec
	}{
		{"at its age", "2026-01-02T00:00:00Z", "2026-01-31T00:00:00Z", Spec{MaxAge: Duration(30 * day)}},
		{"before its end", "2026-01-02T00:00:00Z", "2026-06-17T00:00:00Z", Spec{BeforeExpiry: Duration(14 * day)}},
		{"too old already: at once", "2026-03-01T00:00:00Z", "2026-03-01T00:00:00.001Z", Spec{MaxAge: Duration(30 * day)}},
		{"in the last window before", "2026-01-02T00:00:00Z", "2026-01-25T02:00:00Z", Spec{MaxAge: Duration(30 * day), Windows: []string{"Sun 02:00-06:00"}}},
		{"due within a window", "2026-01-02T00:00:00Z", "2026-01-31T00:00:00Z", Spec{MaxAge: Duration(30 * day), Windows: []string{"Fri 22:00-06:00"}}},
		{"no window before", "2026-01-02T00:00:00Z", "2026-01-05T02:00:00Z", Spec{MaxAge: Duration(2 * day), Windows: []string{"Mon 02:00-06:00"}}},
		{"a freeze over its day", "2026-01-02T00:00:00Z", "2026-01-18T06:00:00Z", Spec{MaxAge: Duration(30 * day), Windows: []string{"Sun 02:00-08:00"}, Freezes: []string{"0 0 20 1 * for 20d", "Sun 02:00-06:00"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, ok := mustPlan(t, c.spec, "2026-01-01T00:00:00Z").Next(instant(t, c.after), sub, nil)
			if got := f.AtTime().UTC().Format(time.RFC3339Nano); !ok || got != c.want || f.Subject != "kid" {
				t.Errorf("%+v, at %s; want %s", f, got, c.want)
			}
		})
	}
	p := mustPlan(t, Spec{MaxAge: Duration(30 * day), Jitter: Duration(5 * day)}, "2026-01-01T00:00:00Z")
	f, _ := p.Next(since, sub, nil)
	if early := f.due().Sub(f.AtTime()); early <= 0 || early >= 5*day {
		t.Errorf("jitter makes it %s earlier; want less than 5d, and never later", early)
	}
	if _, ok := p.Next(since, sub, &Fired{Claim: Claim{Firing: f}}); ok {
		t.Error("the same key is rotated twice for its age")
	}
	sub.ID = "another"
	if _, ok := p.Next(since, sub, &Fired{Claim: Claim{Firing: f}}); !ok {
		t.Error("the next key is never rotated")
	}
	if _, ok := p.Next(since, Subject{}, nil); ok {
		t.Error("something fires, and nothing is known of what it rotates")
	}
}

func TestForeseenFiringsSayWhatMovesThem(t *testing.T) {
	for _, c := range []struct {
		name string
		spec Spec
		from string
		want string // part of a why, of the first
	}{
		{"a leap", Spec{Cron: "30 2 * * *", TimeZone: "Europe/Berlin"}, "2026-03-28T12:00:00Z", "leaps over 02:30"},
		{"twice", Spec{Cron: "30 2 * * *", TimeZone: "Europe/Berlin"}, "2026-10-24T12:00:00Z", "shows 02:30 twice"},
		{"jitter", Spec{Cron: "0 12 * * *", Jitter: Duration(time.Hour)}, "2026-01-01T00:00:00Z", "jitter: "},
		{"a window", Spec{Cron: "0 12 * * *", Windows: []string{"Sat 02:00-06:00"}}, "2026-01-01T00:00:00Z", "to where windows and freezes allow it"},
		{"nothing", Spec{Cron: "0 12 * * *", TimeZone: "Europe/Berlin"}, "2026-10-24T12:00:00Z", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mustPlan(t, c.spec, "2026-01-01T00:00:00Z")
			got := p.foresee(instant(t, c.from), time.Time{}, 10, Subject{ID: "old", Next: "new"}, record(c.spec, instant(t, c.from)))
			if len(got) != 10 {
				t.Fatalf("%d firings, want 10", len(got))
			}
			why := strings.Join(got[0].Why, "; ")
			if c.want == "" && why != "" || !strings.Contains(why, c.want) {
				t.Errorf("why: %q, want %q", why, c.want)
			}
			if !strings.Contains(got[0].Does, "new signs in the place of old") || got[1].Does == got[0].Does {
				t.Errorf("it does %q, then %q", got[0].Does, got[1].Does)
			}
		})
	}
	p := mustPlan(t, Spec{MaxAge: Duration(30 * day)}, "2026-01-01T00:00:00Z")
	since := instant(t, "2026-01-01T00:00:00Z")
	got := p.foresee(since, time.Time{}, 3, Subject{ID: "a", Since: since, Expires: since.AddDate(1, 0, 0)}, record(p.spec, since))
	if len(got) != 3 || got[0].Assumed || !got[2].Assumed || got[2].AtTime().Sub(since) != 90*day {
		t.Errorf("by age: %+v", got)
	}
}

func TestWhatCantBeMeantIsRefused(t *testing.T) {
	for field, spec := range map[string]Spec{
		"rotate":        {Rotate: "password", Cron: "@daily"},
		"cron":          {},
		"every":         {Every: Duration(time.Second)},
		"max_age":       {MaxAge: Duration(time.Minute)},
		"before_expiry": {BeforeExpiry: Duration(500 * day)},
		"time_zone":     {Cron: "@daily", TimeZone: "Mars/Olympus"},
		"jitter":        {Every: Duration(time.Hour), Jitter: Duration(time.Hour)},
		"windows":       {Cron: "@daily", Windows: []string{"whenever"}},
		"freezes":       {Cron: "@daily", Freezes: []string{"never"}},
		"missed":        {MaxAge: Duration(day), Missed: Skip},
		"overlap":       {Cron: "@daily", Overlap: Duration(time.Hour)},
		"reason":        {Cron: "@daily", Reason: strings.Repeat("x", 2000)},
	} {
		_, err := NewPlan(record(spec, time.Unix(0, 0)))
		if e := problem.From(err); err == nil || e.Kind != problem.Invalid || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := NewPlan(record(Spec{Cron: "@daily", Every: Duration(day)}, time.Unix(0, 0))); problem.From(err).Field != "cron" {
		t.Errorf("two of them: %v", err)
	}
}

func TestICalendarIsEscapedAndFolded(t *testing.T) {
	x := record(Spec{Cron: "@daily", Reason: "commas, semicolons; back\\slashes\nand " + strings.Repeat("ümläute ", 20) + "\x01"}, instant(t, "2026-01-01T00:00:00Z"))
	p, err := NewPlan(x)
	if err != nil {
		t.Fatal(err)
	}
	var events []Event
	for _, f := range p.foresee(instant(t, "2026-01-01T12:00:00Z"), time.Time{}, 2, Subject{}, x) {
		events = append(events, Event{*x, f})
	}
	text := string(ICalendar(events))
	lines := strings.Split(text, "\r\n")
	if lines[len(lines)-1] != "" || strings.ContainsAny(strings.ReplaceAll(text, "\r\n", ""), "\r\n\x01") {
		t.Errorf("lines do not end as they must:\n%q", text)
	}
	for _, line := range lines {
		if len(line) > 75 || strings.ToValidUTF8(line, "?") != line {
			t.Errorf("%d bytes: %q", len(line), line)
		}
	}
	whole := strings.ReplaceAll(text, "\r\n ", "")
	for _, want := range []string{
		"BEGIN:VCALENDAR\r\nVERSION:2.0\r\n", "DTSTART:20260102T000000Z\r\n", "SUMMARY:Rotate signing-key (weekly)\r\n",
		`commas\, semicolons\; back\\slashes\nand ümläute`, "UID:id-20260102T000000.000Z@schedules.quash\r\n", "END:VCALENDAR\r\n",
	} {
		if !strings.Contains(whole, want) {
			t.Errorf("%q is not in\n%s", want, whole)
		}
	}
	if strings.Count(text, "BEGIN:VEVENT") != 2 {
		t.Errorf("want 2 events:\n%s", text)
	}
}
