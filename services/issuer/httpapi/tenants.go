package httpapi

import (
	"context"
	"net/http"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/rights"
)

// Limits are how much a tenant may have and use.
type Limits struct {
	Keys            int     `json:"keys,omitempty" minimum:"0" doc:"API keys and client secrets; 0: no limit"`
	Clients         int     `json:"clients,omitempty" minimum:"0" doc:"0: no limit"`
	TokensPerSecond float64 `json:"tokens_per_second,omitempty" minimum:"0" doc:"that each replica of the issuer gives; 0: no limit"`
}

// Tenant is a tenant, as it is shown.
type Tenant struct {
	Name      string     `json:"name"`
	Issuer    string     `json:"issuer" doc:"the claim iss of its tokens; its metadata stand below"`
	Home      bool       `json:"home,omitempty" doc:"the tenant whose operators run the installation"`
	Limits    Limits     `json:"limits"`
	State     string     `json:"state" enum:"active,ending,held" doc:"a revoked tenant is active again: what is made after it is clean"`
	HitBy     []string   `json:"hit_by,omitempty"`
	CreatedAt frame.Time `json:"created_at"`
	ChangedBy string     `json:"changed_by"`
	ChangedAt frame.Time `json:"changed_at"`
	Reason    string     `json:"reason,omitempty"`
}

// NewTenant is a tenant that was made, with the first key of its admin.
type NewTenant struct {
	Tenant
	Admin NewKey `json:"admin" doc:"an API key with the role admin of the tenant: its secret is shown this once"`
}

func (h *handlers) tenant(t *issuer.Tenant) Tenant {
	in := h.s.In(t.Name)
	out := Tenant{
		Name: t.Name, Issuer: in.Issuer(), Home: in == h.s, Limits: Limits(t.Limits), CreatedAt: frame.Time(t.Created),
		ChangedBy: t.Meta.Actor, ChangedAt: frame.Time(t.Meta.At), Reason: t.Meta.Reason,
	}
	// A tenant has no stamp: a cut hits what is in it, only a hold the tenant.
	out.State, out.HitBy = h.state(t.Mark != nil, noExpiry, h.s.HeldBy(issuer.TenantTarget(t)))
	return out
}

// shownTenant is tenant, as only wants it.
func (h *handlers) shownTenant(t *issuer.Tenant) (Tenant, error) { return h.tenant(t), nil }

// Made implements frame.Secretive.
func (o *newTenantOutput) Made() string {
	return revoke.Target{Kind: revoke.KindKey, ID: o.Body.Admin.ID}.String()
}

