package guard

import (
	"context"
	"time"

	"github.com/quash-project/quash/shared/guard/attempts"
	"github.com/quash-project/quash/shared/guard/wire"
)

// runningEvery spaces reports of requests that still run: somebody waits for the last.
const runningEvery = time.Second

// runningTeller is a reader by which they are reported; *follow.Reader is one.
type runningTeller interface {
	TellRunning(ctx context.Context, list []wire.Running) error
	Spread() time.Duration
}

// stillRuns counts a watched request under the newest entry that refuses its token, until
// it has ended: its context has, and whether it heeds that nobody else can tell.
func (g *Guard) stillRuns(one *watch) {
	r := g.Reader()
	if r == nil {
		return
	}
	i := one.v.hit(r.View())
	if i < 0 {
		return // of its key alone, or released since
	}
	s, es := r.View().State(one.v.targets[i]), r.View().Epochs()
	of := attempts.Of{At: s.Newest(one.v.cutBy(s, es), es), Target: one.v.targets[i]}
	g.watches.mu.Lock()
	defer g.watches.mu.Unlock()
	if _, runs := g.watches.all[one]; !runs || of == one.of || of.At.IsZero() {
		return
	}
	if !g.running.Add(of) {
		return // of too many at once
	}
	if one.of != (attempts.Of{}) { // by an entry before this one
		g.running.End(one.of)
	}
	one.of = of
}

// ended is told of a request that was watched; its watch is among the others no more.
func (g *Guard) ended(one *watch) {
	g.watches.mu.Lock()
	delete(g.watches.all, one)
	of := one.of
	one.of = attempts.Of{}
	g.watches.mu.Unlock()
	if of != (attempts.Of{}) {
		g.running.End(of)
	}
}

func (g *Guard) tellRunning(ctx context.Context, r Reader) {
	if t, ok := r.(runningTeller); ok {
		tellSums(ctx, g, g.running, runningEvery, t.Spread, t.TellRunning)
	}
}
