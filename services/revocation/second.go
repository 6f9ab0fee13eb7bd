package revocation

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/approvers"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// When a cut needs a second person.
const (
	// SecondAuto: one that is wide, once there are two people who may make cuts.
	SecondAuto = "auto"
	// SecondAlways: every one, however many people there are.
	SecondAlways = "always"
	// SecondNever: none.
	SecondNever = "never"
)

// Bounds of a Policy, and what it is by default.
const (
	DefaultSecondHits   = 1000
	MaxSecondHits       = 10_000 // as many requests of each person are remembered
	DefaultSecondWindow = time.Hour
	DefaultPendingLife  = time.Hour
	MaxSecondTime       = 24 * time.Hour
)

// Policy says which cuts need a second person.
type Policy struct {
	Mode string
	// Hits is how much one person may hit within Window: the requests are added up, so that
	// a cut does not get narrower by being sent in parts.
	Hits   int
	Window time.Duration
	Life   time.Duration // of a cut that waits
}

// Second is what the rule of two people needs.
type Second struct {
	Policy Policy
	// Approvers tells who may be the second person.
	Approvers Approvers
	Pending   PendingStore
	Spent     Spent
	// Told is told of what became of a cut that waited, and of break-glass.
	Told SecondTold
}

// Approvers is who knows who may make cuts. Its errors are problem.Errors: Unavailable where
// that can't be seen now.
type Approvers interface {
	Approvers(ctx context.Context, r approvers.Request) (approvers.Answer, error)
}

// Spent adds up, for all replicas, what a person has hit of late.
type Spent interface {
	// Add adds n under an id, once however often it is asked, unless more than limit would
	// have been added within the window: over. The ids of two requests differ.
	Add(ctx context.Context, tenant, subject, id string, n, limit int, window time.Duration) (over bool, err error)
}

// SecondTold is told once by whichever replica did it.
type SecondTold interface {
	Pending(p *Pending)
	Decided(p *Pending)
	// Unasked tells of a narrow cut that did not wait to be told from a wide one.
	Unasked(op commit.Op, actor string, err error)
	BreakGlass(op commit.Op, actor, reason string, err error)
}

// Whole is what a request is a part of, as its sender says: a file, of which a request has up
// to 1,000 targets. Nobody has to believe the sender: what is said makes a cut wider only.
type Whole struct {
	ID      string // by which the parts are approved together
	Targets int    // how many all parts have
}

// wideKinds need a second person, whatever there is under them now.
var wideKinds = []revoke.Kind{revoke.KindTenant, revoke.KindIssuer, revoke.KindSigningKey}

// Ask commits what a person asks for, or keeps it until a second person has agreed: then the
// Pending is not nil, and nothing was cut.
func (s *Service) Ask(ctx context.Context, who Caller, r Request, wait time.Duration) (Entry, *Pending, error) {
	taken := r.Op == commit.Revoke || r.Op == commit.Hold
	if r.BreakGlass {
		if !taken {
			return Entry{}, nil, problem.FieldError("break_glass", "only a revocation or a hold can need a second person: leave it out")
		}
		e, err := s.Commit(ctx, who, r, wait)
		s.Second.Told.BreakGlass(r.Op, who.Actor, r.Reason, err)
		if err == nil && r.Key != "" {
			s.overtaken(ctx, who, &e)
		}
		return e, nil, err
	}
	if !taken || s.Second.Policy.Mode == SecondNever {
		e, err := s.Commit(ctx, who, r, wait)
		return e, nil, err
	}
	return s.askFirst(ctx, who, r, wait)
}

// askFirst commits what needs no second person, or was committed before, and keeps the rest.
func (s *Service) askFirst(ctx context.Context, who Caller, r Request, wait time.Duration) (Entry, *Pending, error) {
	repeatable := r.Key != ""
	req, err := s.request(who, r)
	if err != nil {
		return Entry{}, nil, err
	}
	id, digest, err := ledger.Check(req, who.service())
	if err != nil {
		return Entry{}, nil, err
	}
	if err := s.Ledger.Ready(); err != nil {
		return Entry{}, nil, err
	}
	q := question{req: req, whole: r.Whole, id: id + digest, urgent: s.urgent(req, r.Whole)}
	notGathered, why := "", ""
	if repeatable {
		done, e, p, asked := s.askedBefore(ctx, &q, id, digest, wait)
		if done {
			return e, p, asked
		}
		err = asked
	}
	if err == nil { // nothing is added up of what is refused
		if notGathered, err = s.allowed(ctx, who, r.Plan, req); err != nil {
			return Entry{}, nil, err
		}
		why, err = s.needsSecond(ctx, who, &q)
	}
	if err != nil || why != "" {
		before, asked := false, error(nil)
		if repeatable { // it may have been committed when it needed none
			before, asked = s.Ledger.Asked(ctx, req.Tenant, who.service(), req.Key)
		}
		switch {
		case before:
		case err != nil:
			return Entry{}, nil, err
		case asked != nil:
			return Entry{}, nil, problem.Wrap(problem.Unavailable, asked, "the log can't be read now; nothing was done, try again")
		default:
			return s.putOff(ctx, who, r, req, id, digest, why)
		}
	} else if q.unasked != nil {
		s.Second.Told.Unasked(req.Op, who.Actor, q.unasked)
	}
	e, err := s.commit(ctx, req, who.service(), notGathered, wait)
	return e, nil, err
}

