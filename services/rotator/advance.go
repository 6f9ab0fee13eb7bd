package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

// errPending says that a step waits for something outside, errDelayed for a
// time that the machine knows.
var (
	errPending = errors.New("pending")
	errDelayed = errors.New("delayed")
)

// How long one question to the fleet may block; how long an emergency waits for
// an answer that it can do without; and how old the message must be for which
// it does not wait for guards at all: readers report at most 4 times a second,
// and one that has not by then will not within hurriedWait either.
const (
	fleetWait   = time.Second
	hurriedWait = 400 * time.Millisecond
	settled     = time.Second
)

// Advance does one step for a tenant, if one is to be done. Progress says that
// something has changed, so that it should be called again; otherwise again
// says when. Whatever it leaves half done by dying is taken up by the next call,
// of any replica.
func (r *Rotator) Advance(ctx context.Context, t Tenant) (progress bool, again time.Time, err error) {
	w := r.worker(t.Name)
	set, err := r.Store.Set(ctx, t.Name)
	if t.Ending {
		return r.close(ctx, t.Name, set, err)
	}
	if problem.KindOf(err) == problem.NotFound && err != nil {
		err = r.Store.CreateSet(ctx, signing.Set{Tenant: t.Name, Issuer: t.Issuer, Meta: r.meta(automatic, "first start"), CreatedAt: r.Now().UnixMilli()})
		if err == nil || problem.KindOf(err) == problem.Conflict {
			return true, time.Time{}, nil
		}
	}
	if err != nil {
		return false, time.Time{}, err
	}
	if set.Issuer != t.Issuer {
		return false, time.Time{}, fmt.Errorf("the signing keys are those of the issuer %s, and %s is configured: tokens of the one are not good for the other", set.Issuer, t.Issuer)
	}
	open, err := r.Store.Open(t.Name)
	if err != nil {
		return false, time.Time{}, err
	}
	byUrgency(open)
	w.watch(t.Name, &set)
	now := r.Now()
	steps, again := r.cfg.Policy.Todo(&set, Facts{
		Now: now, Epoch: r.Reader.Epoch(), Ended: func(kid string) bool { return r.ended(t.Name, kid) }, Open: open,
	})
	var failed error
	for _, step := range steps {
		switch err := r.do(ctx, &set, step); {
		case err == nil:
			return true, again, nil
		case errors.Is(err, errOvertaken):
			// What we have read was old already; read again, a little later.
			return false, now, nil
		case errors.Is(err, errPending):
			again = now
		case errors.Is(err, errDelayed):
		default:
			err = fmt.Errorf("%s %s%s: %w", step.Action, step.KeyID, step.Alg, err)
			if step.Action == Send || step.Action == End {
				return false, again, err // messages go in their order, or not at all
			}
			failed = errors.Join(failed, err)
		}
	}
	if failed != nil {
		return false, again, failed
	}
	if set.In(signing.Signing) != nil {
		w.note(nil)
	}
	return false, again, nil
}

func (r *Rotator) ended(tenant, kid string) bool {
	t, err := signing.Target(tenant, kid)
	return err == nil && r.Reader.Ended(t.Key())
}

func (r *Rotator) meta(actor, reason string) signing.Meta {
	return signing.Meta{Actor: actor, Reason: reason, At: r.Now().UnixMilli()}
}

// do does one step. Each is one message or one compare-and-set, but for Make,
// Send and End, which record what they have made or committed: dying between
// the two leaves an unused key or the same message twice.
func (r *Rotator) do(ctx context.Context, set *signing.Set, s Step) error {
	switch s.Action {
	case Begin:
		_, err := r.Start(ctx, s.Request)
		return err
	case Make:
		return r.makeKey(ctx, set, s)
	case Send:
		return r.send(ctx, set, s)
	case End:
		return r.end(ctx, set, s)
	case Delay:
		return r.delay(ctx, s)
	case Promote:
		return r.promote(ctx, set, s)
	case Finish:
		return r.finish(ctx, set, s)
	case Move, Forget:
		meta := r.meta(automatic, moveReason(s))
		return r.change(ctx, set.Tenant, func(cur *signing.Set) error {
			if s.Action == Forget {
				return forget(cur, s.KeyID, meta)
			}
			return move(cur, s.KeyID, s.State, meta)
		})
	}
	return fmt.Errorf("no such action: %d", s.Action)
}

func moveReason(s Step) string {
	switch {
	case s.Action == Forget:
		return "nothing of it lives any more"
	case s.State == signing.Revoked:
		return "its target was revoked"
	}
	return "it is not needed any more"
}

