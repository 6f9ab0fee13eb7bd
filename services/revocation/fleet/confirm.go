package fleet

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// Confirmation is how far a revocation has come.
type Confirmation struct {
	Confirmed   []Confirmed
	Unconfirmed []Unconfirmed
	Redis       *RedisState
	// Complete: every guard is confirmed, out, or past its fencing moment, none
	// is open, and the Redis view has applied it.
	Complete bool
	// Epoch is the one in which this was judged: a newer one voids it, unless it is
	// complete.
	Epoch uint64
	// Settled is when whoever has not noticed that epoch is past the largest limit.
	Settled time.Time
	// behind: this replica has not read as far, so that others may lack it too.
	behind bool
}

// Whole reports whether this replica has read far enough to know everybody who can
// lack the entry.
func (c Confirmation) Whole() bool { return c.Epoch != 0 && !c.behind }

// Confirmed is a guard that has applied it, and when the service heard so.
type Confirmed struct {
	Name, Instance string
	At             time.Time
}

// Unconfirmed is a guard that is not known to have applied it. Past FencedBy it
// does not decide from a view that lacks it; an open one may at any time.
type Unconfirmed struct {
	Name, Instance string
	FencedBy       time.Time // by the clock of the service that answers
	Fenced         bool      // that moment has passed
	Open           bool
}

// RedisState is the Redis view, which counts as one reader. AppliedAt is zero
// until it has applied it.
type RedisState struct {
	AppliedAt time.Time
	FencedBy  time.Time
}

// Entry is a committed entry: where and, by the clock of the service that
// committed it, when.
type Entry struct {
	At          revoke.Stamp
	CommittedAt time.Time
}

// waitStep spaces two looks at the whole fleet while reports pour in.
const waitStep = 5 * time.Millisecond

// Wait returns when the entry is complete, or after d, or when ctx ends.
func (f *Fleet) Wait(ctx context.Context, e Entry, d time.Duration) Confirmation {
	return f.wait(ctx, e, d, func(c Confirmation) bool { return c.Complete })
}

func (f *Fleet) wait(ctx context.Context, e Entry, d time.Duration, enough func(Confirmation) bool) (c Confirmation) {
	defer func() { c.sort() }()
	var l look
	end := time.NewTimer(d)
	defer end.Stop()
	for {
		began := time.Now()
		f.mu.Lock()
		var next time.Duration
		c, next = f.confirmLocked(e, f.cfg.Now(), &l)
		changed := f.changed
		f.mu.Unlock()
		if d <= 0 || enough(c) {
			return c
		}
		// The Redis view wakes nobody, and a fence is a moment.
		look := time.NewTimer(min(next, 100*time.Millisecond))
		select {
		case <-ctx.Done():
			look.Stop()
			return c
		case <-end.C:
			d = 0 // one last look
		case <-look.C:
		case <-changed:
			// Of 10,000 guards each look takes a while, with the lock that reports want.
			pause := time.NewTimer(max(waitStep, 4*time.Since(began)))
			select {
			case <-pause.C:
			case <-ctx.Done():
			}
			pause.Stop()
		}
		look.Stop()
	}
}

// sort brings the guards into the order of their names.
func (c *Confirmation) sort() {
	slices.SortFunc(c.Confirmed, func(a, b Confirmed) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Instance, b.Instance))
	})
	slices.SortFunc(c.Unconfirmed, func(a, b Unconfirmed) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Instance, b.Instance))
	})
}

// look is what a wait keeps from one look at the fleet to the next: of 10,000
// guards, which report one after the other, only those that are left are judged
// again. Who has applied an entry has it for good.
type look struct {
	taken       bool
	members     uint64 // of the fleet when it was taken
	left        []*guard
	confirmed   []Confirmed
	unconfirmed []Unconfirmed
}

// begin takes the whole fleet, the first time and whenever its members are others.
func (l *look) begin(f *Fleet) {
	if l.taken && l.members == f.members {
		return
	}
	l.taken, l.members = true, f.members
	l.left, l.confirmed = slices.AppendSeq(l.left[:0], maps.Values(f.guards)), []Confirmed{}
	l.unconfirmed = make([]Unconfirmed, 0, len(l.left))
}

// confirmLocked judges the guards that are left, and returns when the next fence
// falls.
func (f *Fleet) confirmLocked(e Entry, now time.Time, l *look) (Confirmation, time.Duration) {
	l.begin(f)
	c := Confirmation{Complete: true, Epoch: f.epoch, Settled: f.since.Add(f.cfg.MaxLimit), Confirmed: l.confirmed, Unconfirmed: l.unconfirmed[:0]}
	next := time.Hour
	if e.At.Epoch < f.epoch && e.At.Seq > f.begins {
		// Whoever committed it had not heard of this epoch, and it stands in it: one
		// who is in this epoch need not have it.
		e.At.Epoch = f.epoch
	}
	if n := len(f.applied); n == 0 || f.applied[n-1].at.Less(e.At) {
		// It reads the log again, and does not know yet who joined.
		c.Complete, c.behind = false, true
	}
	since := f.sinceLocked(e)
	left := l.left
	l.left = left[:0]
	for _, g := range left {
		if !f.counts(g, e.At, now) {
			continue // time alone never makes it count again
		}
		if when, ok := g.reachedAt(e.At); ok {
			c.Confirmed = append(c.Confirmed, Confirmed{Name: g.name, Instance: g.instance, At: when})
			continue
		}
		u := Unconfirmed{Name: g.name, Instance: g.instance, Open: g.past == wire.PastAllow}
		if !u.Open {
			u.FencedBy = since.Add(f.bound(g))
		}
		if left := u.FencedBy.Sub(now); u.Open || left > 0 {
			c.Complete = false
			if !u.Open {
				next = min(next, left)
			}
		} else {
			u.Fenced = true
		}
		c.Unconfirmed = append(c.Unconfirmed, u)
		l.left = append(l.left, g)
	}
	l.confirmed, l.unconfirmed = c.Confirmed, c.Unconfirmed
	// After a new epoch guards that have not noticed may decide until their limit.
	if left := c.Settled.Sub(now); !f.first && left > 0 {
		c.Complete = false
		next = min(next, left)
	}
	if f.cfg.Redis != nil {
		r := &RedisState{FencedBy: since.Add(f.cfg.ViewLimit)}
		when, ok := f.cfg.Redis.AppliedAt(e.At)
		if ok {
			r.AppliedAt = when
		} else {
			c.Complete = false
		}
		c.Redis = r
	}
	return c, next
}

