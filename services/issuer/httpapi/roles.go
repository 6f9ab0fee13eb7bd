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
		frame.Idempotent
		Body struct {
			Name   string   `json:"name"`
			Scopes []string `json:"scopes"`
			Reason string   `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
	setRoleInput struct {
		frame.Idempotent
		frame.IfMatch
		Name string `path:"name" maxLength:"100"`
		Body struct {
			Scopes []string `json:"scopes" doc:"all that it has from now on"`
			Reason string   `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
	renewRoleInput struct {
		frame.Idempotent
		frame.IfMatch
		Name string `path:"name" maxLength:"100"`
		Body reasonBody
	}
	roleInput struct {
		frame.IfNoneMatch
		Name string `path:"name" maxLength:"100"`
	}
	endRoleInput struct {
		frame.Idempotent
		frame.IfMatch
		Name   string `path:"name" maxLength:"100"`
		Reason string `query:"reason" doc:"why, for the audit"`
	}
	roleOutput        = frame.Tagged[Role]
	changedRoleOutput = frame.Tagged[ChangedRole]
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
			r, err := h.in(ctx).CreateRole(ctx, caller(ctx), in.Body.Name, in.Body.Scopes, why)
			if err != nil {
				return nil, err
			}
			return frame.TaggedOf(h.role(&r))
		})
	frame.Register(a, op("listRoles", http.MethodGet, "/v1/roles", "List roles", "roles"), rights.RolesRead,
		func(ctx context.Context, in *listRolesInput) (*listRolesOutput, error) {
			roles, err := h.in(ctx).Roles(ctx, caller(ctx))
			if err != nil {
				return nil, err
			}
			page, next, err := paginate(h, questionOf(ctx, "roles", nil), roles, in.Page, func(r *issuer.Role) string { return r.Name })
			if err != nil {
				return nil, err
			}
			return &listRolesOutput{frame.ListOf(showAll(page, h.role), next)}, nil
		})
	frame.Register(a, op("getRole", http.MethodGet, "/v1/roles/{name}", "Show a role", "roles"), rights.RolesRead,
		func(ctx context.Context, in *roleInput) (*roleOutput, error) {
			r, err := h.in(ctx).Role(ctx, caller(ctx), in.Name)
			if err != nil {
				return nil, err
			}
			return frame.Show(in.IfNoneMatch, h.role(&r))
		})
	frame.Register(a, op("setRole", http.MethodPut, "/v1/roles/{name}", "Change the scopes of a role; taking one away cuts what was made with it", "roles"), rights.RolesWrite, h.setRole)
	frame.Register(a, op("deleteRole", http.MethodDelete, "/v1/roles/{name}", "Cut a role and its bindings and remove them", "roles"), rights.RolesWrite,
		func(ctx context.Context, in *endRoleInput) (*endedOutput, error) {
			why, err := reason(in.Reason)
			if err != nil {
				return nil, err
			}
			e, err := h.in(ctx).DeleteRole(ctx, caller(ctx), in.Name, why, only(in.IfMatch, h.shownRole))
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
			r, err := h.in(ctx).RenewRole(ctx, caller(ctx), in.Name, why, only(in.IfMatch, h.shownRole))
			if err != nil {
				return nil, err
			}
			return frame.TaggedOf(h.role(&r))
		})
}

func (h *handlers) setRole(ctx context.Context, in *setRoleInput) (*changedRoleOutput, error) {
	why, err := reason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	r, e, err := h.in(ctx).SetRole(ctx, caller(ctx), in.Name, in.Body.Scopes, why, only(in.IfMatch, h.shownRole))
	if err != nil {
		return nil, err
	}
	out := ChangedRole{Role: h.role(&r)}
	if e != nil {
		at := ended(*e)
		out.Ended = &at
	}
	tag, err := frame.Tag(out.Role)
	return &changedRoleOutput{ETag: tag, Body: out}, err
}

// shownRole is role, as only wants it.
func (h *handlers) shownRole(r *issuer.Role) (Role, error) { return h.role(r), nil }

