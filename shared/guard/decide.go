package guard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/keys"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

const (
	probeWait = 2 * time.Second       // a tick takes one synced write; a crashed leader takes longer, and is not waited for
	redisWait = time.Second           // one MGET
	redisPoll = 25 * time.Millisecond // between looks at a Redis view that is behind the token
)

// Decide says whether the token may do what req asks for; with WithExchange the
// text may be an API key. It waits only where req asks for a probe, for a view that
// is behind the token's stamp, for Redis, for an unknown key of a JWKS URL, and for
// the exchange of an API key; never longer than some seconds.
func (g *Guard) Decide(ctx context.Context, text string, req Requirement) Decision {
	d := g.observed(ctx, text, req)
	if d.Outcome == Deny && d.Check == CheckTargets && !req.AnyAudience {
		g.attempted(&d, &req)
	}
	return d
}

// observed decides without counting an attempt: who asks about a token does not try
// with it.
func (g *Guard) observed(ctx context.Context, text string, req Requirement) Decision {
	if g.opts.observe == nil {
		d := g.decide(ctx, text, &req)
		g.stats.count(d.Outcome)
		return d
	}
	ctx, done := g.opts.observe(ctx)
	d := g.decide(ctx, text, &req)
	g.stats.count(d.Outcome)
	done(d)
	return d
}

func (g *Guard) decide(ctx context.Context, text string, req *Requirement) Decision {
	if g.exchange.takes(text) {
		return g.decideKey(ctx, text, req)
	}
	return g.decideToken(ctx, text, req)
}

func (g *Guard) decideToken(ctx context.Context, text string, req *Requirement) Decision {
	now := g.opts.now()
	v, key := g.cached(text)
	if v == nil {
		var f *fault
		if v, f = g.verify(ctx, text, now); f != nil {
			return f.decision()
		}
		key = v.key
		g.keep(text, v)
	}
	f := v.keyed(key, now)
	if f == nil {
		f = v.timely(now)
	}
	if f == nil {
		f = v.meant(req)
	}
	var d Decision
	if f == nil {
		d, f = g.consult(ctx, v, req)
	}
	if f == nil {
		f = v.may(req)
	}
	if f != nil {
		refusal := f.decision()
		refusal.Target, refusal.Since, refusal.newest, refusal.Source = d.Target, d.Since, d.newest, d.Source
		refusal.Staleness, refusal.Watermark = d.Staleness, d.Watermark
		d = refusal
	} else {
		d.Outcome, d.Status = Allow, http.StatusOK
		if g.seen != nil && !req.AnyAudience && !req.explained {
			g.remember(v, now)
		}
	}
	d.Token = &v.Claims
	return d
}

// cached returns a token that was verified before, and its key as it is now. A
// token whose key has left is verified again, which says why it is refused.
func (g *Guard) cached(text string) (*verified, *keys.Key) {
	if g.cache == nil {
		return nil, nil
	}
	v, ok := g.cache.GetIfPresent(text)
	if !ok {
		return nil, nil
	}
	key := v.issuer.peek(v.KeyID)
	if key == nil || !key.Same(v.key) {
		g.cache.Invalidate(text)
		return nil, nil
	}
	g.stats.cacheHits.Add(1)
	return v, key
}

// consult asks whether the token is revoked. The Decision has what was found on
// the way, also with a fault.
func (g *Guard) consult(ctx context.Context, v *verified, req *Requirement) (d Decision, f *fault) {
	if g.stopped.Load() { // also where somebody else's reader goes on
		return d, unable(CheckView, "the guard has stopped")
	}
	r := g.Reader()
	if r == nil {
		if g.opts.follows() {
			return d, unable(CheckView, "the guard is not running")
		}
		return g.askRedis(ctx, v, req, 0)
	}
	// The order matters: what is claimed of the view first, then the view itself,
	// which only learns.
	staleness, err := r.Check()
	at := r.Position()
	if f = v.refusedBy(r, &d); f != nil {
		d.Staleness = staleness
		return d, f // a hit is a hit in any view
	}
	limit, probe := g.limitOf(req)
	waited := false
	if err == nil && (probe || staleness > limit && staleness <= g.opts.limit) {
		waited = true
		probe = !g.fresh(ctx, r) && probe
		staleness, err = r.Check()
	}
	stale := err == nil && (probe || staleness > limit)
	if err == nil && !(stale && g.opts.past == wire.PastRedis) && at.Less(v.Stamp) {
		waited = true
		if f = g.await(ctx, r, v.Stamp); f == nil {
			staleness, err = r.Check()
			stale = err == nil && (probe || staleness > limit)
		}
	}
	if waited {
		if hit := v.refusedBy(r, &d); hit != nil {
			return d, hit
		}
	}
	d.Source, d.Staleness, d.Watermark = SourceView, staleness, r.Position().Stamp
	switch {
	case err != nil:
		return d, unable(CheckView, err.Error())
	case stale:
		return g.past(ctx, v, req, d, f, limit)
	}
	return d, f
}

// limitOf returns the staleness that a request accepts, and whether it wants a
// probe of its own.
func (g *Guard) limitOf(req *Requirement) (limit time.Duration, probe bool) {
	switch {
	case req.MaxStale < 0:
		return g.opts.limit, true
	case req.MaxStale == 0:
		return g.opts.limit, false
	}
	return min(req.MaxStale, g.opts.limit), false
}

func (g *Guard) fresh(ctx context.Context, r Reader) bool {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	return r.Fresh(ctx) == nil
}

