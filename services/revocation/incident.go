package revocation

import (
	"context"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/problem"
)

// Notebooks are where incidents are kept. Errors are problem.Errors.
type Notebooks interface {
	// Check returns nil if the tenant has such an incident and it is open; problem.NotFound
	// if it has none, problem.Conflict if it is closed.
	Check(ctx context.Context, tenant, id string) error
	// Planned notes what somebody was shown under an incident.
	Planned(ctx context.Context, who Caller, id string, p Planned) error
}

// Planned is a preview as a notebook keeps it.
type Planned struct {
	ID      string
	Op      commit.Op
	Target  string // the first of them
	Targets int
	Hits    string // in words
}

// notebookIn bounds how long a cut waits for the notebook: what is under attack goes first.
const notebookIn = time.Second

// unchecked is what is told where the notebook could not be asked.
const unchecked = "the notebook could not be asked, and nothing waited for it: the entry names the incident all the same, and its report has it if there is such an incident"

// underIncident refuses what names an incident that is not there or is closed. Where the
// notebook can't be asked it goes on, and says so: no cut fails for want of a notebook.
func (s *Service) underIncident(ctx context.Context, tenant, id string) (notGathered string, err error) {
	if id == "" {
		return "", nil
	}
	if err := commit.CheckIncident(id); err != nil {
		return "", problem.FieldError("incident", "%s", err)
	}
	if s.Notebooks == nil {
		return unchecked, nil
	}
	ask, cancel := context.WithTimeout(ctx, notebookIn)
	defer cancel()
	switch err := s.Notebooks.Check(ask, tenant, id); {
	case err == nil:
		return "", nil
	case problem.KindOf(err) == problem.NotFound:
		return "", problem.FieldError("incident", "there is no incident %s, or it has ended; open one, or leave it out", id)
	case problem.KindOf(err) == problem.Conflict:
		return "", err
	}
	return unchecked, nil
}

// mayCommit is underIncident for a request that may have been committed before: that is
// answered as then, whatever has become of its incident.
func (s *Service) mayCommit(ctx context.Context, who Caller, req commit.Request) (notGathered string, err error) {
	notGathered, err = s.underIncident(ctx, req.Tenant, req.Incident)
	if err == nil || req.Incident == "" {
		return notGathered, err
	}
	if before, asked := s.Ledger.Asked(ctx, req.Tenant, who.service(), req.Key); asked == nil && before {
		return "", nil
	}
	return "", err
}

// gathered says of a commit under which incident it stands.
func (e *Entry) gathered(asked string, a commit.Answer, notGathered string) {
	e.Incident, e.NotGathered = a.Incident, notGathered
	if asked != a.Incident {
		e.NotGathered = "this request was committed before, and the entry stands as it was then: under no incident"
		if a.Incident != "" {
			e.NotGathered = "this request was committed before, and the entry stands as it was then: under the incident " + a.Incident
		}
	}
}

// plannedUnder notes a preview in the notebook of its incident, and says so where it can't.
func (s *Service) plannedUnder(ctx context.Context, who Caller, incident string, p *Preview) {
	if incident == "" || p.NotGathered != "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, notebookIn)
	defer cancel()
	err := s.Notebooks.Planned(ctx, who, incident, Planned{
		ID: p.Plan, Op: p.Op, Target: p.Targets[0], Targets: len(p.Targets), Hits: counted(p.Answer),
	})
	if err != nil {
		p.NotGathered = "the plan is not in the notebook: " + problem.From(err).Detail
	}
}
