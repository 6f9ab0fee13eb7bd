package issuer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/problem"
)

// KeyExpiring is told of a key whose end is near.
type KeyExpiring struct {
	Key    Key
	Before time.Duration // the warning, of KeyPolicy.Warnings, whose time has come
	At     time.Time
}

// expiryEvery is how often it is looked for keys that come to their end. Warnings are a
// matter of days.
const expiryEvery = 10 * time.Minute

// watchExpiry tells of keys whose end is near, until ctx ends.
func (s *Service) watchExpiry(ctx context.Context) {
	// The first time soon: what was due while nobody ran has waited enough.
	t := time.NewTimer(usesEvery)
	defer t.Stop()
	told := map[string]warned{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		next := expiryEvery
		if err := s.warn(ctx, told); err != nil {
			next = usesEvery // the copy is not there yet, or it is another replica's turn
			s.d.Log.Debug("ends of keys are told later", zap.Error(err))
		}
		t.Reset(next)
	}
}

// warned is a warning that was told and is not noted in the record.
type warned struct {
	before time.Duration
	at     time.Time
}

// warn tells of each key, of whatever tenant, whose warning is due, first to whoever
// listens and then to the record: a crash in between has the same event come again. So that
// nothing else does, one replica does it at a time. What it has told and could not note
// stands in told.
func (s *Service) warn(ctx context.Context, told map[string]warned) error {
	var longest time.Duration
	for _, w := range s.cfg.Keys.Warnings {
		longest = max(longest, w)
	}
	now := s.d.Now()
	for day := now; !day.After(now.Add(longest).Add(24 * time.Hour)); day = day.Add(24 * time.Hour) {
		for s.dueOn(day) {
			if err := s.warnOn(ctx, day, told); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) dueOn(day time.Time) bool {
	now := s.d.Now()
	for k := range s.d.Store.Keys.Walk(ExpiryGroup(day)) {
		if s.due(&k, now) {
			return true
		}
	}
	return false
}

func (s *Service) due(k *Key, now time.Time) bool {
	_, due := s.cfg.Keys.warning(k, now)
	return due && !s.In(k.Tenant).goneFrom(k)
}

// warnOn tells of the keys of a day, as many as can be told of in a turn.
func (s *Service) warnOn(ctx context.Context, day time.Time, told map[string]warned) error {
	done, err := s.d.Store.Turn(ctx, "expiry")
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, TurnTime)
	defer cancel()
	if err := s.d.Store.Keys.Fresh(ctx); err != nil {
		return err
	}
	for _, k := range s.d.Store.Keys.Group(ExpiryGroup(day)) {
		id, now := RecordKey(k.Tenant, k.ID), s.d.Now()
		if !s.due(&k, now) {
			delete(told, id)
			continue
		}
		before, _ := s.cfg.Keys.warning(&k, now)
		if have, ok := told[id]; !ok || have.before != before {
			told[id] = warned{before, now.UTC().Truncate(time.Millisecond)}
			s.tellOf(ctx, &k, told[id])
		}
		if err := s.noteWarning(ctx, &k, told[id]); err != nil {
			return err
		}
		delete(told, id)
	}
	return nil
}

// warning returns which warning of a key's end is due: the last whose time has come, if
// the key was there before, and nobody has told it.
func (p *KeyPolicy) warning(k *Key, now time.Time) (time.Duration, bool) {
	if !now.Before(k.Expires) || k.Mark != nil || k.leaving() {
		return 0, false
	}
	var due time.Duration
	for _, w := range p.Warnings {
		at := k.Expires.Add(-w)
		if now.Before(at) || !k.Created.Before(at) || !k.Warned.Before(at) {
			continue
		}
		if due == 0 || w < due {
			due = w
		}
	}
	return due, due != 0
}

// goneFrom reports whether nothing is lost by the end of a key: it is revoked already.
func (s *Service) goneFrom(k *Key) bool {
	return s.StateOf(false, k.Expires, s.HitBy(k.Stamp, KeyTargets(k)...)) == StateRevoked
}

// errTold is the error of a Change that has nothing left to note.
var errTold = errors.New("issuer: it is noted already")

// noteWarning notes in the record that a key's end was told.
func (s *Service) noteWarning(ctx context.Context, k *Key, w warned) error {
	_, err := s.d.Store.Keys.Change(ctx, RecordKey(k.Tenant, k.ID), func(k Key) (Key, error) {
		if k.Warned.Equal(w.at) {
			return k, nil // its own work, of which the answer was lost
		}
		if _, due := s.cfg.Keys.warning(&k, s.d.Now()); !due {
			return k, errTold
		}
		k.Warned, k.Meta = w.at, s.meta(s.system(), fmt.Sprintf("its end is near: told %v before", w.before))
		return k, nil
	})
	if errors.Is(err, errTold) || err != nil && problem.KindOf(err) == problem.NotFound {
		return nil
	}
	return err
}

// tellOf tells whoever listens, and the operator's log.
func (s *Service) tellOf(ctx context.Context, k *Key, w warned) {
	s.counts.expiring.Add(1)
	s.d.Log.Warn("a key comes to its end: make another one for its owner", zap.String("key", k.ID), zap.String("kind", string(k.Kind)),
		zap.String("owner", k.Owner), zap.Time("expires", k.Expires))
	if s.d.Expiring == nil {
		return
	}
	if err := s.d.Expiring(ctx, KeyExpiring{Key: *k, Before: w.before, At: w.at}); err != nil {
		s.d.Log.Warn("a key's end could be told to the log alone", zap.String("key", k.ID), zap.Error(err))
	}
}
