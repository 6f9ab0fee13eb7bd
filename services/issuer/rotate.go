package issuer

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// Rotate asks that another key take the place of one.
type Rotate struct {
	// Overlap is how long the old one stays good; 0: that of the policy.
	Overlap time.Duration
	// Emergency ends the old one, and every token that came from it, before the answer.
	Emergency bool
	Life      time.Duration // of the successor; 0: as long as the old one's was
	Reason    string
	// Current is the old key's secret, of whoever rotates the key that they ask with: a
	// token alone, which others are shown, must not become a key.
	Current string
	// Scope is what a caller needs without Current.
	Scope func(KeyKind) string

	// Of an unattended rotation: its name, the id of a key under which it was asked for, and what
	// puts the secret where its owner finds it, before the successor counts as handed over.
	firing, asked string
	deliver       func(ctx context.Context, old, next *Key) error
}

// Rotated is a key that has taken the place of another.
type Rotated struct {
	Key Key
	Old Key
	End Ended // of an emergency
}

// RotateKey makes a key that takes the place of another one: it gives what that gives to the
// same, and no more. The secret is returned once and kept nowhere.
//
// The old record is reserved first, so that of two at once one wins; then the successor and
// its bindings are made; then the old record says that there is one. What a crash leaves in
// between is taken back (see rotations), but for an emergency, where the old one ends all the
// same.
func (s *Service) RotateKey(ctx context.Context, c Caller, id string, r Rotate, only ...If[Key]) (Rotated, apikey.Text, error) {
	k, err := s.Key(ctx, c, id)
	if err := s.mayRotate(ctx, c, &k, &r, err); err != nil {
		return Rotated{}, apikey.Text{}, err
	}
	if err := s.checkOverlap(&r); err != nil {
		return Rotated{}, apikey.Text{}, err
	}
	life, err := s.successorLife(&k, r.Life)
	if err != nil {
		return Rotated{}, apikey.Text{}, err
	}
	if r.Current == "" {
		until, err := s.givesKey(ctx, c, "expires_in", &k, s.d.Now().Add(life))
		if err != nil {
			return Rotated{}, apikey.Text{}, err
		}
		k.RightsUntil = sooner(k.RightsUntil, until)
	}
	if err := s.rotatedBefore(ctx, c, &k); err != nil {
		return Rotated{}, apikey.Text{}, err
	}
	n, secret, err := s.newSecret(k.Kind)
	if err != nil {
		return Rotated{}, apikey.Text{}, err
	}
	if c.Try != nil {
		if err := c.Try.Makes(ctx, revoke.Target{Kind: revoke.KindKey, ID: n.ID}.String()); err != nil {
			return Rotated{}, apikey.Text{}, err
		}
	}
	out, err := s.succeed(ctx, c, &k, n, life, &r, only)
	if err != nil {
		return Rotated{}, apikey.Text{}, err
	}
	s.counts.rotated.Add(1)
	s.tellRotation(ctx, &out.Old, RotationBegun)
	if !r.Emergency {
		return out, secret, nil
	}
	out.End, err = s.endRotated(ctx, c, &out.Old, r.Reason)
	return out, secret, err
}

// newSecret makes one, and what a key is known by it.
func (s *Service) newSecret(kind KeyKind) (Key, apikey.Text, error) {
	form := apikey.Key
	if kind == ClientSecret {
		form = apikey.Secret
	}
	secret, err := apikey.Generate(s.d.Rand, form)
	return Key{ID: apikey.ID(secret.Reveal()), Hash: apikey.HashOf(secret.Reveal())}, secret, err
}

// succeed makes the successor.
func (s *Service) succeed(ctx context.Context, c Caller, k *Key, n Key, life time.Duration, r *Rotate, only []If[Key]) (Rotated, error) {
	reserved := false
	var old Key
	n, err := stampFirst(ctx, s, true, func(m *making) (Key, error) {
		n, given, err := s.successor(ctx, m, c, k, n, r)
		if err != nil {
			return Key{}, err
		}
		n.Expires = sooner(n.Created.Add(life), k.RightsUntil)
		if !n.Expires.After(n.Created) {
			return Key{}, problem.New(problem.Conflict, "who made the key held what it gives until %s: it can't be rotated beyond that", k.RightsUntil.Format(time.RFC3339))
		}
		// From here on an answer that is lost leaves a reservation.
		reserved = true
		if old, err = s.reserve(ctx, c, k, &n, r, only); err != nil {
			reserved = problem.KindOf(err) == problem.Unavailable
			return Key{}, err
		}
		for _, b := range given {
			if err := s.d.Store.Bindings.Create(ctx, BindingKey(b.Tenant, b.Subject, b.Role.ID), b); err != nil {
				return Key{}, err
			}
		}
		if err := s.d.Store.Keys.Create(ctx, RecordKey(n.Tenant, n.ID), n); err != nil {
			return Key{}, err
		}
		return n, s.goodStill(ctx, k)
	})
	if err == nil && r.deliver != nil {
		err = r.deliver(ctx, &old, &n)
	}
	if err == nil {
		old, err = s.handOver(ctx, k, n.ID)
	}
	if err != nil && reserved {
		s.giveUp(ctx, k, n.ID)
	}
	return Rotated{Key: n, Old: old}, err
}

