package rotator

import (
	"errors"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/signing"
)

// errOvertaken says that a step is not to be done any more: another replica
// has done it, or something else has been decided. The machine is asked again.
var errOvertaken = errors.New("overtaken by another replica")

// The functions here are the only ones that change a Set. Each is applied to
// the present record within its compare-and-set, and checks there that the step
// still makes sense.

// addKey takes a new key in, unless there is a next one already.
func addKey(s *signing.Set, k signing.Key, end time.Time, meta signing.Meta) error {
	if s.In(signing.Planned) != nil || s.In(signing.Published) != nil {
		return errOvertaken
	}
	s.Born++
	k.Number, k.State, k.BornAt, k.End, k.Meta = s.Born, signing.Planned, meta.At, end.Unix(), meta
	s.Keys = append(s.Keys, k)
	s.Meta = meta
	return nil
}

// markSent notes that the log has been told a state of a key.
func markSent(s *signing.Set, kid, state string, a commit.Answer) error {
	k := s.Find(kid)
	if k == nil || k.State != state && (k.State != signing.Planned || state != signing.Published) {
		return errOvertaken
	}
	if k.Told() && k.Sent.Epoch >= a.Epoch {
		return errOvertaken // the first of two is the one that others may wait for
	}
	if k.State == signing.Planned {
		k.State, k.PublishedAt = signing.Published, a.CommittedAt
	}
	k.Sent = sent(state, a)
	return nil
}

// markEnded notes the entry that ends the target of a revoked key.
func markEnded(s *signing.Set, kid string, a commit.Answer) error {
	k := s.Find(kid)
	if k == nil || k.State != signing.Revoked || k.EndedBy != nil {
		return errOvertaken
	}
	k.EndedBy = sent(signing.Revoked, a)
	return nil
}

func sent(state string, a commit.Answer) *signing.Sent {
	return &signing.Sent{State: state, Epoch: a.Epoch, Sequence: a.Sequence, At: a.CommittedAt}
}

// promote is the decision: kid signs from now on, and the one before retires,
// or is revoked in an emergency. asked is the message that was confirmed.
func promote(s *signing.Set, r Rotation, kid string, asked *signing.Sent, meta signing.Meta) error {
	next := s.Find(kid)
	if decided(s, &r) != nil || next == nil || next.State != signing.Published ||
		next.Sent == nil || next.Sent.Stamp() != asked.Stamp() {
		return errOvertaken
	}
	if old := s.In(signing.Signing); old != nil {
		next.Previous = old.ID
		old.State, old.StoppedAt, old.Meta = signing.Retiring, meta.At, meta
		if r.Emergency {
			// The private half goes at once. A retiring key keeps it until it is
			// gone: an issuer signs with it until it has seen the new one sign.
			old.State, old.Sealed = signing.Revoked, nil
		}
	}
	next.State, next.SigningAt, next.Rotation, next.Meta = signing.Signing, meta.At, r.ID, meta
	if r.Alg != "" {
		s.Alg = r.Alg
	}
	s.Meta = meta
	return nil
}

// move takes a key that does not sign out of use.
func move(s *signing.Set, kid, state string, meta signing.Meta) error {
	k := s.Find(kid)
	if k == nil || k.State == state || k.State != signing.Published && k.State != signing.Retiring {
		return errOvertaken
	}
	k.State, k.StoppedAt, k.Sealed, k.Meta = state, meta.At, nil, meta
	s.Meta = meta
	return nil
}

// forget removes a key of which nothing lives any more.
func forget(s *signing.Set, kid string, meta signing.Meta) error {
	for i := range s.Keys {
		if s.Keys[i].ID == kid && s.Keys[i].State != signing.Signing {
			s.Keys = append(s.Keys[:i:i], s.Keys[i+1:]...)
			s.Meta = meta
			return nil
		}
	}
	return errOvertaken
}
