package follow

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/wire"
)

// How probes are spaced. An idle reader sends one each third of its limit: with
// the default limit of 15 s, 5 s, that is 0.2 requests and 0.2 answers a second
// of its own; besides, it hears the ticks of the feed, up to one a second for
// each revocation replica however large the fleet is, since one tick serves all.
// Nothing else is sent while nothing is revoked, but one join a day.
const (
	probeTimeout = 3 * time.Second
	// The service gathers ordinary probes for up to 1 s, so one is not unanswered
	// before twice that.
	repeatOrdinary = 2 * time.Second
	repeatUrgent   = time.Second
	gatherTime     = time.Second
	// freshSpacing is how long callers of Fresh are gathered while a probe for
	// earlier ones is on its way.
	freshSpacing = 20 * time.Millisecond
	// tickPatience is how long an announced tick may take on the feed.
	tickPatience   = 150 * time.Millisecond
	maxProbes      = 8 // on their way at once
	silencePatient = 5 * time.Second
)

// probe is one request for a tick.
type probe struct {
	number uint64
	sent   instant // t0, read before it was sent
	urgent bool
	asked  wire.Position // where the reader was then
	tick   wire.Position // once answered
	over   chan struct{} // closed when nothing is expected of it any more
}

// probeState belongs to state.
type probeState struct {
	proved  bool    // in this epoch
	proof   instant // t0 of the newest probe that was proved
	number  uint64  // of the newest probe that was sent
	sent    instant // when
	urgent  bool    // whether that was urgent
	missed  int     // how many were sent since the last proof
	flying  int     // how many are on their way
	fresh   instant // when the last one for callers of Fresh was sent
	silence instant // when a sync was last wanted because of silence
	pending []*probe
	waiters []*waiter
}

// waiter is a caller of Fresh: any probe above number satisfies it.
type waiter struct {
	number uint64
	done   chan struct{}
}

func (p *probeState) waited() bool { return len(p.waiters) > 0 }