func (r *Rotator) change(ctx context.Context, tenant string, fn func(*signing.Set) error) error {
	_, err := r.Store.ChangeSet(ctx, tenant, fn)
	return err
}

func (r *Rotator) makeKey(ctx context.Context, set *signing.Set, s Step) error {
	// With another key-encryption key than the issuers' it would make keys that
	// nobody can sign with.
	for i := range set.Keys {
		if k := &set.Keys[i]; k.Sealed != nil {
			if err := signing.Check(r.KEK, set.Tenant, k); errors.Is(err, seal.ErrWrongKEK) {
				return err
			}
		}
	}
	k, err := signing.Generate(r.Rand, r.KEK, set.Tenant, s.Alg)
	if err != nil {
		return err
	}
	end := r.Now().Add(r.cfg.Policy.birthToEnd())
	meta := r.meta(automatic, "the next key")
	err = r.change(ctx, set.Tenant, func(cur *signing.Set) error { return addKey(cur, k, end, meta) })
	if err == nil {
		r.Log.Info("signing key made", zap.String("tenant", set.Tenant), zap.String("kid", k.ID), zap.String("alg", k.Alg))
	}
	return err
}

func (r *Rotator) send(ctx context.Context, set *signing.Set, s Step) error {
	k := set.Find(s.KeyID)
	state := set.StateOf(k)
	state.State = s.State
	jws, err := signing.SignState(r.Identity, state)
	if err != nil {
		return err
	}
	a, err := r.Keys.CommitKey(ctx, commit.KeyRequest{
		Tenant: set.Tenant, KeyID: k.ID, JWS: jws, Until: k.End + int64(wire.Slack/time.Second),
		Actor: k.Meta.Actor, Reason: k.Meta.Reason,
	})
	if err != nil {
		return err
	}
	err = r.change(ctx, set.Tenant, func(cur *signing.Set) error { return markSent(cur, s.KeyID, s.State, a) })
	if err == nil {
		r.Log.Info("signing key announced", zap.String("tenant", set.Tenant), zap.String("kid", k.ID),
			zap.String("state", s.State), zap.Stringer("at", a.Stamp()))
	}
	return err
}

func (r *Rotator) end(ctx context.Context, set *signing.Set, s Step) error {
	k := set.Find(s.KeyID)
	a, err := r.Entries.Commit(ctx, commit.Request{
		Key: "end-" + k.ID, Tenant: set.Tenant, Op: commit.Revoke,
		Targets: []commit.Target{{Kind: revoke.KindSigningKey, ID: k.ID}},
		Reason:  k.Meta.Reason, Actor: k.Meta.Actor, Incident: k.Meta.Incident, RequestID: k.Meta.Request,
	})
	if err != nil {
		return err
	}
	r.Log.Warn("signing key revoked", zap.String("tenant", set.Tenant), zap.String("kid", k.ID), zap.Stringer("at", a.Stamp()))
	return r.change(ctx, set.Tenant, func(cur *signing.Set) error { return markEnded(cur, s.KeyID, a) })
}

// delay notes the end of the lead time in the rotation, once.
func (r *Rotator) delay(ctx context.Context, s Step) error {
	until := s.Until.UnixMilli()
	if s.Rotation.NotBefore == until {
		return errDelayed
	}
	_, err := r.Store.ChangeRotation(ctx, s.Rotation.ID, func(cur *Rotation) error {
		if cur.State != Waiting || cur.NotBefore == until {
			return errOvertaken
		}
		cur.NotBefore = until
		return nil
	})
	return err
}

