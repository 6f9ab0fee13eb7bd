package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/shared/guard/revoke"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/rights"
)

// Count is how many records of a sort are hit.
type Count struct {
	Count int  `json:"count"`
	Exact bool `json:"exact" doc:"false: there may be others, of which no record is here"`
}

// Tokens bounds the self-contained tokens that are hit: none of them has a record.
type Tokens struct {
	Bounded bool       `json:"bounded" doc:"false: nothing bounds how many there are, since giving one out writes nothing"`
	AtMost  *int       `json:"at_most,omitempty" doc:"where they are bounded"`
	GoneBy  frame.Time `json:"gone_by" doc:"by then those that there are now have expired by themselves"`
}

// ClientHits counts what is hit of a client.
type ClientHits struct {
	ClientID string `json:"client_id" doc:"empty: API keys that are clients of their own"`
	Keys     int    `json:"keys" doc:"API keys and client secrets"`
}

// TenantHits counts what is hit of a tenant.
type TenantHits struct {
	Tenant  string `json:"tenant"`
	Keys    int    `json:"keys" doc:"API keys and client secrets"`
	Clients int    `json:"clients"`
}

// ResourceServer is a guard that may have seen what is hit.
type ResourceServer struct {
	Name     string `json:"name" doc:"empty for a tenant other than the installation's own"`
	Instance string `json:"instance"`
	// Seen is what it has said.
	Seen           string      `json:"seen" enum:"yes,no,unknown" doc:"whether it has accepted a token of any of the targets in the last day. yes may be wrong: see wrong_ppm; no never is, of the time since remembers_since; unknown: it has not said"`
	RemembersSince *frame.Time `json:"remembers_since,omitempty" doc:"from when on it remembers: a day ago, or its start if that was later"`
	WrongPPM       int64       `json:"wrong_ppm,omitempty" doc:"of yes: how likely it was, in millionths, that it says so although it has seen none of them"`
}

// Preview is what would be hit.
type Preview struct {
	Op              string           `json:"op" enum:"revoke,hold"`
	Issuer          string           `json:"issuer,omitempty" doc:"of the targets, if it is not your tenant's own"`
	Targets         []string         `json:"targets"`
	APIKeys         Count            `json:"api_keys" doc:"that are good now, or held, and would be no more"`
	ClientSecrets   Count            `json:"client_secrets"`
	Sessions        Count            `json:"sessions"`
	Grants          Count            `json:"grants"`
	Clients         Count            `json:"clients"`
	Roles           Count            `json:"roles"`
	Bindings        Count            `json:"bindings"`
	Narrowed        Count            `json:"narrowed" doc:"API keys and client secrets that stay good and lose a role"`
	Tokens          Tokens           `json:"tokens"`
	ByClient        []ClientHits     `json:"by_client" doc:"those with the most first, 100 at most"`
	MoreClients     int              `json:"more_clients,omitempty" doc:"how many are left out"`
	ByTenant        []TenantHits     `json:"by_tenant"`
	ResourceServers []ResourceServer `json:"resource_servers"`
	Seen            bool             `json:"resource_servers_seen" doc:"false: they could not be asked now whose tokens they have seen, and each is unknown. These are all that have joined"`
	Unreachable     []Unconfirmed    `json:"unreachable" doc:"guards that are open or past their limit"`
	FencedBy        frame.Time       `json:"fenced_by" doc:"when every guard that is not open refuses at the latest, if it was committed now"`
	CutsCaller      bool             `json:"cuts_caller" doc:"your own token would be refused"`
	CutsLastAdmin   bool             `json:"cuts_last_admin" doc:"no credential would hold the role any more that rules the tenant"`
	Unknown         []string         `json:"unknown,omitempty" doc:"targets that name a record which is not there"`
	Plan            string           `json:"plan" doc:"what a commit can name, so that it hits no more than this"`
	ExpiresAt       frame.Time       `json:"expires_at" doc:"of the plan"`
	NotGathered     string           `json:"not_gathered,omitempty" doc:"why the plan is not in the notebook of the incident that was named"`
}

