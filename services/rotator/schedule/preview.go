package schedule

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/problem"
)

// Preview is what a schedule will do.
type Preview struct {
	Schedule Schedule
	Firings  []Planned
}

// Limits of what is foreseen.
const (
	MaxFirings  = 100    // of a preview
	MaxCalendar = 10_000 // firings of a calendar
	MaxHorizon  = Duration(400 * day)
	// DefaultHorizon is that of a calendar for which nobody says how far it goes.
	DefaultHorizon = Duration(30 * day)
)

// Preview returns the next n firings of a schedule; of one that is paused, those that would
// be if it were resumed now.
func (s *Service) Preview(ctx context.Context, tenant, name string, n int) (Preview, error) {
	x, err := s.Show(ctx, tenant, name)
	if err != nil {
		return Preview{}, err
	}
	plan, err := NewPlan(&x)
	if err != nil {
		return Preview{}, err
	}
	sub, err := s.about(ctx, &x, plan)
	if err != nil {
		return Preview{}, err
	}
	return Preview{x, plan.foresee(s.Now(), time.Time{}, n, sub, &x)}, nil
}

// PreviewOf does so for one that is not made.
func (s *Service) PreviewOf(ctx context.Context, c Caller, spec Spec, n int) (Preview, error) {
	jitter := spec.Jitter
	x, plan, sub, err := s.prepare(ctx, c, "preview", spec)
	if err != nil {
		return Preview{}, err
	}
	if plan.spec.Jitter != 0 { // it depends on the id that the schedule is given
		plan.spec.Jitter, x.Next = 0, nil
	}
	if !x.aged() {
		if sub, err = s.about(ctx, &x, plan); err != nil {
			return Preview{}, err
		}
	}
	out := plan.foresee(s.Now(), time.Time{}, n, sub, &x)
	for i := range out {
		if jitter != 0 {
			word := "later"
			if x.aged() {
				word = "earlier"
			}
			out[i].Why = append(out[i].Why, fmt.Sprintf("up to %s %s by jitter, once the schedule is made", jitter, word))
		}
	}
	return Preview{x, out}, nil
}

// about asks for what is rotated, for people: where its age does not say when, it need not be
// known.
func (s *Service) about(ctx context.Context, x *Schedule, p *Plan) (Subject, error) {
	if !x.aged() && p.target.Kind != SigningKey { // what a firing does says nothing of it
		return Subject{}, nil
	}
	sub, err := s.Subjects.Subject(ctx, x.Tenant, p.target)
	if err != nil && !x.aged() {
		return Subject{}, nil
	}
	return sub, err
}

// foresee is Foresee, and says what each firing would do and when that is on the wall.
func (p *Plan) foresee(after, until time.Time, n int, sub Subject, x *Schedule) []Planned {
	out := p.Foresee(after, until, n, sub, x)
	loc, err := loadZone(p.spec.TimeZone)
	if err != nil {
		loc = time.UTC // NewPlan has loaded it
	}
	for i := range out {
		out[i].Local = out[i].AtTime().In(loc).Format("2006-01-02T15:04:05.000-07:00")
		out[i].Does = p.does(i, sub)
	}
	return out
}

// does says what a firing does, the first or one after it.
func (p *Plan) does(i int, sub Subject) string {
	switch {
	case p.target.Kind != SigningKey && p.spec.Overlap != 0:
		return fmt.Sprintf("a successor of %s is made, sealed to its recipient; both are good for %s", p.target, p.spec.Overlap)
	case p.target.Kind != SigningKey:
		return fmt.Sprintf("a successor of %s is made, sealed to its recipient; both are good for as long as the issuer has it", p.target)
	case i == 0 && sub.ID != "" && sub.Next != "":
		return fmt.Sprintf("once every guard has it, signing key %s signs in the place of %s", sub.Next, sub.ID)
	case i == 0 && sub.ID != "":
		return fmt.Sprintf("once every guard has it, the next signing key signs in the place of %s", sub.ID)
	}
	return "once every guard has it, the next signing key signs in the place of the one that does then"
}

// Event is a firing in the calendar.
type Event struct {
	Schedule Schedule
	Planned
}

// Calendar is what all schedules of a tenant will do within a time.
type Calendar struct {
	From   time.Time
	Within Duration
	Events []Event // in order
	More   bool    // there are others
}

// Calendar returns the firings of all schedules of a tenant within a time from now.
func (s *Service) Calendar(ctx context.Context, tenant string, within Duration) (c Calendar, err error) {
	if within <= 0 || within > MaxHorizon {
		return c, problem.FieldError("for", "%s: want more than 0s and at most %s", within, MaxHorizon)
	}
	all, err := s.Store.Schedules(tenant)
	if err != nil {
		return c, err
	}
	c = Calendar{From: s.Now(), Within: within}
	subjects := map[string]Subject{} // by what is rotated
	until := c.From.Add(time.Duration(within))
	for i := range all {
		if err := ctx.Err(); err != nil { // nobody waits for it any more
			return Calendar{}, err
		}
		x := &all[i]
		if x.DeletedAt != 0 || x.Paused {
			continue
		}
		plan, err := NewPlan(x)
		if err != nil {
			return c, err
		}
		sub, known := subjects[x.Rotate]
		if !known {
			if sub, err = s.about(ctx, x, plan); err != nil {
				return c, err
			}
			subjects[x.Rotate] = sub
		}
		for _, f := range plan.foresee(c.From, until, MaxCalendar+1, sub, x) {
			c.Events = append(c.Events, Event{*x, f})
		}
		if len(c.Events) > 4*MaxCalendar { // those that are left are far more than is shown
			if c.cut(); c.More {
				until = c.Events[len(c.Events)-1].AtTime()
			}
		}
	}
	c.cut()
	return c, nil
}

// cut puts events in order, and leaves those away that are too many.
func (c *Calendar) cut() {
	slices.SortFunc(c.Events, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Schedule.Name, b.Schedule.Name))
	})
	if len(c.Events) > MaxCalendar {
		c.Events, c.More = slices.Clip(c.Events[:MaxCalendar]), true
	}
}

// Names returns the schedules of a tenant, sorted. What they are tells Seen: of 100,000 few are
// looked at.
func (s *Service) Names(tenant string) ([]string, error) {
	if err := s.Store.Read(); err != nil {
		return nil, err
	}
	return s.queue.living(tenant), nil
}

// Seen returns a schedule as it was seen last.
func (s *Service) Seen(tenant, name string) (Schedule, error) { return s.Store.Copy(tenant, name) }