// Binding is a role given to a subject, as it is shown.
type Binding struct {
	Subject   string     `json:"subject" doc:"a principal, client_... or key_..."`
	Role      string     `json:"role"`
	RoleID    string     `json:"role_id"`
	Target    string     `json:"target" doc:"what to revoke"`
	State     string     `json:"state" enum:"active,expired,ending,held,revoked"`
	HitBy     []string   `json:"hit_by,omitempty"`
	CreatedAt frame.Time `json:"created_at"`
	ExpiresAt frame.Time `json:"expires_at,omitzero" doc:"when it ends by itself; absent: never"`
	ChangedBy string     `json:"changed_by"`
	ChangedAt frame.Time `json:"changed_at"`
	Reason    string     `json:"reason,omitempty"`
}

func (h *handlers) binding(b *issuer.Binding) Binding {
	t := issuer.BindingTarget(b)
	out := Binding{
		Subject: b.Subject, Role: b.Role.Name, RoleID: b.Role.ID, Target: t.String(), CreatedAt: frame.Time(b.Created), ExpiresAt: frame.Time(b.Expires),
		ChangedBy: b.Meta.Actor, ChangedAt: frame.Time(b.Meta.At), Reason: b.Meta.Reason,
	}
	out.State, out.HitBy = h.state(b.Mark != nil, b.Expires, h.s.HitBy(b.Stamp, t))
	return out
}

// shownBinding is binding, as only wants it.
func (h *handlers) shownBinding(b *issuer.Binding) (Binding, error) { return h.binding(b), nil }

type (
	createBindingInput struct {
		frame.Idempotent
		Body struct {
			Subject   string `json:"subject" doc:"a principal, client_... or key_..."`
			Role      string `json:"role" doc:"by name"`
			ExpiresIn string `json:"expires_in,omitempty" doc:"when it ends by itself, as in 8h, 1m to 400 days; absent: never. Moved away if given again, never nearer"`
			Reason    string `json:"reason,omitempty" doc:"why, for the audit"`
		}
	}
	bindingOutput     = frame.Tagged[Binding]
	listBindingsInput struct {
		Page
		Subject string `query:"subject"`
		Role    string `query:"role"`
	}
	listBindingsOutput struct{ Body frame.List[Binding] }
	endBindingInput    struct {
		frame.Idempotent
		frame.IfMatch
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
			d, err := life("expires_in", in.Body.ExpiresIn)
			if err != nil {
				return nil, err
			}
			b, err := h.in(ctx).Bind(ctx, caller(ctx), issuer.NewBinding{Subject: in.Body.Subject, Role: in.Body.Role, Life: d, Reason: why})
			if err != nil {
				return nil, err
			}
			return frame.TaggedOf(h.binding(&b))
		})
	frame.Register(a, op("listBindings", http.MethodGet, "/v1/bindings", "List bindings", "bindings"), rights.RolesRead,
		func(ctx context.Context, in *listBindingsInput) (*listBindingsOutput, error) {
			f := issuer.BindingFilter{Subject: in.Subject, Role: in.Role}
			bindings, err := h.in(ctx).Bindings(ctx, caller(ctx), f)
			if err != nil {
				return nil, err
			}
			page, next, err := paginate(h, questionOf(ctx, "bindings", f), bindings, in.Page, func(b *issuer.Binding) string { return sortable(b.Created, b.BindingID()) })
			if err != nil {
				return nil, err
			}
			return &listBindingsOutput{frame.ListOf(showAll(page, h.binding), next)}, nil
		})
	frame.Register(a, op("deleteBinding", http.MethodDelete, "/v1/bindings", "Take a role from a subject", "bindings"), rights.RolesWrite,
		func(ctx context.Context, in *endBindingInput) (*endedOutput, error) {
			why, err := reason(in.Reason)
			if err != nil {
				return nil, err
			}
			e, err := h.in(ctx).Unbind(ctx, caller(ctx), in.Subject, in.Role, why, only(in.IfMatch, h.shownBinding))
			if err != nil {
				return nil, err
			}
			return &endedOutput{ended(e)}, nil
		})
}
