package guard

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/quash-project/quash/shared/guard/attempts"
	"github.com/quash-project/quash/shared/guard/denylist"
)

// Why a watched context has ended; context.Cause says which.
var (
	ErrHit     = errors.New("guard: the token was revoked or held meanwhile")
	ErrExpired = errors.New("guard: the token has expired meanwhile")
)

// redisWatch is how often watched tokens are looked up where there is no feed.
const redisWatch = time.Second

// watches are the contexts that end when their token is hit.
type watches struct {
	mu     sync.Mutex
	all    map[*watch]struct{}
	kicked chan struct{}
}

type watch struct {
	v   *verified
	end context.CancelCauseFunc
	of  attempts.Of // what refuses it, and is counted; zero: nothing. Of whoever holds watches.mu
}

func (w *watches) init() {
	w.all = map[*watch]struct{}{}
	w.kicked = make(chan struct{}, 1)
}

func (w *watches) kick() {
	select {
	case w.kicked <- struct{}{}:
	default:
	}
}

func (w *watches) none() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all) == 0
}

func (w *watches) list() []*watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]*watch, 0, len(w.all))
	for one := range w.all {
		list = append(list, one)
	}
	return list
}

// Watch returns a context that ends when the token is hit or expires, for what
// goes on after it was admitted: streams, long polls, uploads. Its cause says
// which. Run must be running. With Redis alone a hit is noticed within about a
// second. Call cancel when done.
func (g *Guard) Watch(ctx context.Context, c *Claims) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(ctx)
	if c == nil || c.verified == nil {
		end(errors.New("guard: these claims are not from a Decision"))
		return ctx, func() {}
	}
	ctx, stop := context.WithTimeoutCause(ctx, c.Expires.Sub(g.opts.now()), ErrExpired)
	one := &watch{v: c.verified, end: end}
	g.watches.mu.Lock()
	g.watches.all[one] = struct{}{}
	g.watches.mu.Unlock()
	g.watches.kick()
	if g.hitNow(c.verified) { // between the decision and here
		end(ErrHit)
	}
	return ctx, func() {
		g.ended(one)
		stop()
		end(context.Canceled)
	}
}

// hitNow asks the view in memory, and the key.
func (g *Guard) hitNow(v *verified) bool {
	if key := v.issuer.peek(v.KeyID); key != nil && key.Usable(g.opts.now()) != nil {
		return true
	}
	r := g.Reader()
	return r != nil && v.hit(r.View()) >= 0
}

// watchLoop looks at the watched tokens whenever something was learnt.
func (g *Guard) watchLoop(ctx context.Context) {
	var tick <-chan time.Time
	if !g.opts.follows() {
		ticker := time.NewTicker(redisWatch)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		var changed <-chan struct{}
		// Where nobody watches a revocation wakes nobody.
		if r := g.Reader(); r != nil && !g.watches.none() {
			changed = r.Changed() // before looking: what comes while looking counts as a change
		}
		for _, one := range g.watches.list() {
			if g.hitNow(one.v) || tick != nil && g.hitInRedis(ctx, one.v) {
				one.end(ErrHit)
				g.stillRuns(one)
			}
		}
		select {
		case <-changed:
		case <-g.watches.kicked:
		case <-tick:
		case <-ctx.Done():
			return
		}
	}
}

func (g *Guard) hitInRedis(ctx context.Context, v *verified) bool {
	ctx, cancel := context.WithTimeout(ctx, redisWait)
	defer cancel()
	res, _ := g.opts.redis.Check(ctx, v.query()) // a view that can't tell ends nothing; new requests are refused
	return res.Outcome == denylist.Hit
}
