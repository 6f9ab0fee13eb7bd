package follow

import (
	"context"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/wire"
)

// QuestionFeed is a Feed that also brings questions to all guards. One that does not is
// of an older version, and nobody is answered.
type QuestionFeed interface {
	// Questions delivers each that comes until stop is called, one at a time.
	Questions(deliver func(wire.Question)) (stop func(), err error)
}

// SeenSource is a Source that takes answers to them.
type SeenSource interface {
	Seen(ctx context.Context, replica string, answer wire.Seen) error
}

// maxQuestions is how many wait for their answer. What comes above is not answered.
const maxQuestions = 16

// Questions answers what is asked of all guards, in the name of this reader, until ctx
// ends. A message of the log is never held up by it.
func (r *Reader) Questions(ctx context.Context, answer func(wire.Question) wire.Seen) error {
	feed, asks := r.cfg.Feed.(QuestionFeed)
	source, takes := r.cfg.Source.(SeenSource)
	if !asks || !takes {
		return nil
	}
	waiting := make(chan wire.Question, maxQuestions)
	stop, err := feed.Questions(func(q wire.Question) {
		select {
		case waiting <- q:
		default:
		}
	})
	if err != nil {
		return err
	}
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case q := <-waiting:
			a := answer(q)
			a.Instance = r.instance
			sending, cancel := context.WithTimeout(ctx, reportTimeout)
			err := source.Seen(sending, q.Replica, a)
			cancel()
			if err != nil && ctx.Err() == nil {
				r.log.Debug("a question is not answered", zap.Error(err))
			}
		}
	}
}
