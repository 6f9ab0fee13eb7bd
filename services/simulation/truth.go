package simulation

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// fact is one revocation, hold or release as its asker saw it, in true time.
type fact struct {
	op     commit.Op
	target revoke.Target
	key    revoke.Key
	asked  time.Time // before anything was sent
	acked  time.Time // zero: never answered
	at     revoke.Stamp
	by     int    // replica that answered
	final  bool   // its target never comes back, so that it hits whenever something was made
	scope  string // not empty: it took this scope from a role, which never gets it again
	over   bool   // its entry has come to its end
	direct bool   // asked of the revocation service itself
	app    *app   // of a key: the client whose end takes it along, without one of its own

	// Of what the log has lost: who still holds it, and in which epoch that was.
	// With nobody left it is excused.
	lost    bool
	lostIn  uint64
	holders map[string]bool
	excused bool
	backAt  time.Time // when it was first seen to be in the log again
	// What was told of it.
	confirmed map[string]time.Time // by instance: from when it must refuse
	complete  time.Time
}

// thing is a token.
type thing struct {
	name    string
	targets []revoke.Key
	stamp   revoke.Stamp
	scopes  []string
	made    time.Time // when it was finished
	expires time.Time // by its issuer's clock
	// from is, for each target, where that comes from which the target hits: a
	// record that is older than the token. What was asked for after it got its
	// stamp hits it.
	from  []origin
	known []known
}

// back is one time that the log went back.
type back struct {
	at    time.Time
	epoch uint64
	to    uint64
}

// truth is what happened, kept apart from what anybody believes.
type truth struct {
	mu     sync.Mutex
	facts  map[revoke.Key][]*fact
	all    []*fact
	broken []string
	counts map[string]int
	backs  []back
	inLog  func(*fact) bool            // whether the log has it now
	held   func(*fact) map[string]bool // who remembers it now
}

func newTruth() *truth {
	return &truth{facts: map[revoke.Key][]*fact{}, counts: map[string]int{}}
}

// broke notes a violation.
func (t *truth) broke(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.broken = append(t.broken, fmt.Sprintf(format, args...))
}

func (t *truth) count(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[what]++
}

func (t *truth) ask(op commit.Op, target revoke.Target) *fact {
	f := &fact{op: op, target: target, key: target.Key(), asked: time.Now(), direct: true, confirmed: map[string]time.Time{}}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.facts[f.key] = append(t.facts[f.key], f)
	t.all = append(t.all, f)
	return f
}

func (t *truth) answered(f *fact, at revoke.Stamp, by int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.acked, f.at, f.by = time.Now(), at, by
	for _, b := range t.backs {
		if b.at.After(f.asked) && !t.inLog(f) { // it was lost while its answer was on its way
			t.loses(f, b.epoch)
		}
	}
}

// loses notes that the log has lost a fact in an epoch, and who still holds it. It is
// called with mu held.
func (t *truth) loses(f *fact, epoch uint64) {
	f.lost, f.lostIn, f.holders, f.backAt = true, epoch, t.held(f), time.Time{}
	f.excused = len(f.holders) == 0
}

// hits reports whether a fact must refuse a thing, at a time and for ever after,
// once it is known. It is called with mu held.
func (t *truth) hits(f *fact, x *thing, at time.Time) bool {
	if f.acked.IsZero() || f.excused {
		return false
	}
	switch f.op {
	case commit.Release:
		return false
	case commit.Hold:
		return !t.mayBeReleased(f, at)
	}
	if f.scope != "" {
		return slices.Contains(x.scopes, f.scope)
	}
	return f.final || f.target.Kind.Final() || x.born(f.key).Before(f.asked)
}

// mayBeReleased reports whether somebody has asked for a release that could be of
// this hold. It is called with mu held.
func (t *truth) mayBeReleased(f *fact, at time.Time) bool {
	for _, r := range t.facts[f.key] {
		if r.op == commit.Release && r.asked.Before(at) && (r.acked.IsZero() || !r.acked.Before(f.asked)) {
			return true
		}
	}
	return false
}

// claim is what somebody says who takes a thing.
type claim struct {
	who, instance string
	at            time.Time // when it was asked
	proved        time.Time // everything that was acknowledged before is in its view, it says
	epoch         uint64
	bounded       bool // it denies past its limit, so that fences and completeness count
	redis         bool
}

// taken holds an acceptance against the promises.
func (t *truth) taken(x *thing, c claim) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range t.backs {
		// Its stamp is of what is lost, and is given out again; nobody has noticed yet.
		if x.ofLost(b) && c.epoch <= b.epoch {
			return
		}
	}
	for _, key := range x.targets {
		for _, f := range t.facts[key] {
			// By now: a release that was asked for while it was looked up may be in the answer.
			if !t.hits(f, x, time.Now()) {
				continue
			}
			if f.lost && (c.epoch <= f.lostIn || !t.isBack(f, c.proved)) {
				continue // nobody has noticed yet that the log went back, or who holds it has not
			}
			if f.lost && x.stamp.Epoch > f.lostIn && x.made.Before(f.backAt) {
				continue // an issuer without memory made it meanwhile, above the cut
			}
			why := ""
			if f.acked.Before(c.proved) {
				why = fmt.Sprintf("in a view that claims to be %s old, %s after it was acknowledged", c.at.Sub(c.proved), c.at.Sub(f.acked))
			}
			if from, ok := f.confirmed[c.instance]; ok && !c.redis && from.Before(c.at) && !f.lost {
				why = fmt.Sprintf("%s after it was told to be confirmed or fenced", c.at.Sub(from))
			}
			if c.bounded && !f.complete.IsZero() && f.complete.Before(c.at) && !f.lost {
				why = fmt.Sprintf("%s after it was told to be complete", c.at.Sub(f.complete))
			}
			if why != "" {
				t.broken = append(t.broken, fmt.Sprintf("%s took %s (made at %s, stamp %s) against %s %s at %s (asked %s, answered %s, complete %s; %s): %s",
					c.who, x.name, clock(x.made), x.stamp, f.op, f.target, f.at, clock(f.asked), clock(f.acked), clock(f.complete), x.traced(key), why))
			}
		}
	}
}

// isBack reports whether a lost fact was in the log again before a time.
func (t *truth) isBack(f *fact, before time.Time) bool {
	if f.backAt.IsZero() && t.inLog(f) {
		f.backAt = time.Now()
	}
	return !f.backAt.IsZero() && f.backAt.Before(before)
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }

// wentBack notes which facts the log has lost, and who still holds them.
func (t *truth) wentBack(b back, gone func(*fact) bool) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.backs = append(t.backs, b)
	for _, f := range t.all {
		if f.acked.IsZero() || f.excused || f.over || !gone(f) {
			continue
		}
		n++
		t.loses(f, b.epoch)
	}
	return n
}

// ends notes that a holder has lost its memory, unless the log has the fact again.
func (t *truth) ends(holder string, back func(*fact) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.all {
		if !f.lost || f.excused || back(f) {
			continue
		}
		delete(f.holders, holder)
		f.excused = len(f.holders) == 0
	}
}
