package ledger

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// askEvery is how soon a question is asked once more while it has no answer. One that
// is asked while the log has no leader never gets any, so this is also how late
// the first one comes that a new leader hears.
const askEvery = 200 * time.Millisecond

// repeating asks, again each askEvery, until one of the questions is answered (an error
// is an answer too) or ctx ends: for what may be asked any number of times. A question
// that was overtaken goes on being waited for, since a busy broker may need longer.
func repeating[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	type answer struct {
		is  T
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first := make(chan answer, 1)
	again := time.NewTicker(askEvery)
	defer again.Stop()
	for {
		go func() {
			is, err := ask(ctx)
			select {
			case first <- answer{is, err}:
			default: // another one was first
			}
		}()
		select {
		case a := <-first:
			return a.is, a.err
		case <-again.C:
		case <-ctx.Done():
			var none T
			return none, context.Cause(ctx)
		}
	}
}

// vanished reports whether the stream was deleted. One that only has no leader
// now answers otherwise, or not at all. Nothing of the feed is applied meanwhile.
func (l *Ledger) vanished(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.TryTimeout)
	defer cancel()
	gone, err := repeating(ctx, func(ctx context.Context) (bool, error) { return l.broker.Gone(ctx), nil })
	return err == nil && gone
}

// mostPause is the longest pause between two tries of what can't be done now.
const mostPause = 300 * time.Millisecond

// untilDone tries until it is done (true) or ctx ends.
func (l *Ledger) untilDone(ctx context.Context, what string, fn func(context.Context) error) bool {
	for try := 1; ctx.Err() == nil; try++ {
		tryCtx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		err := fn(tryCtx)
		cancel()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			break
		}
		l.notReady("it waits to %s: %s", what, err)
		if try&(try-1) == 0 { // the first of them, and ever fewer
			l.log.Warn("waiting to "+what, zap.Error(err), zap.Int("try", try))
		}
		pause(ctx, min(time.Duration(try)*100*time.Millisecond, mostPause))
	}
	return false
}
