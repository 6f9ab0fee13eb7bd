package issuer

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/services/issuer/delivery"
	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/problem"
)

// KeyRef names what is rotated unattended: a key, or whatever has come in its place, or a
// client by the newest of its secrets. One of them is given.
type KeyRef struct{ Key, Client string }

// Unattended asks for a rotation at which nobody is shown the secret.
type Unattended struct {
	// Firing names it: what was done once under a name is not done again. It is random, or a hash.
	Firing  string
	Overlap time.Duration // 0: that of the policy
	Reason  string
}

// UnattendedOutcome says what became of an unattended rotation.
type UnattendedOutcome string

// What becomes of unattended rotations.
const (
	UnattendedSealed UnattendedOutcome = "sealed"     // the successor is there, and its secret waits for its owner
	UnattendedDue    UnattendedOutcome = "due"        // nobody is registered who could have it: the owner was told
	UnattendedBack   UnattendedOutcome = "taken-back" // it was done, and was taken back since
)

// UnattendedAnswer is what became of one.
type UnattendedAnswer struct {
	Outcome UnattendedOutcome
	Key     string    // the old one
	Next    string    // the new one; empty: there is none
	Until   time.Time // when the old one ends; zero: it has, or it does not
}

// KeyDue is told of a key that should be rotated, and for which nobody is registered who could
// have the new secret.
type KeyDue struct {
	Key    Key
	Firing string
	By     string
	At     time.Time
}

// errFired says that a rotation of the same name is under way.
var errFired = errors.New("issuer: it is being done already")

// RotateUnattended makes a key that takes the place of another one, and seals its secret to the
// recipient that is registered for the old one: nobody else can ever read it. The same firing is
// done once, however often and by however many it is asked for.
func (s *Service) RotateUnattended(ctx context.Context, c Caller, ref KeyRef, u Unattended) (UnattendedAnswer, error) {
	r := Rotate{Overlap: u.Overlap, Reason: u.Reason, firing: u.Firing, asked: ref.Key}
	if err := s.checkOverlap(&r); err != nil {
		return UnattendedAnswer{}, err
	}
	if u.Firing == "" {
		return UnattendedAnswer{}, problem.FieldError("firing", "it is missing: the name of the rotation")
	}
	if s.d.Store.Deliveries == nil {
		return UnattendedAnswer{}, noDeliveries()
	}
	line, err := s.lineOf(ctx, c, ref)
	if err != nil {
		return UnattendedAnswer{}, err
	}
	if a, done, err := firedBefore(line, u.Firing); done || err != nil {
		return a, err
	}
	k, err := newestOf(line, ref)
	if err != nil {
		return UnattendedAnswer{}, err
	}
	if k.Recipient == nil {
		if err := s.active(&k); err != nil {
			return UnattendedAnswer{}, err
		}
		s.tellDue(ctx, c, &k, u.Firing)
		return UnattendedAnswer{Outcome: UnattendedDue, Key: k.ID}, nil
	}
	k.RightsUntil = sooner(k.RightsUntil, k.Recipient.Until)
	life, err := s.successorLife(&k, 0)
	if err != nil {
		return UnattendedAnswer{}, err
	}
	n, secret, err := s.newSecret(k.Kind)
	if err != nil {
		return UnattendedAnswer{}, err
	}
	r.deliver = func(ctx context.Context, old, next *Key) error { return s.deliver(ctx, c, old, next, secret) }
	out, err := s.succeed(ctx, c, &k, n, life, &r, nil)
	if errors.Is(err, errFired) {
		return UnattendedAnswer{}, problem.New(problem.Unavailable, "another replica of the issuer rotates key %s for the same firing; ask again in a moment", k.ID)
	}
	if err != nil {
		return UnattendedAnswer{}, err
	}
	s.counts.rotated.Add(1)
	s.tellRotation(ctx, &out.Old, RotationBegun)
	return UnattendedAnswer{Outcome: UnattendedSealed, Key: k.ID, Next: out.Key.ID, Until: out.Old.Rotation.Until}, nil
}

func noDeliveries() error {
	return problem.New(problem.Unavailable, "this issuer keeps no sealed secrets")
}

// lineOf returns the keys that a name stands for, as the store has them now: all that came one
// after the other, or all secrets of a client.
func (s *Service) lineOf(ctx context.Context, c Caller, ref KeyRef) ([]Key, error) {
	if err := s.checkTenant(c); err != nil {
		return nil, err
	}
	if ref.Client != "" {
		if _, err := s.Client(ctx, c, ref.Client); err != nil {
			return nil, err
		}
	} else if !apikey.IsID(ref.Key) {
		return nil, problem.New(problem.NotFound, "there is no key with this id")
	}
	if err := s.d.Store.Keys.Fresh(ctx); err != nil {
		return nil, err
	}
	if ref.Client != "" {
		return slices.DeleteFunc(s.d.Store.Keys.Group(ClientGroup(c.Tenant, ref.Client)), func(k Key) bool { return k.Kind != ClientSecret }), nil
	}
	line := s.d.Store.Keys.Group(AfterGroup(c.Tenant, ref.Key))
	if k, there := s.d.Store.Keys.Peek(RecordKey(c.Tenant, ref.Key)); there {
		line = append(line, k)
	}
	return line, nil
}

