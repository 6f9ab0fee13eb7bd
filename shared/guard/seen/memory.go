package seen

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// hours is how many are remembered: the one that has begun, and a day before it.
const hours = int64(wire.RememberedFor/time.Hour) + 1

// Memory is safe for concurrent use. Whoever notes takes no lock but once an hour, and
// when a filter has to grow.
type Memory struct {
	began time.Time
	ring  [hours]atomic.Pointer[filter]

	mu sync.Mutex // of whoever replaces a filter
}

// New returns a Memory of one that begins now. Later times are held against this one: with
// a monotonic reading in both no change of a clock makes it forget.
func New(now time.Time) *Memory { return &Memory{began: now} }

// Hour returns the number of the hour, counted from 1, in which now is. Who has noted
// something in an hour need not note it there again.
func (m *Memory) Hour(now time.Time) int64 { return int64(max(now.Sub(m.began), 0)/time.Hour) + 1 }

// Note remembers the targets as seen in an hour.
func (m *Memory) Note(hour int64, targets []revoke.Key) {
	f := m.ring[hour%hours].Load()
	if f == nil || f.hour < hour {
		f = m.begin(hour)
	}
	for i := range targets {
		f.add(&targets[i])
	}
}

// begin has the filter of an hour take the place of the one of a day ago.
func (m *Memory) begin(hour int64) *filter {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := &m.ring[hour%hours]
	if f := at.Load(); f != nil && f.hour >= hour {
		return f // another one was first
	}
	f := newFilter(hour)
	at.Store(f)
	return f
}

// Any reports whether any of the targets was seen in the last day, and how likely it was
// that it says so of targets that never were.
func (m *Memory) Any(now time.Time, targets []revoke.Key) (seen bool, wrong float64) {
	oldest := m.Hour(now) - hours
	var clean float64 // the logarithm of the chance that none of the targets is found wrongly
	for i := range m.ring {
		f := m.ring[i].Load()
		if f == nil || f.hour <= oldest {
			continue
		}
		for t := 0; t < len(targets) && !seen; t++ {
			seen = f.has(&targets[t])
		}
		clean += float64(len(targets)) * math.Log1p(-min(f.wrong(), 1-1e-9))
	}
	return seen, -math.Expm1(clean)
}

// For returns for how long it has remembered: a day at most.
func (m *Memory) For(now time.Time) time.Duration {
	return min(max(now.Sub(m.began), 0), wire.RememberedFor)
}
