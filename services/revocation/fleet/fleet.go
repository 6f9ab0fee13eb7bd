// Package fleet knows who decides by the log and how far each of them is: it
// answers when a revocation is confirmed everywhere, who is missing, and by when
// those are fenced.
//
// The one idea needed to read it: a guard accepts nothing before it has applied
// its own join, and the join is in the log. So whoever has applied position S
// knows every guard that can be below S; one that joins later has S. Silence
// proves nothing, and is bounded by the guard's limit instead.
package fleet

import (
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Log is what the fleet asks of the log.
type Log interface {
	// Holds reports whether the log has this very message at its position; known
	// is false if that is outside of what memory holds.
	Holds(wire.Position) (has, known bool)
	Head() wire.Position
}

// Config is what a Fleet needs. Log is required.
type Config struct {
	Log    Log
	Logger *zap.Logger
	Now    func() time.Time
	// MaxLimit is the largest limit that a join may have. Default wire.MaxLimit.
	MaxLimit time.Duration
	// ViewLimit is that of the readers of Redis. Default 3 s.
	ViewLimit time.Duration
	// Cap is how many instances one identity may have. Default 10,000.
	Cap int
	// Redis tells when the Redis view applied something; nil: there is none.
	Redis View
}

// View is the Redis view, which counts as one reader.
type View interface {
	// AppliedAt returns when the view had applied everything up to the stamp.
	AppliedAt(revoke.Stamp) (time.Time, bool)
}

// Fleet is safe for concurrent use. As a ledger.Observer it is told of joins and
// outs in the order of the log.
type Fleet struct {
	cfg Config
	log *zap.Logger

	mu      sync.Mutex
	guards  map[string]*guard // by instance
	members uint64            // grows when a guard joins, goes or is judged by another epoch
	byName  map[string]int
	waiting map[*guard]struct{} // with a position that this log has not reached yet
	epoch   uint64
	begins  uint64    // the sequence at which it does
	first   bool      // epoch is the only one that there ever was
	newest  uint64    // of the epochs that were ever known here, also of a log that is gone
	since   time.Time // by this clock
	applied []reached // when this replica had applied what, as coarsely as appliedStep
	changed chan struct{}
}

// guard is one instance.
type guard struct {
	name, instance string
	limit          time.Duration
	past           string
	// join is where it joined first since it was last out; renewed is the
	// broker's time of its newest join.
	join    revoke.Stamp
	last    revoke.Stamp // its newest join
	joined  time.Time
	renewed time.Time

	out   revoke.Stamp // zero: it is in
	outBy string
	outAt time.Time

	seen    time.Time // when it was last heard
	at      wire.Position
	reached []reached // ascending; when it was first heard to be there
	pending *heard    // named a position that this log has not reached
}

type reached struct {
	at   revoke.Stamp
	when time.Time
}

type heard struct {
	at   wire.Position
	when time.Time
}

// maxReached is how many positions are remembered of a guard with their times;
// for older entries a confirmation is told with a later time.
const maxReached = 64

// New returns an empty fleet.
func New(cfg Config) *Fleet {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MaxLimit == 0 {
		cfg.MaxLimit = wire.MaxLimit
	}
	if cfg.ViewLimit == 0 {
		cfg.ViewLimit = 3 * time.Second
	}
	if cfg.Cap == 0 {
		cfg.Cap = 10_000
	}
	return &Fleet{
		cfg: cfg, log: cfg.Logger.Named("fleet"), guards: map[string]*guard{}, byName: map[string]int{},
		waiting: map[*guard]struct{}{}, changed: make(chan struct{}), first: true,
	}
}

// Restarted implements ledger.Observer: the log is read from its beginning. What
// a guard that allows past its limit has said stays: nothing else bounds it.
func (f *Fleet) Restarted() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range f.guards {
		if g.past != wire.PastAllow {
			f.remove(g)
		}
	}
	f.first, f.epoch, f.applied = true, 0, nil
	f.members++
	f.wake()
}

// Applied implements ledger.Observer.
func (f *Fleet) Applied(s wire.Stored) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(s.Position().Stamp)
	if r := s.Message.Recommitted; r != nil && r.Epoch < f.epoch {
		f.first = false // of a history that the log itself has no more
	}
	switch s.Message.Kind {
	case wire.KindEpoch:
		f.newEpoch(s)
	case wire.KindJoin:
		f.join(s)
	case wire.KindOut:
		f.leave(s)
	}
	for g := range f.waiting {
		f.place(g)
	}
}

// appliedStep spaces what is remembered of when something was applied, keptApplied
// is how much: far longer than any limit.
const (
	appliedStep = 100 * time.Millisecond
	keptApplied = 4096
)

