package follow

import (
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Status is what a reader knows of itself.
type Status struct {
	Instance string
	Joined   bool // part of the fleet, in this epoch
	Complete bool // the view lacks nothing up to Position
	Synced   bool // the feed goes on from Position without a gap

	Position wire.Position // the watermark
	Stamp    revoke.Stamp

	// Staleness is meaningful if StalenessKnown: a probe was proved in this epoch.
	Staleness      time.Duration
	StalenessKnown bool

	// Limit and Past are those with which the reader may decide now: see SetLimit.
	Limit time.Duration
	Past  string

	// Reason is what Check says.
	Reason error
	// Waiting is what the reader waits for or fails at, for people; empty if nothing.
	Waiting string
}

// snapshot is what the lock-free methods see: one moment of the state, never
// changed once it is published.
type snapshot struct {
	err      error // nothing may be accepted
	stopped  bool
	pos      wire.Position
	stamp    revoke.Stamp
	proved   bool
	proof    instant // t0 of the newest proved probe
	joined   bool
	joinAt   instant // when the join that counts was asked for
	joinEnds bool    // it counts for wire.JoinLife only
	complete bool
	synced   bool
	limit    time.Duration
	past     string
	waiting  string
}

// publish makes the state visible, and then wakes whoever waits for it. The
// caller holds mu (or is New).
func (r *Reader) publish() {
	limit, past := r.allowed()
	s := &snapshot{
		err: r.verdict(), stopped: r.stopped,
		pos: r.pos, stamp: r.stamp, proved: r.probes.proved, proof: r.probes.proof,
		joined: r.isJoined(), joinAt: r.join.at, joinEnds: !r.cfg.NoJoin && r.join.seenPast != wire.PastAllow,
		complete: r.complete(), synced: r.following,
		limit: limit, past: past, waiting: r.waiting,
	}
	r.snap.Store(s)
	r.moved.send()
}

// complete reports whether the view lacks nothing up to the position.
func (r *Reader) complete() bool { return r.loaded && r.back == nil && r.unread == nil }

// verdict returns why nothing may be accepted, nil if something may.
func (r *Reader) verdict() error {
	switch {
	case r.stopped:
		return ErrStopped
	case !r.loaded && r.pos.Epoch == 0:
		return ErrNotStarted
	case !r.loaded:
		return ErrNewEpoch
	case r.back != nil:
		return ErrWentBack
	case r.unread != nil:
		return ErrUnknown
	case !r.isJoined():
		return ErrNotJoined
	case r.clock != nil:
		return r.clock
	case !r.probes.proved:
		return ErrUnproved
	}
	return nil
}

// Check returns an upper bound of the view's staleness. With an error nothing
// may be accepted, whatever the staleness. It does not allocate and never waits.
func (r *Reader) Check() (staleness time.Duration, err error) {
	return r.CheckAt(r.cfg.Now())
}

// CheckAt is Check for a caller who has just read the wall clock.
func (r *Reader) CheckAt(now time.Time) (staleness time.Duration, err error) {
	s := r.snap.Load()
	return s.check(r.at(now))
}

func (s *snapshot) check(now instant) (staleness time.Duration, err error) {
	if s.proved {
		staleness = now.since(s.proof)
	}
	if s.err == nil && s.joinEnds && now.since(s.joinAt) >= wire.JoinLife {
		return staleness, ErrNotJoined
	}
	return staleness, s.err
}

// Status returns what the reader knows of itself.
func (r *Reader) Status() Status {
	s := r.snap.Load()
	staleness, err := s.check(r.now())
	return Status{
		Instance: r.instance, Joined: s.joined, Complete: s.complete, Synced: s.synced,
		Position: s.pos, Stamp: s.stamp, Staleness: staleness, StalenessKnown: s.proved,
		Limit: s.limit, Past: s.past, Reason: err, Waiting: s.waiting,
	}
}
