package httpapi

import (
	"time"

	"github.com/quash-project/quash/services/rotator/schedule"
	frame "github.com/quash-project/quash/shared/httpapi"
)

func shownSchedule(x *schedule.Schedule) Schedule {
	length := func(d schedule.Duration) string {
		if d == 0 {
			return ""
		}
		return d.String()
	}
	out := Schedule{
		ID: x.ID, Name: x.Name, State: x.State(), Rotate: x.Rotate, Cron: x.Cron, TimeZone: x.TimeZone, Every: length(x.Every), MaxAge: length(x.MaxAge),
		BeforeExpiry: length(x.BeforeExpiry), Jitter: length(x.Jitter), Windows: never(x.Windows), Freezes: never(x.Freezes),
		Missed: x.Missed, Overlap: length(x.Overlap), Why: x.Spec.Reason, CreatedAt: frame.Millis(x.CreatedAt), CreatedBy: x.CreatedBy,
		ChangedBy: x.Meta.Actor, ChangedAt: frame.Millis(x.Meta.At), Reason: x.Meta.Reason,
	}
	if out.TimeZone == "" {
		out.TimeZone = "UTC"
	}
	if x.Next != nil {
		out.Next = new(shownFiring(*x.Next))
	}
	if x.Claimed != nil {
		out.Firing = new(shownFiring(x.Claimed.Firing))
	}
	if l := x.Last; l != nil {
		out.Last = &Fired{
			Firing: shownFiring(l.Firing), FiredAt: frame.Millis(l.ClaimedAt), Rotation: l.Rotation, Next: l.Next,
			GoodUntil: when(l.Until), Outcome: l.Outcome, Failed: l.Failed,
		}
	}
	if m := x.LastMissed; m != nil {
		out.Skipped = &Skipped{frame.Millis(m.From), frame.Millis(m.To)}
	}
	return out
}

// never is a list that is never null.
func never(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func shownFiring(f schedule.Firing) Firing { return Firing{frame.Millis(f.Due), frame.Millis(f.At)} }

func shownForeseen(p schedule.Planned) Foreseen {
	return Foreseen{Firing: shownFiring(p.Firing), Local: p.Local, Does: p.Does, Why: never(p.Why), Assumed: p.Assumed}
}

func shownFirings(all []schedule.Planned) []Foreseen {
	out := make([]Foreseen, 0, len(all))
	for _, p := range all {
		out = append(out, shownForeseen(p))
	}
	return out
}

func shownCalendar(c *schedule.Calendar) Calendar {
	out := Calendar{From: frame.Time(c.From), Until: frame.Time(c.From.Add(time.Duration(c.Within))), Firings: make([]CalendarEntry, 0, len(c.Events)), More: c.More}
	for i := range c.Events {
		e := &c.Events[i]
		out.Firings = append(out.Firings, CalendarEntry{e.Schedule.Name, e.Schedule.Rotate, shownForeseen(e.Planned)})
	}
	return out
}