// Fresh proves by a probe of its own that everything committed before the call
// is in the view, or returns the error of ctx. Calls at the same time share a
// probe that is sent after they were made.
func (r *Reader) Fresh(ctx context.Context) error {
	r.mu.Lock()
	w := &waiter{number: r.probes.number, done: make(chan struct{})}
	r.probes.waiters = append(r.probes.waiters, w)
	r.mu.Unlock()
	kick(r.kickProbe)
	select {
	case <-w.done:
		r.mu.Lock() // until what was proved is published: Check must tell it from here on
		defer r.mu.Unlock()
		return nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, o := range r.probes.waiters {
		if o == w {
			r.probes.waiters = append(r.probes.waiters[:i], r.probes.waiters[i+1:]...)
			return fmt.Errorf("waiting for the answer to a probe: %w", context.Cause(ctx))
		}
	}
	return nil // answered just now
}

func (r *Reader) probeLoop(ctx context.Context, tasks *sync.WaitGroup) {
	for {
		p, wait := r.planProbe()
		if p != nil {
			tasks.Go(func() { r.runProbe(ctx, p) })
			continue
		}
		if !sleep(ctx, wait, r.kickProbe) {
			return
		}
	}
}

// pastHalf reports whether the view is older than half of the limit. The caller
// holds mu.
func (r *Reader) pastHalf() bool {
	return r.probes.proved && r.now().since(r.probes.proof) > r.limit()/2
}

// planProbe returns a probe to send now, or how long to wait for the next.
func (r *Reader) planProbe() (*probe, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, now := &r.probes, r.now()
	switch {
	case !r.loaded:
		return nil, time.Hour // kicked once there is a position to ask from
	case s.flying >= maxProbes:
		return nil, freshSpacing
	}
	wait, urgent := r.nextProbe(now)
	if wait > 0 {
		return nil, min(wait, 2*time.Second) // the machine may sleep meanwhile, and timers with it
	}
	s.number++
	s.missed++
	s.flying++
	s.sent, s.urgent = now, urgent
	if s.waited() {
		s.fresh = now
	}
	r.minded(now)
	r.reported()
	return &probe{number: s.number, sent: now, urgent: urgent, asked: r.pos, over: make(chan struct{})}, 0
}

// nextProbe returns how long to wait for the next probe, and whether that one is
// urgent.
func (r *Reader) nextProbe(now instant) (wait time.Duration, urgent bool) {
	s, limit := &r.probes, r.limit()
	quiet := s.number == 0 || s.sent.before(s.proof) || s.sent == s.proof // nothing is awaited
	wait = limit/3 - now.since(s.proof)
	switch half := limit/2 - now.since(s.proof); {
	case !s.proved && s.number == 0:
		wait, urgent = 0, true
	case !s.proved:
		wait, urgent = repeatUrgent-now.since(s.sent), true
	case quiet:
		// With a small limit an answer that was gathered would come past half of it.
		urgent = half <= 0 || limit/6 < gatherTime
	case s.urgent:
		wait, urgent = repeatUrgent-now.since(s.sent), half <= 0 || s.waited()
	default:
		wait = repeatOrdinary - now.since(s.sent)
		if half < wait {
			wait, urgent = half, true
		}
	}
	if n := len(s.waiters); n > 0 && s.waiters[n-1].number == s.number {
		if fresh := freshSpacing - now.since(s.fresh); s.flying == 0 || fresh < 0 {
			return 0, true
		} else if fresh < wait {
			return fresh, true
		}
	}
	return wait, urgent
}

// minded wants a sync when probes go unanswered: the connection may be up and
// the feed dead, or another replica may know more.
func (r *Reader) minded(now instant) {
	s := &r.probes
	if s.missed > 3 && (s.silence == instant{} || now.since(s.silence) > silencePatient) {
		s.silence = now
		r.want(wantSilence)
	}
}

func (r *Reader) runProbe(ctx context.Context, p *probe) {
	r.mu.Lock()
	req := wire.ProbeRequest{Instance: r.instance, Position: p.asked.JSON(), Urgent: p.urgent}
	if r.back != nil {
		req.Recent = r.shown()
	}
	r.mu.Unlock()
	asking, cancel := context.WithTimeout(ctx, probeTimeout)
	ans, err := r.cfg.Source.Probe(asking, req)
	cancel()
	switch {
	case err != nil:
	case ans.Error != nil:
		err = ans.Error
	case ans.Tick.ID == "" || ans.Tick.Check() != nil:
		err = fmt.Errorf("%w: a tick without a position", errMalformed)
	}
	r.mu.Lock()
	r.probes.flying--
	if err == nil {
		p.tick = ans.Tick.Position()
		r.report.spread = min(max(time.Duration(ans.SpreadMS)*time.Millisecond, 0), maxSpread)
		r.await(p)
		r.publish()
	}
	r.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case err == nil:
		r.overdue(ctx, p)
	case ans.Error != nil && ans.Error.Code == codeWentBack:
		r.refused(p.asked.Epoch)
	default:
		r.setWaiting("probe", err)
	}
}

// codeWentBack is the code of a refusal that says that the log does not hold
// the reader's position.
const codeWentBack = "log_went_back"

// refused hears that the service's log does not hold the position that was asked
// with, which was of this epoch.
func (r *Reader) refused(epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loaded && r.back == nil && epoch == r.pos.Epoch && r.sync.load == nil {
		r.wentBack(r.pos.Seq, "the service does not have this position")
	}
	r.publish()
}

// await takes the answer to a probe: the tick counts once it is applied.
func (r *Reader) await(p *probe) {
	if p.tick.Epoch == p.asked.Epoch && p.tick.Seq <= p.asked.Seq {
		close(p.over)
		if r.loaded && r.pos.Epoch == p.asked.Epoch {
			r.wentBack(p.tick.Seq, "a tick was committed at or below what had been read before")
		}
		return
	}
	r.probes.pending = append(r.probes.pending, p)
	r.provePending()
}

