package schedule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// window is a time that comes again: it begins with a tick, and lasts for so long.
type window struct {
	starts *clock
	length time.Duration
	// wall: length is by the clock on the wall, so that the window ends when that shows its
	// end; otherwise it is time that passes.
	wall bool
}

// maxWindow is how long one may be.
const maxWindow = 31 * day

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// parseWindow reads "Sat,Sun 02:00-06:00", "Mon-Fri 22:00-06:00" (it ends the next day),
// "daily 01:00-03:00", or a cron expression and how long: "0 2 1 * * for 4h".
func parseWindow(text string, loc *time.Location) (*window, error) {
	wrong := func(format string, args ...any) (*window, error) {
		return nil, fmt.Errorf("%.40q: "+format, append([]any{text}, args...)...)
	}
	if i := strings.LastIndex(text, " for "); i >= 0 {
		c, err := parseClock(text[:i], loc)
		if err != nil {
			return nil, err
		}
		d, err := ParseDuration(strings.TrimSpace(text[i+len(" for "):]))
		if err != nil {
			return nil, err
		}
		if d < Duration(time.Minute) || d > Duration(maxWindow) {
			return wrong("it lasts %s: want 1m to %s", d, Duration(maxWindow))
		}
		if _, ok := c.next(someDay); !ok { // each question about it would look through decades
			return wrong("it never begins")
		}
		return &window{starts: c, length: time.Duration(d)}, nil
	}
	days, hours, found := strings.Cut(strings.TrimSpace(text), " ")
	from, to, ranged := strings.Cut(strings.TrimSpace(hours), "-")
	if !found || !ranged {
		return wrong(`want days and hours, as in "Sat,Sun 02:00-06:00", or "CRON for D"`)
	}
	begin, err := parseHour(from)
	if err != nil {
		return wrong("%w", err)
	}
	end, err := parseHour(to)
	if err != nil || begin == day {
		return wrong("want hours from 00:00-00:01 to 23:59-24:00")
	}
	if end <= begin {
		end += day
	}
	on, err := parseDays(days)
	if err != nil {
		return wrong("%w", err)
	}
	c, err := parseClock(fmt.Sprintf("%d %d * * %s", begin%time.Hour/time.Minute, begin/time.Hour, on), loc)
	if err != nil {
		return nil, err
	}
	return &window{starts: c, length: end - begin, wall: true}, nil
}

func parseHour(text string) (time.Duration, error) {
	wrong := fmt.Errorf("%.20q: want hours as in 02:00", text)
	h, m, ok := strings.Cut(text, ":")
	if !ok || len(h) != 2 || len(m) != 2 {
		return 0, wrong
	}
	hours, err := strconv.ParseUint(h, 10, 8)
	if err != nil {
		return 0, wrong
	}
	minutes, err := strconv.ParseUint(m, 10, 8)
	if err != nil || minutes > 59 || hours > 24 || hours == 24 && minutes > 0 {
		return 0, wrong
	}
	return time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute, nil
}

// parseDays reads days of the week as cron has them.
func parseDays(text string) (string, error) {
	if strings.EqualFold(text, "daily") {
		return "*", nil
	}
	var out []string
	for part := range strings.SplitSeq(strings.ToLower(text), ",") {
		from, to, ranged := strings.Cut(part, "-")
		a, b := slices.Index(weekdays, from), slices.Index(weekdays, to)
		switch {
		case a < 0 || ranged && b < 0:
			return "", fmt.Errorf("%.20q: want days as in Sat, Mon-Fri or daily", part)
		case !ranged:
			out = append(out, strconv.Itoa(a))
		default: // Fri-Mon goes over the end of the week
			for d := a; ; d = (d + 1) % 7 {
				if out = append(out, strconv.Itoa(d)); d == b {
					break
				}
			}
		}
	}
	return strings.Join(out, ","), nil
}

// end is when the window that begins with a tick ends.
func (w *window) end(t tick) time.Time {
	if w.wall {
		return moment(t.wall.Add(w.length), w.starts.loc)
	}
	return t.at.Add(w.length)
}

// around returns the end of the window that a moment lies in.
func (w *window) around(t time.Time) (end time.Time, in bool) {
	start, ok := w.starts.last(t)
	if !ok {
		return time.Time{}, false
	}
	end = w.end(start)
	return end, t.Before(end)
}

// windows are the times at which something may fire: within those that are open, if there
// are any, and in none that is shut.
type windows struct{ open, shut []*window }

func parseWindows(open, shut []string, loc *time.Location) (w windows, field string, err error) {
	for _, l := range []struct {
		field string
		texts []string
		to    *[]*window
	}{{"windows", open, &w.open}, {"freezes", shut, &w.shut}} {
		if len(l.texts) > maxWindows {
			return w, l.field, fmt.Errorf("%d of them: want %d at most", len(l.texts), maxWindows)
		}
		for _, text := range l.texts {
			one, err := parseWindow(text, loc)
			if err != nil {
				return w, l.field, err
			}
			*l.to = append(*l.to, one)
		}
	}
	return w, "", nil
}

// maxWindows is how many of each kind a schedule may have, and maxSteps how many beginnings
// and ends are gone through for one firing: more than one for each hour of a month. What leaves
// no moment free for longer is taken for what never does.
const (
	maxWindows = 20
	maxSteps   = 1_000
)

// someDay is one after which whatever ever comes true does so within decades.
var someDay = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

func (w *windows) none() bool { return len(w.open)+len(w.shut) == 0 }

// allows reports whether something may fire at a moment.
func (w *windows) allows(t time.Time) bool {
	in := func(one *window) bool { _, in := one.around(t); return in }
	return (len(w.open) == 0 || slices.ContainsFunc(w.open, in)) && !slices.ContainsFunc(w.shut, in)
}

// first returns the first moment, from one on, at which something may fire.
func (w *windows) first(t time.Time) (time.Time, bool) {
	for range maxSteps {
		if end, in := latest(w.shut, t); in {
			t = end
			continue
		}
		if _, in := latest(w.open, t); in || len(w.open) == 0 {
			return t, true
		}
		next, ok := earliest(w.open, t)
		if !ok {
			return time.Time{}, false
		}
		t = next
	}
	return time.Time{}, false
}

// before returns the begin of the last stretch, not before from, in which something may fire
// and that has begun by a moment.
func (w *windows) before(from, t time.Time) (time.Time, bool) {
	var found time.Time
	for range maxSteps {
		begin, ok := w.first(from)
		if !ok || begin.After(t) {
			break
		}
		found = begin
		end, in := latest(w.open, begin)
		if next, ok := earliest(w.shut, begin); ok && (!in || next.Before(end)) {
			end, in = next, true
		}
		if !in {
			break // it never ends
		}
		from = end
	}
	return found, !found.IsZero()
}

// latest returns the latest end of those windows that a moment lies in.
func latest(list []*window, t time.Time) (end time.Time, in bool) {
	for _, w := range list {
		if e, ok := w.around(t); ok && (!in || e.After(end)) {
			end, in = e, true
		}
	}
	return end, in
}

// earliest returns the first begin of a window after a moment.
func earliest(list []*window, t time.Time) (begin time.Time, ok bool) {
	for _, w := range list {
		if s, is := w.starts.next(t); is && (!ok || s.at.Before(begin)) {
			begin, ok = s.at, true
		}
	}
	return begin, ok
}
