package httpapi

import (
	"context"
	"net/http"

	"github.com/quash-project/quash/services/issuer"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/rights"
)

// Principal is a user or a machine with a record, as it is shown.
type Principal struct {
	ID         string            `json:"id" doc:"the sub of its tokens, and the owner of its keys"`
	Kind       string            `json:"kind" enum:"person,workload"`
	Name       string            `json:"name,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Keys       int               `json:"keys" doc:"API keys that it owns"`
	ActiveKeys int               `json:"active_keys" doc:"those of them that are good now"`
	Roles      []string          `json:"roles" doc:"bound to it"`
	State      string            `json:"state" enum:"active,ending,held" doc:"a revoked principal is active again: what is made after it is clean"`
	HitBy      []string          `json:"hit_by,omitempty" doc:"the targets by which it is held"`
	CreatedAt  frame.Time        `json:"created_at"`
	ChangedBy  string            `json:"changed_by"`
	ChangedAt  frame.Time        `json:"changed_at"`
	Reason     string            `json:"reason,omitempty"`
}

func (h *handlers) principal(p *issuer.Principal) Principal {
	has := h.s.PossessionsOf(p)
	out := Principal{
		ID: p.ID, Kind: string(p.Kind), Name: p.Name, Labels: p.Labels, Keys: has.Keys, ActiveKeys: has.ActiveKeys, Roles: orEmpty(has.Roles),
		CreatedAt: frame.Time(p.Created), ChangedBy: p.Meta.Actor, ChangedAt: frame.Time(p.Meta.At), Reason: p.Meta.Reason,
	}
	// A principal has no stamp: a cut hits what it has, only a hold the principal.
	out.State, out.HitBy = h.state(p.Mark != nil, noExpiry, h.s.HeldBy(issuer.PrincipalTarget(p)))
	return out
}

// shownPrincipal is principal, as only wants it.
func (h *handlers) shownPrincipal(p *issuer.Principal) (Principal, error) { return h.principal(p), nil }

type (
	createPrincipalInput struct {
		frame.Idempotent
		Body struct {
			ID     string            `json:"id" doc:"the name that stands in sub; keys and roles that it has already are the principal's"`
			Kind   string            `json:"kind,omitempty" enum:"person,workload" default:"person"`
			Name   string            `json:"name,omitempty" doc:"for people"`
			Labels map[string]string `json:"labels,omitempty" doc:"to find it by: at most 20, of letters, digits and . _ / -, of 63 at most"`
			Reason string            `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
	principalOutput = frame.Tagged[Principal]
	principalInput  struct {
		frame.IfNoneMatch
		ID string `path:"id" maxLength:"512"`
	}
	endPrincipalInput struct {
		frame.Idempotent
		frame.IfMatch
		ID     string `path:"id" maxLength:"512"`
		Reason string `query:"reason" doc:"why, for the audit"`
	}
	listPrincipalsInput struct {
		Page
		Kind  string   `query:"kind" enum:"person,workload"`
		Label []string `query:"label" maxItems:"20" doc:"name=value, several with commas: those that have all"`
	}
	listPrincipalsOutput struct{ Body frame.List[Principal] }
)

func (h *handlers) principals(a *frame.API) {
	frame.Register(a, op("createPrincipal", http.MethodPost, "/v1/principals", "Make the record of a principal", "principals"), rights.PrincipalsWrite,
		func(ctx context.Context, in *createPrincipalInput) (*principalOutput, error) {
			why, err := reason(in.Body.Reason)
			if err != nil {
				return nil, err
			}
			p, err := h.in(ctx).CreatePrincipal(ctx, caller(ctx), issuer.NewPrincipal{
				ID: in.Body.ID, Kind: issuer.PrincipalKind(in.Body.Kind), Name: in.Body.Name, Labels: in.Body.Labels, Reason: why,
			})
			if err != nil {
				return nil, err
			}
			return frame.TaggedOf(h.principal(&p))
		})
	frame.Register(a, op("listPrincipals", http.MethodGet, "/v1/principals", "List the principals that have a record", "principals"), rights.PrincipalsRead, h.listPrincipals)
	frame.Register(a, op("getPrincipal", http.MethodGet, "/v1/principals/{id}", "Show a principal", "principals"), rights.PrincipalsRead,
		func(ctx context.Context, in *principalInput) (*principalOutput, error) {
			p, err := h.in(ctx).Principal(ctx, caller(ctx), in.ID)
			if err != nil {
				return nil, err
			}
			return frame.Show(in.IfNoneMatch, h.principal(&p))
		})
	frame.Register(a, op("deletePrincipal", http.MethodDelete, "/v1/principals/{id}", "Cut a principal, end its API keys and take its roles away", "principals"), rights.PrincipalsWrite,
		func(ctx context.Context, in *endPrincipalInput) (*endedOutput, error) {
			why, err := reason(in.Reason)
			if err != nil {
				return nil, err
			}
			e, err := h.in(ctx).DeletePrincipal(ctx, caller(ctx), in.ID, why, only(in.IfMatch, h.shownPrincipal))
			if err != nil {
				return nil, err
			}
			return &endedOutput{ended(e)}, nil
		})
}

func (h *handlers) listPrincipals(ctx context.Context, in *listPrincipalsInput) (*listPrincipalsOutput, error) {
	f := issuer.PrincipalFilter{Kind: issuer.PrincipalKind(in.Kind)}
	var err error
	if f.Labels, err = labels(in.Label); err != nil {
		return nil, err
	}
	found, err := h.in(ctx).Principals(ctx, caller(ctx), f)
	if err != nil {
		return nil, err
	}
	page, next, err := paginate(h, questionOf(ctx, "principals", f), found, in.Page, func(p *issuer.Principal) string { return sortable(p.Created, p.ID) })
	if err != nil {
		return nil, err
	}
	return &listPrincipalsOutput{frame.ListOf(showAll(page, h.principal), next)}, nil
}
