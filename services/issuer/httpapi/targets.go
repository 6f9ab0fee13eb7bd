package httpapi

import (
	"context"
	"net/http"

	"github.com/quash-project/quash/services/issuer"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
	"github.com/quash-project/quash/shared/selector"
)

// Target is one that a selector has named.
type Target struct {
	Target    string      `json:"target" doc:"what to revoke"`
	Owner     string      `json:"owner"`
	ClientID  string      `json:"client_id,omitempty"`
	State     string      `json:"state,omitempty" enum:"active,expired,ending,held,revoked" doc:"of a key"`
	CreatedAt *frame.Time `json:"created_at,omitempty" doc:"of its record"`
}

type (
	selectInput struct {
		Select string `query:"select" required:"true" maxLength:"2000" doc:"as in: keys where owner=alice and label=ci and unused>90d and made>=2026-01-01; or: principals where client=client_x. Keys have owner, creator, client, kind, state, label, unused, ends and made, and are those that are good or held where no state is named; principals have name, client, kind and label"`
		Page   string `query:"page" maxLength:"2000" doc:"next_page of the answer before, to the same question"`
		Limit  int    `query:"limit" minimum:"1" maximum:"10000" default:"1000"`
	}
	selectOutput struct{ Body frame.List[Target] }
)

func (h *handlers) targets(a *frame.API) {
	frame.Register(a, op("selectTargets", http.MethodGet, "/v1/targets", "List the targets that a selector names, to preview and revoke them", "keys"), rights.KeysRead, h.selectTargets)
}

func (h *handlers) selectTargets(ctx context.Context, in *selectInput) (*selectOutput, error) {
	sel, err := selector.Parse(in.Select)
	if err != nil {
		return nil, problem.FieldError("select", "%v", err)
	}
	if sel.What == selector.Principals && !frame.CallerOf(ctx).Has(rights.PrincipalsRead) {
		return nil, problem.New(problem.Forbidden, "the token lacks the scope %s", rights.PrincipalsRead)
	}
	q := questionOf(ctx, "targets", sel)
	after, err := h.pages.After(q, in.Page)
	if err != nil {
		return nil, err
	}
	page, more, err := h.in(ctx).Select(ctx, caller(ctx), sel, after, in.Limit)
	if err != nil {
		return nil, err
	}
	next := ""
	if more {
		if next, err = h.pages.Next(q, page[len(page)-1].Target); err != nil {
			return nil, err
		}
	}
	return &selectOutput{frame.ListOf(showAll(page, selectedTarget), next)}, nil
}

func selectedTarget(s *issuer.Selected) Target {
	return Target{Target: s.Target, Owner: s.Owner, ClientID: s.Client, State: string(s.State), CreatedAt: timeOf(s.Created)}
}