type (
	createTenantInput struct {
		frame.Idempotent
		Body struct {
			Name      string `json:"name" maxLength:"100" doc:"a short name: it stands in the tenant's issuer URL"`
			Limits    Limits `json:"limits,omitzero"`
			ExpiresIn string `json:"expires_in,omitempty" doc:"of the first admin's key, as in 720h; 90 days by default"`
			Reason    string `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
	newTenantOutput struct {
		ETag string `header:"ETag" doc:"of the tenant as GET shows it"`
		Body NewTenant
	}
	tenantOutput = frame.Tagged[Tenant]
	tenantInput  struct {
		Tenant string `path:"tenant" maxLength:"100"`
	}
	getTenantInput struct {
		frame.IfNoneMatch
		Tenant string `path:"tenant" maxLength:"100"`
	}
	createAdminInput struct {
		frame.Idempotent
		Tenant string `path:"tenant" maxLength:"100"`
		Body   struct {
			ExpiresIn string `json:"expires_in,omitempty" doc:"as in 720h; 90 days by default"`
			Reason    string `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
	setLimitsInput struct {
		frame.Idempotent
		frame.IfMatch
		Tenant string `path:"tenant" maxLength:"100"`
		Body   struct {
			Limits Limits `json:"limits"`
			Reason string `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
	cutTenantInput struct {
		frame.Idempotent
		frame.IfMatch
		Tenant string `path:"tenant" maxLength:"100"`
		Body   reasonBody
	}
	endTenantInput struct {
		frame.Idempotent
		frame.IfMatch
		Tenant string `path:"tenant" maxLength:"100"`
		Reason string `query:"reason" doc:"why, for the audit"`
	}
	listTenantsInput  struct{ Page }
	listTenantsOutput struct{ Body frame.List[Tenant] }
)

func (h *handlers) tenants(a *frame.API) {
	frame.Register(a, op("createTenant", http.MethodPost, "/v1/tenants", "Make a tenant, and a key for its admin", "tenants"), rights.TenantsWrite, h.createTenant)
	frame.Register(a, op("listTenants", http.MethodGet, "/v1/tenants", "List tenants", "tenants"), rights.TenantsRead, h.listTenants)
	frame.Register(a, op("getTenant", http.MethodGet, "/v1/tenants/{tenant}", "Show a tenant", "tenants"), rights.TenantsRead,
		func(ctx context.Context, in *getTenantInput) (*tenantOutput, error) {
			t, err := h.s.TenantRecord(ctx, caller(ctx), in.Tenant)
			if err != nil {
				return nil, err
			}
			return frame.Show(in.IfNoneMatch, h.tenant(&t))
		})
	frame.Register(a, op("setTenantLimits", http.MethodPut, "/v1/tenants/{tenant}/limits", "Give a tenant other limits", "tenants"), rights.TenantsWrite,
		func(ctx context.Context, in *setLimitsInput) (*tenantOutput, error) {
			why, err := reason(in.Body.Reason)
			if err != nil {
				return nil, err
			}
			t, err := h.s.SetLimits(ctx, caller(ctx), in.Tenant, issuer.Limits(in.Body.Limits), why, only(in.IfMatch, h.shownTenant))
			if err != nil {
				return nil, err
			}
			return frame.TaggedOf(h.tenant(&t))
		})
	frame.Register(a, op("createTenantAdmin", http.MethodPost, "/v1/tenants/{tenant}/admins", "Make another API key with the role admin of a tenant", "tenants"), rights.TenantsWrite, h.createAdmin)
	frame.Register(a, op("holdTenant", http.MethodPost, "/v1/tenants/{tenant}/hold", "Refuse everything of a tenant until it is released", "tenants"), rights.TenantsWrite, h.cutTenant(commit.Hold))
	frame.Register(a, op("releaseTenant", http.MethodPost, "/v1/tenants/{tenant}/release", "Take what is of a tenant again that was held", "tenants"), rights.TenantsWrite, h.cutTenant(commit.Release))
	frame.Register(a, op("revokeTenant", http.MethodPost, "/v1/tenants/{tenant}/revoke", "Cut everything that was made in a tenant until now", "tenants"), rights.TenantsWrite, h.cutTenant(commit.Revoke))
	frame.Register(a, op("deleteTenant", http.MethodDelete, "/v1/tenants/{tenant}", "Cut everything of a tenant and remove its records and signing keys", "tenants"), rights.TenantsWrite,
		func(ctx context.Context, in *endTenantInput) (*endedOutput, error) {
			why, err := reason(in.Reason)
			if err != nil {
				return nil, err
			}
			e, err := h.s.DeleteTenant(ctx, caller(ctx), in.Tenant, why, only(in.IfMatch, h.shownTenant))
			if err != nil {
				return nil, err
			}
			return &endedOutput{ended(e)}, nil
		})
	h.tenantContents(a)
}

func (h *handlers) createTenant(ctx context.Context, in *createTenantInput) (*newTenantOutput, error) {
	why, err := reason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	d, err := life("expires_in", in.Body.ExpiresIn)
	if err != nil {
		return nil, err
	}
	t, err := h.s.CreateTenant(ctx, caller(ctx), in.Body.Name, issuer.Limits(in.Body.Limits), why)
	if err != nil {
		return nil, err
	}
	k, secret, err := h.s.CreateAdmin(ctx, caller(ctx), t.Name, d, why)
	if err != nil {
		return nil, err
	}
	shown := h.tenant(&t)
	tag, err := frame.Tag(shown)
	return &newTenantOutput{ETag: tag, Body: NewTenant{shown, NewKey{h.key(&k), secret.Reveal()}}}, err
}

func (h *handlers) createAdmin(ctx context.Context, in *createAdminInput) (*newKeyOutput, error) {
	why, err := reason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	d, err := life("expires_in", in.Body.ExpiresIn)
	if err != nil {
		return nil, err
	}
	k, secret, err := h.s.CreateAdmin(ctx, caller(ctx), in.Tenant, d, why)
	if err != nil {
		return nil, err
	}
	return h.newKey(&k, secret)
}

func (h *handlers) listTenants(ctx context.Context, in *listTenantsInput) (*listTenantsOutput, error) {
	tenants, err := h.s.Tenants(ctx, caller(ctx))
	if err != nil {
		return nil, err
	}
	page, next, err := paginate(h, questionOf(ctx, "tenants", nil), tenants, in.Page, func(t *issuer.Tenant) string { return t.Name })
	if err != nil {
		return nil, err
	}
	return &listTenantsOutput{frame.ListOf(showAll(page, h.tenant), next)}, nil
}

func (h *handlers) cutTenant(do commit.Op) func(context.Context, *cutTenantInput) (*endedOutput, error) {
	return func(ctx context.Context, in *cutTenantInput) (*endedOutput, error) {
		why, err := reason(in.Body.Reason)
		if err != nil {
			return nil, err
		}
		e, err := h.s.CutTenant(ctx, caller(ctx), in.Tenant, do, why, only(in.IfMatch, h.shownTenant))
		if err != nil {
			return nil, err
		}
		return &endedOutput{ended(e)}, nil
	}
}

// Remains is what the stores hold of a tenant, whether or not it is there.
type Remains struct {
	Tenant      string `json:"tenant"`
	None        bool   `json:"none" doc:"nothing of it is left"`
	Record      bool   `json:"record"`
	SigningKeys bool   `json:"signing_keys"`
	Principals  int    `json:"principals"`
	Keys        int    `json:"keys"`
	Clients     int    `json:"clients"`
	Roles       int    `json:"roles"`
	Bindings    int    `json:"bindings"`
	Requests    int    `json:"requests" doc:"of the last day, remembered by their Idempotency-Key"`
}

// Export is all records of a tenant; nothing in it is a secret, or the hash of one.
type Export struct {
	Tenant     Tenant      `json:"tenant"`
	Principals []Principal `json:"principals"`
	Clients    []Client    `json:"clients"`
	Keys       []Key       `json:"keys"`
	Roles      []Role      `json:"roles"`
	Bindings   []Binding   `json:"bindings"`
}

type (
	remainsOutput struct{ Body Remains }
	exportOutput  struct{ Body Export }
)

func (h *handlers) tenantContents(a *frame.API) {
	frame.Register(a, op("getTenantRemains", http.MethodGet, "/v1/tenants/{tenant}/remains", "What is left of a tenant that was deleted", "tenants"), rights.TenantsRead,
		func(ctx context.Context, in *tenantInput) (*remainsOutput, error) {
			r, err := h.s.Remains(ctx, caller(ctx), in.Tenant)
			if err != nil {
				return nil, err
			}
			return &remainsOutput{Remains{
				Tenant: in.Tenant, None: r.None(), Record: r.Record, SigningKeys: r.SigningKeys,
				Principals: r.Principals, Keys: r.Keys, Clients: r.Clients, Roles: r.Roles, Bindings: r.Bindings, Requests: r.Requests,
			}}, nil
		})
	frame.Register(a, op("exportTenant", http.MethodGet, "/v1/tenants/{tenant}/export", "All records of a tenant", "tenants"), rights.TenantsRead,
		func(ctx context.Context, in *tenantInput) (*exportOutput, error) {
			e, err := h.s.ExportTenant(ctx, caller(ctx), in.Tenant)
			if err != nil {
				return nil, err
			}
			return &exportOutput{Export{
				Tenant: h.tenant(&e.Tenant), Principals: showAll(e.Principals, h.principal), Keys: showAll(e.Keys, h.key), Roles: showAll(e.Roles, h.role), Bindings: showAll(e.Bindings, h.binding),
				Clients: showAll(e.Clients, func(c *issuer.Client) Client { return h.clientOf(c, e.Bindings) }),
			}}, nil
		})
}
