package ledger

import (
	"context"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// While the service runs there is a tick at least with every probe of its own
// guard, each 5 s. A restore leaves a silence: the time between the backup and the
// first message after it.
const (
	silent = 10 * time.Second
	lately = tickLife
)

// quiet finds the first silence of the last hour among the messages of a log,
// which are shown in their order.
type quiet struct {
	since time.Time // an hour ago: older ticks, which would show a silence, have ended

	old, last revoke.Stamp // old: the newest of before since
	lastAt    time.Time
	found     bool
	d         revoke.Stamp
}

func (q *quiet) see(pos revoke.Stamp, at time.Time) {
	switch {
	case at.Before(q.since):
		q.old = pos
	case q.found || q.last.IsZero(): // a log begins with its first epoch, not with a silence
	case at.Sub(q.after()) >= silent:
		q.found, q.d = true, q.last
	}
	q.last, q.lastAt = pos, at
}

// after is when the silence before the next message can have begun.
func (q *quiet) after() time.Time {
	if q.lastAt.Before(q.since) {
		return q.since
	}
	return q.lastAt
}

// shared is the last position before the silence; without one it is the newest
// that is older than an hour. Rather too low than too high: what is above it
// counts as lost.
func (q *quiet) shared() revoke.Stamp {
	if q.found {
		return q.d
	}
	return q.old
}

// sharedUntil returns the last position that the log had when a backup was made;
// zero: where nobody says when that was, it is the one before the log's silence.
func (l *Ledger) sharedUntil(ctx context.Context, backup time.Time) (revoke.Stamp, error) {
	q := quiet{since: l.cfg.Now().Add(-lately)}
	var until revoke.Stamp
	var here uint64
	_, seen := l.current()
	err := l.read(ctx, 1, seen, func(s wire.Stored, _ string) error {
		s = placed(s, here)
		here = max(here, s.Message.Epoch)
		at, pos := time.UnixMilli(s.Time), s.Position().Stamp
		q.see(pos, at)
		if !at.After(backup) {
			until = pos
		}
		return nil
	})
	if backup.IsZero() {
		return q.shared(), err
	}
	return until, err
}
