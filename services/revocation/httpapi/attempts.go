package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/services/revocation/attempts"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/rights"
)

// Attempt is how often somebody has tried with what was cut, at one instance of a
// resource server, from one network.
type Attempt struct {
	Server    string     `json:"server,omitempty" doc:"the resource server's name; for operators of the installation alone. Missing beside an instance that is missing too: of several"`
	Instance  string     `json:"instance,omitempty" doc:"missing: of several that are gone"`
	Target    string     `json:"target,omitempty" doc:"which target of the receipt it was refused by; missing: several"`
	Network   string     `json:"network" doc:"an IPv4 address, the /64 of an IPv6 address, unknown, or others: of too many to keep each"`
	FirstSeen frame.Time `json:"first_seen"`
	LastSeen  frame.Time `json:"last_seen"`
	Count     uint64     `json:"count"`
}

type (
	attemptsInput struct {
		ID string `path:"id" maxLength:"100"`
		frame.Page
	}
	attemptsOutput struct{ Body frame.List[Attempt] }
)

// RegisterAttempts adds who still tries with what a receipt is of.
func RegisterAttempts(a *frame.API, pages frame.Pages, k *attempts.Keeper, home string) {
	h := &attemptHandlers{k: k, home: home, pages: pages}
	frame.Register(a, huma.Operation{
		OperationID: "listReceiptAttempts", Method: http.MethodGet, Path: "/v1/receipts/{id}/attempts", Tags: []string{"receipts"},
		Summary: "Who has tried since with what was revoked or held, as guards count it, the earliest first", Errors: []int{http.StatusNotFound},
	}, rights.Revoke+"|"+rights.AuditRead, h.list)
}

type attemptHandlers struct {
	k     *attempts.Keeper
	home  string
	pages frame.Pages
}

func (h *attemptHandlers) list(ctx context.Context, in *attemptsInput) (*attemptsOutput, error) {
	question := frame.QuestionOf(ctx, "attempts", in.ID)
	r, err := h.k.Find(ctx, question.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	lines, next, err := frame.Paginate(h.pages, question, r.Lines(), in.Page, (*attempts.Line).Key)
	if err != nil {
		return nil, err
	}
	items := make([]Attempt, 0, len(lines))
	for _, l := range lines {
		x := Attempt{Server: l.Server, Instance: l.Instance, Target: l.Target, Network: l.Network, FirstSeen: frame.Millis(l.First), LastSeen: frame.Millis(l.Last), Count: l.Count}
		if question.Tenant != h.home {
			x.Server = "" // guards serve all tenants: as in the receipt
		}
		items = append(items, x)
	}
	return &attemptsOutput{frame.ListOf(items, next)}, nil
}
