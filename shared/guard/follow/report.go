package follow

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/wire"
)

const (
	reportTimeout = 2 * time.Second
	// reportSpacing is the least time between two reports of a reader.
	reportSpacing = 250 * time.Millisecond
	// maxSpread bounds what a service may ask for: the next probe tells as much.
	maxSpread = 5 * time.Second
	dropEvery = time.Minute
)

// reportState belongs to state.
type reportState struct {
	due    bool
	last   instant       // when the last one was sent
	spread time.Duration // over how long the service wants its fleet's reports spread
}

// reportSoon says that there is something to report. The caller holds mu.
func (r *Reader) reportSoon() {
	if r.cfg.NoJoin || r.report.due {
		return
	}
	r.report.due = true
	kick(r.kickReport)
}

// reported says that a probe tells the position now, which spares the report that
// was to do so. If the probe is lost it is repeated, and a report would not be. The
// caller holds mu.
func (r *Reader) reported() {
	if r.isJoined() { // the fleet listens to nobody else
		r.report.due = false
	}
}

// reportLoop tells the service how far the log was applied, soon after an entry:
// the first at once, more of them together. Where the fleet is large the service
// names a time over which its readers spread their reports.
func (r *Reader) reportLoop(ctx context.Context, _ *sync.WaitGroup) {
	if r.cfg.NoJoin {
		return
	}
	for {
		r.mu.Lock()
		due, spread := r.report.due, r.report.spread
		wait := reportSpacing - r.now().since(r.report.last)
		if r.report.last == (instant{}) {
			wait = 0
		}
		r.mu.Unlock()
		switch {
		case !due:
			if !sleep(ctx, time.Hour, r.kickReport) {
				return
			}
			continue
		case !sleep(ctx, max(wait, 0)+r.jitter(spread), nil):
			return
		}
		r.mu.Lock()
		due = r.report.due
		report, joined := wire.Report{Instance: r.instance, Position: r.pos.JSON()}, r.isJoined()
		if due {
			r.report.due, r.report.last = false, r.now()
		}
		r.mu.Unlock()
		if !due {
			continue // a probe has told it meanwhile
		}
		if !joined {
			continue // the fleet does not know us yet; the join makes us report
		}
		sending, cancel := context.WithTimeout(ctx, reportTimeout)
		err := r.cfg.Source.Report(sending, report)
		cancel()
		if err != nil && ctx.Err() == nil {
			r.log.Debug("report not sent; the next probe tells as much", zap.Error(err))
		}
	}
}

// AttemptsSource is a Source that takes reports of attempts. One that does not is of
// an older version, and nobody is told.
type AttemptsSource interface {
	Attempts(ctx context.Context, report wire.AttemptsReport) error
}

// TellAttempts reports who still tries with what was cut, in the name of this reader.
func (r *Reader) TellAttempts(ctx context.Context, list []wire.Attempts) error {
	source, ok := r.cfg.Source.(AttemptsSource)
	if !ok {
		return nil
	}
	return source.Attempts(ctx, wire.AttemptsReport{Instance: r.instance, Attempts: list})
}

// RunningSource is a Source that takes reports of requests that still run. One that does
// not is of an older version, and nobody is told.
type RunningSource interface {
	Running(ctx context.Context, report wire.RunningReport) error
}

// TellRunning reports how many requests go on that were admitted with what was cut since,
// in the name of this reader.
func (r *Reader) TellRunning(ctx context.Context, list []wire.Running) error {
	source, ok := r.cfg.Source.(RunningSource)
	if !ok {
		return nil
	}
	return source.Running(ctx, wire.RunningReport{Instance: r.instance, Running: list})
}

// Spread returns how long to wait with a report, of the time over which the service
// wants those of its fleet spread.
func (r *Reader) Spread() time.Duration {
	r.mu.Lock()
	spread := r.report.spread
	r.mu.Unlock()
	return r.jitter(spread)
}

// dropLoop forgets what nothing can be hit by any more.
func (r *Reader) dropLoop(ctx context.Context, _ *sync.WaitGroup) {
	for sleep(ctx, dropEvery, nil) {
		r.mu.Lock()
		if now, ok := r.surely(); ok {
			r.view.Drop(now)
		}
		r.mu.Unlock()
	}
}

// surely returns a time, in Unix seconds, that has certainly come: by this
// machine's clock, against which exp is held too, and by the broker's. Were only
// one of them asked, a clock that ran ahead for a while would have thrown away
// what still hits once it is set right.
func (r *Reader) surely() (int64, bool) {
	wall := r.now().wall / int64(time.Second)
	return min(wall, r.broker/1000), r.broker != 0
}
