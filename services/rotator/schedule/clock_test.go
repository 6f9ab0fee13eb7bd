package schedule

import (
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func mustClock(t testing.TB, expr, zone string) *clock {
	t.Helper()
	loc, err := loadZone(zone)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseClock(expr, loc)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func instant(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// What a change of daylight saving, a leap day and a skipped day do to a time of the wall.
func TestTimesOfTheWall(t *testing.T) {
	for _, c := range []struct {
		name, cron, zone, after string
		want                    []string
	}{
		{"spring: what the clock leaps over fires right after", "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", []string{"2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"}},
		{"spring: several that it leaps over are one", "*/30 1-3 * * *", "Europe/Berlin", "2026-03-28T23:59:00Z", []string{"2026-03-29T00:00:00Z", "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-29T23:00:00Z"}},
		{"autumn: what it shows twice fires once", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", []string{"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
		{"autumn: asked between the two", "30 2 * * *", "Europe/Berlin", "2026-10-25T00:45:00Z", []string{"2026-10-26T01:30:00Z"}},
		{"autumn: the second pass has none", "*/30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", []string{"2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z"}},
		{"New York in spring", "30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", []string{"2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"}},
		{"New York in autumn", "30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", []string{"2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"}},
		{"Lord Howe leaps by half an hour", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", []string{"2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"}},
		{"Lord Howe goes back by half an hour", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", []string{"2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"}},
		{"Kathmandu is off by a quarter", "0 3 * * *", "Asia/Kathmandu", "2026-01-01T00:00:00Z", []string{"2026-01-01T21:15:00Z", "2026-01-02T21:15:00Z"}},
		{"UTC has neither", "30 2 * * *", "", "2026-03-29T00:00:00Z", []string{"2026-03-29T02:30:00Z", "2026-03-30T02:30:00Z"}},
		{"Sao Paulo had days without a midnight", "0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", []string{"2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"}},
		{"Apia had no 30 December", "0 12 * * *", "Pacific/Apia", "2011-12-30T06:00:00Z", []string{"2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"}},
		{"a leap day", "0 0 29 2 *", "", "2026-01-01T00:00:00Z", []string{"2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"}},
		{"a century without one", "0 0 29 2 *", "", "2096-03-01T00:00:00Z", []string{"2104-02-29T00:00:00Z"}},
		{"the last day of February", "0 0 L 2 *", "", "2027-01-01T00:00:00Z", []string{"2027-02-28T00:00:00Z", "2028-02-29T00:00:00Z"}},
		{"the 31st is not in every month", "0 0 31 * *", "", "2026-01-01T00:00:00Z", []string{"2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z", "2026-05-31T00:00:00Z"}},
		{"either day counts, as in cron(5)", "0 0 13 * 5", "", "2026-02-01T00:00:00Z", []string{"2026-02-06T00:00:00Z", "2026-02-13T00:00:00Z", "2026-02-20T00:00:00Z", "2026-02-27T00:00:00Z", "2026-03-06T00:00:00Z"}},
		{"the third Friday", "0 9 * * FRI#3", "", "2026-01-01T00:00:00Z", []string{"2026-01-16T09:00:00Z", "2026-02-20T09:00:00Z"}},
		{"a name for it", "@monthly", "", "2026-01-01T00:00:00Z", []string{"2026-02-01T00:00:00Z"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			at, k := instant(t, c.after), mustClock(t, c.cron, c.zone)
			for _, want := range c.want {
				next, ok := k.next(at)
				if !ok || !next.at.Equal(instant(t, want)) {
					t.Fatalf("after %s: got %s, %t, want %s", at.UTC().Format(time.RFC3339), next.at.UTC().Format(time.RFC3339), ok, want)
				}
				if last, ok := k.last(next.at); !ok || !last.at.Equal(next.at) {
					t.Errorf("the last one at %s: got %s", want, last.at)
				}
				at = next.at
			}
		})
	}
}

var someZones = []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "", "Europe/Dublin", "Africa/Casablanca", "America/St_Johns", "Pacific/Chatham", "Asia/Gaza"}

// Over ten years, whatever the clocks do, a daily time fires once on every day.
func TestADailyTimeFiresOnceADayForTenYears(t *testing.T) {
	for _, zone := range someZones {
		for _, expr := range []string{"30 1 * * *", "0 2 * * *", "30 2 * * *", "15 3 * * *", "0 0 * * *", "59 23 * * *"} {
			k := mustClock(t, expr, zone)
			at := time.Date(2026, 1, 1, 12, 0, 0, 0, k.loc)
			end := at.AddDate(10, 0, 0)
			day := at
			for n := 0; ; n++ {
				next, ok := k.next(at)
				if !ok {
					t.Fatalf("%s %s: nothing after %s", expr, zone, at)
				}
				if next.at.After(end) {
					if n < 3652 {
						t.Errorf("%s %s: %d firings in ten years", expr, zone, n)
					}
					break
				}
				day = time.Date(day.Year(), day.Month(), day.Day()+1, 12, 0, 0, 0, k.loc)
				if n == 0 && next.at.In(k.loc).Day() == at.Day() {
					day = at
				}
				if got := next.at.In(k.loc); got.Year() != day.Year() || got.YearDay() != day.YearDay() {
					t.Fatalf("%s %s: fires at %s, want one on %s", expr, zone, got, day.Format(time.DateOnly))
				}
				at = next.at
			}
		}
	}
}

// Whatever the expression and the zone: always later, and no minute of the wall twice.
func TestTicksGoForwardAndNoMinuteComesTwice(t *testing.T) {
	exprs := []string{"* * * * *", "*/7 * * * *", "0 * * * *", "30 1-3 * * *", "15,45 2 * * SUN", "0 0 L * *", "@hourly", "5 4 1,15 * 1"}
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		k := mustClock(t, exprs[r.IntN(len(exprs))], someZones[r.IntN(len(someZones))])
		at := time.Date(2020+r.IntN(16), time.Month(1+r.IntN(12)), 1, 0, 0, 0, 0, k.loc)
		// Where something happens: around the changes of a year.
		if _, end := at.ZoneBounds(); !end.IsZero() && r.IntN(4) > 0 {
			at = end.Add(-3 * time.Hour)
		}
		at = at.Add(time.Duration(r.Int64N(int64(4 * time.Hour))))
		goForward(t, seed, k, at)
	}
}

func goForward(t *testing.T, seed uint64, k *clock, at time.Time) {
	t.Helper()
	seen := map[time.Time]bool{}
	for range 300 {
		next, ok := k.next(at)
		if !ok || !next.at.After(at) {
			t.Fatalf("seed %d: after %s comes %s, %t", seed, at, next.at, ok)
		}
		shown := wallOf(next.at, k.loc)
		if seen[shown] {
			t.Fatalf("seed %d: %s fires twice", seed, shown)
		}
		if seen[shown] = true; shown.Second() != 0 || next.at.Nanosecond() != 0 {
			t.Fatalf("seed %d: %s is no whole minute", seed, next.at)
		}
		between := at.Add(next.at.Sub(at) / 2)
		if last, ok := k.last(between); !ok || last.at.After(between) {
			t.Fatalf("seed %d: the last one at %s is %s", seed, between, last.at)
		}
		if last, _ := k.last(next.at); !last.at.Equal(next.at) {
			t.Fatalf("seed %d: the last one at %s is %s", seed, next.at, last.at)
		}
		at = next.at
	}
}

// A machine without zone files knows the zones: they are in every binary that fires.
func TestTheZonesAreInTheBinaries(t *testing.T) {
	for _, binary := range []string{"../cmd/quash-rotator", "../../quash"} {
		out, err := exec.Command("go", "list", "-deps", binary).Output()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(strings.Fields(string(out)), "time/tzdata") {
			t.Errorf("%s has no time/tzdata", binary)
		}
	}
}

func TestOddExpressionsAndZonesAreRefused(t *testing.T) {
	for _, expr := range []string{"", " ", "* * * *", "* * * * * *", "60 * * * *", "0 24 * * *", "0 0 32 * *", "0 0 * 13 *", "@every 1h", "TZ=UTC 0 0 * * *", "CRON_TZ=UTC 0 0 * * *", "@reboot", "a b c d e", "0 0 * * mon\x00", strings.Repeat("1,", 200) + "1 * * * *"} {
		if _, err := parseClock(expr, time.UTC); err == nil {
			t.Errorf("%q was taken", expr)
		}
	}
	for _, zone := range []string{"Local", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "europe berlin", strings.Repeat("a", 100), "Europe/Berlin\x00"} {
		if _, err := loadZone(zone); err == nil {
			t.Errorf("zone %q was taken", zone)
		}
	}
}
