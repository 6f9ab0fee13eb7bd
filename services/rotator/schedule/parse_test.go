package schedule

import (
	"encoding/json"
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90d": 90 * day, "1w": week, "1d12h": 36 * time.Hour, "36h": 36 * time.Hour, "1w1d1h1m": week + day + time.Hour + time.Minute, "30m": 30 * time.Minute, "1500ms": 1500 * time.Millisecond,
	} {
		d, err := ParseDuration(text)
		if err != nil || time.Duration(d) != want {
			t.Errorf("%s: %s, %v, want %s", text, d, err, want)
		}
	}
	for _, text := range []string{"", "d", "1", "-1h", "+1h", "-1d", "+1d", "1.5d", "1d1w", "1h1d", "99999d", "30501w", "1d-1h", "1e3h", "100000h", "1mo", " 1h", "w1"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("%q was taken as %s", text, d)
		}
	}
}

func TestWindows(t *testing.T) {
	for _, c := range []struct {
		text, zone string
		in, out    []string
	}{
		{"Sat,Sun 02:00-06:00", "", []string{"2026-01-03T02:00:00Z", "2026-01-04T05:59:59Z"}, []string{"2026-01-03T01:59:59Z", "2026-01-03T06:00:00Z", "2026-01-05T03:00:00Z"}},
		{"Mon-Fri 22:00-06:00", "", []string{"2026-01-05T22:00:00Z", "2026-01-06T05:59:59Z", "2026-01-10T05:00:00Z"}, []string{"2026-01-05T05:00:00Z", "2026-01-10T22:30:00Z", "2026-01-06T12:00:00Z"}},
		{"Fri-Mon 00:00-24:00", "", []string{"2026-01-02T00:00:00Z", "2026-01-05T23:59:59Z"}, []string{"2026-01-06T00:00:00Z", "2026-01-01T23:59:59Z"}},
		{"daily 01:00-03:00", "Europe/Berlin", []string{"2026-03-29T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"}, []string{"2026-03-29T01:00:00Z", "2026-10-25T02:00:00Z"}},
		{"daily 02:45-04:00", "Europe/Berlin", []string{"2026-10-25T00:50:00Z", "2026-10-25T01:15:00Z", "2026-03-29T01:00:00Z"}, []string{"2026-10-25T00:15:00Z", "2026-10-25T03:00:00Z"}},
		{"0 2 1 * * for 4h", "", []string{"2026-02-01T02:00:00Z", "2026-02-01T05:59:59Z"}, []string{"2026-02-01T06:00:00Z", "2026-02-02T03:00:00Z"}},
		{"0 0 24 12 * for 9d", "", []string{"2026-12-24T00:00:00Z", "2027-01-01T23:59:59Z"}, []string{"2027-01-02T00:00:00Z", "2026-12-23T23:59:59Z"}},
	} {
		loc, err := loadZone(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		w, err := parseWindow(c.text, loc)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range c.in {
			if _, in := w.around(instant(t, at)); !in {
				t.Errorf("%s %s: %s is not in it", c.text, c.zone, at)
			}
		}
		for _, at := range c.out {
			if end, in := w.around(instant(t, at)); in {
				t.Errorf("%s %s: %s is in it, until %s", c.text, c.zone, at, end)
			}
		}
	}
	for _, text := range []string{"", "Sat", "Sat 02:00", "Sat 2:00-3:00", "Sat 02:00-25:00", "Sat 24:00-01:00", "Sat 02:60-03:00", "Foo 02:00-03:00", "Sat-Foo 02:00-03:00", "* * * * * for", "0 2 * * * for 0s", "0 2 * * * for 60d", "0 2 * * * for -1h", "x for 1h"} {
		if _, err := parseWindow(text, time.UTC); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// FuzzParse: what is taken can be worked with, and what is written is read as the same.
func FuzzParse(f *testing.F) {
	f.Add("30 2 * * *", "Europe/Berlin", "1d12h", "Sat,Sun 02:00-06:00", int64(1774746000))
	f.Add("@daily", "", "90d", "0 2 1 * * for 4h", int64(0))
	f.Add("*/5 0-23/2 L * FRI#3", "Australia/Lord_Howe", "1w1s", "Mon-Fri 22:00-06:00", int64(1792873800))
	f.Add("0 0 31 2 *", "Pacific/Apia", "1ms", "daily 00:00-24:00", int64(1325239200))
	f.Fuzz(func(t *testing.T, expr, zone, duration, text string, unix int64) {
		if d, err := ParseDuration(duration); err == nil {
			if d < 0 || time.Duration(d) > maxDuration {
				t.Errorf("%q is %d", duration, d)
			}
			again, err := ParseDuration(d.String())
			if err != nil || again != d {
				t.Errorf("%q is written %s, and read as %s: %v", duration, d, again, err)
			}
			var read Duration
			data, err := json.Marshal(d)
			if err != nil || json.Unmarshal(data, &read) != nil || read != d {
				t.Errorf("%q as JSON: %s", duration, data)
			}
		}
		loc, err := loadZone(zone)
		if err != nil {
			return
		}
		at := time.Unix(unix%(1<<33), 0)
		if c, err := parseClock(expr, loc); err == nil {
			if next, ok := c.next(at); ok {
				if !next.at.After(at) {
					t.Errorf("%q in %q: after %s comes %s", expr, zone, at, next.at)
				}
				if last, ok := c.last(next.at); !ok || !last.at.Equal(next.at) {
					t.Errorf("%q in %q: the last at %s is %s", expr, zone, next.at, last.at)
				}
			}
		}
		if w, err := parseWindow(text, loc); err == nil {
			all := windows{open: []*window{w}}
			if first, ok := all.first(at); ok && (first.Before(at) || !all.allows(first)) {
				t.Errorf("%q in %q: from %s on, %s is the first", text, zone, at, first)
			}
		}
	})
}

// TestAWindowThatNeverBeginsIsRefused: to look for its begin would take decades each time.
func TestAWindowThatNeverBeginsIsRefused(t *testing.T) {
	if _, err := parseWindow("0 0 31 2,4,6,9,11 * for 1m", time.UTC); err == nil {
		t.Error("it was taken")
	}
	if _, err := parseWindow("0 0 29 2 * for 1m", time.UTC); err != nil {
		t.Error(err)
	}
}
