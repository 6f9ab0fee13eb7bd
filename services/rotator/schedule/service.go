package schedule

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/signing"
)

// Store keeps the records. Every change is a compare-and-set around a pure function, whose
// error is returned as it is; other errors are those of shared/kv. It is safe for concurrent
// use.
type Store interface {
	// Schedule reads a record where it is kept.
	Schedule(ctx context.Context, tenant, name string) (Schedule, error)
	CreateSchedule(ctx context.Context, s Schedule) (Schedule, error)
	ChangeSchedule(ctx context.Context, tenant, name string, fn func(*Schedule) error) (Schedule, error)
	// RemoveSchedule removes a record if ok says so of what stands there.
	RemoveSchedule(ctx context.Context, tenant, name string, ok func(*Schedule) bool) error
	// Read returns nil once all that there are have been seen. Schedules and Copy read what was;
	// both fail until then.
	Read() error
	Schedules(tenant string) ([]Schedule, error)
	Copy(tenant, name string) (Schedule, error)
	// FollowSchedules calls take with every revision that there is and comes, and of those that this
	// replica writes before the call that wrote them returns, until ctx ends. s is nil of one that
	// was removed.
	FollowSchedules(ctx context.Context, take func(tenant, name string, revision uint64, s *Schedule)) error
}

// Begin asks for the rotation of a tenant's signing key. The same ID is the same rotation.
type Begin struct{ Tenant, ID, Actor, Reason string }

// Rotations rotates signing keys.
type Rotations interface {
	// Begin returns the id of the rotation.
	Begin(ctx context.Context, b Begin) (string, error)
}

// KeyRotation asks for another API key or client secret in the place of one.
type KeyRotation struct {
	Tenant string
	Key    Target // of the kind Key or Client
	// ID names the rotation: the same is done once, and answered as the first time.
	ID      string
	Overlap time.Duration // 0: as the issuer has it
	Reason  string
	Actor   string
}

// KeyRotated is what has become of it.
type KeyRotated struct {
	Next    string    // the id of the new one
	Until   time.Time // the old one is good until then
	Outcome string    // for people
}

// Keys rotates API keys and client secrets: the issuer's, whose records they are.
type Keys interface {
	RotateKey(ctx context.Context, r KeyRotation) (KeyRotated, error)
	// MayRotateKey returns nil if the caller may have something rotated by itself.
	MayRotateKey(ctx context.Context, c Caller, t Target) error
}

// Subjects tells how old something is that is rotated by its age. One of which nothing is
// known has no ID.
type Subjects interface {
	Subject(ctx context.Context, tenant string, t Target) (Subject, error)
}

// Tenants tells which tenants there are.
type Tenants interface {
	// Living reports whether there is one of this name that is not ending, as far as it was seen.
	Living(name string) bool
	// Tenants returns those that were seen, and whether each is ending.
	Tenants() map[string]bool
	// Ends reports the same of one as the store has it now.
	Ends(ctx context.Context, tenant string) (bool, error)
}

// Deps is what a Service works with. Keys may be nil: then no schedule for them can be made.
type Deps struct {
	Store     Store
	Rotations Rotations
	Subjects  Subjects
	Keys      Keys
	Tenants   Tenants
	Now       func() time.Time
	Rand      io.Reader
	Log       *zap.Logger
	// Late is told how late each firing was; nil: nobody is.
	Late func(time.Duration)
}

// Service is one replica of what fires schedules and takes them in. Its methods are safe for
// concurrent use.
type Service struct {
	Deps
	queue  *queue
	begun  atomic.Uint64
	failed atomic.Uint64
	missed atomic.Uint64
}

// New returns a Service. It fires nothing before it runs.
func New(d Deps) *Service { return &Service{Deps: d, queue: newQueue()} }

// Stats is what a replica has done, and what it knows of.
type Stats struct {
	Begun, Failed, Missed uint64
	States                map[string]int
}

// Stats returns it.
func (s *Service) Stats() Stats {
	return Stats{s.begun.Load(), s.failed.Load(), s.missed.Load(), s.queue.count()}
}

// Caller is who asks for a change.
type Caller struct {
	Tenant, Actor string
	Scopes        []string // what they hold
	RequestID     string
	Key           string // idempotency key; empty: none
	Digest        string // of the request, to tell it from another one under the key
}

func (c Caller) request(now int64) Request {
	if c.Key == "" {
		return Request{}
	}
	return Request{Key: hash("request", c.Tenant, c.Actor, c.Key), Digest: c.Digest, At: now}
}