// goodStill wants that a key was not held or revoked while its successor was made: that would
// have got out of it.
func (s *Service) goodStill(ctx context.Context, k *Key) error {
	if err := s.d.Reader.Fresh(ctx); err != nil {
		return problem.Wrap(problem.Unavailable, err, "the log can't be followed now, so nothing can be issued; try again")
	}
	if hits := s.HitBy(k.Stamp, KeyTargets(k)...); len(hits) > 0 {
		return problem.New(problem.Conflict, "the key was revoked or held meanwhile, by %s", hits[0].Target)
	}
	return nil
}

func (s *Service) checkOverlap(r *Rotate) error {
	switch {
	case r.Emergency && r.Overlap != 0:
		return problem.FieldError("overlap", "an emergency has none: the old key ends at once")
	case r.Emergency:
		return nil
	case r.Overlap == 0:
		r.Overlap = s.cfg.Keys.Overlap
		return nil
	}
	return checkOverlap(r.Overlap)
}

func checkOverlap(d time.Duration) error {
	if d < MinOverlap || d > MaxOverlap {
		return problem.FieldError("overlap", "%v: want %v to %v (30 days)", d, MinOverlap, MaxOverlap)
	}
	return nil
}

// successorLife is how long the successor of a key lives.
func (s *Service) successorLife(k *Key, asked time.Duration) (time.Duration, error) {
	if asked != 0 {
		return s.cfg.Keys.lifeOf(asked)
	}
	return min(max(k.Expires.Sub(k.Created), time.Minute), s.cfg.Keys.MaxLife), nil
}

// rotatedBefore goes on with what an earlier try of the request has left: one that has made
// the successor is done but for the end of the old key; of any other nobody has the secret.
func (s *Service) rotatedBefore(ctx context.Context, c Caller, k *Key) error {
	if c.Try == nil || c.Try.Earlier() == "" {
		return nil
	}
	made := strings.TrimPrefix(c.Try.Earlier(), revoke.KindKey.String()+":")
	switch r := k.Rotation; {
	case r == nil || r.Next != made:
		return s.madeBefore(ctx, c)
	case !r.Made && !r.Emergency:
		_, err := s.takeBack(ctx, s.system(), k, backUnmade, "its successor was not handed over")
		return err
	case r.Emergency:
		if _, err := s.endRotated(ctx, c, k, k.Meta.Reason); err != nil {
			return err
		}
		if !r.Made {
			return problem.New(problem.Conflict, "the old key is ended, and its successor could not be handed over: make another key")
		}
	}
	return s.madeBefore(ctx, c)
}

// successor is what takes the place of a key, without its end, and the bindings of its own.
func (s *Service) successor(ctx context.Context, m *making, c Caller, k *Key, n Key, r *Rotate) (Key, []Binding, error) {
	if err := s.rotatable(ctx, m, k, r.Emergency); err != nil {
		return Key{}, nil, err
	}
	roles, err := s.givenStill(ctx, m, k)
	if err != nil {
		return Key{}, nil, err
	}
	born := m.now.UTC().Truncate(time.Millisecond)
	bindings, err := s.boundStill(ctx, m, c, k, n.ID, r.Reason)
	return Key{
		ID: n.ID, Hash: n.Hash, Kind: k.Kind, Tenant: k.Tenant, Name: k.Name, Labels: k.Labels, Creator: c.Actor, Owner: k.Owner, Client: k.Client,
		Scopes: k.Scopes, Roles: roles, OwnerRoles: k.OwnerRoles, OwnerMost: k.OwnerMost, RightsUntil: k.RightsUntil, Audiences: k.Audiences, Networks: k.Networks, RateLimit: k.RateLimit,
		Stamp: m.stamp, Created: born, Before: before(k, r.asked), Recipient: k.Recipient, Firing: r.firing, Meta: s.meta(c, r.Reason),
	}, bindings, err
}

// before is of which keys the successor of a key knows: of the first of them, by whose id people
// and schedules may call all that have come after it, of the one that it was asked for by, and of
// the newest.
func before(k *Key, asked string) []string {
	out := append(slices.Clone(k.Before), k.ID)
	for i := 1; len(out) > MaxBefore && i < len(out); {
		if out[i] == asked {
			i++
			continue
		}
		out = slices.Delete(out, i, i+1)
	}
	return out
}

