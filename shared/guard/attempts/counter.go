package attempts

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Bounds of what is kept: with all networks some 200 KB.
const (
	MaxCounts   = 256
	MaxNetworks = 1000 // of all counts together

	// forget is after how long without an attempt a count is over. Whoever reads reports
	// may rely on it; see services/revocation/attempts.
	forget = 30 * time.Minute
	// settled is after how long without one it has been told twice, so that nothing is
	// lost if its place is needed.
	settled = 2 * time.Minute
	// repeat is how long after a report what it told is told again: it may have been lost.
	repeat = 30 * time.Second
	// sweepEvery spaces the search for room: nobody makes it happen at each refusal.
	sweepEvery = time.Second
)

// Of is what is counted together: what one target of one entry refuses.
type Of struct {
	At     revoke.Stamp
	Target revoke.Key
}

// Counter is safe for concurrent use.
type Counter struct {
	now    func() time.Time
	kicked chan struct{}

	mu     sync.Mutex
	counts map[Of]*count
	rows   int // networks of all counts
	began  int64
	swept  time.Time
	all    uint64
	lost   uint64
}

// How far something has been told.
const (
	told    = iota // twice, or never was to be
	again          // once
	changed        // not yet
)

type count struct {
	began, first, last int64
	sum                uint64
	seen               time.Time // when last; with the monotonic clock, if there is one
	state              int
	sent               time.Time
	from               map[string]*row
}

type row struct {
	first, last int64
	sum         uint64
	state       int // changed only if that of its count is
	sent        time.Time
}

// due says whether what is in this state, and was sent then, is to be told.
func due(state int, sent, now time.Time) bool {
	return state == changed || state == again && now.Sub(sent) >= repeat
}

// until is how long it takes until that is so.
func until(state int, sent, now time.Time) time.Duration {
	switch state {
	case changed:
		return 0
	case again:
		return max(repeat-now.Sub(sent), 0)
	}
	return forget
}

// New returns a Counter that goes by this clock.
func New(now func() time.Time) *Counter {
	return &Counter{now: now, kicked: make(chan struct{}, 1), counts: map[Of]*count{}}
}

// Note counts one attempt; the zero Addr stands for a caller who is not known.
func (c *Counter) Note(of Of, from netip.Addr) {
	network, now := wire.NetworkOf(from), c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all++
	n := c.counts[of]
	if n == nil {
		if n = c.begin(of, now); n == nil {
			c.lost++
			return
		}
	}
	ms := now.UnixMilli()
	n.sum++
	n.last, n.seen = max(n.last, ms), now
	r := n.from[network]
	if r == nil {
		c.makeRoomIn(n)
		r = &row{first: ms}
		n.from[network] = r
		c.rows++
	}
	r.sum++
	r.last, r.state = max(r.last, ms), changed
	if n.state != changed {
		n.state = changed
		select {
		case c.kicked <- struct{}{}:
		default:
		}
	}
}

func (c *Counter) begin(of Of, now time.Time) *count {
	if len(c.counts) >= MaxCounts && !c.makeRoom(now) {
		return nil
	}
	ms := now.UnixMilli()
	c.began = max(ms, c.began+1) // a count that begins again is another
	n := &count{began: c.began, first: ms, last: ms, from: map[string]*row{}}
	c.counts[of] = n
	return n
}

// makeRoom ends the count that was quiet for the longest, if all of it was told.
func (c *Counter) makeRoom(now time.Time) bool {
	if since := now.Sub(c.swept); since >= 0 && since < sweepEvery {
		return false
	}
	c.swept = now
	var oldest Of
	quiet := settled
	for of, n := range c.counts {
		if since := now.Sub(n.seen); since >= quiet && n.state != changed {
			oldest, quiet = of, since
		}
	}
	if oldest == (Of{}) {
		return false
	}
	c.end(oldest)
	return true
}

func (c *Counter) end(of Of) {
	c.rows -= len(c.counts[of].from)
	delete(c.counts, of)
}

