package issuer

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/quash-project/quash/shared/problem"
)

// uses is what this replica has seen of keys. There is one for a key at most, and only
// of keys that were good a few minutes ago: no more than there are records.
type uses struct {
	mu   sync.Mutex
	seen map[string]*seenUse // by the key of the record
}

type seenUse struct {
	Use               // Times: those that the store may not know of
	pending bool      // the store may not know of it
	wrote   time.Time // when this replica wrote of the key last
}

const (
	// usesEvery is how often it is looked whether something is to be written.
	usesEvery = 2 * time.Second
	// useLife is how old the last use of a key may be that stands in the store while
	// there is a later one: a replica writes of a key once in that time, and what a
	// crash loses is no more.
	useLife = 5 * time.Minute
	// usesAtOnce is how many are written at the same time.
	usesAtOnce = 16
	// maxAgent is the most that is kept of what a program calls itself, in bytes.
	maxAgent = 100
	// usesEnd is how long the last writing may take.
	usesEnd = 3 * time.Second
)

func newUses() *uses { return &uses{seen: map[string]*seenUse{}} }

// note remembers that a key was used.
func (u *uses) note(k *Key, now time.Time, by ClientAuth) {
	key := RecordKey(k.Tenant, k.ID)
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.seen[key]
	if s == nil {
		s = &seenUse{}
		u.seen[key] = s
	}
	use := Use{Tenant: k.Tenant, ID: k.ID, At: now.UTC().Truncate(time.Minute), From: by.From, Agent: by.Agent, Until: k.Expires}
	if k.leaving() {
		use.Next, use.Times = k.Rotation.Next, 1
		if s.Next == use.Next {
			use.Times += s.Times
		}
	}
	s.Use, s.pending = use, true
}

func (u *uses) of(key string) (Use, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s, ok := u.seen[key]
	if !ok {
		return Use{}, false
	}
	return s.Use, true
}

// due returns what is to be written now; all: everything that the store does not know.
func (u *uses) due(now time.Time, stored func(key string) (Use, bool), all bool) map[string]Use {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := map[string]Use{}
	for key, s := range u.seen {
		rests := now.Sub(s.wrote) < useLife
		if old, ok := stored(key); ok {
			s.pending = s.pending && (s.At.After(old.At) || s.Times > 0)
			rests = rests || now.Sub(old.At) < useLife && s.Next == old.Next
		}
		switch {
		case s.pending && (all || !rests):
			out[key] = s.Use
		case !s.pending && !rests:
			delete(u.seen, key)
		}
	}
	return out
}

// written notes that a use stands in the store.
func (u *uses) written(key string, use Use, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s := u.seen[key]; s != nil {
		if s.Next == use.Next {
			s.Times -= use.Times
		}
		s.wrote, s.pending = now, s.pending && (s.At.After(use.At) || s.Times > 0)
	}
}

// UseOf returns when and where a key was used last, as far as it is known here: of what
// other replicas have seen, a few minutes later. The zero Use: it was not used.
func (s *Service) UseOf(k *Key) Use {
	key := RecordKey(k.Tenant, k.ID)
	use, _ := s.uses.of(key)
	stored, _ := s.storedUse(key)
	return use.after(stored)
}

// after returns the later of what a replica has seen and of what stands in the store, with
// the times of both.
func (u Use) after(stored Use) Use {
	out := u
	// To the minute they may be the same: then the one since a rotation is the later.
	if stored.At.After(u.At) || u.At.Equal(stored.At) && u.Next == "" {
		out = stored
	}
	out.Times = 0
	for _, one := range []Use{u, stored} {
		if one.Next == out.Next {
			out.Times += one.Times
		}
	}
	return out
}

// UsedSince returns the last use of a key since another one has begun to take its place;
// the zero Use: there was none.
func (s *Service) UsedSince(k *Key) Use {
	use := s.UseOf(k)
	if k.Rotation == nil || use.Next != k.Rotation.Next {
		return Use{}
	}
	return use
}

// NextUse returns the last use of the key that takes the place of one; the zero Use: it was not used,
// or there is none.
func (s *Service) NextUse(k *Key) Use {
	if k.Rotation == nil {
		return Use{}
	}
	return s.UseOf(&Key{Tenant: k.Tenant, ID: k.Rotation.Next})
}

func (s *Service) storedUse(key string) (Use, bool) {
	if s.d.Store.Uses == nil {
		return Use{}, false
	}
	return s.d.Store.Uses.Peek(key)
}

// writeUses writes what was seen until ctx ends, and all of it then.
func (s *Service) writeUses(ctx context.Context) {
	if s.d.Store.Uses == nil {
		return
	}
	t := time.NewTicker(usesEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			s.flushUses(ctx, false)
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), usesEnd)
			defer cancel()
			s.flushUses(end, true)
			return
		}
	}
}

func (s *Service) flushUses(ctx context.Context, all bool) {
	var g errgroup.Group
	g.SetLimit(usesAtOnce)
	now := s.d.Now()
	for key, use := range s.uses.due(now, s.storedUse, all) {
		g.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			if err := s.writeUse(ctx, key, use); err != nil {
				s.d.Log.Debug("the last use of a key is written later", zap.String("key", use.ID), zap.Error(err))
				return nil
			}
			s.uses.written(key, use, now)
			return nil
		})
	}
	_ = g.Wait() // each is tried again
}

// writeUse writes a use if it is later than the one that stands there, whoever's that
// is.
func (s *Service) writeUse(ctx context.Context, key string, use Use) error {
	if _, err := s.d.Store.Keys.Get(ctx, key); err != nil {
		if problem.KindOf(err) == problem.NotFound {
			return nil // the key is gone, and nobody looks for its use
		}
		return err
	}
	var written Use
	later := func(old Use) (Use, error) {
		if !use.At.After(old.At) && use.Times == 0 || old == written && old != (Use{}) { // its own work, of which the answer was lost
			return old, errTold
		}
		written = use.after(old)
		return written, nil
	}
	_, err := s.d.Store.Uses.Change(ctx, key, later)
	if err != nil && problem.KindOf(err) == problem.NotFound {
		if err = s.d.Store.Uses.Create(ctx, key, use); err != nil && problem.KindOf(err) == problem.Conflict {
			_, err = s.d.Store.Uses.Change(ctx, key, later)
		}
	}
	if errors.Is(err, errTold) {
		return nil
	}
	return err
}

// forgetUse removes what is known of a key that is gone.
func (s *Service) forgetUse(ctx context.Context, key string) error {
	if s.d.Store.Uses == nil {
		return nil
	}
	return s.d.Store.Uses.Remove(ctx, key, func(Use) bool { return true })
}
