package schedule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/signing"
)

const (
	// grace is how late a firing may be and is not missed: a rotator that is started anew, or
	// a log without a leader for some seconds, misses nothing.
	grace = time.Minute
	// look is how often the clock is looked at: it may have been put forward.
	look = time.Second
	// workers is how many firings a replica works on at once, and patience how long on one.
	workers  = 32
	patience = 30 * time.Second
	// spaced is how soon a record is looked at again of which another replica knows more.
	spaced = 100 * time.Millisecond
)

// actor is who changes a record because of the time.
const actor = "rotator"

// errNothing says that nothing is to be done: another replica has done it, or the record has
// changed.
var errNothing = errors.New("nothing is to be done")

// Run fires until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return s.Store.FollowSchedules(ctx, func(tenant, name string, revision uint64, x *Schedule) {
			s.queue.take(tenant, name, revision, x, s.Now())
		})
	})
	g.Go(func() error { s.fire(ctx); return nil })
	g.Go(func() error { s.sweep(ctx); return nil })
	return g.Wait()
}

// Kick makes it look at the clock.
func (s *Service) Kick() { s.queue.wakeUp() }

func (s *Service) fire(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(workers)
	defer func() { _ = g.Wait() }() // work returns no error
	for ctx.Err() == nil {
		e, wait := s.queue.next(s.Now())
		if e != nil {
			g.Go(func() error { s.work(ctx, e); return nil })
			continue
		}
		timer := time.NewTimer(min(wait, look))
		select {
		case <-ctx.Done():
		case <-s.queue.kick:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// work looks at one schedule, and says when to look again.
func (s *Service) work(ctx context.Context, e *entry) {
	err := s.Advance(ctx, e.tenant, e.name)
	now := s.Now()
	switch {
	case err == nil:
		s.queue.done(e, false, now, now)
	case errors.Is(err, errNothing):
		s.queue.done(e, false, now, now.Add(spaced))
	default:
		if ctx.Err() == nil {
			s.Log.Warn("schedule: trying again", zap.String("tenant", e.tenant), zap.String("schedule", e.name), zap.Error(err))
		}
		s.queue.done(e, true, now, now.Add(min(time.Second<<e.fails, patience)))
	}
}

// Advance does for one schedule what is to be done now: it claims a firing that is due, does
// what was claimed, or removes what is deleted. Whatever it leaves half done by dying is
// taken up by the next call, of any replica.
func (s *Service) Advance(ctx context.Context, tenant, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	x, err := s.Store.Copy(tenant, name)
	if err != nil {
		return err
	}
	if !s.Tenants.Living(tenant) {
		return fmt.Errorf("the tenant %q was not seen yet, or ends", tenant) // then sweep removes it
	}
	now := s.Now()
	if x.Claimed == nil && x.DeletedAt != 0 {
		if now.UnixMilli() < x.wake(now) {
			return errNothing
		}
		err := s.Store.RemoveSchedule(ctx, tenant, name, func(cur *Schedule) bool { return cur.ID == x.ID && cur.DeletedAt == x.DeletedAt })
		return cmp.Or(err, errNothing) // that it is gone is heard of in a moment
	}
	if x.Claimed == nil {
		if x, err = s.claim(ctx, &x, now); err != nil || x.Claimed == nil {
			return err
		}
	}
	return s.finish(ctx, &x)
}

// claim decides by compare-and-set that a firing is to be done, or when the next is.
func (s *Service) claim(ctx context.Context, x *Schedule, now time.Time) (Schedule, error) {
	plan, err := NewPlan(x)
	if err != nil {
		return Schedule{}, err
	}
	sub, err := s.subject(ctx, x, plan)
	if err != nil {
		return Schedule{}, err
	}
	missed := false
	out, err := s.Store.ChangeSchedule(ctx, x.Tenant, x.Name, func(cur *Schedule) error {
		if cur.ID != x.ID {
			return errNothing
		}
		before := cur.LastMissed
		err := cur.decide(plan, sub, now)
		missed = err == nil && cur.LastMissed != before
		return err
	})
	if problem.KindOf(err) == problem.NotFound && err != nil {
		return Schedule{}, errNothing
	}
	if err != nil {
		return Schedule{}, err
	}
	if missed {
		s.missed.Add(1)
		s.Log.Warn("schedule: firings were missed, and are skipped", zap.String("tenant", x.Tenant), zap.String("schedule", x.Name))
	}
	if c := out.Claimed; c != nil && s.Late != nil {
		s.Late(now.Sub(c.AtTime()))
	}
	return out, nil
}

// decide changes a record as the time wants it. It is pure; errNothing says that nothing is
// to be changed.
func (s *Schedule) decide(p *Plan, sub Subject, now time.Time) error {
	if s.DeletedAt != 0 || s.Paused {
		return errNothing
	}
	if s.Claimed != nil {
		return errNothing // whoever has claimed it works on it; see takeOver
	}
	now = now.Truncate(time.Millisecond) // as records have it: what is due at once is due now
	var f Firing
	if s.aged() {
		var ok bool
		if f, ok = p.Next(now.Add(-time.Millisecond), sub, s.Last); !ok || f.At > now.UnixMilli() {
			return s.plan(f, ok, now, "its subject is another one")
		}
		if s.Next != nil && s.Next.Due == f.Due {
			f.At = min(f.At, s.Next.At)
		}
	} else {
		if s.Next == nil {
			next, ok := p.Next(now, sub, s.Last)
			return s.plan(next, ok, now, "what comes next was not known")
		}
		if f = *s.Next; f.At > now.UnixMilli() {
			return errNothing
		}
	}
	following := func() (Firing, bool) { return p.Next(f.AtTime(), sub, s.fired()) }
	if now.Sub(f.AtTime()) > grace && !s.aged() {
		if s.Spec.Missed == Skip {
			s.LastMissed = &Missed{From: f.Due, To: now.UnixMilli()}
			next, ok := p.coming(now, sub, s.Last)
			return s.plan(next, ok, now, "no rotator ran when it was due: skipped")
		}
		if t, ok := p.windows.first(now); !ok || t.After(now) {
			f.At = ceilMillis(t)
			return s.plan(f, ok, now, "no rotator ran when it was due: it fires in the next window")
		}
		following = func() (Firing, bool) { return p.coming(now, sub, s.fired()) }
	}
	s.Claimed = &Claim{Firing: f, ClaimedAt: now.UnixMilli()}
	s.Next = nil
	if next, ok := following(); ok {
		s.Next = &next
	}
	s.Meta = signing.Meta{Actor: actor, Reason: "it fires: " + s.Reason, At: now.UnixMilli()}
	return nil
}

// plan writes down what fires next.
func (s *Schedule) plan(f Firing, ok bool, now time.Time, reason string) error {
	if !ok && s.Next == nil || ok && s.Next != nil && *s.Next == f {
		return errNothing
	}
	s.Next = nil
	if ok {
		s.Next = &f
	}
	s.Meta = signing.Meta{Actor: actor, Reason: reason, At: now.UnixMilli()}
	return nil
}

// finish does what was claimed, and marks it as done.
func (s *Service) finish(ctx context.Context, x *Schedule) error {
	fired := Fired{Claim: *x.Claimed}
	err := s.rotate(ctx, x, &fired)
	if err != nil {
		if !final(err) {
			return err
		}
		fired.Failed = problem.From(err).Detail
		s.Log.Error("schedule: a firing can't be done", zap.String("tenant", x.Tenant), zap.String("schedule", x.Name), zap.Error(err))
	}
	reason := "it has fired: " + x.Reason
	if fired.Failed != "" {
		reason = "it could not be done: " + fired.Failed
	}
	_, err = s.Store.ChangeSchedule(ctx, x.Tenant, x.Name, func(cur *Schedule) error {
		if cur.ID != x.ID || cur.Claimed == nil || *cur.Claimed != *x.Claimed {
			return errNothing
		}
		cur.Claimed, cur.Last = nil, &fired
		cur.Meta = signing.Meta{Actor: actor, Reason: reason, At: s.Now().UnixMilli()}
		return nil
	})
	switch {
	case errors.Is(err, errNothing), problem.KindOf(err) == problem.NotFound && err != nil:
		return errNothing
	case err != nil:
		return err
	}
	if fired.Failed != "" {
		s.failed.Add(1)
	} else {
		s.begun.Add(1)
	}
	return nil
}

// rotate does what a firing is for. It can be repeated.
func (s *Service) rotate(ctx context.Context, x *Schedule, f *Fired) error {
	t, err := ParseTarget(x.Rotate)
	if err != nil {
		return err
	}
	id := FiringID(x.Tenant, x.ID, f.Firing)
	if t.Kind == SigningKey {
		f.Rotation, err = s.Rotations.Begin(ctx, Begin{Tenant: x.Tenant, ID: id, Actor: x.Actor(), Reason: x.Reason})
		return err
	}
	if s.Keys == nil {
		return problem.New(problem.Unavailable, "this rotator can't rotate what an issuer keeps")
	}
	done, err := s.Keys.RotateKey(ctx, KeyRotation{
		Tenant: x.Tenant, Key: t, ID: id, Overlap: time.Duration(x.Overlap), Reason: x.Reason, Actor: x.Actor(),
	})
	if err != nil {
		return err
	}
	f.Next, f.Outcome = done.Next, done.Outcome
	if !done.Until.IsZero() {
		f.Until = done.Until.UnixMilli()
	}
	return nil
}

// final reports whether an error says that the same will never be done. A tenant that is not
// there may be one that was not seen yet.
func final(err error) bool {
	e := problem.From(err)
	switch e.Kind {
	case problem.Invalid:
		return e.Field != "tenant"
	case problem.NotFound, problem.Conflict, problem.Forbidden:
		return true
	default:
		return false
	}
}

// sweep removes the schedules of tenants that end, until ctx ends.
func (s *Service) sweep(ctx context.Context) {
	for ctx.Err() == nil {
		for tenant, ending := range s.Tenants.Tenants() {
			if !ending || len(s.queue.names(tenant)) == 0 {
				continue
			}
			if err := s.Clear(ctx, tenant); err != nil && ctx.Err() == nil {
				s.Log.Warn("schedules of a tenant that ends: trying again", zap.String("tenant", tenant), zap.Error(err))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(look):
		}
	}
}

// Clear removes every schedule of a tenant that ends: those that there were before it was seen
// to end, and none of another tenant to which the name is given meanwhile.
func (s *Service) Clear(ctx context.Context, tenant string) error {
	if err := s.Store.Read(); err != nil {
		return err
	}
	ids := map[string]string{}
	for _, name := range s.queue.names(tenant) {
		x, err := s.Store.Copy(tenant, name)
		if err == nil {
			ids[name] = x.ID
		} else if problem.KindOf(err) != problem.NotFound {
			return err
		}
	}
	if ends, err := s.Tenants.Ends(ctx, tenant); err != nil || !ends {
		return err
	}
	for name, id := range ids {
		if err := s.Store.RemoveSchedule(ctx, tenant, name, func(cur *Schedule) bool { return cur.ID == id }); err != nil {
			return err
		}
	}
	return nil
}
