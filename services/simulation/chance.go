package simulation

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// chance makes every choice. It is safe for concurrent use, and a source of random
// bytes.
type chance struct {
	mu sync.Mutex
	r  *rand.Rand
}

func newChance(seed uint64) *chance {
	return &chance{r: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))}
}

// one reports whether something happens that does once in n times.
func (c *chance) one(n int) bool { return n > 0 && c.below(n) == 0 }

func (c *chance) below(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r.IntN(n)
}

// upTo returns a duration below d.
func (c *chance) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.r.Int64N(int64(d)))
}

// Read implements io.Reader.
func (c *chance) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range p {
		p[i] = byte(c.r.Uint32())
	}
	return len(p), nil
}

// pause waits and reports whether ctx still allows to go on.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
