package issuer

import (
	"context"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/endings"
)

// Try is one try of a request that may be repeated: whatever it makes at random it
// makes from a seed that all of its tries have.
type Try interface {
	Seed() string // 22 letters and digits
	// Makes notes as kind:id what is about to be made, if that can't be derived from
	// the seed; Earlier is what a try before has noted, which may be there.
	Makes(ctx context.Context, what string) error
	Earlier() string
}

// newID returns an id for what the caller makes: that of its request, if it may be
// repeated.
func (s *Service) newID(c Caller) (string, error) {
	if c.Try != nil {
		return c.Try.Seed(), nil
	}
	return apikey.RandomID(s.d.Rand)
}

// newMark returns a mark for what the caller ends.
func (s *Service) newMark(c Caller, reason string, targets ...commit.Target) (*endings.Mark, error) {
	id, err := s.newID(c)
	if err != nil {
		return nil, err
	}
	return &endings.Mark{ID: id, Meta: s.meta(c, reason), Targets: targets}, nil
}

// own reports whether a mark is that of the caller's own request, set by a try
// before.
func (c Caller) own(m *endings.Mark) bool { return c.Try != nil && m.ID == c.Try.Seed() }

// If is a condition on a record as it stands, checked in the very step that
// changes the record. Its error refuses the change.
type If[T any] func(T) error

func check[T any](v T, conditions []If[T]) error {
	for _, c := range conditions {
		if err := c(v); err != nil {
			return err
		}
	}
	return nil
}

// meets checks the conditions of a change, but for one that has been written
// already: after a lost answer a change meets its own work.
func meets[T any](v T, stands, own endings.Meta, conditions []If[T]) error {
	if wrote(stands, own) {
		return nil
	}
	return check(v, conditions)
}

// wrote reports whether what stands in a record is a change's own work.
func wrote(stands, own endings.Meta) bool {
	return stands.Actor == own.Actor && stands.Reason == own.Reason && stands.At.Equal(own.At)
}
