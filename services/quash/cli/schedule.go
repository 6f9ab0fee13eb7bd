package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
)

func (a *app) scheduleCmd() *cobra.Command {
	r := records{
		app: a, what: "a schedule", id: "NAME", list: scheduleList, show: a.showSchedule,
		get: func(ctx context.Context, c *client.Client, id string, with api.RequestEditorFn) (json.RawMessage, error) {
			return raw(c.GetSchedule(ctx, id, with))
		},
		remove: func(ctx context.Context, c *client.Client, id string, with api.RequestEditorFn) (json.RawMessage, error) {
			return raw(c.DeleteSchedule(ctx, id, nil, with))
		},
		head: []string{"NAME", "ROTATES", "WHEN", "STATE", "NEXT", "LAST"},
		row: read(func(s api.Schedule) []string {
			return []string{s.Name, s.Rotate, whenOf(&s), string(s.State), firingAt(s.Next), lastOf(s.Last)}
		}),
		deletes: "Delete a schedule; what it has begun goes on",
	}
	show := r.showCmd()
	show.Short = "Show a schedule"
	return group("schedule", "Schedules: what is rotated by itself, and when",
		a.scheduleCreateCmd(), r.listCmd(), show, r.deleteCmd(),
		a.scheduleChangeCmd("pause", "Keep a schedule from firing", func(ctx context.Context, c *client.Client, name, reason string, with api.RequestEditorFn) (json.RawMessage, error) {
			return raw(c.PauseSchedule(ctx, name, api.PauseScheduleJSONRequestBody{Reason: reason}, with))
		}),
		a.scheduleChangeCmd("resume", "Let a schedule fire again; what was due meanwhile does not fire", func(ctx context.Context, c *client.Client, name, reason string, with api.RequestEditorFn) (json.RawMessage, error) {
			return raw(c.ResumeSchedule(ctx, name, api.ResumeScheduleJSONRequestBody{Reason: reason}, with))
		}),
		a.schedulePreviewCmd(), a.scheduleCalendarCmd())
}

// scheduleFlags are when what is rotated.
type scheduleFlags struct {
	api.PreviewNewScheduleJSONRequestBody
}

func (f *scheduleFlags) add(a *app, c *cobra.Command) {
	fs := c.Flags()
	fs.StringVar(&f.Rotate, "rotate", "", "what: signing-key, key:ID or client:ID (required)")
	fs.StringVar(&f.Cron, "cron", "", `minute, hour, day of the month, month and day of the week, as in "0 3 * * 1"`)
	fs.StringVar(&f.TimeZone, "time-zone", "", "of --cron, --window and --freeze, as Europe/Berlin (default UTC)")
	fs.StringVar(&f.Every, "every", "", "an interval, as 30d or 12h")
	fs.StringVar(&f.MaxAge, "max-age", "", "once it has been in use for so long, as 60d")
	fs.StringVar(&f.BeforeExpiry, "before-expiry", "", "so long before it ends, as 14d")
	fs.StringVar(&f.Jitter, "jitter", "", "fire up to so much later; with --max-age and --before-expiry earlier")
	fs.StringArrayVar(&f.Windows, "window", nil, `fire within this alone, as "Sat,Sun 02:00-06:00" or "0 2 1 * * for 4h"; repeatable`)
	fs.StringArrayVar(&f.Freezes, "freeze", nil, "do not fire within this; repeatable")
	fs.StringVar(&f.Missed, "missed", "", "of firings for whose time no rotator ran: run-once (default) or skip")
	fs.StringVar(&f.Overlap, "overlap", "", "of keys and clients: how long the old one is good beside the new one")
	fs.StringVar(&f.Reason, "reason", "", "why, for the audit (required)")
	completed(c, "missed", completeOne("run-once", "skip"))
	completed(c, "rotate", a.completeRotated)
}

// check wants what the API can't do without, in the words of the command line.
func (f *scheduleFlags) check() error {
	given := 0
	for _, text := range []string{f.Cron, f.Every, f.MaxAge, f.BeforeExpiry} {
		if text != "" {
			given++
		}
	}
	switch {
	case f.Rotate == "":
		return usage("--rotate is missing: what is rotated, as signing-key, key:ID or client:ID")
	case given != 1:
		return usage("want one of --cron, --every, --max-age and --before-expiry: %d are given", given)
	case f.Reason == "":
		return usage("--reason is missing: it stands in the audit, of each rotation too")
	}
	return nil
}