// promote decides that a key signs. Unless it is an emergency, every guard that
// is not past its limit has to have it; guards that allow past their limit
// don't hold it up.
func (r *Rotator) promote(ctx context.Context, set *signing.Set, s Step) error {
	next := set.Find(s.KeyID)
	if next.Sent == nil {
		return errOvertaken
	}
	if err := signing.Check(r.KEK, set.Tenant, next); err != nil {
		switch {
		case !errors.Is(err, seal.ErrWrongKEK):
			r.Log.Error("the next signing key can't be used; making another", zap.String("tenant", set.Tenant), zap.Error(err))
			return r.do(ctx, set, Step{Action: Move, KeyID: next.ID, State: signing.Gone})
		case !s.Rotation.Emergency:
			return err
		}
		// This replica has the wrong file; whoever made the key had the issuers'.
		r.Log.Error("emergency: promoting a key that this replica can't open", zap.String("kid", next.ID), zap.Error(err))
	}
	// In an emergency the question must not hold anything up.
	names, err := r.lacking(ctx, next.Sent, "", s.Confirm)
	switch {
	case s.Confirm && err != nil:
		return err
	case s.Confirm && len(names) > 0:
		return r.noteLacking(ctx, s.Rotation, names)
	case err != nil:
		r.Log.Warn("emergency: nobody could say which guards lack the next key", zap.Error(err))
	}
	meta := r.meta(s.Rotation.Actor, s.Rotation.Reason)
	meta.Incident, meta.Request = s.Rotation.Incident, s.Rotation.Request
	if err := r.change(ctx, set.Tenant, func(cur *signing.Set) error {
		return promote(cur, s.Rotation, s.KeyID, next.Sent, meta)
	}); err != nil {
		return err
	}
	r.Log.Info("signing key promoted", zap.String("tenant", set.Tenant), zap.String("kid", s.KeyID),
		zap.String("rotation", s.Rotation.ID), zap.Bool("emergency", s.Rotation.Emergency), zap.Strings("lacking", names))
	if err := r.noteLacking(ctx, s.Rotation, names); err != nil && !errors.Is(err, errPending) {
		r.Log.Warn("the guards that lack the key could not be noted", zap.Error(err))
	}
	return nil
}

// finish notes that issuers sign with the key: every one of them that has not
// gone past its own limit has applied what was told of it, and of the key before
// it, so that none can sign with that one any more.
func (r *Rotator) finish(ctx context.Context, set *signing.Set, s Step) error {
	k := set.Find(s.KeyID)
	if k.Sent == nil {
		return errOvertaken
	}
	last := k.Sent
	if p := set.Find(k.Previous); p != nil && last.Stamp().Less(p.Sent.Stamp()) {
		last = p.Sent
	}
	if k.State == signing.Signing {
		names, err := r.lacking(ctx, last, r.cfg.IssuerName, true)
		if err != nil {
			return err
		}
		switch {
		case len(names) > 0 && s.Rotation.Emergency:
			return errPending // Lacking says who lacked it when it was promoted
		case len(names) > 0:
			return r.noteLacking(ctx, s.Rotation, names)
		}
	}
	at := r.Now().UnixMilli()
	_, err := r.Store.ChangeRotation(ctx, s.Rotation.ID, func(cur *Rotation) error {
		if cur.State != Waiting {
			return errOvertaken
		}
		cur.State, cur.KeyID, cur.Previous, cur.SignsAt = Signs, k.ID, k.Previous, at
		if !cur.Emergency {
			cur.Lacking = nil
		}
		cur.Meta = signing.Meta{Actor: automatic, Reason: "issuers sign with it", At: at}
		return nil
	})
	return err
}

// lacking returns the joined guards (of one identity, or all) that still decide
// and have not applied a message. With wait it blocks a little, until none is
// left or a record changes: an emergency must not queue behind it.
func (r *Rotator) lacking(ctx context.Context, m *signing.Sent, name string, wait bool) ([]string, error) {
	q := commit.LackingRequest{Epoch: m.Epoch, Sequence: m.Sequence, CommittedAt: m.At, Name: name}
	limit := hurriedWait
	if !wait && r.Now().Sub(time.UnixMilli(m.At)) < settled {
		q.WaitMS = (hurriedWait / 2).Milliseconds() // the rest is for the way
	}
	if wait {
		limit = fleetWait + 5*time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if wait {
		q.WaitMS = fleetWait.Milliseconds()
		changed := r.Store.Changed()
		go func() {
			select {
			case <-changed:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	a, err := r.Keys.Lacking(ctx, q)
	if err != nil {
		if wait && errors.Is(ctx.Err(), context.Canceled) {
			return nil, errPending
		}
		return nil, err
	}
	var names []string
	for _, l := range a.Lacking {
		if !l.Open && !l.Fenced || !wait {
			names = append(names, l.Name+"/"+l.Instance)
		}
	}
	slices.Sort(names)
	return names, nil
}

// noteLacking writes into the rotation whom it waits for, if that has changed.
func (r *Rotator) noteLacking(ctx context.Context, rot Rotation, names []string) error {
	if slices.Equal(rot.Lacking, names) {
		return errPending
	}
	_, err := r.Store.ChangeRotation(ctx, rot.ID, func(cur *Rotation) error {
		if cur.State != Waiting {
			return errOvertaken
		}
		cur.Lacking = names
		return nil
	})
	return err
}
