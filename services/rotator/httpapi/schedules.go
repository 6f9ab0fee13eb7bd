package httpapi

import (
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/quash-project/quash/services/rotator/schedule"
	"github.com/quash-project/quash/shared/guard/revoke"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/idempotency"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// Firing is one time at which a schedule fires.
type Firing struct {
	DueAt frame.Time `json:"due_at" doc:"the time that the schedule names"`
	At    frame.Time `json:"at" doc:"when it fires: after jitter, windows and freezes"`
}

// Foreseen is a firing that will be.
type Foreseen struct {
	Firing
	Local   string   `json:"local" doc:"at, by the clock on the wall in the schedule's time zone"`
	Does    string   `json:"does"`
	Why     []string `json:"why" doc:"what moves it from the time that the schedule names; never null"`
	Assumed bool     `json:"assumed" doc:"it depends on when the ones before it were done"`
}

// Fired is a firing that was.
type Fired struct {
	Firing
	FiredAt   frame.Time  `json:"fired_at"`
	Rotation  string      `json:"rotation,omitempty" doc:"of a signing key: see /v1/rotations/{id}"`
	Next      string      `json:"next,omitempty" doc:"the key that takes the place of the old one"`
	GoodUntil *frame.Time `json:"good_until,omitempty" doc:"the old one is good until then"`
	Outcome   string      `json:"outcome,omitempty"`
	Failed    string      `json:"failed,omitempty" doc:"why it could not be done"`
}

// Skipped are firings for whose time no rotator ran.
type Skipped struct {
	From frame.Time `json:"from" doc:"the first of them was due"`
	To   frame.Time `json:"to" doc:"it was found then"`
}

// Schedule is one, as it is shown.
type Schedule struct {
	ID           string     `json:"id"`
	Name         string     `json:"name"`
	State        string     `json:"state" enum:"active,paused,failing,deleted" doc:"failing: its last firing could not be done"`
	Rotate       string     `json:"rotate"`
	Cron         string     `json:"cron,omitempty"`
	TimeZone     string     `json:"time_zone"`
	Every        string     `json:"every,omitempty"`
	MaxAge       string     `json:"max_age,omitempty"`
	BeforeExpiry string     `json:"before_expiry,omitempty"`
	Jitter       string     `json:"jitter,omitempty"`
	Windows      []string   `json:"windows" doc:"never null"`
	Freezes      []string   `json:"freezes" doc:"never null"`
	Missed       string     `json:"missed" enum:"run-once,skip"`
	Overlap      string     `json:"overlap,omitempty"`
	Why          string     `json:"why" doc:"the reason that it was made for, and that its rotations have"`
	Next         *Firing    `json:"next,omitempty" doc:"missing while it is paused, or while a rotation that its age has brought about is under way"`
	Firing       *Firing    `json:"firing,omitempty" doc:"what is being done now"`
	Last         *Fired     `json:"last,omitempty"`
	Skipped      *Skipped   `json:"skipped,omitempty" doc:"what was skipped last"`
	CreatedAt    frame.Time `json:"created_at"`
	CreatedBy    string     `json:"created_by"`
	ChangedBy    string     `json:"changed_by"`
	ChangedAt    frame.Time `json:"changed_at"`
	Reason       string     `json:"reason" doc:"of the last change"`
}

// SchedulePreview is what a schedule will do.
type SchedulePreview struct {
	Name    string     `json:"name,omitempty"`
	State   string     `json:"state,omitempty" doc:"of one that is paused: firings are those that would be if it were resumed now"`
	Rotate  string     `json:"rotate"`
	Firings []Foreseen `json:"firings" doc:"never null"`
}

// CalendarEntry is a firing of one of several schedules.
type CalendarEntry struct {
	Schedule string `json:"schedule"`
	Rotate   string `json:"rotate"`
	Foreseen
}

// Calendar is what all schedules will do.
type Calendar struct {
	From    frame.Time      `json:"from"`
	Until   frame.Time      `json:"until"`
	Firings []CalendarEntry `json:"firings" doc:"in order; never null"`
	More    bool            `json:"more" doc:"there are others: 10,000 are shown at most"`
}

// Remembered is in the place of frame.Idempotent: the record itself remembers the request.
type Remembered struct {
	Key string `header:"Idempotency-Key" maxLength:"512" doc:"the same key of the same caller for 24 hours, the same request about the schedule: it is done once. Another request about it under the key is refused (409)"`
}

type (
	makeScheduleInput struct {
		Remembered
		Body scheduleBody
	}
	schedulesInput  struct{ frame.Page }
	schedulesOutput struct {
		Body frame.List[Schedule]
	}
	showScheduleInput struct {
		frame.IfNoneMatch
		Name string `path:"name" maxLength:"100"`
	}
	scheduleReason struct {
		Reason string `json:"reason" doc:"why, for the audit"`
	}
	changeScheduleInput struct {
		Remembered
		frame.IfMatch
		Name string `path:"name" maxLength:"100"`
		Body scheduleReason
	}
	deleteScheduleInput struct {
		Remembered
		frame.IfMatch
		Name   string `path:"name" maxLength:"100"`
		Reason string `query:"reason" maxLength:"1024" doc:"why, for the audit"`
	}
	previewScheduleInput struct {
		Name string `path:"name" maxLength:"100"`
		N    int    `query:"n" minimum:"1" maximum:"100" default:"10" doc:"how many"`
	}
	previewNewInput struct {
		N    int `query:"n" minimum:"1" maximum:"100" default:"10" doc:"how many"`
		Body ScheduleSpec
	}
	previewOutput struct{ Body SchedulePreview }
	calendarInput struct {
		For    string `query:"for" maxLength:"40" doc:"how far, as 30d (default); 400d at most"`
		Format string `query:"format" enum:"json,ical" doc:"json (default), or ical: RFC 5545, for calendars that subscribe; goes before Accept"`
	}
	scheduleOutput = frame.Tagged[Schedule]
)

type scheduleHandlers struct {
	s     *schedule.Service
	pages frame.Pages
}

const scheduleTag = "schedules"

// RegisterSchedules adds what is done with schedules. aead is that of Register.
func RegisterSchedules(a *frame.API, s *schedule.Service, aead tink.AEAD) {
	h := &scheduleHandlers{s, frame.NewPages(aead)}
	op := func(id, method, path, summary, about string, errors ...int) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: "/v1/schedules" + path, Summary: summary, Description: about, Tags: []string{scheduleTag}, Errors: errors}
	}
	made := op("createSchedule", http.MethodPost, "", "Let something be rotated by itself", "201 when it was made, 200 when there was one that asks for the same. For a key or a client it needs what rotating that by hand needs, too.", http.StatusConflict)
	made.DefaultStatus = http.StatusCreated
	frame.Register(a, frame.Also(made, http.StatusOK), rights.Rotate, h.create)
	frame.Register(a, op("listSchedules", http.MethodGet, "", "List the schedules", ""), rights.RotationsRead, h.list)
	frame.Register(a, op("getSchedule", http.MethodGet, "/{name}", "Show a schedule", "", http.StatusNotFound), rights.RotationsRead, h.show)
	frame.Register(a, op("deleteSchedule", http.MethodDelete, "/{name}", "Delete a schedule", "What it has begun goes on.", http.StatusNotFound), rights.Rotate, h.remove)
	frame.Register(a, op("pauseSchedule", http.MethodPost, "/{name}/pause", "Keep a schedule from firing", "", http.StatusNotFound), rights.Rotate, h.pause)
	frame.Register(a, op("resumeSchedule", http.MethodPost, "/{name}/resume", "Let a schedule fire again", "What was due while it was paused was not missed: it does not fire.", http.StatusNotFound), rights.Rotate, h.resume)
	frame.Register(a, op("previewSchedule", http.MethodGet, "/{name}/preview", "What a schedule will do, and when", "", http.StatusNotFound), rights.RotationsRead, h.preview)
	frame.Register(a, op("previewNewSchedule", http.MethodPost, "/preview", "What a schedule would do, before it is made", ""), rights.RotationsRead, h.previewNew)
	whole := a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Calendar](), true, "Calendar")
	calendar := op("getScheduleCalendar", http.MethodGet, "/calendar", "What all schedules will do, and when", "")
	calendar.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
		"application/json": {Schema: whole}, typeCalendar: {Schema: &huma.Schema{Type: huma.TypeString}},
	}}}
	frame.Register(a, calendar, rights.RotationsRead, h.calendar)
}