// makeRoomIn forgets a network, if there are too many, for one more of a count.
func (c *Counter) makeRoomIn(n *count) {
	if len(n.from) < wire.MaxAttemptsFrom {
		if c.rows < MaxNetworks {
			return
		}
		for _, other := range c.counts { // of whoever has the most
			if len(other.from) > len(n.from) {
				n = other
			}
		}
	}
	var oldest string
	var found *row
	for network, r := range n.from {
		if found == nil || r.last < found.last || r.last == found.last && network < oldest {
			oldest, found = network, r
		}
	}
	if found != nil {
		delete(n.from, oldest)
		c.rows--
	}
}

// Kicked tells of something new to report.
func (c *Counter) Kicked() <-chan struct{} { return c.kicked }

// Next returns how long nothing is to be reported unless Kicked says so.
func (c *Counter) Next() time.Duration {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	wait := forget
	for _, n := range c.counts {
		if wait = min(wait, until(n.state, n.sent, now)); wait == 0 {
			return 0
		}
		for _, r := range n.from {
			wait = min(wait, until(r.state, r.sent, now))
		}
	}
	return wait
}

// Report returns what is to be told now, as much as one report takes; the rest comes
// with the next. What was quiet for long is forgotten.
func (c *Counter) Report() []wire.Attempts {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Of
	for of, n := range c.counts {
		switch {
		case n.due(now):
			list = append(list, of)
		case now.Sub(n.seen) >= forget:
			c.end(of)
		}
	}
	slices.SortFunc(list, func(a, b Of) int { // who has waited for the longest first
		x, y := c.counts[a], c.counts[b]
		return cmp.Or(x.sent.Compare(y.sent), cmp.Compare(x.began, y.began))
	})
	var out []wire.Attempts
	rows := 0
	for _, of := range list {
		n := c.counts[of]
		from := n.dueFrom(now)
		if len(out) == wire.MaxAttempts || rows+len(from) > wire.MaxAttemptsRows {
			break
		}
		rows += len(from)
		n.tell(from, now)
		out = append(out, wire.Attempts{At: of.At, Target: of.Target, Began: n.began, First: n.first, Last: n.last, Count: n.sum, From: from})
	}
	return out
}

// due says whether the count is to be told, or a network of it: others that go on put off
// the second word of the count, and not that of a network.
func (n *count) due(now time.Time) bool {
	if due(n.state, n.sent, now) {
		return true
	}
	for _, r := range n.from {
		if due(r.state, r.sent, now) {
			return true
		}
	}
	return false
}

// dueFrom returns the networks to be told with a count.
func (n *count) dueFrom(now time.Time) []wire.AttemptsFrom {
	var from []wire.AttemptsFrom
	for network, r := range n.from {
		if due(r.state, r.sent, now) {
			from = append(from, wire.AttemptsFrom{Network: network, First: r.first, Last: r.last, Count: r.sum})
		}
	}
	slices.SortFunc(from, func(a, b wire.AttemptsFrom) int { return cmp.Compare(a.Network, b.Network) })
	return from
}

// tell notes that the count is told now, with these networks.
func (n *count) tell(from []wire.AttemptsFrom, now time.Time) {
	if due(n.state, n.sent, now) {
		n.state--
	}
	n.sent = now
	for _, f := range from {
		r := n.from[f.Network]
		r.state, r.sent = r.state-1, now
	}
}

// Unsent takes back what could not be sent.
func (c *Counter) Unsent(list []wire.Attempts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range list {
		n := c.counts[Of{a.At, a.Target}]
		if n == nil || n.began != a.Began {
			continue
		}
		n.state = changed
		for _, f := range a.From {
			if r := n.from[f.Network]; r != nil {
				r.state = changed
			}
		}
	}
}

// Counted returns how many attempts were noted, and how many of them stand in no count
// because there were too many at once.
func (c *Counter) Counted() (all, lost uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all, c.lost
}
