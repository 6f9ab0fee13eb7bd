package issuer

import (
	"context"
	"time"

	"github.com/quash-project/quash/services/issuer/delivery"
	"github.com/quash-project/quash/shared/problem"
)

// checkRecipient reads a recipient that may be none.
func checkRecipient(text *string) error {
	if *text == "" {
		return nil
	}
	r, err := delivery.ParseRecipient(*text)
	if err != nil {
		return problem.FieldError("recipient", "%v", err)
	}
	*text = r
	return nil
}

// registered is a recipient that a caller registers; until is until when they hold what the
// key gives.
func registered(text string, c Caller, at, until time.Time) *Recipient {
	if text == "" {
		return nil
	}
	return &Recipient{Age: text, By: c.Actor, At: at.UTC().Truncate(time.Millisecond), Until: until}
}

// SetRecipient asks that successors of a key be sealed to somebody.
type SetRecipient struct {
	Recipient string // an age X25519 recipient; empty: to nobody any more
	Reason    string
	// Current and Scope are those of Rotate: who may register a recipient is who may have the
	// secret of a successor.
	Current string
	Scope   func(KeyKind) string
}

// SetRecipient registers to whom the secret of a key's successor is sealed, in the place of the
// one before. What is sealed already stays as it is.
func (s *Service) SetRecipient(ctx context.Context, c Caller, id string, r SetRecipient, only ...If[Key]) (Key, error) {
	k, err := s.Key(ctx, c, id)
	if err := s.mayRotate(ctx, c, &k, &Rotate{Current: r.Current, Scope: r.Scope}, err); err != nil {
		return Key{}, err
	}
	if err := checkRecipient(&r.Recipient); err != nil {
		return Key{}, err
	}
	var until time.Time
	if r.Current == "" && r.Recipient != "" {
		if until, err = s.givesKey(ctx, c, "recipient", &k, k.Expires); err != nil {
			return Key{}, err
		}
	}
	meta := s.meta(c, r.Reason)
	return s.d.Store.Keys.Change(ctx, RecordKey(k.Tenant, k.ID), func(k Key) (Key, error) {
		switch {
		case k.Mark != nil:
			return k, problem.New(problem.Conflict, "the key is ending")
		case k.leaving():
			return k, problem.New(problem.Conflict, "key %s takes its place: register the recipient there", k.Rotation.Next)
		}
		if err := meets(k, k.Meta, meta, only); err != nil {
			return k, err
		}
		k.Recipient, k.Meta = registered(r.Recipient, c, meta.At, until), meta
		return k, nil
	})
}
