package ledger

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

// On one synced node every message costs a sync, one after the other, and an atomic
// batch costs the price of some twenty: so requests that wait together are
// committed together. With three nodes the cluster groups by itself.
const (
	// batchFrom is from how many waiting messages on a batch is faster.
	batchFrom = 15
	// singles is how many go out by themselves at once.
	singles = 8
	// maxBatch and maxBatchBytes bound a batch. The broker takes 1,000.
	maxBatch      = 1000
	maxBatchBytes = 8 << 20
	// maxGather is how long a batch waits for those who were answered by the last
	// one to come back; else the callers fall into two halves that wait for each other.
	maxGather = 5 * time.Millisecond
)

// group gathers messages that may be stored together. Whatever goes wrong with a
// batch, its members are sent again singly: each has a condition on its own subject,
// so that none is stored twice.
type group struct {
	single func(ctx context.Context, m *nats.Msg) (seq uint64, err error)
	batch  func(ctx context.Context, ms []*nats.Msg) (last uint64, err error)
	log    *zap.Logger

	mu       sync.Mutex
	waiting  []*grouped
	flying   map[string]bool // the subjects of singles
	stored   map[string]bool // subjects of what was stored while others waited
	batching bool            // a batch is on its way, or gathers
	sent     struct{ batches, members, failed uint64 }
}

// grouped is a message that waits for its turn. done takes one result.
type grouped struct {
	ctx  context.Context
	m    *nats.Msg
	done chan groupResult
}

type groupResult struct {
	seq uint64
	err error
}

func newGroup(single func(context.Context, *nats.Msg) (uint64, error), batch func(context.Context, []*nats.Msg) (uint64, error), log *zap.Logger) *group {
	return &group{single: single, batch: batch, log: log, flying: map[string]bool{}, stored: map[string]bool{}}
}

// publish stores a message, alone or with others, and returns its sequence.
func (g *group) publish(ctx context.Context, m *nats.Msg) (uint64, error) {
	p := &grouped{ctx: ctx, m: m, done: make(chan groupResult, 1)}
	g.mu.Lock()
	g.waiting = append(g.waiting, p)
	g.next()
	g.mu.Unlock()
	select {
	case r := <-p.done:
		return r.seq, r.err
	case <-ctx.Done():
		// It may still be on its way.
		return 0, context.Cause(ctx)
	}
}

// next sends what can be sent now. It is called with mu held.
func (g *group) next() {
	for !g.batching && len(g.waiting) > 0 {
		if len(g.waiting) >= batchFrom && len(g.flying) >= singles {
			g.batching = true
			go g.runBatch(0)
			return
		}
		p := g.waiting[0]
		if len(g.flying) >= singles || g.flying[p.m.Subject] {
			return // a repetition waits for the first
		}
		g.waiting = g.waiting[1:]
		g.flying[p.m.Subject] = true
		go g.runSingle(p)
	}
}

func (g *group) runSingle(p *grouped) {
	seq, err := g.single(p.ctx, p.m)
	p.done <- groupResult{seq, err}
	g.mu.Lock()
	delete(g.flying, p.m.Subject)
	if err == nil {
		g.remember(p)
	}
	g.next()
	g.mu.Unlock()
}

// runBatch sends batches as long as enough are waiting. gather is how long it
// waits before the first.
func (g *group) runBatch(gather time.Duration) {
	for {
		if gather > 0 {
			time.Sleep(gather) // bounded by maxGather
		}
		g.mu.Lock()
		if len(g.waiting) < batchFrom {
			g.batching = false
			g.next()
			g.mu.Unlock()
			return
		}
		members, again := g.take()
		g.mu.Unlock()

		began := time.Now() // for the gathering, compared with nobody's time
		last, err := g.sendBatch(members)
		if err != nil {
			g.log.Warn("a batch was not stored as one; its messages are sent singly", zap.Int("messages", len(members)), zap.Error(err))
			g.singly(members)
		} else {
			for i, p := range members {
				p.done <- groupResult{seq: last - uint64(len(members)-1-i)}
			}
		}
		g.singly(again)
		g.mu.Lock()
		if err == nil {
			g.remember(members...)
		}
		g.sent.batches++
		g.sent.members += uint64(len(members))
		if err != nil {
			g.sent.failed++
		}
		gather = 0
		if len(g.waiting) < len(members) {
			gather = min(time.Since(began)/2, maxGather)
		}
		g.mu.Unlock()
	}
}

// remember notes what was stored, as long as a repetition of it may be waiting.
func (g *group) remember(ps ...*grouped) {
	if len(g.waiting) == 0 || len(g.stored) > 8*maxBatch {
		g.stored = map[string]bool{}
	}
	for _, p := range ps {
		g.stored[p.m.Subject] = true
	}
}

// take takes the oldest members of a batch, those whose askers have left excepted;
// and those whose subject is in it, or on its way, or stored already: they would have
// all of it refused.
func (g *group) take() (members, again []*grouped) {
	size := 0
	subjects := maps.Clone(g.flying)
	for len(g.waiting) > 0 && len(members) < maxBatch {
		p := g.waiting[0]
		if size += len(p.m.Data) + 512; size > maxBatchBytes && len(members) > 0 {
			break
		}
		g.waiting = g.waiting[1:]
		switch {
		case p.ctx.Err() != nil:
		case subjects[p.m.Subject], g.stored[p.m.Subject]:
			again = append(again, p)
		default:
			subjects[p.m.Subject] = true
			members = append(members, p)
		}
	}
	if len(g.waiting) == 0 {
		g.waiting = nil // what it has grown to goes
	}
	return members, again
}

func (g *group) sendBatch(members []*grouped) (uint64, error) {
	if len(members) == 0 {
		return 0, nil
	}
	ms := make([]*nats.Msg, len(members))
	for i, p := range members {
		ms[i] = p.m
	}
	ctx, cancel := context.WithTimeout(context.Background(), batchTime)
	defer cancel()
	return g.batch(ctx, ms)
}

// batchTime bounds one batch: 1,000 members take some 70 ms.
const batchTime = time.Second

// singly sends the members of a batch that was refused, or not answered, as if
// there had been none.
func (g *group) singly(members []*grouped) {
	var all sync.WaitGroup
	places := make(chan struct{}, 4*singles)
	for _, p := range members {
		places <- struct{}{}
		all.Go(func() {
			seq, err := g.single(p.ctx, p.m)
			p.done <- groupResult{seq, err}
			<-places
		})
	}
	all.Wait()
}
