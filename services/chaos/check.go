package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Violation is a promise that a history breaks.
type Violation struct {
	Promise string // one of those below
	Text    string
}

func (v Violation) String() string { return v.Promise + ": " + v.Text }

// The promises, as violations name them.
const (
	promiseKept      = "an acknowledged revocation is never lost"
	promiseClaim     = "no token is accepted by a view that covers its revocation"
	promiseConfirmed = "no token is accepted where its revocation was confirmed"
	promiseFenced    = "no token is accepted past the moment by which a guard is fenced"
	promiseComplete  = "no token is accepted anywhere once its revocation is complete"
	promiseOrder     = "revoke, hold and release of one target are linearizable"
	promiseOnce      = "an idempotency key never commits twice"
	promiseNothing   = "what is answered as not done was not done"
	promiseEpoch     = "a log that went back is in a new epoch once it is quiet"
	promiseAnew      = "what is minted after a cut is accepted in the end"
	promiseEqual     = "all views are equal once it is quiet"
	promiseStuck     = "everybody can tell again once it is quiet"
	promiseReceipt   = "what was committed has a receipt that says so, signed"
	promiseProved    = "a receipt takes back nothing"
	promisePreview   = "a preview shows what a cut would hit"
	promiseAgree     = "log, buckets, audit trail, Redis view and guards agree in the end"
)

// tick is what a moment of the wall clock may be off by on its way: it is told
// in milliseconds.
const tick = 2 * time.Millisecond

// Check holds a history against the promises and returns what it breaks, the
// shortest to tell first. It believes the clients' own clock and nobody's word
// of what is revoked. Of undecided targets no order was found, and none excluded, in time.
func Check(h *History) (found []Violation, undecided []string) {
	c := &checker{h: h, tokens: map[int]*Token{}, byTarget: map[string][]*Change{}}
	for _, t := range h.Tokens {
		c.tokens[t.ID] = t
	}
	for _, x := range h.Changes {
		c.byTarget[x.Target] = append(c.byTarget[x.Target], x)
	}
	for i := range h.Looks {
		if l := &h.Looks[i]; l.Verdict == Allowed {
			c.accepted(l)
		}
	}
	c.once()
	c.receipts()
	c.quiet()
	c.linearizable()
	slices.SortStableFunc(c.found, func(a, b Violation) int { return cmp.Compare(len(a.Text), len(b.Text)) })
	return c.found, c.undecided
}

type checker struct {
	h        *History
	tokens   map[int]*Token
	byTarget map[string][]*Change
	found    []Violation
	// undecided are targets of which no order was found, and none excluded, in time.
	undecided []string
}

func (c *checker) broke(promise, format string, args ...any) {
	c.found = append(c.found, Violation{promise, fmt.Sprintf(format, args...)})
}

// accepted holds one acceptance against every change that was acknowledged.
func (c *checker) accepted(l *Look) {
	t := c.tokens[l.Token]
	for _, target := range t.targets() {
		for _, x := range c.byTarget[target] {
			if len(x.Answers) == 0 || !c.hits(x, t, l.Answered) {
				continue
			}
			if l.Final {
				c.broke(promiseKept, "%s: accepted by %s when all was quiet", c.story(x, t), l.By)
				continue
			}
			c.early(l, t, x)
		}
	}
}

// early looks for a promise by which the guard had to know of a change.
func (c *checker) early(l *Look, t *Token, x *Change) {
	acked, lost := x.Answers[0].At, c.lost(x, l)
	since := l.Asked - acked
	if since > l.Stale && !(lost && l.Epoch <= x.Answers[0].Where.Epoch) && !c.reborn(t, l) {
		c.broke(promiseClaim, "%s: %s accepted it %s after the acknowledgement, by a view that claims to be %s old", c.story(x, t), l.By, since, l.Stale)
	}
	if lost {
		return // what was told before anyone noticed stands wrong, as documented
	}
	for _, told := range x.Told {
		c.told(l, t, x, told)
	}
}