// await waits for a view that is behind the token. A stamp above the watermark
// is never "newer than every cut": the cut may be what was not read yet.
func (g *Guard) await(ctx context.Context, r Reader, s revoke.Stamp) *fault {
	ctx, cancel := context.WithTimeout(ctx, g.opts.wait)
	defer cancel()
	if r.WaitFor(ctx, s) != nil {
		return unable(CheckView, "the view is behind the token: it was issued at "+s.String()+" of the log, which was not read yet")
	}
	return nil
}

// refusedBy looks for a target that hits, and notes it.
func (v *verified) refusedBy(r Reader, d *Decision) *fault {
	view := r.View()
	i := v.hit(view)
	if i < 0 && !v.void(view.Epochs()) {
		return nil
	}
	d.Source, d.Watermark = SourceView, r.Position().Stamp
	if i < 0 {
		return bad(CheckTargets, voidReason)
	}
	return v.refused(i, view.State(v.targets[i]), view.Epochs(), d)
}

const voidReason = "its sign-in is of before the log was restored from a backup: what ended it may be lost; sign in again"

// void reports whether it came from a sign-in that a restore has made void.
func (v *verified) void(es revoke.Epochs) bool {
	return v.SessionID != "" && v.issuer.Own() && es.Void(v.Stamp)
}

func (v *verified) refused(i int, s revoke.State, es revoke.Epochs, d *Decision) *fault {
	var cause string
	d.Target = v.target(i)
	d.Since, cause = since(s, es)
	d.newest = s.Newest(v.cutBy(s, es), es)
	return bad(CheckTargets, cause+": "+d.Target.String())
}

// cutBy reports whether a target's cut hits, whatever its holds do.
func (v *verified) cutBy(s revoke.State, es revoke.Epochs) bool {
	s.Held = revoke.Stamp{}
	if v.issuer.Own() {
		return s.Hits(v.Stamp, es)
	}
	return s.HitsAt(v.issued*1000, v.issuer.Skew.Milliseconds(), es)
}

// since returns the position of what hits, and its name. A hold goes first: it
// is what somebody may lift.
func since(s revoke.State, es revoke.Epochs) (revoke.Stamp, string) {
	switch {
	case es.Clamp(s.Released).Less(s.Held):
		return s.Held, CauseHeld
	case s.Ended:
		return s.Cut, CauseEnded
	}
	return s.Cut, CauseCut
}

// past does what the guard's owner chose for a view past its limit.
func (g *Guard) past(ctx context.Context, v *verified, req *Requirement, d Decision, behind *fault, limit time.Duration) (Decision, *fault) {
	switch {
	case g.opts.past == wire.PastRedis:
		return g.askRedis(ctx, v, req, d.Staleness)
	case behind != nil:
		return d, behind
	case g.opts.past == wire.PastAllow:
		d.Source = SourceStale
		return d, nil
	}
	return d, unable(CheckView, g.staleReason(d.Staleness, limit))
}

func (g *Guard) staleReason(staleness, limit time.Duration) string {
	return fmt.Sprintf("the view may be %s old: more than %s", staleness.Round(time.Millisecond), limit)
}

// askRedis reads the token's targets from the Redis view.
func (g *Guard) askRedis(ctx context.Context, v *verified, req *Requirement, staleness time.Duration) (Decision, *fault) {
	d := Decision{Source: SourceRedis, Staleness: staleness}
	limit, probe := g.limitOf(req)
	if probe {
		return d, unable(CheckView, "the request wants a probe, and the Redis view can't be probed")
	}
	if r := g.Reader(); r != nil {
		g.opts.redis.Know(r.Position().Stamp)
		if req.MaxStale == 0 {
			// Past its own limit it goes by that of the view, as receipts say: fenced by
			// the greater of the two.
			limit = max(limit, wire.RedisLimit)
		}
	}
	res, err := g.redisCheck(ctx, v)
	d.Staleness, d.Watermark = res.Staleness, res.Position.Stamp
	switch {
	case res.Outcome == denylist.Clean && v.void(res.Epochs):
		return d, bad(CheckTargets, voidReason)
	case res.Outcome == denylist.Hit:
		return d, v.refused(res.Index, res.State, nil, &d)
	case res.Outcome != denylist.Clean || err != nil:
		return d, unable(CheckView, redisReason(err))
	case res.Staleness > limit:
		return d, unable(CheckView, g.staleReason(res.Staleness, limit))
	}
	return d, nil
}

// redisCheck asks again for a short while if Redis is behind the token.
func (g *Guard) redisCheck(ctx context.Context, v *verified) (denylist.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, redisWait+g.opts.wait)
	defer cancel()
	q := v.query()
	deadline := time.Now().Add(g.opts.wait)
	for {
		res, err := g.opts.redis.Check(ctx, q)
		if !errors.Is(err, denylist.ErrBehind) || time.Now().After(deadline) {
			return res, err
		}
		select {
		case <-time.After(redisPoll):
		case <-ctx.Done():
			return res, err
		}
	}
}

func (v *verified) query() denylist.Query {
	q := denylist.Query{Tenant: v.Tenant, Keys: v.targets, Stamp: v.Stamp}
	if !v.issuer.Own() {
		q.Foreign, q.IssuedAt, q.Skew = true, v.issued*1000, v.issuer.Skew.Milliseconds()
	}
	return q
}

func redisReason(err error) string {
	if errors.Is(err, denylist.ErrIncomplete) {
		return err.Error()
	}
	return "the Redis view can't be read" // the error may hold an address
}