const typeCalendar = "text/calendar"

// caller is who asks; what is all that a repetition is compared by.
func (r *Remembered) caller(ctx context.Context, op, name, match string, what any) (schedule.Caller, error) {
	who := frame.CallerOf(ctx)
	c := schedule.Caller{Tenant: who.Tenant, Actor: who.Actor(), Scopes: who.Scopes, RequestID: frame.RequestID(ctx), Key: r.Key}
	if r.Key == "" {
		return c, nil
	}
	if err := revoke.CheckID("idempotency key", r.Key); err != nil {
		return c, problem.FieldError("Idempotency-Key", "%v", err)
	}
	text, err := json.Marshal(what)
	c.Digest = idempotency.DigestOf(op, name, "", match, string(text))
	return c, err
}

func (h *scheduleHandlers) create(ctx context.Context, in *makeScheduleInput) (*scheduleOutput, error) {
	spec, err := in.Body.what().spec()
	if err != nil {
		return nil, err
	}
	c, err := in.caller(ctx, "create", in.Body.Name, "", in.Body)
	if err != nil {
		return nil, err
	}
	x, made, err := h.s.Create(ctx, c, in.Body.Name, spec)
	if err != nil {
		return nil, err
	}
	out, err := frame.TaggedOf(shownSchedule(&x))
	if out.Status = http.StatusOK; made {
		out.Status = http.StatusCreated
	}
	return out, err
}

