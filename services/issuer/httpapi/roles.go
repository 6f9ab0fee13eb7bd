package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/quash-project/quash/services/issuer"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/rights"
)

var noExpiry time.Time

// Role is a named set of scopes, as it is shown.
type Role struct {
	ID        string     `json:"id" doc:"role:ID is the target; a new role of an old name has another"`
	Name      string     `json:"name"`
	Scopes    []string   `json:"scopes"`
	Fixed     bool       `json:"fixed" doc:"one of Quash's own"`
	State     string     `json:"state" enum:"active,ending,held,revoked"`
	HitBy     []string   `json:"hit_by,omitempty"`
	CreatedAt frame.Time `json:"created_at"`
	ChangedBy string     `json:"changed_by"`
	ChangedAt frame.Time `json:"changed_at"`
	Reason    string     `json:"reason,omitempty"`
}

// ChangedRole is a role after a change of its scopes.
type ChangedRole struct {
	Role
	Ended *Ended `json:"ended,omitempty" doc:"where it was cut, if a scope was taken away"`
}

func (h *handlers) role(r *issuer.Role) Role {
	out := Role{
		ID: r.ID, Name: r.Name, Scopes: orEmpty(r.Scopes), Fixed: r.Fixed, CreatedAt: frame.Time(r.Created),
		ChangedBy: r.Meta.Actor, ChangedAt: frame.Time(r.Meta.At), Reason: r.Meta.Reason,
	}
	out.State, out.HitBy = h.state(r.Mark != nil, noExpiry, h.s.HitBy(r.Stamp, issuer.RoleTarget(r)))
	return out
}

