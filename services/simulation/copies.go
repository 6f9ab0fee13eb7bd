package simulation

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// watched is what one replica has of a bucket. What was written comes to it in order
// and late; now and then nothing comes for a long time, without an error.
type watched[T any] struct {
	mu      sync.Mutex
	rows    map[string]T
	groups  map[string]map[string]bool
	seen    int       // how much of the bucket's log has come
	due     time.Time // when the next comes; zero: not known yet
	loaded  time.Time // when it is there for the first time
	began   time.Time
	back    time.Time // when the last own write was made that has come back
	stalled bool
}

// The real copy's rules; see kvstore.
const (
	beatPeriod = time.Minute
	copyLife   = 10 * time.Minute
)

func (c *watched[T]) begin(late time.Duration) {
	c.rows, c.groups = map[string]T{}, map[string]map[string]bool{}
	c.began = time.Now()
	c.loaded = c.began.Add(late)
}

// stall has nothing come any more, or everything again.
func (c *watched[T]) stall(stalled bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalled = stalled
}

// arrive takes what has come by now, and returns how much that is.
func (c *watched[T]) arrive(b *bucket[T], p *process) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.stalled || p.away() || now.Before(c.loaded) {
		return c.seen
	}
	rest := b.after(c.seen)
	for len(rest) > 0 {
		next := rest[0]
		if c.due.IsZero() && next.at.After(c.loaded) {
			c.due = next.at.Add(p.late())
		}
		if now.Before(c.due) {
			break
		}
		c.apply(b, next)
		c.seen, c.due, rest = c.seen+1, time.Time{}, rest[1:]
	}
	// A beat is a write like others: it comes after all that were made before.
	beat := c.loaded.Add(now.Sub(c.loaded).Truncate(beatPeriod))
	if len(rest) == 0 || rest[0].at.After(beat) {
		c.back = beat
	}
	return c.seen
}

func (c *watched[T]) apply(b *bucket[T], n change[T]) {
	if old, ok := c.rows[n.key]; ok && b.groups != nil {
		for _, g := range b.groups(old) {
			delete(c.groups[g], n.key)
		}
	}
	delete(c.rows, n.key)
	if n.gone {
		return
	}
	c.rows[n.key] = n.v
	if b.groups == nil {
		return
	}
	for _, g := range b.groups(n.v) {
		if c.groups[g] == nil {
			c.groups[g] = map[string]bool{}
		}
		c.groups[g][n.key] = true
	}
}

func (c *watched[T]) row(key string) (T, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.rows[key]
	return v, ok
}

func (c *watched[T]) group(name string) (out []T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(c.groups[name])) {
		out = append(out, c.rows[key])
	}
	return out
}

func (c *watched[T]) ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch age := time.Since(c.back); {
	case c.back.IsZero():
		return errors.New("simulated: the copy has not been read yet")
	case age > copyLife:
		return fmt.Errorf("simulated: the copy has shown no write for %s", age)
	}
	return nil
}
