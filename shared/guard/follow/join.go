package follow

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

const (
	joinTimeout = 5 * time.Second
	outTimeout  = 2 * time.Second
	joinRenewal = 24 * time.Hour
	firstRejoin = time.Second
	lastRejoin  = 15 * time.Second
)

// joinState belongs to state.
type joinState struct {
	limit time.Duration // as it should be
	past  string

	epoch     uint64 // that of the join that was seen; 0: none, or an out after it
	seenLimit time.Duration
	seenPast  string
	at        instant // when the first try of it was sent: it is not younger than that

	asked bool    // ever
	first instant // of the tries since the last join was seen; zero: none
	next  instant // no try before that
	tries int
}

// SetLimit changes the largest staleness with which anything is decided, and
// what is done past it. A larger limit or another way counts only after another
// join; until then Status tells the old ones.
func (r *Reader) SetLimit(limit time.Duration, past string) error {
	if err := checkLimit(limit, past); err != nil {
		return fmt.Errorf("follow: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.join.limit, r.join.past = limit, past
	r.publish()
	kick(r.kickJoin)
	kick(r.kickProbe)
	return nil
}

// allowed returns the limit and the way past it that the reader may use: not
// more than its join says. The caller holds mu.
func (r *Reader) allowed() (time.Duration, string) {
	j := &r.join
	if j.seenPast == "" || r.cfg.NoJoin {
		return j.limit, j.past
	}
	return min(j.limit, j.seenLimit), j.seenPast
}

// limit is the first of allowed. The caller holds mu.
func (r *Reader) limit() time.Duration {
	limit, _ := r.allowed()
	return limit
}

// isJoined reports whether the watermark has passed a join in this epoch. Its
// age is for check to judge.
func (r *Reader) isJoined() bool {
	return r.cfg.NoJoin || r.join.epoch != 0 && r.join.epoch == r.pos.Epoch
}

// unjoin forgets the join, since an out that came after it may have been passed
// by: a whole state says nothing of the fleet, and a tail nothing of what has
// come to its end.
func (r *Reader) unjoin() {
	r.join.epoch = 0
	kick(r.kickJoin)
}

func (r *Reader) joinLoop(ctx context.Context, _ *sync.WaitGroup) {
	if r.cfg.NoJoin {
		return
	}
	for {
		p, req, wait := r.planJoin()
		if p != nil {
			r.runJoin(ctx, p, req)
			continue
		}
		if !sleep(ctx, wait, r.kickJoin) {
			return
		}
	}
}

// planJoin returns a join to send now, or how long to wait.
func (r *Reader) planJoin() (*probe, wire.JoinRequest, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	j, now := &r.join, r.now()
	if !r.loaded || !r.complete() {
		return nil, wire.JoinRequest{}, time.Hour // kicked once it is
	}
	var wait time.Duration
	if r.isJoined() && j.limit <= j.seenLimit && j.past == j.seenPast {
		wait = min(joinRenewal-now.since(j.at), time.Hour)
	}
	if j.tries > 0 {
		wait = max(wait, j.next.until(now))
	}
	if wait > 0 {
		return nil, wire.JoinRequest{}, wait
	}
	if j.tries == 0 {
		j.first = now
	}
	j.tries++
	j.asked = true
	backoff := min(firstRejoin<<min(j.tries-1, 10), lastRejoin)
	j.next = now.add(backoff/2 + r.jitter(backoff/2))
	// A join is a first probe: its number 0 is above no caller of Fresh, since one
	// may have asked meanwhile.
	return &probe{sent: now, asked: r.pos, over: make(chan struct{})},
		wire.JoinRequest{Instance: r.instance, LimitMS: int64((j.limit + time.Millisecond - 1) / time.Millisecond), Past: j.past}, 0
}

func (r *Reader) runJoin(ctx context.Context, p *probe, req wire.JoinRequest) {
	asking, cancel := context.WithTimeout(ctx, joinTimeout)
	ans, err := r.cfg.Source.Join(asking, req)
	cancel()
	switch {
	case err != nil:
	case ans.Error != nil:
		err = ans.Error
	case ans.Position.ID == "" || ans.Position.Check() != nil:
		err = fmt.Errorf("%w: a join without a position", errMalformed)
	}
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		r.setWaiting("join the fleet", err)
		return
	}
	r.mu.Lock()
	p.tick = ans.Position.Position()
	r.await(p)
	r.publish()
	r.mu.Unlock()
	r.overdue(ctx, p)
}

// seeGuard takes a join or out of the log. Only those of this instance matter to
// a reader. That its join is there is enough, whether or not the answer came.
func (r *Reader) seeGuard(m wire.Message, here revoke.Stamp) {
	j := &r.join
	if m.Instance != r.instance || r.cfg.NoJoin {
		return
	}
	if m.Kind == wire.KindOut {
		r.log.Warn("put out of the fleet; nothing is accepted until the next join", zap.String("by", m.By))
		j.epoch = 0
		kick(r.kickJoin)
		return
	}
	j.epoch, j.seenLimit, j.seenPast = here.Epoch, time.Duration(m.LimitMS)*time.Millisecond, m.Past
	if j.tries > 0 {
		j.at, j.tries, j.first = j.first, 0, instant{}
	}
	r.reportSoon()
	kick(r.kickJoin)
	kick(r.kickProbe)
}
