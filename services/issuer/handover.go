package issuer

import (
	"context"
	"time"

	"github.com/quash-project/quash/shared/problem"
)

// reserve notes in the record of a key who is to take its place.
func (s *Service) reserve(ctx context.Context, c Caller, k, n *Key, r *Rotate, only []If[Key]) (Key, error) {
	meta := s.meta(c, r.Reason)
	begun := n.Created
	until := begun.Add(r.Overlap)
	if until.After(k.Expires) {
		until = k.Expires
	}
	return s.d.Store.Keys.Change(ctx, RecordKey(k.Tenant, k.ID), func(k Key) (Key, error) {
		switch {
		case k.Mark != nil:
			return k, problem.New(problem.Conflict, "the key is ending")
		case k.Rotation != nil && k.Rotation.Next == n.ID:
			return k, nil // its own work, of which the answer was lost
		case k.Rotation != nil && r.firing != "" && k.Rotation.Firing == r.firing:
			return k, errFired
		case k.Rotation != nil:
			return k, problem.New(problem.Conflict, "the key is rotated already: key %s takes its place. End the old one (delete it), or roll back, before you rotate again", k.Rotation.Next)
		}
		if err := check(k, only); err != nil {
			return k, err
		}
		if to := k.Recipient; r.deliver != nil && (to == nil || to.Age != n.Recipient.Age || !to.At.Equal(n.Recipient.At)) {
			return k, problem.New(problem.Unavailable, "another recipient is registered since; try again")
		}
		k.Rotation = &Rotation{Next: n.ID, Begun: begun, Until: until, By: c.Actor, Emergency: r.Emergency, Firing: r.firing, Sealed: r.deliver != nil}
		k.Meta = meta
		return k, nil
	})
}

// handOver notes that the successor is there and its secret is about to be given out.
func (s *Service) handOver(ctx context.Context, k *Key, next string) (Key, error) {
	return s.d.Store.Keys.Change(ctx, RecordKey(k.Tenant, k.ID), func(k Key) (Key, error) {
		r := k.Rotation
		if r == nil || r.Next != next || r.Back != nil || k.Mark != nil && !r.Emergency {
			return k, problem.New(problem.Unavailable, "the key was changed while it was rotated; try again")
		}
		made := *r
		made.Made = true
		k.Rotation = &made
		return k, nil
	})
}

// giveUp takes back what was begun, as far as that can be done now; what is left a sweep does.
func (s *Service) giveUp(ctx context.Context, k *Key, next string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	now, err := s.d.Store.Keys.Load(ctx, RecordKey(k.Tenant, k.ID))
	if err != nil || now.Rotation == nil || now.Rotation.Next != next {
		return
	}
	if now.Rotation.Emergency {
		_, _ = s.endRotated(ctx, s.system(), &now, now.Meta.Reason)
		return
	}
	if now.Rotation.Sealed && now.Rotation.Made {
		return // its owner finds it, and who asks again is told of it
	}
	_, _ = s.takeBack(ctx, s.system(), &now, backUnmade, "its successor could not be made")
}
