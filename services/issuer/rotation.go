package issuer

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/endings"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// over reports whether the time of a key beside its successor is over.
func (k *Key) over(now time.Time) bool {
	return k.leaving() && (k.Rotation.Made || k.Rotation.Emergency) && !now.Before(k.Rotation.Until) && !k.waits()
}

// waits reports whether nobody has the secret of the key's successor yet: as long as that is
// so the key goes on, since whoever uses it has nothing else.
func (k *Key) waits() bool {
	return k.leaving() && k.Rotation.Sealed && k.Rotation.CollectedAt.IsZero()
}

// leaving reports whether another key takes the place of this one.
func (k *Key) leaving() bool { return k.Rotation != nil && k.Rotation.Back == nil }

// SetOverlap moves the end of a key that is rotated: overlap from now on.
func (s *Service) SetOverlap(ctx context.Context, c Caller, id string, overlap time.Duration, reason string, only ...If[Key]) (Key, error) {
	k, err := s.Key(ctx, c, id)
	if err != nil {
		return Key{}, err
	}
	if err := checkOverlap(overlap); err != nil {
		return Key{}, err
	}
	if err := s.mayGiveKey(ctx, c, &k); err != nil {
		return Key{}, err
	}
	meta := s.meta(c, reason)
	most, err := s.givesUntil(ctx, c, &k, meta.At.Add(overlap))
	if err != nil {
		return Key{}, err
	}
	return s.d.Store.Keys.Change(ctx, RecordKey(k.Tenant, k.ID), func(k Key) (Key, error) {
		if err := s.inOverlap(&k); err != nil {
			return k, err
		}
		if err := meets(k, k.Meta, meta, only); err != nil {
			return k, err
		}
		until := meta.At.Add(overlap)
		if last := k.Rotation.Begun.Add(MaxOverlap); until.After(last) {
			return k, problem.FieldError("overlap", "it would end at %s: both are good until %s at most, 30 days after the rotation began", until.Format(time.RFC3339), last.Format(time.RFC3339))
		}
		if until.After(k.Expires) {
			until = k.Expires
		}
		if until.After(k.Rotation.Until) && most != nil { // sooner takes away, which needs no right that lasts
			return k, most
		}
		r := *k.Rotation
		r.Until = until
		k.Rotation, k.Meta = &r, meta
		return k, nil
	})
}

func (s *Service) inOverlap(k *Key) error {
	r := k.Rotation
	switch {
	case k.Mark != nil || k.over(s.d.Now()):
		return problem.New(problem.Conflict, "the key is ending")
	case r == nil:
		return problem.New(problem.Conflict, "the key is not being rotated")
	case r.Back != nil:
		return problem.New(problem.Conflict, "the rotation is being rolled back")
	case !r.Made:
		return problem.New(problem.Conflict, "the rotation has only begun; try again in a moment")
	}
	return nil
}

// givesUntil is givesKey with the refusal apart: whether that counts is told by the record.
func (s *Service) givesUntil(ctx context.Context, c Caller, k *Key, until time.Time) (refusal, err error) {
	if until.After(k.Expires) {
		until = k.Expires
	}
	_, err = s.givesKey(ctx, c, "overlap", k, until)
	if err != nil && problem.KindOf(err) == problem.Forbidden {
		return err, nil
	}
	return nil, err
}

// RollBack ends the successor of a key; the key is as it was before it was rotated, and good
// to its own end again, which only who holds what it gives for so long may give it. Where the
// key is held, the successor may be the last that rules the tenant: then it stays.
func (s *Service) RollBack(ctx context.Context, c Caller, id, reason string, only ...If[Key]) (Ended, error) {
	k, err := s.Key(ctx, c, id)
	if err != nil {
		return Ended{}, err
	}
	if err := s.mayGiveKey(ctx, c, &k); err != nil {
		return Ended{}, err
	}
	if _, err := s.givesKey(ctx, c, "id", &k, k.Expires); err != nil {
		return Ended{}, err
	}
	seen := ""
	if k.Rotation != nil {
		seen = k.Rotation.Next
	}
	roll := func(ctx context.Context) (Ended, error) {
		return s.takeBack(ctx, c, &k, backRolled, reason, append([]If[Key]{func(k Key) error {
			if k.Rotation != nil && k.Rotation.Back != nil {
				return nil
			}
			if k.Rotation != nil && k.Rotation.Next != seen { // whether that may go was not looked at
				return problem.New(problem.Conflict, "the key was rotated meanwhile; look at it again")
			}
			return s.inOverlap(&k)
		}}, only...)...)
	}
	if k.Rotation == nil || k.Rotation.Back != nil {
		return roll(ctx)
	}
	next, err := s.d.Store.Keys.Load(ctx, RecordKey(k.Tenant, k.Rotation.Next))
	if err != nil && problem.KindOf(err) != problem.NotFound { // it may have ended by itself
		return Ended{}, err
	}
	if err := s.d.Store.Bindings.Fresh(ctx); err != nil {
		return Ended{}, err
	}
	if !s.mayRule(&next) {
		return roll(ctx)
	}
	return s.endingRuler(ctx, c, leaving{key: next.ID, back: k.ID}, roll)
}

