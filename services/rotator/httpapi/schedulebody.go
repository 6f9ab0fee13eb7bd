package httpapi

import (
	"github.com/quash-project/quash/services/rotator/schedule"
	"github.com/quash-project/quash/shared/problem"
)

// ScheduleSpec is when what is rotated.
type ScheduleSpec struct {
	Rotate       string   `json:"rotate" doc:"signing-key; key:ID: the API key or whatever has come in its place; client:ID: the newest secret of the client"`
	Cron         string   `json:"cron,omitempty" doc:"minute, hour, day of the month, month and day of the week, as in 0 3 * * 1, or @daily and the like. Give one of cron, every, max_age and before_expiry"`
	TimeZone     string   `json:"time_zone,omitempty" doc:"of the IANA database, as Europe/Berlin: of cron, windows and freezes. Default: UTC"`
	Every        string   `json:"every,omitempty" doc:"an interval from when the schedule is made, as 30d or 12h: 1m to 400d; a day is 24 hours"`
	MaxAge       string   `json:"max_age,omitempty" doc:"when what is rotated has been in use for so long, as 60d: 1h to 400d"`
	BeforeExpiry string   `json:"before_expiry,omitempty" doc:"so long before it ends, as 14d: 1h to 400d"`
	Jitter       string   `json:"jitter,omitempty" doc:"it fires up to so much later, with max_age and before_expiry earlier; the same for every replica. At most 7d"`
	Windows      []string `json:"windows,omitempty" doc:"it fires within these alone: Sat,Sun 02:00-06:00, daily 01:00-03:00, Mon-Fri 22:00-06:00, or 0 2 1 * * for 4h. What is due outside of them is moved to the begin of the next; with max_age and before_expiry of the last before"`
	Freezes      []string `json:"freezes,omitempty" doc:"it fires in none of these, written as windows"`
	Missed       string   `json:"missed,omitempty" doc:"what becomes of firings for whose time no rotator ran: run-once (default), all of them together fire once; or skip"`
	Overlap      string   `json:"overlap,omitempty" doc:"of keys and clients: how long the old one is good beside the new one"`
	Reason       string   `json:"reason" doc:"why, for the audit: of each rotation too"`
}

// scheduleBody is a ScheduleSpec with a name. It does not embed it: errors would name that too.
type scheduleBody struct {
	Name         string   `json:"name" doc:"1 to 63 of a-z, 0-9 and -"`
	Rotate       string   `json:"rotate" doc:"signing-key; key:ID: the API key or whatever has come in its place; client:ID: the newest secret of the client"`
	Cron         string   `json:"cron,omitempty" doc:"minute, hour, day of the month, month and day of the week, as in 0 3 * * 1, or @daily and the like. Give one of cron, every, max_age and before_expiry"`
	TimeZone     string   `json:"time_zone,omitempty" doc:"of the IANA database, as Europe/Berlin: of cron, windows and freezes. Default: UTC"`
	Every        string   `json:"every,omitempty" doc:"an interval from when the schedule is made, as 30d or 12h: 1m to 400d; a day is 24 hours"`
	MaxAge       string   `json:"max_age,omitempty" doc:"when what is rotated has been in use for so long, as 60d: 1h to 400d"`
	BeforeExpiry string   `json:"before_expiry,omitempty" doc:"so long before it ends, as 14d: 1h to 400d"`
	Jitter       string   `json:"jitter,omitempty" doc:"it fires up to so much later, with max_age and before_expiry earlier; the same for every replica. At most 7d"`
	Windows      []string `json:"windows,omitempty" doc:"it fires within these alone: Sat,Sun 02:00-06:00, daily 01:00-03:00, Mon-Fri 22:00-06:00, or 0 2 1 * * for 4h. What is due outside of them is moved to the begin of the next; with max_age and before_expiry of the last before"`
	Freezes      []string `json:"freezes,omitempty" doc:"it fires in none of these, written as windows"`
	Missed       string   `json:"missed,omitempty" doc:"what becomes of firings for whose time no rotator ran: run-once (default), all of them together fire once; or skip"`
	Overlap      string   `json:"overlap,omitempty" doc:"of keys and clients: how long the old one is good beside the new one"`
	Reason       string   `json:"reason" doc:"why, for the audit: of each rotation too"`
}

// what is the body without its name.
func (b *scheduleBody) what() *ScheduleSpec {
	return &ScheduleSpec{
		b.Rotate, b.Cron, b.TimeZone, b.Every, b.MaxAge, b.BeforeExpiry, b.Jitter, b.Windows, b.Freezes, b.Missed, b.Overlap, b.Reason,
	}
}

// spec reads what was asked for.
func (b *ScheduleSpec) spec() (schedule.Spec, error) {
	s := schedule.Spec{
		Rotate: b.Rotate, Cron: b.Cron, TimeZone: b.TimeZone, Windows: b.Windows, Freezes: b.Freezes, Missed: b.Missed, Reason: b.Reason,
	}
	for _, d := range []struct {
		field, text string
		to          *schedule.Duration
	}{
		{"every", b.Every, &s.Every},
		{"max_age", b.MaxAge, &s.MaxAge},
		{"before_expiry", b.BeforeExpiry, &s.BeforeExpiry},
		{"jitter", b.Jitter, &s.Jitter},
		{"overlap", b.Overlap, &s.Overlap},
	} {
		if d.text == "" {
			continue
		}
		v, err := schedule.ParseDuration(d.text)
		if err == nil && v == 0 {
			return s, problem.FieldError(d.field, "0s: leave it out, or say how long")
		}
		if err != nil {
			return s, problem.FieldError(d.field, "%v", err)
		}
		*d.to = v
	}
	return s, nil
}
