package guard

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/keyform"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// refusal is what a key was refused by, kept for a short while.
type refusal struct {
	until time.Time
	Decision
}

// flight is an exchange under way. What it came to is there when done is closed.
type flight struct {
	done    chan struct{}
	from    netip.Addr // whom it is for, if the key is bound to networks
	token   *exchanged
	refused *Decision
	common  bool // it was refused from wherever it comes: the issuer can't be asked
}

// serves reports whether what a flight came to counts for a use.
func (f *flight) serves(u *use) bool {
	return f.from == u.from || f.common || f.token != nil && !f.token.bound
}

// exchanger holds the tokens of API keys. It is safe for concurrent use; its
// goroutines belong to run.
type exchanger struct {
	cfg      Exchange
	iss      *issuer
	client   *http.Client
	guard    *Guard
	tokens   *otter.Cache[keyHash, *exchanged] // for all addresses
	near     *otter.Cache[keyHash, *exchanged] // of keys that are bound to networks, for one address each
	refused  *otter.Cache[keyHash, *refusal]
	leaks    *leaks
	complain atomic.Int64 // when a failure was last logged, Unix seconds

	asked, failed atomic.Uint64

	mu      sync.Mutex
	ctx     context.Context     // of run; nil: not running
	flights map[keyHash]*flight // by lane
	busy    map[keyHash]int     // how many of them a key has
	running sync.WaitGroup
}

func newExchanger(g *Guard, iss *issuer, cfg Exchange) (*exchanger, error) {
	x := &exchanger{cfg: cfg, iss: iss, guard: g, flights: map[keyHash]*flight{}, busy: map[keyHash]int{}}
	if x.cfg.Cache == 0 {
		x.cfg.Cache = defaultCache
	}
	var err error
	// Apart, so that whoever has one bound key and many addresses puts out no unbound one's.
	near := max(1, x.cfg.Cache/nearShare)
	if x.tokens, err = tokenCache(max(1, x.cfg.Cache-near)); err != nil {
		return nil, err
	}
	if x.near, err = tokenCache(near); err != nil {
		return nil, err
	}
	if x.refused, err = otter.New(&otter.Options[keyHash, *refusal]{MaximumSize: maxRefused}); err != nil {
		return nil, err
	}
	x.client = exchangeClient(cfg, g.opts.client)
	x.leaks, err = newLeaks(x)
	return x, err
}

func tokenCache(size uint64) (*otter.Cache[keyHash, *exchanged], error) {
	return otter.New(&otter.Options[keyHash, *exchanged]{
		MaximumWeight: size,
		Weigher:       func(_ keyHash, e *exchanged) uint32 { return uint32(len(e.token)) + 256 },
	})
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
	var d Decision
	for range 2 {
		tok, refused := g.exchange.token(ctx, key, req)
		if refused != nil {
			return *refused
		}
		d = g.decideToken(ctx, tok.token, req)
		switch {
		case d.Status == http.StatusUnauthorized:
			g.exchange.giveUp(tok, d)
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
func (x *exchanger) token(ctx context.Context, key string, req *Requirement) (*exchanged, *Decision) {
	u, now := use{key: key, audience: x.audience(req)}, x.guard.opts.now()
	u.any = hashKey(key, u.audience)
	// The way of almost every request: it asks nothing about where it comes from.
	if tok, ok := x.tokens.GetIfPresent(u.any); ok && tok.token != "" && tok.lives(now) && now.Before(tok.renew) {
		return tok, nil
	}
	u.come(req)
	if tok, ok := x.kept(&u); ok && tok.lives(now) {
		if !now.Before(tok.renew) && x.known(&u, now) == nil {
			x.start(u, now) // and this one is used as long as it lives
		}
		return tok, nil
	}
	if d := x.known(&u, now); d != nil {
		return nil, d
	}
	if d := x.dead(key); d != nil {
		return nil, d
	}
	for {
		f := x.start(u, now)
		if f == nil {
			return nil, decided(unable(CheckExchange, "the guard is not running, or too many API keys, or this one from too many addresses, are being exchanged"))
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, decided(unable(CheckExchange, "the request ended before its API key was exchanged"))
		}
		if f.serves(&u) {
			return f.token, f.refused
		}
		u.alone = true // then it is for this address
	}
}

func decided(f *fault) *Decision {
	d := f.decision()
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

// start joins the exchange of a key that is under way, or begins one. It returns
// nil if it can't.
func (x *exchanger) start(u use, now time.Time) *flight {
	lane := u.lane()
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.flights[lane]; f != nil {
		return f
	}
	if f := x.landed(&u, now); f != nil { // between the look at what is kept and here
		return f
	}
	if x.ctx == nil || len(x.flights) >= maxFlights {
		return nil
	}
	// Whoever had a token there before is not kept out by those who try the key elsewhere.
	if _, before := x.near.GetIfPresent(u.here); x.busy[u.any] >= maxOfKey && !before {
		return nil
	}
	f := &flight{done: make(chan struct{}), from: u.from}
	x.flights[lane] = f
	x.busy[u.any]++
	ctx := x.ctx // not of the request: others wait for it too
	x.running.Go(func() {
		x.fly(ctx, f, &u)
		x.mu.Lock()
		delete(x.flights, lane)
		if x.busy[u.any]--; x.busy[u.any] == 0 {
			delete(x.busy, u.any)
		}
		x.mu.Unlock()
		close(f.done)
	})
	return f
}

// landed returns an exchange that is over, of which what came is kept; nil for none.
func (x *exchanger) landed(u *use, now time.Time) *flight {
	f := &flight{done: make(chan struct{}), from: u.from}
	close(f.done)
	if tok, ok := x.kept(u); ok && now.Before(tok.renew) {
		f.token = tok
		return f
	}
	if f.refused = x.known(u, now); f.refused != nil {
		return f
	}
	return nil
}

// fly exchanges and keeps what came of it.
func (x *exchanger) fly(ctx context.Context, f *flight, u *use) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTime)
	defer cancel()
	x.asked.Add(1)
	tok, fault, err := x.exchange(ctx, u)
	switch {
	case fault == nil:
		x.keep(u, tok)
		f.token = tok
		return
	case fault.outcome == Deny:
		x.drop(u)
		f.refused = decided(fault)
		x.refuse(u.here, *f.refused, refusedLife)
		return
	}
	x.failed.Add(1)
	x.warn(err)
	f.refused, f.common = decided(fault), !errors.Is(err, errUnbelieved)
	at := u.any
	if !f.common {
		at = u.here
	}
	x.refuse(at, *f.refused, min(max(fault.retry, pause), maxPause))
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