func (c Caller) meta(reason string, now int64) signing.Meta {
	return signing.Meta{Actor: c.Actor, Reason: reason, At: now, Request: c.RequestID}
}

// errSame says that a change was made before by the same request.
var errSame = errors.New("the same request again")

func (s *Schedule) repeats(q Request) error {
	switch before, same := s.asked(q); {
	case q.Key == "" || !before:
		return nil
	case same:
		return errSame
	}
	return problem.New(problem.Conflict, "the idempotency key was used for another request; use a new one")
}

func noSchedule(name string) error {
	return problem.New(problem.NotFound, "there is no schedule %q", name)
}

// prepare makes a record of what is asked for, with its first firing.
func (s *Service) prepare(ctx context.Context, c Caller, name string, spec Spec) (Schedule, *Plan, Subject, error) {
	now := s.Now()
	if spec.Missed == "" {
		spec.Missed = RunOnce
	}
	id, err := apikey.RandomID(s.Rand)
	if err != nil {
		return Schedule{}, nil, Subject{}, err
	}
	at := now.UnixMilli()
	x := Schedule{ID: id, Tenant: c.Tenant, Name: name, Spec: spec, CreatedAt: at, CreatedBy: c.Actor, Meta: c.meta(spec.Reason, at)}
	plan, err := NewPlan(&x)
	if err != nil {
		return x, nil, Subject{}, err
	}
	if plan.target.Kind != SigningKey && s.Keys == nil {
		return x, nil, Subject{}, problem.FieldError("rotate", "this rotator can't rotate what an issuer keeps: want %s; keys are rotated by POST /v1/keys/{id}/rotate", SigningKey)
	}
	if !s.Tenants.Living(c.Tenant) {
		return x, nil, Subject{}, problem.FieldError("tenant", "there is no tenant %q", c.Tenant)
	}
	if plan.target.Kind != SigningKey {
		if err := s.Keys.MayRotateKey(ctx, c, plan.target); err != nil {
			if problem.KindOf(err) == problem.NotFound {
				return x, nil, Subject{}, problem.FieldError("rotate", "%s", problem.From(err).Detail)
			}
			return x, nil, Subject{}, err
		}
	}
	sub, err := s.subject(ctx, &x, plan)
	if err != nil {
		return x, nil, Subject{}, err
	}
	next, ok := plan.Next(now, sub, nil)
	if ok {
		x.Next = &next
	} else if !spec.aged() {
		field := "cron"
		if !plan.windows.none() {
			field = "windows"
		}
		return x, nil, sub, problem.FieldError(field, "it would never fire")
	}
	return x, plan, sub, nil
}

// subject asks how old a thing is, where that says when it is rotated.
func (s *Service) subject(ctx context.Context, x *Schedule, p *Plan) (Subject, error) {
	if !x.aged() {
		return Subject{}, nil
	}
	return s.Subjects.Subject(ctx, x.Tenant, p.target)
}

// Create makes a schedule. What is there already and asks for the same is returned as it is,
// and made says whether this request has made it.
func (s *Service) Create(ctx context.Context, c Caller, name string, spec Spec) (x Schedule, made bool, err error) {
	if err := checkName(name); err != nil {
		return Schedule{}, false, err
	}
	x, _, _, err = s.prepare(ctx, c, name, spec)
	if err != nil {
		return Schedule{}, false, err
	}
	q := c.request(x.CreatedAt)
	x.remember(q)
	created, err := s.Store.CreateSchedule(ctx, x)
	if err == nil {
		return created, true, nil
	}
	if problem.KindOf(err) != problem.Conflict {
		return Schedule{}, false, unknown(c, err)
	}
	made = false
	var there Schedule
	out, err := s.Store.ChangeSchedule(ctx, c.Tenant, name, func(cur *Schedule) error {
		there, made = *cur, false
		if err := cur.repeats(q); err != nil {
			made = errors.Is(err, errSame)
			return err
		}
		switch {
		case cur.ID == x.ID:
			made = true
			return errSame // its own, of which the answer was lost
		case cur.DeletedAt == 0 && cur.Spec.same(&x.Spec):
			return errSame
		case cur.DeletedAt == 0:
			return problem.New(problem.Conflict, "there is another schedule %q: delete it, or give this one another name", name)
		case cur.Claimed != nil:
			return problem.New(problem.Unavailable, "the last firing of the deleted schedule %q is being finished; try again", name)
		}
		requests := cur.Requests
		*cur, made = x, true
		cur.Requests = requests
		cur.remember(q)
		return nil
	})
	switch {
	case errors.Is(err, errSame):
		return there, made, nil
	case problem.KindOf(err) == problem.NotFound && err != nil:
		return Schedule{}, false, problem.Wrap(problem.Unavailable, err, "the schedule %q was removed meanwhile; try again", name)
	case err != nil:
		return Schedule{}, false, unknown(c, err)
	}
	return out, true, nil
}

