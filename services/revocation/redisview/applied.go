package redisview

import (
	"context"
	"sort"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// keptApplied is how many positions are remembered with their time: receipts ask
// about commits of the last minutes.
const keptApplied = 8192

// lookEvery is how often a replica that does not write looks at the meta while
// somebody waits for it.
const lookEvery = 50 * time.Millisecond

type appliedAt struct {
	pos revoke.Stamp
	at  time.Time
}

// note takes in a meta that is in Redis now.
func (s *shard) note(m wire.RedisMeta) {
	now := s.w.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.Complete, s.st.Position, s.st.SeenAt = m.Complete, m.Position, now
	if !m.Complete {
		return
	}
	if n := len(s.applied); n > 0 && !s.applied[n-1].pos.Less(m.Position.Stamp) {
		return // what was told once was true then
	}
	s.top = s.top.Max(m.Position.Stamp)
	if len(s.applied) >= keptApplied {
		s.applied = append(s.applied[:0], s.applied[keptApplied/2:]...)
	}
	s.applied = append(s.applied, appliedAt{m.Position.Stamp, now})
	close(s.moved)
	s.moved = make(chan struct{})
}

func (s *shard) setComplete(c bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.Complete = c
}

func (s *shard) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st
}

// appliedAt returns the first time at which a position at or above p was known
// to be there. The oldest one kept may have come after p, and so late, never
// early.
func (s *shard) appliedAt(p revoke.Stamp) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := sort.Search(len(s.applied), func(i int) bool { return !s.applied[i].pos.Less(p) })
	if i == len(s.applied) {
		return time.Time{}, false
	}
	return s.applied[i].at, true
}

func (s *shard) waitApplied(ctx context.Context, p revoke.Stamp) error {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		s.mu.Lock()
		moved := s.moved
		s.mu.Unlock()
		if _, ok := s.appliedAt(p); ok {
			return nil
		}
		poke(s.looking) // at once, and then with every tick
		select {
		case <-moved:
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
