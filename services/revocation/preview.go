package revocation

import (
	"context"
	"slices"
	"time"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/hits"
	"github.com/quash-project/quash/shared/problem"
)

// Records is who has the records that a cut would hit. Its errors are problem.Errors:
// Unavailable where not all of them can be seen now.
type Records interface {
	Hits(ctx context.Context, r hits.Request) (hits.Answer, error)
}

// Preview is what a revocation or hold would hit, as it was at one moment.
type Preview struct {
	Op     commit.Op
	Tenant string
	Issuer string // short name of a foreign one; empty: the tenant's own
	// Foreign says that a target is of another issuer, which has records of its own.
	Foreign bool
	Targets []string
	hits.Answer
	// AtMost is how many living tokens are hit at most; nil: nothing bounds it, since to
	// exchange a key writes nothing. By TokensGone none that there is now would be alive
	// without the cut either.
	AtMost     *int
	TokensGone time.Time
	// Guards are all that have joined, and Remembered what they have said, by instance, of
	// whose tokens they accepted in the last day. Asked says that they were asked.
	Guards     []fleet.Guard
	Remembered map[string]Remembered
	Asked      bool
	// Unreachable are those of them that are open or past their limit.
	Unreachable []fleet.Unconfirmed
	// FencedBy is when every guard that is not open refuses, if it was committed now.
	FencedBy   time.Time
	CutsCaller bool
	Plan       string
	PlanEnds   time.Time
	// NotGathered is why the plan is not in the notebook of the incident that was asked for.
	NotGathered string
}

// Preview tells what the request would hit, and keeps it as a plan.
func (s *Service) Preview(ctx context.Context, who Caller, r Request) (Preview, error) {
	if r.Op != commit.Revoke && r.Op != commit.Hold {
		return Preview{}, problem.FieldError("op", "%.40q: want revoke or hold; what a release brings back is what its hold has hit", string(r.Op))
	}
	if r.Reason == "" {
		r.Reason = "a preview"
	}
	req, err := s.request(who, r)
	if err != nil {
		return Preview{}, err
	}
	if err := ledger.CheckEnd(req); err != nil {
		return Preview{}, err
	}
	notGathered, err := s.underIncident(ctx, req.Tenant, r.Incident)
	if err != nil {
		return Preview{}, err
	}
	// Whoever joins the log later has the entry: the fleet is looked at first.
	if err := s.Ledger.Ready(); err != nil {
		return Preview{}, err
	}
	now := s.Now()
	p := Preview{Op: r.Op, Tenant: req.Tenant, Issuer: foreign(req.Targets[0].Issuer), TokensGone: now.Add(wire.MaxTokenLife), FencedBy: now, NotGathered: notGathered}
	s.lookAtFleet(&p, now)
	keys := keysOf(req)
	remembered := s.askSeen(ctx, keys, p.Guards)
	p.Answer, err = s.hits(ctx, req)
	p.Remembered, p.Asked = remembered()
	if err != nil {
		return Preview{}, err
	}
	for i, t := range req.Targets {
		p.Targets = append(p.Targets, revoke.Target{Kind: t.Kind, ID: t.ID}.String())
		p.Foreign = p.Foreign || t.Issuer != revoke.Own
		p.CutsCaller = p.CutsCaller || slices.Contains(who.Targets, keys[i])
	}
	p.AtMost = atMost(req.Targets)
	plan := planOf(req, p.Answer, now)
	p.PlanEnds = now.Add(planLife)
	if p.Plan, err = s.keep(ctx, plan); err != nil {
		return p, err
	}
	s.plannedUnder(ctx, who, r.Incident, &p)
	return p, nil
}

// hits asks the issuer, which has applied the log as far as this service by then.
func (s *Service) hits(ctx context.Context, req commit.Request) (hits.Answer, error) {
	ask := hits.Request{Tenant: req.Tenant, Op: req.Op, Targets: []commit.Target{}}
	if thenOf(req) == wire.ThenRevoke { // what is held already dies too
		ask.Op = commit.Revoke
	}
	for _, t := range req.Targets {
		if t.Issuer == revoke.Own { // of others there are no records
			ask.Targets = append(ask.Targets, t)
		}
	}
	head := s.Ledger.Head()
	ask.Epoch, ask.Sequence = head.Epoch, head.Seq
	ctx, cancel := context.WithTimeout(ctx, hits.Within)
	defer cancel()
	a, err := s.Records.Hits(ctx, ask)
	if err != nil && problem.KindOf(err) == problem.UnknownOutcome {
		err = problem.Wrap(problem.Unavailable, err, "the issuer does not say now what would be hit; nothing was done, try again")
	}
	return a, err
}

// atMost bounds the tokens that are hit, where something does.
func atMost(targets []commit.Target) *int {
	n := 0
	seen := map[commit.Target]bool{}
	for _, t := range targets {
		ofOurs := t.Issuer == revoke.Own && (t.Kind == revoke.KindSession || t.Kind == revoke.KindSignIns)
		switch {
		case seen[t] || ofOurs: // nobody can sign in yet
		case t.Kind == revoke.KindToken:
			n++
		default:
			return nil
		}
		seen[t] = true
	}
	return &n
}

// lookAtFleet tells who decides, and until when without the cut.
func (s *Service) lookAtFleet(p *Preview, now time.Time) {
	for _, g := range s.Fleet.List() {
		if g.State == fleet.StateOut {
			continue
		}
		p.Guards = append(p.Guards, g)
		by, open := now.Add(g.Bound), g.Past == wire.PastAllow
		if !open && by.After(p.FencedBy) {
			p.FencedBy = by
		}
		if open {
			p.Unreachable = append(p.Unreachable, fleet.Unconfirmed{Name: g.Name, Instance: g.Instance, Open: true})
		} else if g.State == fleet.StateFenced {
			p.Unreachable = append(p.Unreachable, fleet.Unconfirmed{Name: g.Name, Instance: g.Instance, FencedBy: by})
		}
	}
}

func keysOf(req commit.Request) []revoke.Key {
	keys := make([]revoke.Key, len(req.Targets))
	for i, t := range req.Targets {
		keys[i] = keyOf(req.Tenant, t)
	}
	return keys
}

func keyOf(tenant string, t commit.Target) revoke.Key {
	return revoke.Target{Tenant: tenant, Issuer: t.Issuer, Kind: t.Kind, ID: t.ID}.Key()
}
