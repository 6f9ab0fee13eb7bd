package httpapi

import (
	"context"
	"net/http"

	"github.com/quash-project/quash/services/issuer"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/rights"
)

// Ability tells whether a subject may do something now, and why.
type Ability struct {
	Subject string   `json:"subject"`
	Scope   string   `json:"scope"`
	Allowed bool     `json:"allowed" doc:"whether a token that was made now could have the scope"`
	State   string   `json:"state" enum:"active,expired,ending,held,revoked" doc:"of the subject itself"`
	HitBy   []string `json:"hit_by,omitempty"`
	Ways    []Way    `json:"ways" doc:"all ways by which the subject has the scope; those that are active count"`
}

// Way is one way by which a subject has a scope.
type Way struct {
	Role      string     `json:"role,omitempty" doc:"absent: a scope of the holder's own"`
	Holder    string     `json:"holder" doc:"whose role or scope it is: the subject, or the owner of an API key"`
	State     string     `json:"state" enum:"active,expired,ending,held,revoked"`
	HitBy     []string   `json:"hit_by,omitempty"`
	ExpiresAt frame.Time `json:"expires_at,omitzero" doc:"when it ends by itself; absent: never"`
}

type (
	canInput struct {
		Subject string `query:"subject" required:"true" doc:"a principal, client_... or key_..."`
		Scope   string `query:"scope" required:"true"`
	}
	canOutput struct{ Body Ability }
)

func (h *handlers) can(a *frame.API) {
	frame.Register(a, op("getAbility", http.MethodGet, "/v1/abilities", "May a subject do something, and why", "roles"), rights.RolesRead,
		func(ctx context.Context, in *canInput) (*canOutput, error) {
			is, err := h.in(ctx).Can(ctx, caller(ctx), in.Subject, in.Scope)
			if err != nil {
				return nil, err
			}
			return &canOutput{ability(in, is)}, nil
		})
}

func ability(in *canInput, is issuer.Ability) Ability {
	out := Ability{Subject: in.Subject, Scope: in.Scope, Allowed: is.Allowed, State: string(is.State), HitBy: is.HitBy, Ways: []Way{}}
	for _, w := range is.Ways {
		out.Ways = append(out.Ways, Way{Role: w.Role, Holder: w.Holder, State: string(w.State), HitBy: w.HitBy, ExpiresAt: frame.Time(w.Expires)})
	}
	return out
}
