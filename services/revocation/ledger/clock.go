package ledger

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// maxOff is what this service's clock may differ from the broker's by: ends are
// computed by it, with the slack as their margin.
const maxOff = wire.Slack / 3

// clockCheckEvery is how often a clock that was wrong is looked at again.
const clockCheckEvery = 2 * time.Second

// clock holds this service's clock against the broker's, by the service's own
// ticks: the broker has stored a tick between when it was sent and when it came
// back.
type clock struct {
	now func() time.Time
	log *zap.Logger

	mu   sync.Mutex
	sent map[string]time.Time // by the id of a tick
	off  time.Duration        // beyond maxOff; 0: the clock is good
}

// maxSent bounds the ticks that are waited for: some are never stored.
const maxSent = 64

func (c *clock) sending(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sent == nil || len(c.sent) >= maxSent {
		c.sent = map[string]time.Time{}
	}
	c.sent[id] = c.now()
}

// stored hears of a tick in the log.
func (c *clock) stored(s wire.Stored) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent, own := c.sent[s.Message.ID]
	if !own {
		return
	}
	delete(c.sent, s.Message.ID)
	broker, now := time.UnixMilli(s.Time), c.now()
	var off time.Duration
	switch {
	case broker.Before(sent.Truncate(time.Millisecond)):
		off = sent.Sub(broker)
	case broker.After(now):
		off = broker.Sub(now)
	}
	if off <= maxOff {
		off = 0
	}
	if (off != 0) != (c.off != 0) {
		if off != 0 {
			c.log.Error("this machine's clock differs from the broker's; nothing is committed", zap.Duration("by", off))
		} else {
			c.log.Info("this machine's clock agrees with the broker's again")
		}
	}
	c.off = off
}

func (c *clock) check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off == 0 {
		return nil
	}
	return problem.New(problem.Unavailable, "the revocation service is not ready: its clock differs from the broker's by %s, and by %s at most is allowed", c.off.Round(time.Second), maxOff)
}

// recheckClock commits a tick of its own while the clock is wrong, since nobody
// else is served one.
func (l *Ledger) recheckClock(ctx context.Context) {
	if l.clock.check() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, clockCheckEvery)
	defer cancel()
	if _, err := l.commitTick(ctx); err != nil {
		l.log.Debug("the clock could not be compared with the broker's", zap.Error(err))
	}
}
