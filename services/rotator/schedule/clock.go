package schedule

import (
	"fmt"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // a machine without zone files knows the zones all the same

	"github.com/netresearch/go-cron"
)

// searchYears is how far a cron expression is looked ahead for: 29 February on a given day
// of the week comes after 40 years at most, over a year like 2100 that has none.
const searchYears = 50

// zones keeps the zones that were loaded: time.LoadLocation reads the file each time. It
// holds names that exist only, some hundreds.
var zones sync.Map

// loadZone returns a zone of the IANA database; none is UTC. The machine's own zone has no
// name here: every replica has to mean the same.
func loadZone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	if loc, ok := zones.Load(name); ok {
		return loc.(*time.Location), nil
	}
	wrong := fmt.Errorf("%.40q: want a name of the IANA time zone database, as in Europe/Berlin or UTC", name)
	if name == "Local" || len(name) > 60 || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/_+-", r)
	}) {
		return nil, wrong
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, wrong
	}
	zones.Store(name, loc)
	return loc, nil
}

// clock is a cron expression in a zone.
type clock struct {
	spec *cron.SpecSchedule
	loc  *time.Location
}

// tick is one time that a clock names: as it stands on the wall (held as if it were UTC), and
// the moment that this is.
type tick struct{ wall, at time.Time }

// parser takes five fields; where both days are given one of them is enough, as cron(5) has it.
var parser = cron.MustNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor | cron.Extended | cron.DowOrDom).WithMaxSearchYears(searchYears)

// maxCron is how long an expression may be.
const maxCron = 200

func parseClock(text string, loc *time.Location) (*clock, error) {
	wrong := func(format string, args ...any) (*clock, error) {
		return nil, fmt.Errorf("%.40q: "+format, append([]any{text}, args...)...)
	}
	switch {
	case len(text) > maxCron || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }):
		return wrong("want a cron expression of %d printable letters at most", maxCron)
	case strings.Contains(text, "TZ="):
		return wrong("the zone has a place of its own: time_zone")
	case strings.HasPrefix(strings.TrimSpace(text), "@every"):
		return wrong("an interval has a place of its own: every")
	}
	s, err := parser.Parse(strings.TrimSpace(text))
	if err != nil {
		return wrong("want minute, hour, day of the month, month and day of the week, as in 0 3 * * 1") // err repeats what it found
	}
	spec, ok := s.(*cron.SpecSchedule)
	if !ok {
		return wrong("want minute, hour, day of the month, month and day of the week, as in 0 3 * * 1")
	}
	spec.Location = time.UTC // the wall is worked on as UTC, where every minute is there once
	c := &clock{spec, loc}
	return c, nil
}

// next returns the first tick after a moment. Of ticks that are the same moment, since the
// clock leaps over them, only one counts; of a minute that the clock shows twice the first.
func (c *clock) next(after time.Time) (tick, bool) {
	wall := wallOf(after, c.loc)
	for {
		// From a wall that is passed for the second time on, all that the first pass had
		// is not after.
		if wall = c.spec.Next(wall); wall.IsZero() {
			return tick{}, false
		}
		if at := moment(wall, c.loc); at.After(after) {
			return tick{wall, at}, true
		}
	}
}

// last returns the newest tick that is not after a moment.
func (c *clock) last(t time.Time) (tick, bool) {
	wall := wallOf(t, c.loc)
	if start, _ := t.In(c.loc).ZoneBounds(); !start.IsZero() {
		// The clock was put back: what it showed before that is later on the wall.
		if before := wallOf(start.Add(-1), c.loc); before.After(wall) {
			wall = before
		}
	}
	wall = wall.Truncate(time.Second).Add(time.Second)
	for {
		if wall = c.spec.Prev(wall); wall.IsZero() {
			return tick{}, false
		}
		if at := moment(wall, c.loc); !at.After(t) {
			return tick{wall, at}, true
		}
	}
}

// wallOf returns what the clock on the wall shows, as if it were UTC.
func wallOf(t time.Time, loc *time.Location) time.Time {
	_, offset := t.In(loc).Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// moment returns the moment at which a clock on the wall shows a time: where it shows it twice
// the first, and where it leaps over it the first moment after the leap.
func moment(wall time.Time, loc *time.Location) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), wall.Nanosecond(), loc)
	start, end := t.ZoneBounds()
	switch shown := wallOf(t, loc); {
	case shown.After(wall):
		return start.UTC() // reckoned by the offset before the leap, it fell behind it
	case shown.Before(wall):
		return end.UTC()
	}
	if !start.IsZero() {
		_, before := start.Add(-1).In(loc).Zone()
		if first := wall.Add(-time.Duration(before) * time.Second); first.Before(start) {
			return first
		}
	}
	return t.UTC()
}

// leapt reports whether the clock leaps over what a tick shows, and twice whether it shows
// it once more.
func (c *clock) leapt(t tick) bool { return !wallOf(t.at, c.loc).Equal(t.wall) }

func (c *clock) twice(t tick) bool {
	_, end := t.at.In(c.loc).ZoneBounds()
	if end.IsZero() {
		return false
	}
	_, after := end.In(c.loc).Zone()
	second := t.wall.Add(-time.Duration(after) * time.Second)
	return !second.Before(end) && second.After(t.at)
}