// provePending looks which of the announced ticks were applied.
func (r *Reader) provePending() {
	pending := r.probes.pending
	r.probes.pending = pending[:0:0]
	for i, p := range pending {
		if r.stillPending(p) {
			r.probes.pending = append(r.probes.pending, p)
			continue
		}
		close(p.over)
		if r.back != nil {
			for _, o := range pending[i+1:] {
				close(o.over)
			}
			r.probes.pending = nil
			return
		}
	}
}

// stillPending reports whether the tick of p may yet come; if not, the probe was
// proved or has proved something else.
func (r *Reader) stillPending(p *probe) bool {
	switch {
	case p.tick.Epoch > r.pos.Epoch, p.tick.Epoch == r.pos.Epoch && p.tick.Seq > r.pos.Seq:
		return true
	case p.tick.Epoch < r.pos.Epoch:
		return false
	}
	have, ok := r.recent.at(p.tick.Seq)
	switch {
	case !ok:
		// A whole state passed it by, so nothing shows that it holds the tick: ask again.
		if p.number == r.probes.number {
			r.probes.sent = instant{wall: r.probes.sent.wall - int64(repeatOrdinary), mono: r.probes.sent.mono - int64(repeatOrdinary)}
		}
		kick(r.kickProbe)
	case have.id != p.tick.ID:
		r.wentBack(p.tick.Seq, "a tick has another message in its place")
	default:
		r.prove(p, have.time)
	}
	return false
}

// prove takes a probe whose tick was applied: everything committed before it was
// sent is in the view.
func (r *Reader) prove(p *probe, brokerTime int64) {
	s, now := &r.probes, r.now()
	if !s.proved || s.proof.before(p.sent) {
		s.proved, s.proof = true, p.sent
	}
	if p.number != 0 {
		s.missed = 0
	}
	r.compareClocks(p, brokerTime, now)
	kept := s.waiters[:0]
	for _, w := range s.waiters {
		if p.number > w.number {
			close(w.done)
		} else {
			kept = append(kept, w)
		}
	}
	clear(s.waiters[len(kept):])
	s.waiters = kept
	kick(r.kickProbe)
}

// compareClocks holds this machine's wall clock against the time at which the
// broker stored a tick: that lies between t0 and now.
func (r *Reader) compareClocks(p *probe, brokerTime int64, now instant) {
	broker := time.UnixMilli(brokerTime).UnixNano()
	var off time.Duration
	switch {
	case broker < p.sent.wall:
		off = time.Duration(p.sent.wall - broker)
	case broker > now.wall:
		off = time.Duration(broker - now.wall)
	}
	wrong := off > wire.Slack/3
	if wrong != (r.clock != nil) {
		r.clock = nil
		if wrong {
			r.clock = ErrClock
			r.log.Error("this machine's clock differs from the broker's; nothing is accepted", zap.Duration("by", off))
		}
	}
	r.broker = brokerTime
}

// unprove forgets every proof: it was of another history.
func (r *Reader) unprove() {
	s := &r.probes
	s.proved, s.proof = false, instant{}
	for _, p := range s.pending {
		if p.tick.Epoch < r.top { // one of the new epoch is still good
			close(p.over)
		}
	}
	kept := s.pending[:0:0]
	for _, p := range s.pending {
		if p.tick.Epoch >= r.top {
			kept = append(kept, p)
		}
	}
	s.pending = kept
}

// overdue wants a sync when a tick that was announced does not come: it may have
// been the only message that was lost.
func (r *Reader) overdue(ctx context.Context, p *probe) {
	t := time.NewTimer(tickPatience + r.jitter(tickPatience))
	defer t.Stop()
	select {
	case <-p.over:
		return
	case <-ctx.Done():
		return
	case <-t.C:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.probes.pending {
		if o == p {
			r.want(wantTick)
			return
		}
	}
}
