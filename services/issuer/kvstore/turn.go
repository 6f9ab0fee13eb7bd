package kvstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/kv"
	"github.com/quash-project/quash/shared/problem"
)

const (
	// turnLife is for how long a turn is held if its holder crashes. It is above
	// issuer.TurnTime by what clocks and lost answers can take.
	turnLife = issuer.TurnTime + 15*time.Second
	turnWait = 5 * time.Second // how long it is waited for one
	turnLook = 50 * time.Millisecond
)

// turn implements issuer.Store.Turn by a key of this bucket that one alone can create. It
// stands among the beats, so that no copy and no audit takes it for a record.
func (t *table[T, R]) turn(ctx context.Context, name string) (done func(), err error) {
	b, err := t.store()
	if err != nil {
		return nil, err
	}
	key, mine := kv.BeatPrefix+"turn."+name, []byte(rand.Text())
	end := time.NewTimer(turnWait)
	defer end.Stop()
	for {
		var rev uint64
		err := answered(ctx, func(ctx context.Context) (err error) {
			rev, err = b.Create(ctx, key, mine, jetstream.KeyTTL(turnLife))
			if !isLostRace(err) {
				return err
			}
			// It may be one's own, of which the answer was lost.
			e, getErr := b.Get(ctx, key)
			if getErr == nil && bytes.Equal(e.Value(), mine) {
				rev = e.Revision()
				return nil
			}
			return err
		})
		switch {
		case err == nil:
			return func() {
				// Without this it ends by itself.
				_ = answered(context.WithoutCancel(ctx), func(ctx context.Context) error {
					return b.Purge(ctx, key, jetstream.LastRevision(rev), jetstream.PurgeTTL(markerLife))
				})
			}, nil
		case !isLostRace(err) && !isLostAnswer(err):
			return nil, problem.Wrap(problem.Unavailable, err, "the record store does not answer; try again")
		}
		select {
		case <-ctx.Done():
			return nil, problem.Wrap(problem.Unavailable, ctx.Err(), "another change of the same kind is under way; try again")
		case <-end.C:
			return nil, problem.New(problem.Unavailable, "another change of the same kind is under way; try again")
		case <-time.After(turnLook):
		}
	}
}