func (c *checker) told(l *Look, t *Token, x *Change, told Told) {
	after := l.Asked - told.At
	if l.Redis {
		if told.Redis != 0 && l.Asked > told.Redis+tick {
			c.broke(promiseFenced, "%s: %s accepted it %s after the Redis view was fenced", c.story(x, t), l.By, l.Asked-told.Redis)
		}
		return
	}
	for _, who := range told.Confirmed {
		if after > 0 && l.Guard.is(who) {
			c.broke(promiseConfirmed, "%s: %s accepted it %s after it was told to have it", c.story(x, t), l.By, after)
			break
		}
	}
	var fence time.Duration
	for who, at := range told.Fenced {
		if l.Guard.is(who) {
			fence = max(fence, at)
		}
	}
	if fence != 0 && l.Asked > fence+tick {
		c.broke(promiseFenced, "%s: %s accepted it %s after it was fenced", c.story(x, t), l.By, l.Asked-fence)
	}
	if told.Complete && after > 0 {
		c.broke(promiseComplete, "%s: %s accepted it %s after it was told to be complete", c.story(x, t), l.By, after)
	}
}

// is reports whether what is told of a guard is of this one. Of a process only
// the name is known: an instance that came later joined above what was told of
// the one before.
func (w Who) is(o Who) bool {
	return w.Name == o.Name && (w.Instance == "" || w.Instance == o.Instance)
}

// hits reports whether a change that was committed must refuse a token, whoever
// knows it, in a decision that was answered by then.
func (c *checker) hits(x *Change, t *Token, by time.Duration) bool {
	switch x.Op {
	case opHold:
		return !c.mayBeReleased(x, by)
	case opRevoke:
		// A cut hits what was there when it was asked for; an end whatever there is.
		return x.Target != t.Principal || t.KeyMade < x.Asked
	}
	return false
}

// mayBeReleased reports whether somebody had asked by then for a release that
// can be of this hold.
func (c *checker) mayBeReleased(hold *Change, by time.Duration) bool {
	for _, r := range c.byTarget[hold.Target] {
		if r.Op != opRelease || r.Asked > by || r.ends != nil && r.ends != hold {
			continue
		}
		if r.Outcome == Maybe || r.Outcome == Done && r.Answers[0].At >= hold.Asked {
			return true
		}
	}
	return false
}

// lost reports whether the log may have gone back past a change before a decision.
func (c *checker) lost(x *Change, l *Look) bool {
	b := c.back(x)
	return b != nil && l.Answered >= b.Back
}

// reborn reports whether the token's stamp may be one of what the log lost, and
// given out again, at a guard that could not have noticed.
func (c *checker) reborn(t *Token, l *Look) bool {
	for _, b := range c.h.Backs {
		if t.Made >= b.Copied && l.Answered >= b.Back && t.Stamp.Epoch <= b.Epoch && l.Epoch <= b.Epoch {
			return true
		}
	}
	return false
}

func (c *checker) story(x *Change, t *Token) string {
	text := fmt.Sprintf("%s %s (asked %s", x.Op, x.Target, at(x.Asked))
	if len(x.Answers) > 0 {
		text += fmt.Sprintf(", acknowledged %s at %s", at(x.Answers[0].At), x.Answers[0].Where)
	}
	return text + fmt.Sprintf("), token %d of %s", t.ID, t.Principal)
}

func at(d time.Duration) string { return fmt.Sprintf("%.3fs", d.Seconds()) }

// once checks what became of each idempotency key.
func (c *checker) once() {
	for _, x := range c.h.Changes {
		for _, a := range x.Answers {
			first := x.Answers[0]
			if (a.Entry != first.Entry || a.Where != first.Where) && a.Where.Epoch == first.Where.Epoch {
				c.broke(promiseOnce, "%s %s: answered as %s at %s and as %s at %s", x.Op, x.Target, first.Entry, first.Where, a.Entry, a.Where)
				break
			}
		}
		n, read := c.h.Stored[x.ID], c.h.Stored != nil
		switch {
		case n > 1:
			c.broke(promiseOnce, "%s %s: %d entries in the log", x.Op, x.Target, n)
		case n == 1 && (x.Outcome == Nothing || x.Outcome == Conflict):
			c.broke(promiseNothing, "%s %s, asked %s: answered at %s as not done, and it is in the log", x.Op, x.Target, at(x.Asked), at(x.Answered))
		case read && n == 0 && len(x.Answers) > 0 && c.back(x) == nil:
			c.broke(promiseKept, "%s %s, acknowledged %s at %s: not in the log", x.Op, x.Target, at(x.Answers[0].At), x.Answers[0].Where)
		}
	}
}

