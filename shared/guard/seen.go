package guard

import (
	"context"
	"math"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/wire"
)

// questioned is a reader by which questions to the whole fleet come; *follow.Reader is one.
type questioned interface {
	// Questions has each answered until ctx ends. The instance is filled in.
	Questions(ctx context.Context, answer func(wire.Question) wire.Seen) error
}

// remember notes whose token was accepted: once in an hour, while it is in the cache.
func (g *Guard) remember(v *verified, now time.Time) {
	if hour := g.seen.Hour(now); v.seenIn.Load() != hour {
		g.seen.Note(hour, v.targets)
		v.seenIn.Store(hour)
	}
}

// answer says whether any of the targets was among those of the tokens that this guard
// accepted in the last day.
func (g *Guard) answer(q wire.Question) wire.Seen {
	now := g.opts.now()
	any, wrong := g.seen.Any(now, q.Targets)
	return wire.Seen{
		Question: q.ID, Seen: any, ForMS: g.seen.For(now).Milliseconds(),
		WrongPPM: min(int64(math.Ceil(wrong*wire.Million)), wire.Million),
	}
}

// answerQuestions does so until ctx ends. Whoever asks counts a guard that does not answer
// as one that has not said.
func (g *Guard) answerQuestions(ctx context.Context, r Reader) {
	q, ok := r.(questioned)
	if !ok {
		return
	}
	if err := q.Questions(ctx, g.answer); err != nil && ctx.Err() == nil {
		g.opts.log.Warn("nobody is told whose tokens were accepted: a preview shows this server as one that has not said", zap.Error(err))
	}
}