// maxOff is what the clock of a service may differ from the broker's by while it
// is ready; see package ledger.
const maxOff = wire.Slack / 3

// here returns a moment of this clock that is not before what the broker stored
// at a time of its own, and that was applied now.
func here(now, stored time.Time) time.Time {
	if latest := stored.Add(maxOff); latest.Before(now) {
		return latest // it is read long after
	}
	return now
}

// sinceLocked returns a moment of this clock that is not before the commit. The
// entry names one of another replica's clock, which may be minutes off, and when
// the commit was asked for: it may have been tried for seconds.
func (f *Fleet) sinceLocked(e Entry) time.Time {
	latest := e.CommittedAt.Add(2 * maxOff)
	i := sort.Search(len(f.applied), func(i int) bool { return !f.applied[i].at.Less(e.At) })
	if i < len(f.applied) && f.applied[i].when.Before(latest) {
		return f.applied[i].when
	}
	return latest
}

// bound is how long after a commit the guard may still decide without it.
func (f *Fleet) bound(g *guard) time.Duration {
	if g.past == wire.PastRedis {
		return max(g.limit, f.cfg.ViewLimit)
	}
	return g.limit
}

// counts reports whether the guard can decide below s: it joined before, and is
// not out. Its own out and that of whoever could prove it gone count at once; an
// operator's when the guard has seen it or its limit has passed.
func (f *Fleet) counts(g *guard, s revoke.Stamp, now time.Time) bool {
	if !g.join.Less(s) || f.expired(g, now) {
		return false
	}
	if g.out.IsZero() {
		return true
	}
	if g.outBy != wire.ByOperator || !g.at.Less(g.out) {
		return false
	}
	return g.past == wire.PastAllow || now.Before(g.outAt.Add(f.bound(g)))
}

// expired reports whether nothing is accepted on the guard's join any more.
func (f *Fleet) expired(g *guard, now time.Time) bool {
	return g.past != wire.PastAllow && now.After(g.renewed.Add(wire.JoinLife+wire.Slack+g.limit))
}

// Lacking returns the guards (of one identity, or all) that are not known to
// have applied the entry, as soon as there are none and after d at the latest.
// The error says that this replica can't tell, since it has not read as far.
func (f *Fleet) Lacking(ctx context.Context, e Entry, name string, d time.Duration) ([]Unconfirmed, error) {
	other := func(u Unconfirmed) bool { return name != "" && u.Name != name }
	c := f.wait(ctx, e, d, func(c Confirmation) bool {
		return !c.behind && !slices.ContainsFunc(c.Unconfirmed, func(u Unconfirmed) bool { return !other(u) })
	})
	if c.behind {
		return nil, problem.New(problem.Unavailable, "this replica reads the log again, and has not reached %s; ask again", e.At)
	}
	return slices.DeleteFunc(c.Unconfirmed, other), nil
}

// Guard is one instance as it is listed.
type Guard struct {
	Name, Instance string
	Limit          time.Duration
	Past           string
	State          string // "joined", "fenced" (not heard for longer than its limit), "out"
	At             revoke.Stamp
	JoinedAt       time.Time
	LastSeen       time.Time // zero: not since this replica started
	Silent         time.Duration
	OutBy          string
	OutAt          time.Time
	Bound          time.Duration // after a commit it decides without it no longer than this, unless it allows past its limit
}

// The states of a guard in a list.
const (
	StateJoined = "joined"
	StateFenced = "fenced"
	StateOut    = "out"
)

// List returns all guards, by name and instance.
func (f *Fleet) List() []Guard {
	now := f.cfg.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]Guard, 0, len(f.guards))
	for _, g := range f.guards {
		if f.expired(g, now) {
			continue
		}
		x := Guard{
			Name: g.name, Instance: g.instance, Limit: g.limit, Past: g.past, State: StateJoined, At: g.at.Stamp,
			JoinedAt: g.joined, LastSeen: g.seen, OutBy: g.outBy, OutAt: g.outAt, Bound: f.bound(g),
		}
		heard := g.seen
		if heard.IsZero() {
			heard = g.renewed
		}
		x.Silent = max(now.Sub(heard), 0)
		switch {
		case !g.out.IsZero():
			x.State = StateOut
		case x.Silent > f.bound(g):
			x.State = StateFenced
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b Guard) int {
		return strings.Compare(a.Name+"/"+a.Instance, b.Name+"/"+b.Instance)
	})
	return out
}

// Find returns the guard with this instance.
func (f *Fleet) Find(instance string) (Guard, bool) {
	for _, g := range f.List() {
		if g.Instance == instance {
			return g, true
		}
	}
	return Guard{}, false
}