// unknown is the error of a change that may have been made.
func unknown(c Caller, err error) error {
	if k := problem.KindOf(err); k != problem.Unavailable && k != problem.Internal || c.Key == "" {
		return err
	}
	e := problem.Wrap(problem.UnknownOutcome, err, "it may or may not have been done; repeat the request with the same idempotency key")
	e.Key = c.Key
	return e
}

// Show returns a schedule.
func (s *Service) Show(ctx context.Context, tenant, name string) (Schedule, error) {
	if checkName(name) != nil { // no other text may reach the store as a key
		return Schedule{}, noSchedule(name)
	}
	x, err := s.Store.Schedule(ctx, tenant, name)
	if problem.KindOf(err) == problem.NotFound && err != nil || err == nil && x.DeletedAt != 0 {
		return Schedule{}, noSchedule(name)
	}
	return x, err
}

// change makes a change of a schedule that is not deleted, or finds it made.
func (s *Service) change(ctx context.Context, c Caller, name, reason string, only func(*Schedule) error, fn func(*Schedule)) (Schedule, error) {
	if checkName(name) != nil {
		return Schedule{}, noSchedule(name)
	}
	check := Spec{Reason: reason}
	if err := check.checkReason(); err != nil {
		return Schedule{}, err
	}
	now := s.Now().UnixMilli()
	q := c.request(now)
	var there Schedule
	out, err := s.Store.ChangeSchedule(ctx, c.Tenant, name, func(cur *Schedule) error {
		there = *cur
		if err := cur.repeats(q); err != nil {
			return err
		}
		if cur.DeletedAt != 0 {
			return noSchedule(name)
		}
		if only != nil {
			if err := only(cur); err != nil {
				return err
			}
		}
		fn(cur)
		cur.remember(q)
		cur.Meta = c.meta(reason, now)
		return nil
	})
	switch {
	case errors.Is(err, errSame):
		return there, nil
	case problem.KindOf(err) == problem.NotFound && err != nil:
		return Schedule{}, noSchedule(name)
	case err != nil:
		return Schedule{}, unknown(c, err)
	}
	return out, nil
}

// Delete deletes a schedule. A firing that was claimed is brought to its end.
func (s *Service) Delete(ctx context.Context, c Caller, name, reason string, only func(*Schedule) error) (Schedule, error) {
	now := s.Now().UnixMilli()
	return s.change(ctx, c, name, reason, only, func(x *Schedule) { x.DeletedAt, x.Next = now, nil })
}

// Pause keeps a schedule from firing.
func (s *Service) Pause(ctx context.Context, c Caller, name, reason string, only func(*Schedule) error) (Schedule, error) {
	return s.change(ctx, c, name, reason, only, func(x *Schedule) { x.Paused, x.Next = true, nil })
}

// Resume lets it fire again. What was due while it was paused is not missed: it was not to be.
func (s *Service) Resume(ctx context.Context, c Caller, name, reason string, only func(*Schedule) error) (Schedule, error) {
	x, err := s.Show(ctx, c.Tenant, name)
	if err != nil {
		return Schedule{}, err
	}
	plan, err := NewPlan(&x)
	if err != nil {
		return Schedule{}, err
	}
	sub, err := s.subject(ctx, &x, plan)
	if err != nil {
		return Schedule{}, err
	}
	now, seen := s.Now(), x.ID
	same := func(x *Schedule) error {
		if x.ID != seen {
			return problem.New(problem.Conflict, "the schedule was deleted and made again meanwhile; look at it again")
		}
		if only == nil {
			return nil
		}
		return only(x)
	}
	return s.change(ctx, c, name, reason, same, func(x *Schedule) {
		if !x.Paused {
			return
		}
		x.Paused = false
		if next, ok := plan.Next(now, sub, x.fired()); ok {
			x.Next = &next
		}
	})
}

// fired is what has fired last, or is about to.
func (s *Schedule) fired() *Fired {
	if s.Claimed != nil {
		return &Fired{Claim: *s.Claimed}
	}
	return s.Last
}