// rotatable tells whether a key may be given a successor: nobody gets by it out of a hold or
// a revocation.
func (s *Service) rotatable(ctx context.Context, m *making, k *Key, emergency bool) error {
	targets := keyTargets(k)
	if _, err := m.hit(k.Stamp, targets[:]...); err != nil {
		return err
	}
	if err := s.active(k); err != nil {
		return err
	}
	if s.goes(k.Owner) {
		return goingAway("owner", k.Owner)
	}
	if err := s.mayRotateAgain(ctx, k, emergency); err != nil {
		return err
	}
	if err := s.roomForSuccessor(ctx); err != nil {
		return err
	}
	if k.Client == "" {
		return nil
	}
	if err := s.standing(ctx, k.Client); err != nil {
		return notFoundConflict(err, "the key's client is deleted")
	}
	_, err := s.liveClient(ctx, m, k.Client)
	return notFoundConflict(err, "the key's client is held or deleted")
}

// active wants that a key is good.
func (s *Service) active(k *Key) error {
	switch state, by := s.KeyStanding(k); state {
	case StateActive:
		return nil
	case StateHeld, StateRevoked:
		return problem.New(problem.Conflict, "the key is %s (by %s): it can't be rotated out of that", state, strings.Join(by, ", "))
	default:
		return problem.New(problem.Conflict, "the key is %s: make another one", state)
	}
}

// mayRotateAgain wants that the key before one that was made by rotation is gone: so none has
// more than one successor and one before it.
func (s *Service) mayRotateAgain(ctx context.Context, k *Key, emergency bool) error {
	if k.Previous() == "" || emergency {
		return nil
	}
	p, err := s.d.Store.Keys.Get(ctx, RecordKey(k.Tenant, k.Previous()))
	if err != nil {
		if problem.KindOf(err) == problem.NotFound {
			return nil
		}
		return err
	}
	now := s.d.Now()
	if r := p.Rotation; r == nil || r.Next != k.ID || p.Mark != nil || p.over(now) || !now.Before(p.Expires) {
		return nil
	}
	return problem.New(problem.Conflict, "it takes the place of key %s, which is good until %s: end that one first, or rotate as an emergency", p.ID, p.Rotation.Until.Format(time.RFC3339))
}

func notFoundConflict(err error, format string, args ...any) error {
	if err != nil && problem.KindOf(err) == problem.NotFound {
		return problem.New(problem.Conflict, format, args...)
	}
	return err
}

// stays reports whether something of a stamp lives as far as one of its targets says. A hold
// on the target hits whatever comes in its place too, until it is released.
func (m *making) stays(stamp revoke.Stamp, k revoke.Key) (bool, error) {
	if _, err := m.hit(stamp, k); err != nil {
		return false, err
	}
	st := m.view.State(k)
	return !st.Ended && !m.view.Epochs().Clamp(stamp).Less(st.Cut), nil
}

// roleStays reports whether a role that somebody has, by a binding of a stamp, is theirs
// still.
func (s *Service) roleStays(ctx context.Context, m *making, ref RoleRef, binding revoke.Key, stamp revoke.Stamp) (bool, error) {
	role, err := s.d.Store.Roles.Get(ctx, RoleKey(s.cfg.Tenant, ref.Name))
	if problem.KindOf(err) == problem.NotFound && err != nil || err == nil && role.ID != ref.ID {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if role.Mark != nil {
		return false, problem.New(problem.Unavailable, "role %q is being changed; try again", role.Name)
	}
	if ok, err := m.stays(role.Stamp, target(role.Tenant, revoke.KindRole, role.ID)); !ok || err != nil {
		return false, err
	}
	return m.stays(stamp, binding)
}

// givenStill returns the roles that a key was made with and has still: one that was cut from
// it must not come back with a newer stamp.
func (s *Service) givenStill(ctx context.Context, m *making, k *Key) (out []RoleRef, err error) {
	for _, r := range k.Roles {
		ok, err := s.roleStays(ctx, m, r, target(k.Tenant, revoke.KindBinding, revoke.PairID(k.Owner, r.ID)), k.Stamp)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, r)
		}
	}
	return out, nil
}

// boundStill returns what a successor has in the place of the key's own bindings.
func (s *Service) boundStill(ctx context.Context, m *making, c Caller, k *Key, next, reason string) (out []Binding, err error) {
	if k.Kind != APIKey {
		return nil, nil // what is bound is bound to its client
	}
	if err := s.d.Store.Bindings.Fresh(ctx); err != nil {
		return nil, err
	}
	for _, b := range s.d.Store.Bindings.Group(SubjectGroup(k.Tenant, KeyClientPrefix+k.ID)) {
		if b.Ended(m.now) {
			continue
		}
		if b.Mark != nil {
			return nil, problem.New(problem.Unavailable, "a binding is being taken away; try again")
		}
		ok, err := s.roleStays(ctx, m, b.Role, target(b.Tenant, revoke.KindBinding, b.BindingID()), b.Stamp)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, Binding{
				Tenant: b.Tenant, Subject: KeyClientPrefix + next, Role: b.Role, Stamp: m.stamp, Expires: b.Expires,
				Created: m.now.UTC().Truncate(time.Millisecond), Meta: s.meta(c, reason),
			})
		}
	}
	return out, nil
}