// note remembers when this replica had applied a position. Of several in one step
// the newest counts, with the time of its own: never earlier than it was.
func (f *Fleet) note(at revoke.Stamp) {
	now := f.cfg.Now()
	if n := len(f.applied); n > 1 && now.Sub(f.applied[n-2].when) < appliedStep && !now.Before(f.applied[n-2].when) {
		f.applied[n-1] = reached{at, now}
		return
	}
	if len(f.applied) == keptApplied {
		f.applied = append(f.applied[:0], f.applied[keptApplied/2:]...)
	}
	f.applied = append(f.applied, reached{at, now})
}

// newEpoch ends the joins of former histories: guards join again before they
// accept, and those that have not noticed are bounded by their limit.
func (f *Fleet) newEpoch(s wire.Stored) {
	if s.Message.Epoch <= f.epoch {
		return
	}
	f.first = f.epoch == 0 && (f.newest == 0 || f.newest == s.Message.Epoch)
	f.newest = max(f.newest, s.Message.Epoch)
	f.epoch, f.begins, f.since = s.Message.Epoch, s.Sequence, here(f.cfg.Now(), time.UnixMilli(s.Time))
	f.members++
	for _, g := range f.guards {
		if g.past != wire.PastAllow && g.last.Epoch < f.epoch {
			f.remove(g)
		}
	}
	f.wake()
}

func (f *Fleet) join(s wire.Stored) {
	m, at, when := s.Message, s.Position().Stamp, time.UnixMilli(s.Time)
	g := f.guards[m.Instance]
	if g == nil || !g.out.IsZero() && g.out.Less(at) {
		if g != nil {
			f.remove(g)
		}
		g = &guard{name: m.Name, instance: m.Instance, join: at, joined: when}
		f.guards[m.Instance] = g
		f.byName[m.Name]++
	}
	if at.Less(g.last) {
		return
	}
	f.members++
	g.limit, g.past, g.last, g.renewed = time.Duration(m.LimitMS)*time.Millisecond, m.Past, at, when
	f.wake()
}

func (f *Fleet) leave(s wire.Stored) {
	g, at := f.guards[s.Message.Instance], s.Position().Stamp
	if g == nil || at.Less(g.last) || !g.out.IsZero() {
		return
	}
	f.members++
	g.out, g.outBy, g.outAt = at, s.Message.By, here(f.cfg.Now(), time.UnixMilli(s.Time))
	f.wake()
}

func (f *Fleet) remove(g *guard) {
	f.members++
	delete(f.guards, g.instance)
	delete(f.waiting, g)
	if f.byName[g.name]--; f.byName[g.name] <= 0 {
		delete(f.byName, g.name)
	}
}

// wake tells those who wait that something has changed; f.mu is held.
func (f *Fleet) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// reportRate is how many reports a second a service should hear, however large
// the fleet is.
const reportRate = 2000

// Spread returns over how long readers should spread their reports.
func (f *Fleet) Spread() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Duration(len(f.guards)) * time.Second / reportRate
}

// Heard takes a probe or a report of a guard, at the moment at which it came.
// The broker vouches for the name.
func (f *Fleet) Heard(name, instance string, at wire.Position) {
	now := f.cfg.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.guards[instance]
	if g == nil || g.name != name {
		return // it has not joined, as far as this replica has read
	}
	g.seen = now
	if at.Seq == 0 {
		return
	}
	if g.pending == nil || g.pending.at.Less(at.Stamp) { // what others pass on comes late
		g.pending = &heard{at: at, when: now}
	}
	f.place(g)
}

// place counts what a guard has said of its position, if this log has that very
// message there; what is above the head waits for it.
func (f *Fleet) place(g *guard) {
	h := g.pending
	if h == nil {
		delete(f.waiting, g)
		return
	}
	has, known := f.cfg.Log.Holds(h.at)
	if !known && f.cfg.Log.Head().Less(h.at.Stamp) {
		f.waiting[g] = struct{}{}
		return
	}
	g.pending = nil
	delete(f.waiting, g)
	if !has || !g.at.Less(h.at.Stamp) {
		return
	}
	g.at = h.at
	if len(g.reached) == maxReached {
		g.reached = slices.Delete(g.reached, 0, 1)
	}
	g.reached = append(g.reached, reached{at: h.at.Stamp, when: h.when})
	f.wake()
}

// reachedAt returns when the guard was first heard to be at or above s.
func (g *guard) reachedAt(s revoke.Stamp) (time.Time, bool) {
	if g.at.Less(s) {
		return time.Time{}, false
	}
	for _, r := range g.reached {
		if !r.at.Less(s) {
			return r.when, true
		}
	}
	return time.Time{}, false
}