func (h *scheduleHandlers) list(ctx context.Context, in *schedulesInput) (*schedulesOutput, error) {
	tenant := frame.CallerOf(ctx).Tenant
	all, err := h.s.Names(tenant)
	if err != nil {
		return nil, err
	}
	page, next, err := frame.Paginate(h.pages, frame.QuestionOf(ctx, "schedules", nil), all, in.Page, func(name *string) string { return *name })
	if err != nil {
		return nil, err
	}
	var items []Schedule
	for _, name := range page {
		x, err := h.s.Seen(tenant, name)
		if problem.KindOf(err) == problem.NotFound && err != nil || err == nil && x.DeletedAt != 0 {
			continue // it has gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		items = append(items, shownSchedule(&x))
	}
	return &schedulesOutput{Body: frame.ListOf(items, next)}, nil
}

func (h *scheduleHandlers) show(ctx context.Context, in *showScheduleInput) (*scheduleOutput, error) {
	x, err := h.s.Show(ctx, frame.CallerOf(ctx).Tenant, in.Name)
	if err != nil {
		return nil, err
	}
	return frame.Show(in.IfNoneMatch, shownSchedule(&x))
}

type scheduleChange func(context.Context, schedule.Caller, string, string, func(*schedule.Schedule) error) (schedule.Schedule, error)

// change makes a change of a record that is as the caller has seen it.
func (h *scheduleHandlers) change(ctx context.Context, r *Remembered, m frame.IfMatch, op, name, reason string, do scheduleChange) (*scheduleOutput, error) {
	c, err := r.caller(ctx, op, name, m.Wanted, reason)
	if err != nil {
		return nil, err
	}
	x, err := do(ctx, c, name, reason, func(cur *schedule.Schedule) error { return m.Check(shownSchedule(cur)) })
	if err != nil {
		return nil, err
	}
	return frame.TaggedOf(shownSchedule(&x))
}

func (h *scheduleHandlers) pause(ctx context.Context, in *changeScheduleInput) (*scheduleOutput, error) {
	return h.change(ctx, &in.Remembered, in.IfMatch, "pause", in.Name, in.Body.Reason, h.s.Pause)
}

func (h *scheduleHandlers) resume(ctx context.Context, in *changeScheduleInput) (*scheduleOutput, error) {
	return h.change(ctx, &in.Remembered, in.IfMatch, "resume", in.Name, in.Body.Reason, h.s.Resume)
}

func (h *scheduleHandlers) remove(ctx context.Context, in *deleteScheduleInput) (*scheduleOutput, error) {
	reason := in.Reason
	if reason == "" {
		reason = "it was deleted, and no reason was given"
	}
	return h.change(ctx, &in.Remembered, in.IfMatch, "delete", in.Name, reason, h.s.Delete)
}

func (h *scheduleHandlers) preview(ctx context.Context, in *previewScheduleInput) (*previewOutput, error) {
	p, err := h.s.Preview(ctx, frame.CallerOf(ctx).Tenant, in.Name, in.N)
	if err != nil {
		return nil, err
	}
	return &previewOutput{SchedulePreview{
		Name: p.Schedule.Name, State: p.Schedule.State(), Rotate: p.Schedule.Rotate, Firings: shownFirings(p.Firings),
	}}, nil
}

func (h *scheduleHandlers) previewNew(ctx context.Context, in *previewNewInput) (*previewOutput, error) {
	spec, err := in.Body.spec()
	if err != nil {
		return nil, err
	}
	who := frame.CallerOf(ctx)
	p, err := h.s.PreviewOf(ctx, schedule.Caller{Tenant: who.Tenant, Actor: who.Actor(), Scopes: who.Scopes}, spec, in.N)
	if err != nil {
		return nil, err
	}
	return &previewOutput{SchedulePreview{Rotate: p.Schedule.Rotate, Firings: shownFirings(p.Firings)}}, nil
}

func (h *scheduleHandlers) calendar(ctx context.Context, in *calendarInput) (*huma.StreamResponse, error) {
	within := schedule.DefaultHorizon
	if in.For != "" {
		var err error
		if within, err = schedule.ParseDuration(in.For); err != nil {
			return nil, problem.FieldError("for", "%v", err)
		}
	}
	c, err := h.s.Calendar(ctx, frame.CallerOf(ctx).Tenant, within)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(shownCalendar(&c))
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Vary", "Accept")
		hc.SetHeader("Cache-Control", "no-store")
		kind, body := "application/json", text
		if calendarWanted(in.Format, hc.Header("Accept")) {
			kind, body = typeCalendar+"; charset=utf-8", schedule.ICalendar(c.Events)
		}
		hc.SetHeader("Content-Type", kind)
		hc.SetStatus(http.StatusOK)
		_, _ = hc.BodyWriter().Write(body) // the caller may have gone
	}}, nil
}

// calendarWanted reports whether iCalendar was asked for.
func calendarWanted(format, accept string) bool {
	if format != "" {
		return format == "ical"
	}
	for part := range strings.SplitSeq(accept, ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err != nil || params["q"] == "0" {
			continue
		}
		if kind == typeCalendar || kind == "application/json" {
			return kind == typeCalendar
		}
	}
	return false
}
