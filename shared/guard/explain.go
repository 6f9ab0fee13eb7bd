package guard

import (
	"context"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/token"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Explanation is a Decision with everything that led to it.
type Explanation struct {
	Decision
	Checks   []CheckResult  // each check that could be made, in order
	Targets  []TargetResult // each target of the token, once its claims could be read
	Claims   *Claims        // what the token says, once that could be read; see Proved
	Proved   bool           // the signature is that of a trusted key; otherwise Claims are mere words
	Position wire.Position  // the watermark of the view
	// ViewStaleness is how old the view is at most; ViewError why nothing is
	// accepted from it.
	ViewStaleness time.Duration
	ViewError     string
}

// CheckResult is the outcome of one check.
type CheckResult struct {
	Check  string
	OK     bool
	Detail string // what was wrong
}

// TargetResult is what is known of one target of a token.
type TargetResult struct {
	Target
	Hit   bool
	Cause string       // CauseHeld, CauseEnded or CauseCut, if it hits
	Since revoke.Stamp // the position of the hold or cut that hits; zero if it is not known
	State revoke.State
}

// Hits returns the targets that hit.
func (e Explanation) Hits() []TargetResult {
	var hits []TargetResult
	for _, t := range e.Targets {
		if t.Hit {
			hits = append(hits, t)
		}
	}
	return hits
}

// Explain decides, and tells the outcome of every check, also of those after the
// first that fails, and the state of every target. It is for people: Decide does
// less.
func (g *Guard) Explain(ctx context.Context, text string, req Requirement) Explanation {
	req.explained = true
	e := Explanation{Decision: g.observed(ctx, text, req)}
	g.explainView(&e)
	if g.exchange.takes(text) {
		tok, refused := g.exchange.token(ctx, text, &req)
		if refused != nil {
			e.add(refused.Check, bad(refused.Check, refused.Reason))
			return e
		}
		e.add(CheckExchange, nil)
		text = tok.token
	}
	t, err := token.Decode(text)
	if err != nil {
		e.add(CheckForm, misformed(text, err))
		return e
	}
	e.add(CheckForm, nil)
	iss, f := g.issuerOf(t)
	e.add(CheckIssuer, f)
	if f != nil {
		return e
	}
	now := g.opts.now()
	v, f := iss.claims(t, now)
	e.add(CheckClaims, f)
	e.Proved = g.explainKey(ctx, &e, iss, t, now)
	if v == nil {
		return e
	}
	e.Claims = &v.Claims
	e.add(CheckTime, v.timely(now))
	e.add(CheckAudience, v.meant(&req))
	g.explainTargets(&e, v)
	e.explainRights(v.may(&req), req.Where != nil)
	return e
}

// explainRights adds the checks of what the token gives, up to the one that fails.
func (e *Explanation) explainRights(f *fault, conditions bool) {
	for _, check := range rights {
		switch {
		case f != nil && f.check == check:
			e.add(check, f)
			return
		case check != CheckCondition || conditions:
			e.add(check, nil)
		}
	}
}

func (e *Explanation) add(check string, f *fault) {
	c := CheckResult{Check: check, OK: f == nil}
	if f != nil {
		c.Detail = f.reason
	}
	e.Checks = append(e.Checks, c)
}

func (g *Guard) explainView(e *Explanation) {
	r := g.Reader()
	if r == nil {
		return
	}
	staleness, err := r.Check()
	e.ViewStaleness, e.Position = staleness, r.Position()
	if err != nil {
		e.ViewError = err.Error()
	}
}

func (g *Guard) explainKey(ctx context.Context, e *Explanation, iss *issuer, t *token.Token, now time.Time) (proved bool) {
	key, f := g.keyOf(ctx, iss, t)
	if f == nil {
		if err := key.Usable(now); err != nil {
			f = bad(CheckKey, "the token's signing key can't be used: "+err.Error())
		}
	}
	e.add(CheckKey, f)
	if key == nil {
		return false
	}
	wrong := signature(key, t)
	e.add(CheckSignature, wrong)
	return f == nil && wrong == nil
}

func (g *Guard) explainTargets(e *Explanation, v *verified) {
	var view *fault
	if e.Outcome == Unavailable && e.Check == CheckView {
		view = unable(CheckView, e.Reason)
	}
	e.add(CheckView, view)
	var hit *fault
	r := g.Reader()
	for i, key := range v.targets {
		t := TargetResult{Target: v.target(i)}
		if r != nil {
			t.State = r.View().State(key)
			epochs := r.View().Epochs()
			if v.issuer.Own() {
				t.Hit = t.State.Hits(v.Stamp, epochs)
			} else {
				t.Hit = t.State.HitsAt(v.issued*1000, v.issuer.Skew.Milliseconds(), epochs)
			}
			if t.Hit {
				t.Since, t.Cause = since(t.State, epochs)
			}
		}
		if key == e.Target.Key && e.Decision.Check == CheckTargets && !t.Hit { // found in Redis
			t.Hit, t.Since = true, e.Since
		}
		if t.Hit && hit == nil {
			hit = bad(CheckTargets, t.Target.String()+" hits it")
		}
		e.Targets = append(e.Targets, t)
	}
	if hit == nil && e.Decision.Check == CheckTargets { // its sign-in is void
		hit = bad(CheckTargets, e.Reason)
	}
	e.add(CheckTargets, hit)
}