// firedBefore tells what became of a firing, if it was done before.
func firedBefore(line []Key, firing string) (UnattendedAnswer, bool, error) {
	for _, k := range line {
		switch r := k.Rotation; {
		case k.TakenBack != nil && k.TakenBack.Firing == firing:
			return UnattendedAnswer{Outcome: UnattendedBack, Key: k.ID}, true, nil
		case r == nil || r.Firing != firing:
		case !r.Made:
			return UnattendedAnswer{}, true, problem.New(problem.Unavailable, "the successor of key %s is being made for this firing, or what was begun is taken back within %v; ask again then", k.ID, makingFor)
		case r.Back != nil:
			return UnattendedAnswer{Outcome: UnattendedBack, Key: k.ID}, true, nil
		default:
			return UnattendedAnswer{Outcome: UnattendedSealed, Key: k.ID, Next: r.Next, Until: r.Until}, true, nil
		}
	}
	for _, k := range line { // the old one has ended since
		if k.Firing == firing {
			return UnattendedAnswer{Outcome: UnattendedSealed, Key: k.Previous(), Next: k.ID}, true, nil
		}
	}
	return UnattendedAnswer{}, false, nil
}

// newestOf returns which key of a line it is that is used now: the newest, but for one that
// nobody was given yet, or that is taken back.
func newestOf(line []Key, ref KeyRef) (Key, error) {
	there, unready := map[string]bool{}, map[string]bool{}
	for _, k := range line {
		there[k.ID] = true
		if r := k.Rotation; r != nil && (!r.Made || r.Back != nil) {
			unready[r.Next] = true
		}
	}
	line = slices.DeleteFunc(slices.Clone(line), func(k Key) bool {
		replaced := k.leaving() && there[k.Rotation.Next] && !unready[k.Rotation.Next]
		return k.Mark != nil || unready[k.ID] || replaced
	})
	if len(line) == 0 {
		if ref.Client != "" {
			return Key{}, problem.New(problem.NotFound, "the client %s has no secret", ref.Client)
		}
		return Key{}, problem.New(problem.NotFound, "there is no key %s, nor one that has come in its place", ref.Key)
	}
	return slices.MaxFunc(line, func(a, b Key) int { return byAge(a.Created, a.ID, b.Created, b.ID) }), nil
}

// deliver seals the secret of a successor, and keeps it until the old key ends: what ends or
// takes back one of them removes it, see forgetDelivery.
func (s *Service) deliver(ctx context.Context, c Caller, old, next *Key, secret apikey.Text) error {
	to := old.Recipient // which is there, and stays: see reserve
	text, err := delivery.Seal(to.Age, delivery.Content{
		Tenant: next.Tenant, ID: next.ID, Secret: secret.Reveal(), Previous: old.ID, Until: old.Rotation.Until,
	})
	if err != nil {
		return err
	}
	until := next.Created.Add(MaxOverlap + SweepPeriod)
	return s.d.Store.Deliveries.Create(ctx, RecordKey(next.Tenant, next.ID), Delivery{
		Tenant: next.Tenant, ID: next.ID, Previous: old.ID, Recipient: to.Age, Sealed: text, Created: next.Created, Until: until, Meta: next.Meta,
	})
}

// forgetDelivery removes the sealed secret of a key, if there is one.
func (s *Service) forgetDelivery(ctx context.Context, tenant, id string) error {
	if s.d.Store.Deliveries == nil {
		return nil
	}
	return s.d.Store.Deliveries.Remove(ctx, RecordKey(tenant, id), func(Delivery) bool { return true })
}

func (s *Service) tellDue(ctx context.Context, c Caller, k *Key, firing string) {
	s.counts.due.Add(1)
	s.d.Log.Warn("a key should be rotated, and nobody is registered who could have the new secret: register a recipient for it, or rotate it by hand",
		zap.String("key", k.ID), zap.String("kind", string(k.Kind)), zap.String("owner", k.Owner), zap.String("by", c.Actor))
	if s.d.Due == nil {
		return
	}
	if err := s.d.Due(ctx, KeyDue{Key: *k, Firing: firing, By: c.Actor, At: s.d.Now().UTC().Truncate(time.Millisecond)}); err != nil {
		s.d.Log.Warn("that a key is due could be told to the log alone", zap.String("key", k.ID), zap.Error(err))
	}
}

// KeyAge tells of the key that a name stands for, for those who rotate it by its age.
type KeyAge struct {
	Key Key
	// Subject tells it from what was before: it is another one once the key is, once it has or
	// lacks a recipient, and once a rotation was taken back for want of somebody to collect it.
	Subject string
}

// MayRotateUnattended tells whether a caller may have a key rotated by itself: they need what
// rotating it by hand needs, which scope tells as in Rotate.
func (s *Service) MayRotateUnattended(ctx context.Context, c Caller, ref KeyRef, scope func(KeyKind) string) error {
	a, err := s.AgeOf(ctx, c, ref)
	return s.mayRotate(ctx, c, &a.Key, &Rotate{Scope: scope}, err)
}

// AgeOf tells how old a key is.
func (s *Service) AgeOf(ctx context.Context, c Caller, ref KeyRef) (KeyAge, error) {
	line, err := s.lineOf(ctx, c, ref)
	if err != nil {
		return KeyAge{}, err
	}
	k, err := newestOf(line, ref)
	if err != nil {
		return KeyAge{}, err
	}
	return KeyAge{k, k.subject()}, nil
}

func (k *Key) subject() string {
	out := k.ID
	if k.Recipient == nil {
		out += "/due"
	}
	if b := k.TakenBack; b != nil && b.Uncollected > 0 {
		out += "/" + strconv.Itoa(b.Uncollected)
	}
	return out
}
