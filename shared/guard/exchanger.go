package guard

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/keyform"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// keyHash stands for a key, and what its token is for, wherever something is kept.
type keyHash [sha256.Size]byte

func hashKey(key string, audience []string) keyHash {
	text := append(make([]byte, 0, 256), key...)
	for _, a := range audience {
		text = append(append(text, 0), a...)
	}
	return sha256.Sum256(text)
}

// exchanged is the token of a key.
type exchanged struct {
	token   string
	expires int64       // Unix seconds
	renew   time.Time   // from then on another is asked for
	taken   atomic.Bool // it was not refused, once
}

// refusal is what a key was refused by, kept for a short while.
type refusal struct {
	until time.Time
	Decision
}

// flight is an exchange under way. What it came to is there when done is closed.
type flight struct {
	done    chan struct{}
	token   *exchanged
	refused *Decision
}

// exchanger holds the tokens of API keys. It is safe for concurrent use; its
// goroutines belong to run.
type exchanger struct {
	cfg      Exchange
	iss      *issuer
	client   *http.Client
	guard    *Guard
	tokens   *otter.Cache[keyHash, *exchanged]
	refused  *otter.Cache[keyHash, *refusal]
	leaks    *leaks
	complain atomic.Int64 // when a failure was last logged, Unix seconds

	asked, failed atomic.Uint64

	mu      sync.Mutex
	ctx     context.Context // of run; nil: not running
	flights map[keyHash]*flight
	running sync.WaitGroup
}

func newExchanger(g *Guard, iss *issuer, cfg Exchange) (*exchanger, error) {
	x := &exchanger{cfg: cfg, iss: iss, guard: g, flights: map[keyHash]*flight{}}
	if x.cfg.Cache == 0 {
		x.cfg.Cache = defaultCache
	}
	var err error
	x.tokens, err = otter.New(&otter.Options[keyHash, *exchanged]{
		MaximumWeight: x.cfg.Cache,
		Weigher:       func(_ keyHash, e *exchanged) uint32 { return uint32(len(e.token)) + 256 },
	})
	if err != nil {
		return nil, err
	}
	if x.refused, err = otter.New(&otter.Options[keyHash, *refusal]{MaximumSize: maxRefused}); err != nil {
		return nil, err
	}
	x.client = exchangeClient(cfg, g.opts.client)
	x.leaks, err = newLeaks(x)
	return x, err
}

// begin lets exchanges be made until ctx ends; run follows.
func (x *exchanger) begin(ctx context.Context) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ctx = ctx
}

// run tells of leaks until ctx ends, and returns when no exchange is under way.
func (x *exchanger) run(ctx context.Context) {
	x.leaks.run(ctx)
	x.mu.Lock()
	x.ctx = nil
	x.mu.Unlock()
	x.running.Wait()
}

// decideKey exchanges a key and decides about its token.
func (g *Guard) decideKey(ctx context.Context, key string, req *Requirement) Decision {
	audience := g.exchange.audience(req)
	var d Decision
	for range 2 {
		tok, refused := g.exchange.token(ctx, key, audience)
		if refused != nil {
			return *refused
		}
		d = g.decideToken(ctx, tok.token, req)
		switch {
		case d.Status == http.StatusUnauthorized:
			g.exchange.giveUp(hashKey(key, audience), tok, d)
		case d.Outcome != Unavailable && !tok.taken.Load():
			tok.taken.Store(true)
		}
		if d.Check != CheckTime { // it ended just now: that is not the key's fault
			break
		}
	}
	return d
}

// token returns the token of a key, or why there is none.
func (x *exchanger) token(ctx context.Context, key string, audience []string) (*exchanged, *Decision) {
	h, now := hashKey(key, audience), x.guard.opts.now()
	if tok, ok := x.tokens.GetIfPresent(h); ok && now.Unix() < tok.expires {
		if !now.Before(tok.renew) && x.known(h, now) == nil {
			x.start(h, key, audience, now) // and this one is used as long as it lives
		}
		return tok, nil
	}
	if d := x.known(h, now); d != nil {
		return nil, d
	}
	if d := x.dead(key); d != nil {
		return nil, d
	}
	f := x.start(h, key, audience, now)
	if f == nil {
		return nil, decided(unable(CheckExchange, "the guard is not running, or too many API keys are being exchanged"))
	}
	select {
	case <-f.done:
		return f.token, f.refused
	case <-ctx.Done():
		return nil, decided(unable(CheckExchange, "the request ended before its API key was exchanged"))
	}
}

func decided(f *fault) *Decision {
	d := f.decision()
	return &d
}

// known returns what the key was refused by a moment ago.
func (x *exchanger) known(h keyHash, now time.Time) *Decision {
	r, ok := x.refused.GetIfPresent(h)
	// A clock that was set back must not lengthen it.
	if !ok || !now.Before(r.until) || r.until.Sub(now) > maxPause {
		return nil
	}
	d := r.Decision
	return &d
}