type previewInput struct {
	Body struct {
		Op      string   `json:"op" enum:"revoke,hold"`
		Targets []string `json:"targets" minItems:"1" maxItems:"1000" doc:"kind:id; roles by their id"`
		For     string   `json:"for,omitempty" doc:"of a hold: its end, as in 2h"`
		Then    string   `json:"then,omitempty" doc:"what comes at the end of a hold: release (default) or revoke"`
		Issuer  string   `json:"issuer,omitempty" doc:"short name; your tenant's own by default"`
		Tenant  string   `json:"tenant,omitempty" doc:"your own, by default"`
		// Incident has the plan in its notebook.
		Incident string `json:"incident,omitempty" maxLength:"100" doc:"under which it is asked: an open one of your tenant"`
	}
}

type previewOutput struct{ Body Preview }

func (h *handlers) previews(a *frame.API) {
	frame.Register(a, huma.Operation{
		OperationID: "previewRevocation", Method: http.MethodPost, Path: "/v1/previews", Tags: []string{"revocations"},
		Summary: "What a revocation or a hold would hit, and a plan to commit it by", MaxBodyBytes: frame.MaxBulkBody,
	}, rights.Revoke, h.preview)
}

func (h *handlers) preview(ctx context.Context, in *previewInput) (*previewOutput, error) {
	b := in.Body
	r, err := Commit{Op: b.Op, Targets: b.Targets, For: b.For, Then: b.Then, Issuer: b.Issuer, Tenant: b.Tenant, Incident: b.Incident}.Request("")
	if err != nil {
		return nil, err
	}
	p, err := h.s.Preview(ctx, caller(ctx), r)
	if err != nil {
		return nil, err
	}
	return &previewOutput{previewFor(frame.CallerOf(ctx), h.s.Home, p)}, nil
}

// What a guard can say of what it has seen.
const (
	seenYes     = "yes"
	seenNo      = "no"
	seenUnknown = "unknown"
)

func serverOf(name, instance string, said map[string]revocation.Remembered) ResourceServer {
	out := ResourceServer{Name: name, Instance: instance, Seen: seenUnknown}
	is, ok := said[instance]
	if !ok {
		return out
	}
	since := frame.Time(is.Since)
	out.Seen, out.RemembersSince = seenNo, &since
	if is.Seen {
		out.Seen, out.WrongPPM = seenYes, is.WrongPPM
	}
	return out
}

// previewFor writes a preview as the caller may see it: see EntryFor.
func previewFor(who frame.Caller, home string, p revocation.Preview) Preview {
	named := func(name string) string {
		if who.Tenant == home {
			return name
		}
		return ""
	}
	exact := func(n int) Count { return Count{Count: n, Exact: true} }
	ours := Count{Exact: !p.Foreign} // the sessions of another issuer are its own affair
	out := Preview{
		Op: string(p.Op), Issuer: p.Issuer, Targets: p.Targets,
		APIKeys: exact(p.Keys), ClientSecrets: exact(p.Secrets), Sessions: ours, Grants: ours, Clients: exact(p.Answer.Clients),
		Roles: exact(p.Roles), Bindings: exact(p.Bindings), Narrowed: exact(p.Narrowed),
		Tokens: Tokens{Bounded: p.AtMost != nil, AtMost: p.AtMost, GoneBy: frame.Time(p.TokensGone)}, MoreClients: p.MoreClients,
		ByTenant: []TenantHits{{Tenant: p.Tenant, Keys: p.Keys + p.Secrets, Clients: p.Answer.Clients}},
		ByClient: []ClientHits{}, ResourceServers: []ResourceServer{}, Unreachable: []Unconfirmed{},
		FencedBy: frame.Time(p.FencedBy), CutsCaller: p.CutsCaller, CutsLastAdmin: p.LastAdmin,
		Plan: p.Plan, ExpiresAt: frame.Time(p.PlanEnds), NotGathered: p.NotGathered, Seen: p.Asked,
	}
	for _, c := range p.ByClient {
		out.ByClient = append(out.ByClient, ClientHits{ClientID: c.ID, Keys: c.Keys})
	}
	for _, g := range p.Guards {
		out.ResourceServers = append(out.ResourceServers, serverOf(named(g.Name), g.Instance, p.Remembered))
	}
	for _, u := range p.Unreachable {
		out.Unreachable = append(out.Unreachable, Unconfirmed{Name: named(u.Name), Instance: u.Instance, FencedBy: instant(u.FencedBy), Open: u.Open})
	}
	for _, t := range p.Unknown {
		out.Unknown = append(out.Unknown, revoke.Target{Kind: t.Kind, ID: t.ID}.String())
	}
	return out
}