type (
	createRoleInput struct {
		Body struct {
			Name   string   `json:"name"`
			Scopes []string `json:"scopes"`
			Reason string   `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
	setRoleInput struct {
		Name string `path:"name" maxLength:"100"`
		Body struct {
			Scopes []string `json:"scopes" doc:"all that it has from now on"`
			Reason string   `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
	renewRoleInput struct {
		Name string `path:"name" maxLength:"100"`
		Body reasonBody
	}
	roleInput struct {
		Name string `path:"name" maxLength:"100"`
	}
	endRoleInput struct {
		Name   string `path:"name" maxLength:"100"`
		Reason string `query:"reason" doc:"why, for the audit"`
	}
	roleOutput        struct{ Body Role }
	changedRoleOutput struct{ Body ChangedRole }
	listRolesInput    struct{ Page }
	listRolesOutput   struct{ Body frame.List[Role] }
)

func (h *handlers) roles(a *frame.API) {
	frame.Register(a, op("createRole", http.MethodPost, "/v1/roles", "Make a role", "roles"), rights.RolesWrite,
		func(ctx context.Context, in *createRoleInput) (*roleOutput, error) {
			why, err := reason(in.Body.Reason)
			if err != nil {
				return nil, err
			}
			r, err := h.s.CreateRole(ctx, caller(ctx), in.Body.Name, in.Body.Scopes, why)
			if err != nil {
				return nil, err
			}
			return &roleOutput{h.role(&r)}, nil
		})
	frame.Register(a, op("listRoles", http.MethodGet, "/v1/roles", "List roles", "roles"), rights.RolesRead,
		func(ctx context.Context, in *listRolesInput) (*listRolesOutput, error) {
			roles, err := h.s.Roles(ctx, caller(ctx))
			if err != nil {
				return nil, err
			}
			page, next, err := paginate(roles, in.Page, func(r *issuer.Role) string { return r.Name })
			if err != nil {
				return nil, err
			}
			var out []Role
			for i := range page {
				out = append(out, h.role(&page[i]))
			}
			return &listRolesOutput{frame.ListOf(out, next)}, nil
		})
	frame.Register(a, op("getRole", http.MethodGet, "/v1/roles/{name}", "Show a role", "roles"), rights.RolesRead,
		func(ctx context.Context, in *roleInput) (*roleOutput, error) {
			r, err := h.s.Role(ctx, caller(ctx), in.Name)
			if err != nil {
				return nil, err
			}
			return &roleOutput{h.role(&r)}, nil
		})
	frame.Register(a, op("setRole", http.MethodPut, "/v1/roles/{name}", "Change the scopes of a role; taking one away cuts what was made with it", "roles"), rights.RolesWrite, h.setRole)
	frame.Register(a, op("deleteRole", http.MethodDelete, "/v1/roles/{name}", "Cut a role and its bindings and remove them", "roles"), rights.RolesWrite,
		func(ctx context.Context, in *endRoleInput) (*endedOutput, error) {
			why, err := reason(in.Reason)
			if err != nil {
				return nil, err
			}
			e, err := h.s.DeleteRole(ctx, caller(ctx), in.Name, why)
			if err != nil {
				return nil, err
			}
			return &endedOutput{ended(e)}, nil
		})
	frame.Register(a, op("renewRole", http.MethodPost, "/v1/roles/{name}/renew", "Make a role count as new: what cut it so far does so no more", "roles"), rights.RolesWrite,
		func(ctx context.Context, in *renewRoleInput) (*roleOutput, error) {
			why, err := reason(in.Body.Reason)
			if err != nil {
				return nil, err
			}
			r, err := h.s.RenewRole(ctx, caller(ctx), in.Name, why)
			if err != nil {
				return nil, err
			}
			return &roleOutput{h.role(&r)}, nil
		})
}

func (h *handlers) setRole(ctx context.Context, in *setRoleInput) (*changedRoleOutput, error) {
	why, err := reason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	r, e, err := h.s.SetRole(ctx, caller(ctx), in.Name, in.Body.Scopes, why)
	if err != nil {
		return nil, err
	}
	out := ChangedRole{Role: h.role(&r)}
	if e != nil {
		at := ended(*e)
		out.Ended = &at
	}
	return &changedRoleOutput{out}, nil
}

// Binding is a role given to a subject, as it is shown.
type Binding struct {
	Subject   string     `json:"subject" doc:"a principal, client_... or key_..."`
	Role      string     `json:"role"`
	RoleID    string     `json:"role_id"`
	Target    string     `json:"target" doc:"what to revoke"`
	State     string     `json:"state" enum:"active,ending,held,revoked"`
	HitBy     []string   `json:"hit_by,omitempty"`
	CreatedAt frame.Time `json:"created_at"`
	ChangedBy string     `json:"changed_by"`
	ChangedAt frame.Time `json:"changed_at"`
	Reason    string     `json:"reason,omitempty"`
}

func (h *handlers) binding(b *issuer.Binding) Binding {
	t := issuer.BindingTarget(b)
	out := Binding{
		Subject: b.Subject, Role: b.Role.Name, RoleID: b.Role.ID, Target: t.String(), CreatedAt: frame.Time(b.Created),
		ChangedBy: b.Meta.Actor, ChangedAt: frame.Time(b.Meta.At), Reason: b.Meta.Reason,
	}
	out.State, out.HitBy = h.state(b.Mark != nil, noExpiry, h.s.HitBy(b.Stamp, t))
	return out
}

type (
	createBindingInput struct {
		Body struct {
			Subject string `json:"subject" doc:"a principal, client_... or key_..."`
			Role    string `json:"role" doc:"by name"`
			Reason  string `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
	bindingOutput     struct{ Body Binding }
	listBindingsInput struct {
		Page
		Subject string `query:"subject"`
		Role    string `query:"role"`
	}
	listBindingsOutput struct{ Body frame.List[Binding] }
	endBindingInput    struct {
		Subject string `query:"subject" required:"true"`
		Role    string `query:"role" required:"true"`
		Reason  string `query:"reason" doc:"why, for the audit"`
	}
)

func (h *handlers) bindings(a *frame.API) {
	frame.Register(a, op("createBinding", http.MethodPost, "/v1/bindings", "Give a role to a principal, client or API key; again: as new", "bindings"), rights.RolesWrite,
		func(ctx context.Context, in *createBindingInput) (*bindingOutput, error) {
			why, err := reason(in.Body.Reason)
			if err != nil {
				return nil, err
			}
			b, err := h.s.Bind(ctx, caller(ctx), issuer.NewBinding{Subject: in.Body.Subject, Role: in.Body.Role, Reason: why})
			if err != nil {
				return nil, err
			}
			return &bindingOutput{h.binding(&b)}, nil
		})
	frame.Register(a, op("listBindings", http.MethodGet, "/v1/bindings", "List bindings", "bindings"), rights.RolesRead,
		func(ctx context.Context, in *listBindingsInput) (*listBindingsOutput, error) {
			bindings, err := h.s.Bindings(ctx, caller(ctx), issuer.BindingFilter{Subject: in.Subject, Role: in.Role})
			if err != nil {
				return nil, err
			}
			page, next, err := paginate(bindings, in.Page, func(b *issuer.Binding) string { return sortable(b.Created, b.BindingID()) })
			if err != nil {
				return nil, err
			}
			var out []Binding
			for i := range page {
				out = append(out, h.binding(&page[i]))
			}
			return &listBindingsOutput{frame.ListOf(out, next)}, nil
		})
	frame.Register(a, op("deleteBinding", http.MethodDelete, "/v1/bindings", "Take a role from a subject", "bindings"), rights.RolesWrite,
		func(ctx context.Context, in *endBindingInput) (*endedOutput, error) {
			why, err := reason(in.Reason)
			if err != nil {
				return nil, err
			}
			e, err := h.s.Unbind(ctx, caller(ctx), in.Subject, in.Role, why)
			if err != nil {
				return nil, err
			}
			return &endedOutput{ended(e)}, nil
		})
}