func (a *app) scheduleCreateCmd() *cobra.Command {
	var f scheduleFlags
	var key string
	c := &cobra.Command{
		Use: "create NAME --rotate {signing-key | key:ID | client:ID} --cron EXPR --reason TEXT", Short: "Let something be rotated by itself", Args: cobra.ExactArgs(1),
		Long: `Let something be rotated by itself: at times (--cron, in --time-zone), in intervals (--every),
at an age (--max-age), or before its end (--before-expiry). Days are written as 30d.

The same again changes nothing; another schedule needs another name. quash schedule
preview shows what it will do.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			if key == "" {
				key = rand.Text()
			}
			b := f.PreviewNewScheduleJSONRequestBody
			made, err := cl.CreateSchedule(client.Patient(cmd.Context(), patience), api.CreateScheduleJSONRequestBody{
				Name: args[0], Rotate: b.Rotate, Cron: b.Cron, TimeZone: b.TimeZone, Every: b.Every, MaxAge: b.MaxAge, BeforeExpiry: b.BeforeExpiry,
				Jitter: b.Jitter, Windows: b.Windows, Freezes: b.Freezes, Missed: b.Missed, Overlap: b.Overlap, Reason: b.Reason,
			}, client.IdempotencyKey(key))
			if err != nil {
				return outcome(err, key)
			}
			return a.showSchedule(made.Raw)
		},
	}
	f.add(a, c)
	c.Flags().StringVar(&key, "idempotency-key", "", "repeat a request whose outcome is unknown (default: a new one)")
	return c
}

// scheduleChangeCmd changes a schedule by a call, which takes a reason.
func (a *app) scheduleChangeCmd(verb, short string, do func(context.Context, *client.Client, string, string, api.RequestEditorFn) (json.RawMessage, error)) *cobra.Command {
	c := &cobra.Command{
		Use: verb + " NAME --reason TEXT", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeIDs(scheduleList),
	}
	reason := c.Flags().String("reason", "", "why, for the audit (required)")
	given := c.Flags().String("idempotency-key", "", "repeat a request whose outcome is unknown (default: a new one)")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if *reason == "" {
			return usage("--reason is missing: it stands in the audit")
		}
		cl, err := a.connect()
		if err != nil {
			return err
		}
		key := *given
		if key == "" {
			key = rand.Text()
		}
		text, err := do(client.Patient(cmd.Context(), patience), cl, args[0], *reason, client.IdempotencyKey(key))
		if err != nil {
			return outcome(err, key)
		}
		return a.showSchedule(text)
	}
	return c
}

func (a *app) schedulePreviewCmd() *cobra.Command {
	var f scheduleFlags
	var n int64
	c := &cobra.Command{
		Use: "preview {NAME | --rotate signing-key --cron EXPR --reason TEXT}", Short: "What a schedule will do, and when; also of one that is not made yet", Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeIDs(scheduleList),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && f.Rotate != "" {
				return usage("want the name of a schedule, or --rotate and when: both are given")
			}
			if len(args) == 0 {
				if f.Reason == "" {
					f.Reason = "a preview"
				}
				if err := f.check(); err != nil {
					return err
				}
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			var p api.Answer[api.SchedulePreview]
			if len(args) == 1 {
				p, err = cl.PreviewSchedule(cmd.Context(), args[0], &api.PreviewScheduleParams{N: &n})
			} else {
				p, err = cl.PreviewNewSchedule(cmd.Context(), &api.PreviewNewScheduleParams{N: &n}, f.PreviewNewScheduleJSONRequestBody)
			}
			if err != nil {
				return err
			}
			return a.print(p.Raw, func() { a.showFirings(&p.Value) })
		},
	}
	f.add(a, c)
	c.Flags().Int64VarP(&n, "number", "n", 10, "how many firings, 100 at most")
	return c
}

func (a *app) showFirings(p *api.SchedulePreview) {
	rows := make([][]string, len(p.Firings))
	for i := range p.Firings {
		f := &p.Firings[i]
		rows[i] = []string{at(f.At), f.Local, f.Does, strings.Join(whyOf(f.Why, f.Assumed), "; ")}
	}
	a.table([]string{"AT", "LOCAL", "DOES", "WHY"}, rows)
	if p.State == "paused" {
		a.note("It is paused: these would be its firings if it were resumed now.")
	}
	if len(p.Firings) == 0 {
		a.note("Nothing is foreseen: it is not known when what it rotates came into use.")
	}
}

func whyOf(why []string, assumed bool) []string {
	if assumed {
		return append(why, "assumed: it depends on the one before")
	}
	return why
}

func (a *app) scheduleCalendarCmd() *cobra.Command {
	var within string
	var ical bool
	c := &cobra.Command{
		Use: "calendar", Short: "What all schedules will do, and when", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ical && a.output != asTable {
				return usage("--ical and -o %s: want one of them", a.output)
			}
			cl, err := a.connect()
			if err != nil {
				return err
			}
			params := &api.GetScheduleCalendarParams{For: optional(within)}
			if !ical {
				got, err := cl.GetScheduleCalendar(cmd.Context(), params)
				if err != nil {
					return err
				}
				return a.print(got.Raw, func() { a.showCalendar(&got.Value) })
			}
			params.Format = new(api.GetScheduleCalendarParamsFormatIcal)
			resp, err := cl.Requests.GetScheduleCalendar(cmd.Context(), params)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.Copy(a.env.Out, io.LimitReader(resp.Body, client.MaxAnswer))
			return err
		},
	}
	c.Flags().StringVar(&within, "for", "", "how far, as 90d (default 30d)")
	c.Flags().BoolVar(&ical, "ical", false, "as iCalendar, to import into a calendar")
	return c
}

func (a *app) showCalendar(c *api.Calendar) {
	rows := make([][]string, len(c.Firings))
	for i := range c.Firings {
		f := &c.Firings[i]
		rows[i] = []string{at(f.At), f.Local, f.Schedule, f.Rotate, strings.Join(whyOf(f.Why, f.Assumed), "; ")}
	}
	a.table([]string{"AT", "LOCAL", "SCHEDULE", "ROTATES", "WHY"}, rows)
	if c.More {
		a.note("There are others: ask for less with --for.")
	}
}

// whenOf says in a few words when a schedule fires.
func whenOf(s *api.Schedule) string {
	switch {
	case s.Cron != "":
		return s.Cron + " " + s.TimeZone
	case s.Every != "":
		return "every " + s.Every
	case s.MaxAge != "":
		return "at the age of " + s.MaxAge
	}
	return s.BeforeExpiry + " before its end"
}

func firingAt(f *api.Firing) string {
	if f == nil {
		return "-"
	}
	return at(f.At)
}

func lastOf(f *api.Fired) string {
	switch {
	case f == nil:
		return "-"
	case f.Failed != "":
		return at(f.FiredAt) + " failed"
	}
	return at(f.FiredAt)
}

func (a *app) showSchedule(text json.RawMessage) error {
	var s api.Schedule
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	return a.print(text, func() {
		a.fields("name", s.Name, "id", s.ID, "state", string(s.State), "rotates", s.Rotate, "when", whenOf(&s), "jitter", s.Jitter,
			"windows", strings.Join(s.Windows, "; "), "freezes", strings.Join(s.Freezes, "; "), "missed", string(s.Missed), "overlap", s.Overlap, "next", firingAt(s.Next))
		if l := s.Last; l != nil {
			late := ""
			if d := l.FiredAt.Sub(l.At); d >= time.Second {
				late = ", late by " + d.Round(time.Second).String()
			}
			a.fields("fired", at(l.FiredAt)+late, "rotation", l.Rotation, "successor", l.Next, "old one good until", at(l.GoodUntil), "outcome", l.Outcome, "failed", l.Failed)
		}
		if m := s.Skipped; m != nil {
			a.fields("skipped", "what was due from "+at(m.From)+" to "+at(m.To)+": no rotator ran")
		}
		a.fields("why", s.Why, "created", at(s.CreatedAt)+" by "+s.CreatedBy, "changed", at(s.ChangedAt)+" by "+s.ChangedBy+": "+s.Reason)
	})
}