func (x *exchanger) refuse(h keyHash, d Decision, life time.Duration) {
	x.refused.Set(h, &refusal{x.guard.opts.now().Add(life), d})
}

// dead refuses what needs no exchange: what is no key, and what the view knows to
// be ended or held. A hit is a hit in any view.
func (x *exchanger) dead(key string) *Decision {
	if len(key) > maxKey {
		return decided(bad(CheckExchange, fmt.Sprintf("the API key has more than %d bytes", maxKey)))
	}
	if strings.HasPrefix(key, keyform.Key.Prefix()) {
		if _, err := keyform.Parse(key); err != nil && (x.cfg.Imported == nil || !x.cfg.Imported.MatchString(key)) {
			return decided(bad(CheckExchange, "the API key is mistyped: its checksum, or its form, is wrong"))
		}
	}
	r := x.guard.Reader()
	if r == nil {
		return nil
	}
	t, err := revoke.NewTarget(x.iss.Tenant, revoke.Own, revoke.KindKey, idOf(key))
	if err != nil {
		return decided(bad(CheckExchange, "the API key has no id"))
	}
	state, epochs := r.View().State(t.Key()), r.View().Epochs()
	// A key is ended or held, never cut: no stamp lies above this one.
	if !state.Hits(revoke.Stamp{Epoch: math.MaxUint64, Seq: math.MaxUint64}, epochs) {
		return nil
	}
	at, cause := since(state, epochs)
	d := decided(bad(CheckTargets, cause+": "+t.String()))
	d.Target, d.Since, d.Source = Target{Kind: t.Kind, ID: t.ID, Key: t.Key()}, at, SourceView
	d.newest, d.Watermark = state.Newest(false, epochs), r.Position().Stamp
	return d
}

// idOf returns the id by which the log knows a key.
func idOf(key string) string {
	if _, err := keyform.Parse(key); err != nil {
		return keyform.ImportedID(sha256.Sum256([]byte(key)))
	}
	return keyform.ID(key)
}

// giveUp forgets a token that was refused. One that never was any good is what the
// issuer gives just now: it is not asked again at once.
func (x *exchanger) giveUp(h keyHash, tok *exchanged, d Decision) {
	if now, ok := x.tokens.GetIfPresent(h); ok && now == tok {
		x.tokens.Invalidate(h)
	}
	if !tok.taken.Load() && d.Check != CheckTime {
		x.refuse(h, d, refusedLife)
	}
}

// start joins the exchange of a key that is under way, or begins one. It returns
// nil if it can't.
func (x *exchanger) start(h keyHash, key string, audience []string, now time.Time) *flight {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.flights[h]; f != nil {
		return f
	}
	if f := x.landed(h, now); f != nil { // between the look at what is kept and here
		return f
	}
	if x.ctx == nil || len(x.flights) >= maxFlights {
		return nil
	}
	f := &flight{done: make(chan struct{})}
	x.flights[h] = f
	ctx := x.ctx // not of the request: others wait for it too
	x.running.Go(func() {
		x.fly(ctx, f, h, key, audience)
		x.mu.Lock()
		delete(x.flights, h)
		x.mu.Unlock()
		close(f.done)
	})
	return f
}

// landed returns an exchange that is over, of which what came is kept; nil for none.
func (x *exchanger) landed(h keyHash, now time.Time) *flight {
	f := &flight{done: make(chan struct{})}
	close(f.done)
	if tok, ok := x.tokens.GetIfPresent(h); ok && now.Before(tok.renew) {
		f.token = tok
		return f
	}
	if f.refused = x.known(h, now); f.refused != nil {
		return f
	}
	return nil
}

// fly exchanges and keeps what came of it.
func (x *exchanger) fly(ctx context.Context, f *flight, h keyHash, key string, audience []string) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTime)
	defer cancel()
	x.asked.Add(1)
	tok, fault, err := x.exchange(ctx, key, audience)
	switch {
	case fault == nil:
		f.token = tok
		x.refused.Invalidate(h)
		x.tokens.Set(h, tok)
		return
	case fault.outcome == Deny:
		x.tokens.Invalidate(h)
		f.refused = decided(fault)
		x.refuse(h, *f.refused, refusedLife)
		return
	}
	x.failed.Add(1)
	x.warn(err)
	f.refused = decided(fault)
	x.refuse(h, *f.refused, min(max(fault.retry, pause), maxPause))
}

// warn logs a failure, now and then.
func (x *exchanger) warn(err error) {
	const every = 10 // seconds
	now := x.guard.opts.now().Unix()
	if last := x.complain.Load(); now-last < every && now >= last || !x.complain.CompareAndSwap(last, now) {
		return
	}
	x.guard.opts.log.Warn("API keys can't be exchanged", zap.String("url", x.cfg.TokenURL), zap.Error(err))
}