// back returns the time that the log went back past a change, nil if it did not.
func (c *checker) back(x *Change) *Back {
	for i, b := range c.h.Backs {
		if x.Answers[0].At >= b.Copied && x.Asked <= b.Back {
			return &c.h.Backs[i]
		}
	}
	return nil
}

// newEpoch looks whether whoever decides in the end knows that what was acknowledged
// and is not in the log was of a history that is over.
func (c *checker) newEpoch(l *Look) {
	if l.Epoch == 0 || c.h.Stored == nil {
		return
	}
	for _, x := range c.h.Changes {
		if len(x.Answers) > 0 && c.h.Stored[x.ID] == 0 && c.back(x) != nil && l.Epoch <= x.Answers[0].Where.Epoch {
			c.broke(promiseEpoch, "%s %s, acknowledged at %s, was lost when the log went back, and %s is in epoch %d", x.Op, x.Target, x.Answers[0].Where, l.By, l.Epoch)
			return
		}
	}
}

// quiet compares what everybody says in the end.
func (c *checker) quiet() {
	first := map[int]*Look{}
	for i := range c.h.Looks {
		l := &c.h.Looks[i]
		if !l.Final {
			continue
		}
		t := c.tokens[l.Token]
		c.newEpoch(l)
		if l.Verdict == Unable || l.Verdict == Other {
			c.broke(promiseStuck, "%s says of token %d of %s: %s: %s", l.By, t.ID, t.Principal, l.Verdict, l.Why)
			continue
		}
		if t.AfterCut && l.Verdict != Allowed && c.mustLive(t) {
			c.broke(promiseAnew, "%s says of token %d of %s, whose key was made at %s: %s (%s)", l.By, t.ID, t.Principal, at(t.KeyMade), l.Verdict, l.Why)
		}
		if one := first[l.Token]; one == nil {
			first[l.Token] = l
		} else if (one.Verdict == Allowed) != (l.Verdict == Allowed) {
			c.broke(promiseEqual, "token %d of %s: %s by %s, %s by %s", t.ID, t.Principal, one.Verdict, one.By, l.Verdict, l.By)
		}
	}
	for id, l := range first {
		if fold, ok := c.h.Fold[id]; ok && (fold == Allowed) != (l.Verdict == Allowed) {
			c.broke(promiseEqual, "token %d of %s: %s by %s, %s by the log itself", id, c.tokens[id].Principal, l.Verdict, l.By, fold)
		}
	}
}

// mustLive reports whether nothing that was asked for can refuse a token, in
// whatever order it came about.
func (c *checker) mustLive(t *Token) bool {
	for _, target := range t.targets() {
		for _, x := range c.byTarget[target] {
			switch {
			case x.Outcome == Nothing || x.Outcome == Conflict || x.Op == opRelease:
			case x.Op == opRevoke && target == t.Principal && x.Outcome == Done && x.Answers[0].At < t.KeyAsked:
			case x.Op == opHold && x.Outcome == Done && (x.For > 0 || c.wasReleased(x)): // the service releases it
			default:
				return false
			}
		}
	}
	return true
}

// wasReleased reports whether a release was asked for after the hold was
// acknowledged, and acknowledged.
func (c *checker) wasReleased(hold *Change) bool {
	return slices.ContainsFunc(c.byTarget[hold.Target], func(r *Change) bool {
		return r.Op == opRelease && r.Outcome == Done && r.Asked > hold.Answers[0].At
	})
}