// back is why a rotation is taken back, as its mark says it.
type back string

const (
	backRolled      back = `"before"`      // somebody has rolled it back
	backUnmade      back = `"unmade"`      // its successor was not handed over
	backUncollected back = `"uncollected"` // nobody has collected the secret of its successor
)

// takeBack is RollBack for whoever may.
func (s *Service) takeBack(ctx context.Context, c Caller, k *Key, why back, reason string, only ...If[Key]) (Ended, error) {
	out, old := Ended{}, *k
	if k.Rotation != nil {
		out.Target = revoke.Target{Kind: revoke.KindKey, ID: k.Rotation.Next}.String()
	}
	a, err := end(ctx, s, c, s.backMarkable(), RecordKey(k.Tenant, k.ID), func(k Key) (*endings.Mark, error) {
		if k.Mark != nil || k.Rotation == nil {
			return nil, problem.New(problem.Conflict, "the key is ending, or not being rotated")
		}
		if err := check(k, only); err != nil {
			return nil, err
		}
		old, out.Target = k, revoke.Target{Kind: revoke.KindKey, ID: k.Rotation.Next}.String()
		m, err := s.newMark(c, reason, commit.Target{Kind: revoke.KindKey, ID: k.Rotation.Next})
		if err == nil {
			m.Record, m.Next = true, []byte(why)
		}
		return m, err
	})
	out.Answer = a
	if err == nil {
		s.counts.rotatedBack.Add(1)
		s.tellRotation(ctx, &old, RotationBack)
	}
	return out, err
}

// backMarkable is "mark, log, finish" of a successor, with the mark in the record of the key
// that it was to follow: so it is in one step that the old key no longer ends and the new
// one does.
func (s *Service) backMarkable() markable[Key] {
	return markable[Key]{
		kind: "rotations", table: s.d.Store.Keys,
		tenant: func(k Key) string { return k.Tenant },
		mark: func(k Key) *endings.Mark {
			if k.Rotation == nil {
				return nil
			}
			return k.Rotation.Back
		},
		withMark: func(k Key, m *endings.Mark) Key {
			if k.Rotation != nil {
				r := *k.Rotation
				r.Back = m
				k.Rotation = &r
			}
			return k
		},
		before: func(ctx context.Context, k Key) error {
			if err := s.d.Store.Bindings.Fresh(ctx); err != nil {
				return err
			}
			return s.removeKey(ctx, k.Tenant, k.Rotation.Next)
		},
		rewrite: func(k Key, m *endings.Mark, _ revoke.Stamp) (Key, error) {
			k.TakenBack = k.tookBack(back(m.Next))
			k.Rotation, k.Meta = nil, m.Meta
			return k, nil
		},
	}
}

// tookBack is what is remembered of a rotation that is taken back. One that was not handed over
// is forgotten, so that its firing is done anew.
func (k *Key) tookBack(why back) *TakenBack {
	if k.Rotation == nil || k.Rotation.Firing == "" || why == backUnmade {
		return k.TakenBack
	}
	out := TakenBack{Firing: k.Rotation.Firing}
	if k.TakenBack != nil {
		out.Uncollected = k.TakenBack.Uncollected
	}
	if why == backUncollected {
		out.Uncollected++
	}
	return &out
}

// endRotated ends a key of which another one has taken the place.
func (s *Service) endRotated(ctx context.Context, c Caller, k *Key, reason string, only ...If[Key]) (Ended, error) {
	e, err := s.endKey(ctx, c, k, reason, only...)
	if err != nil && problem.KindOf(err) == problem.NotFound { // another replica was faster: its end stands in the log
		request, idErr := s.newID(c)
		if idErr != nil {
			return Ended{}, idErr
		}
		e, err = s.commitOne(ctx, request, commit.Request{
			Tenant: k.Tenant, Op: commit.Revoke, Actor: c.Actor, Reason: reason, Record: !k.Imported, Targets: []commit.Target{{Kind: revoke.KindKey, ID: k.ID}},
		})
		e.Next = k.Rotation.Next
	}
	return e, err
}