// question is whether a cut needs a second person.
type question struct {
	req   commit.Request
	whole Whole
	id    string // of this very request: another one under the same key has another one
	// urgent: it is so narrow that it waits for no bucket; see urgent.
	urgent  bool
	unasked error // why a bucket was not waited for
}

const (
	// urgentTargets is up to how many targets a cut waits for no bucket.
	urgentTargets = 10
	// bucketIn bounds how long it waits for each of two.
	bucketIn = 500 * time.Millisecond
)

// urgent tells whether a cut is so narrow that what is under attack goes first: a few keys,
// tokens or sessions, which hit nothing but themselves.
func (s *Service) urgent(req commit.Request, whole Whole) bool {
	return s.Second.Policy.Mode != SecondAlways && len(req.Targets) <= urgentTargets && whole == Whole{} &&
		!slices.ContainsFunc(req.Targets, func(t commit.Target) bool { return !t.Kind.Final() || slices.Contains(wideKinds, t.Kind) })
}

// soon bounds a question to a bucket.
func (q *question) soon(ctx context.Context) (context.Context, context.CancelFunc) {
	if q.urgent {
		return context.WithTimeout(ctx, bucketIn)
	}
	return context.WithCancel(ctx)
}

// unanswered says what a bucket did not; nil: it goes on without.
func (q *question) unanswered(err error, what string) error {
	err = cantTell(err, what)
	if q.urgent && problem.KindOf(err) == problem.Unavailable {
		q.unasked = err
		return nil
	}
	return err
}

// needsSecond tells why a cut needs a second person; empty: it needs none. What can be said
// without a question is said without one: a narrow cut waits for nobody.
func (s *Service) needsSecond(ctx context.Context, who Caller, q *question) (string, error) {
	policy := s.Second.Policy
	if policy.Mode == SecondAlways {
		return "every revocation and hold needs a second person here", nil
	}
	why, err := s.wide(ctx, who, q)
	if why == "" || err != nil {
		return "", err
	}
	a, err := s.approvers(ctx, q.req.Tenant)
	if err != nil || a.Count < approvers.Enough {
		return "", err
	}
	return why, nil
}

// wide tells why a cut is wide; empty: it is not, and is added to what its person has cut.
func (s *Service) wide(ctx context.Context, who Caller, q *question) (string, error) {
	policy, req := s.Second.Policy, q.req
	for _, t := range req.Targets {
		if slices.Contains(wideKinds, t.Kind) {
			return fmt.Sprintf("it names a target of the kind %s", t.Kind), nil
		}
	}
	n, err := s.hit(ctx, req)
	if err != nil {
		return "", cantTell(err, "what it would hit")
	}
	if n = max(n, q.whole.Targets); n > policy.Hits {
		return fmt.Sprintf("it would hit more than %d API keys, client secrets, clients and tokens", policy.Hits), nil
	}
	ctx, cancel := q.soon(ctx)
	defer cancel()
	over, err := s.Second.Spent.Add(ctx, req.Tenant, who.Subject, q.id, n, policy.Hits, policy.Window)
	if err != nil {
		return "", q.unanswered(err, "what was cut of late")
	}
	if over {
		return fmt.Sprintf("with what %s has cut within %s it would hit more than %d API keys, client secrets, clients and tokens", who.Subject, policy.Window, policy.Hits), nil
	}
	return "", nil
}

// hit counts what a request hits. A target that is one thing counts as that, alive or not, so
// that the issuer is asked only about those that may be many.
func (s *Service) hit(ctx context.Context, req commit.Request) (int, error) {
	many := req
	many.Targets = nil
	n := 0
	for _, t := range req.Targets {
		if t.Issuer == revoke.Own && !t.Kind.Final() {
			many.Targets = append(many.Targets, t)
		} else {
			n++
		}
	}
	if len(many.Targets) == 0 {
		return n, nil
	}
	a, err := s.hits(ctx, many)
	return n + max(len(many.Targets), a.Keys+a.Secrets+a.Clients+a.Narrowed), err
}

// approvers asks who may make cuts, as of all that is committed now.
func (s *Service) approvers(ctx context.Context, tenant string, subjects ...string) (approvers.Answer, error) {
	head := s.Ledger.Head()
	ctx, cancel := context.WithTimeout(ctx, approvers.Within)
	defer cancel()
	a, err := s.Second.Approvers.Approvers(ctx, approvers.Request{Tenant: tenant, Subjects: subjects, Epoch: head.Epoch, Sequence: head.Seq})
	if err != nil {
		return a, cantTell(err, "who may approve it")
	}
	return a, nil
}

// cantTell refuses: what can't be told is never taken for what needs nobody.
func cantTell(err error, what string) error {
	switch problem.KindOf(err) {
	case problem.Unavailable, problem.UnknownOutcome, problem.RateLimited, problem.Internal:
		return problem.Wrap(problem.Unavailable, err, "whether this needs a second person can't be told now, since %s is not known; nothing was done: try again, or use break_glass", what)
	}
	return err
}
