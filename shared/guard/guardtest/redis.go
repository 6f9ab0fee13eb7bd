package guardtest

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Redis returns a Redis view of this log, for guard.WithRedis: always at its
// head, also while the log's readers are disconnected.
func (q *Quash) Redis() *Redis { return &Redis{q: q} }

// Redis is a guard.Denylist.
type Redis struct {
	q   *Quash
	cut atomic.Bool
}

// Disconnect makes the view incomplete: it does not follow the log any more.
func (r *Redis) Disconnect() { r.cut.Store(true) }

// Reconnect ends Disconnect.
func (r *Redis) Reconnect() { r.cut.Store(false) }

// Check implements guard.Denylist.
func (r *Redis) Check(_ context.Context, query denylist.Query) (denylist.Result, error) {
	st := r.Status()
	res := denylist.Result{Position: st.Position}
	epochs := r.q.view.Epochs()
	for i, k := range query.Keys {
		s := r.q.view.State(k)
		hit := s.Hits(query.Stamp, epochs)
		if query.Foreign {
			hit = s.HitsAt(query.IssuedAt, query.Skew, epochs)
		}
		if hit {
			res.Outcome, res.Key, res.Index, res.State = denylist.Hit, k, i, s
			return res, nil
		}
	}
	switch {
	case !st.Complete:
		return res, st.Reason
	case !query.Foreign && st.Position.Stamp.Less(query.Stamp):
		return res, denylist.ErrBehind
	}
	res.Outcome = denylist.Clean
	return res, nil
}

// Know implements guard.Denylist.
func (r *Redis) Know(revoke.Stamp) {}

// Run implements guard.Denylist.
func (r *Redis) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Status implements guard.Denylist.
func (r *Redis) Status() denylist.Status {
	if r.cut.Load() {
		return denylist.Status{Reason: fmt.Errorf("%w: %w", denylist.ErrIncomplete, errCut)}
	}
	return denylist.Status{Complete: true, Position: r.q.head()}
}

func (q *Quash) head() wire.Position {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.messages[len(q.messages)-1].Position()
}
