package ledger

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// tickLife is how long a tick stays in the log.
const tickLife = time.Hour

// maxTicking bounds the ticks whose acknowledgement is waited for: with a broker
// that does not answer, one more proves nothing.
const maxTicking = 8

// ticks gathers those who ask for a proof of the log's head. One tick serves all
// who had asked before it was sent; who asks later waits for the next. A tick
// whose outcome is not known answers nobody.
type ticks struct {
	commit           func(context.Context) (wire.Position, error)
	ordinary, urgent time.Duration
	log              *zap.Logger

	mu      sync.Mutex
	waiting []chan<- tickResult
	timer   *time.Timer
	due     time.Time // of timer; zero: none is set
	flying  int
	closed  bool
	done    sync.WaitGroup
}

type tickResult struct {
	at  wire.Position
	err error
}

// ask returns the position of a tick that was committed after the call began.
func (t *ticks) ask(ctx context.Context, urgent bool) (wire.Position, error) {
	ch := make(chan tickResult, 1)
	within := t.ordinary
	if urgent {
		within = t.urgent
	}
	if !t.arm(within, ch) {
		return wire.Position{}, errStopped
	}
	select {
	case r := <-ch:
		return r.at, r.err
	case <-ctx.Done():
		return wire.Position{}, context.Cause(ctx)
	}
}

// soon makes a tick follow what was just committed, so that readers notice when
// that was lost on the feed.
func (t *ticks) soon() { t.arm(t.ordinary, nil) }

// arm makes the next tick go out within d at the latest.
func (t *ticks) arm(d time.Duration, ch chan<- tickResult) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	if ch != nil {
		t.waiting = append(t.waiting, ch)
	}
	due := time.Now().Add(d) // for a timer, never compared with anybody's time
	if !t.due.IsZero() && !due.Before(t.due) {
		return true
	}
	t.due = due
	if t.timer == nil {
		t.timer = time.AfterFunc(d, t.fire)
	} else {
		t.timer.Reset(d)
	}
	return true
}

func (t *ticks) fire() {
	t.mu.Lock()
	if t.closed || t.due.IsZero() {
		t.mu.Unlock()
		return
	}
	t.due = time.Time{}
	waiting := t.waiting
	t.waiting = nil
	if t.flying >= maxTicking {
		t.mu.Unlock()
		answer(waiting, tickResult{err: errBusyTicks})
		return
	}
	t.flying++
	t.done.Add(1)
	t.mu.Unlock()

	at, err := t.commit(context.Background()) // bounded by the publish's own timeout
	if err != nil {
		t.log.Warn("a tick was not acknowledged; whoever asked asks again", zap.Error(err))
		err = problem.Wrap(problem.Unavailable, err, "the log does not acknowledge; nothing proves its head")
	}
	answer(waiting, tickResult{at: at, err: err})

	t.mu.Lock()
	t.flying--
	t.mu.Unlock()
	t.done.Done()
}

func answer(waiting []chan<- tickResult, r tickResult) {
	for _, ch := range waiting {
		ch <- r // has room for one
	}
}

// close refuses whoever waits and lets the tick in flight end.
func (t *ticks) close() {
	t.mu.Lock()
	t.closed = true
	if t.timer != nil {
		t.timer.Stop()
	}
	waiting := t.waiting
	t.waiting = nil
	t.mu.Unlock()
	answer(waiting, tickResult{err: errStopped})
	t.done.Wait()
}

var (
	errStopped   = problem.Wrap(problem.Unavailable, errors.New("stopped"), "the service is stopping; ask another replica")
	errBusyTicks = problem.Wrap(problem.Unavailable, errors.New("too many ticks in flight"), "the log does not acknowledge; nothing proves its head")
)

// commitTick publishes one tick.
func (l *Ledger) commitTick(ctx context.Context) (wire.Position, error) {
	id, err := wire.NewID(l.cfg.Rand)
	if err != nil {
		return wire.Position{}, err
	}
	m := wire.Message{Kind: wire.KindTick, ID: id}
	l.clock.sending(id)
	return l.publish(ctx, outgoing{subject: wire.LogTick, message: m, ttl: tickLife})
}

// Tick returns the position of a tick that was committed after the call: proof
// that whoever has applied it is as fresh as the moment of the call. It is
// answered from the acknowledgement alone.
func (l *Ledger) Tick(ctx context.Context, urgent bool) (wire.Position, error) {
	if err := l.Ready(); err != nil {
		return wire.Position{}, err
	}
	return l.ticks.ask(ctx, urgent)
}

// Fresh returns once this service's own view has applied a tick that was asked
// for after the call.
func (l *Ledger) Fresh(ctx context.Context) error {
	at, err := l.Tick(ctx, true)
	if err != nil {
		return err
	}
	return l.WaitApplied(ctx, at.Stamp)
}