// Successors returns the ids of the keys that have taken the place of one, and of those after
// them, the newest last: whoever had the secret of that one may have theirs.
func (s *Service) Successors(tenant, id string) (out []string) {
	after := s.d.Store.Keys.Group(AfterGroup(tenant, id))
	slices.SortFunc(after, func(a, b Key) int { return byAge(a.Created, a.ID, b.Created, b.ID) })
	for _, k := range after {
		out = append(out, k.ID)
	}
	return out
}

// RotationChange is what became of a rotation.
type RotationChange string

// What becomes of rotations.
const (
	RotationBegun RotationChange = "begun"
	RotationEnded RotationChange = "ended" // the old key has ended
	RotationBack  RotationChange = "back"  // the new one has
)

// KeyRotated is told of a key of which another one takes the place.
type KeyRotated struct {
	Key    Key // the old one
	Change RotationChange
	At     time.Time
}

func (s *Service) tellRotation(ctx context.Context, k *Key, change RotationChange) {
	s.d.Log.Info("rotation of a key", zap.String("key", k.ID), zap.String("next", k.Rotation.Next), zap.String("change", string(change)),
		zap.Bool("emergency", k.Rotation.Emergency), zap.String("owner", k.Owner))
	if s.d.Rotated == nil {
		return
	}
	if err := s.d.Rotated(ctx, KeyRotated{Key: *k, Change: change, At: s.d.Now().UTC().Truncate(time.Millisecond)}); err != nil {
		s.d.Log.Warn("a rotation could be told to the log alone", zap.String("key", k.ID), zap.Error(err))
	}
}

// makingFor is how long it is waited for a successor that has not been made: longer than a
// request may take.
const makingFor = time.Minute

// watchRotations ends keys whose time beside their successor is over, and takes back
// rotations that somebody did not finish, until ctx ends.
func (s *Service) watchRotations(ctx context.Context) {
	t := time.NewTicker(SweepPeriod)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := s.sweepRotations(ctx); err != nil && ctx.Err() == nil {
			s.d.Log.Debug("rotations go on later", zap.Error(err))
		}
	}
}

// sweepRotations does what is due, in the turn of one replica at a time.
func (s *Service) sweepRotations(ctx context.Context) error {
	if !s.rotationsDue() {
		return nil
	}
	done, err := s.d.Store.Turn(ctx, "rotations")
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, TurnTime)
	defer cancel()
	if err := s.d.Store.Keys.Fresh(ctx); err != nil {
		return err
	}
	for k := range s.d.Store.Keys.Walk(RotatingGroup) {
		if !s.rotationDue(&k) {
			continue
		}
		if err := s.In(k.Tenant).goOnRotating(ctx, &k); err != nil {
			if ctx.Err() != nil {
				return err
			}
			s.d.Log.Warn("a rotation goes on later", zap.String("key", k.ID), zap.Error(err))
		}
	}
	return nil
}

func (s *Service) rotationsDue() bool {
	for k := range s.d.Store.Keys.Walk(RotatingGroup) {
		if s.rotationDue(&k) {
			return true
		}
	}
	return false
}

func (s *Service) rotationDue(k *Key) bool {
	now := s.d.Now()
	switch {
	case !k.leaving() || k.Mark != nil: // other sweeps do that
		return false
	case k.Rotation.Made:
		return !now.Before(k.Rotation.Until)
	case k.Rotation.Emergency:
		return now.Sub(k.Rotation.Begun) >= endings.Age
	}
	return now.Sub(k.Rotation.Begun) >= makingFor
}

func (s *Service) goOnRotating(ctx context.Context, k *Key) error {
	waits := k.waits()
	due := func(k Key) error {
		if !s.rotationDue(&k) || k.waits() != waits {
			return errTold
		}
		return nil
	}
	var err error
	if waits && k.Rotation.Made {
		_, err = s.takeBack(ctx, s.system(), k, backUncollected, "nobody has collected the secret of key "+k.Rotation.Next+" in time", due)
	} else if k.Rotation.Made || k.Rotation.Emergency {
		_, err = s.endKey(ctx, s.system(), k, "rotated: key "+k.Rotation.Next+" has taken its place", due)
	} else {
		_, err = s.takeBack(ctx, s.system(), k, backUnmade, "its successor was not handed over", due)
	}
	if err != nil && (errors.Is(err, errTold) || problem.KindOf(err) == problem.NotFound) {
		return nil
	}
	return err
}

// InOverlap counts the keys, of all tenants, whose place another one takes, and those of
// them that were used since.
func (s *Service) InOverlap() (keys, used int) {
	for k := range s.d.Store.Keys.Walk(RotatingGroup) {
		if !k.leaving() {
			continue
		}
		keys++
		if !s.UsedSince(&k).At.IsZero() {
			used++
		}
	}
	return keys, used
}
