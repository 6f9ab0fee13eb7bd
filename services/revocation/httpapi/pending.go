package httpapi

import (
	"context"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/shared/guard/revoke"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// Pending is a cut that waits for a second person, or has waited.
type Pending struct {
	ID        string      `json:"id" doc:"of the revocation or hold, too, once it is approved: of its receipt and in the audit"`
	State     string      `json:"state" enum:"pending,approved,denied,expired,break-glass" doc:"break-glass: whoever asked has cut at once"`
	Op        string      `json:"op" enum:"revoke,hold"`
	Issuer    string      `json:"issuer,omitempty" doc:"of the targets, if it is not your tenant's own"`
	Targets   []string    `json:"targets" doc:"in a list the first 10 of them"`
	Count     int         `json:"targets_count" doc:"how many targets it has"`
	Reason    string      `json:"reason"`
	Code      string      `json:"code,omitempty" doc:"the reason in a word"`
	For       string      `json:"for,omitempty" doc:"of a hold: its end, from the approval on"`
	Then      string      `json:"then,omitempty" doc:"what comes at that end: release or revoke"`
	Actor     string      `json:"actor" doc:"who asked for it"`
	Incident  string      `json:"incident,omitempty" doc:"under which it was asked for"`
	Why       string      `json:"why" doc:"it needs a second person"`
	Whole     string      `json:"whole,omitempty" doc:"of which this is a part: its parts can be looked for by it"`
	AskedAt   frame.Time  `json:"asked_at"`
	ExpiresAt frame.Time  `json:"expires_at" doc:"if nobody has decided"`
	DecidedBy string      `json:"decided_by,omitempty"`
	Decision  string      `json:"decision,omitempty" doc:"why, in the words of whoever decided"`
	DecidedAt *frame.Time `json:"decided_at,omitempty"`
	Epoch     uint64      `json:"epoch,omitempty" doc:"of the entry, once it is committed"`
	Sequence  uint64      `json:"sequence,omitempty"`
	Failed    string      `json:"failed,omitempty" doc:"why what was approved can't be committed"`
}

// PutOff answers a revocation or hold that waits for a second person: nothing was cut.
type PutOff struct {
	Pending Pending `json:"pending"`
}

// PendingOf writes one as the API does.
func PendingOf(p *revocation.Pending, now time.Time) Pending {
	out := Pending{
		ID: p.ID, State: p.StateAt(now), Op: string(p.Op), Issuer: p.Issuer(), Targets: p.Readable(), Count: len(p.Targets), Reason: p.Reason, Code: p.Code, Then: p.Then,
		Actor: p.Asker, Incident: p.Incident, Why: p.Why, Whole: p.Whole, AskedAt: frame.Millis(p.AskedAt), ExpiresAt: frame.Millis(p.Expires),
		DecidedBy: p.DecidedBy, Decision: p.Decision, Failed: p.Failed,
	}
	if p.ForMS != 0 {
		out.For = (time.Duration(p.ForMS) * time.Millisecond).String()
	}
	if p.DecidedAt != 0 {
		out.DecidedAt = instant(time.UnixMilli(p.DecidedAt))
	}
	if p.Committed != nil {
		out.Epoch, out.Sequence = p.Committed.Epoch, p.Committed.Sequence
	}
	return out
}

// WholePart says of what a request is a part.
type WholePart struct {
	ID      string `json:"id" maxLength:"100" doc:"the same for all parts, by which they are approved together"`
	Targets int    `json:"targets" minimum:"1" maximum:"1000000" doc:"how many all parts have"`
}

type (
	pendingList struct {
		frame.Page
		State string `query:"state" enum:"pending,approved,denied,expired,break-glass,all" default:"pending"`
		Whole string `query:"whole" maxLength:"100" doc:"only the parts of this whole"`
	}
	pendingPage struct{ Body frame.List[Pending] }
	pendingID   struct {
		ID string `path:"id" maxLength:"100"`
	}
	pendingOne   struct{ Body Pending }
	approveInput struct {
		frame.Idempotent
		ID   string `path:"id" maxLength:"100"`
		Wait string `query:"wait" doc:"wait so long for confirmations, as in 5s; 1m at most"`
		Body struct {
			Reason string `json:"reason,omitempty" maxLength:"1024" doc:"why, for the audit"`
		}
	}
	denyInput struct {
		frame.Idempotent
		ID   string `path:"id" maxLength:"100"`
		Body struct {
			Reason string `json:"reason" minLength:"1" maxLength:"1024" doc:"why, for the audit and for whoever asked"`
		}
	}
	committed struct {
		Status   int
		Location string `header:"Location"`
		Body     any
	}
)

// answers describes both answers of a commit: an entry, or one that waits.
func answers(a *frame.API, op huma.Operation) huma.Operation {
	schemas := a.OpenAPI().Components.Schemas
	content := func(t reflect.Type, name string) map[string]*huma.MediaType {
		return map[string]*huma.MediaType{typeJSON: {Schema: schemas.Schema(t, true, name)}}
	}
	entry, putOff := content(reflect.TypeFor[Entry](), "Entry"), content(reflect.TypeFor[PutOff](), "PutOff")
	op.Responses = map[string]*huma.Response{
		strconv.Itoa(http.StatusCreated): {Description: "Created", Content: entry},
		strconv.Itoa(http.StatusOK):      {Description: "The request had been answered before", Content: entry},
		strconv.Itoa(http.StatusAccepted): {
			Description: "Nothing was cut yet: a second person has to approve it", Content: putOff,
			Headers: map[string]*huma.Header{"Location": {Description: "of the pending one", Schema: &huma.Schema{Type: huma.TypeString}}},
		},
	}
	return op
}

func (h *handlers) pending(a *frame.API) {
	const see = rights.Revoke + "|" + rights.AuditRead
	frame.Register(a, huma.Operation{
		OperationID: "listPending", Method: http.MethodGet, Path: "/v1/pending", Tags: []string{"revocations"},
		Summary: "The revocations and holds that wait for a second person",
	}, see, h.listPending)
	frame.Register(a, huma.Operation{
		OperationID: "getPending", Method: http.MethodGet, Path: "/v1/pending/{id}", Tags: []string{"revocations"},
		Summary: "One that waits for a second person, or has waited", Errors: []int{http.StatusNotFound},
	}, see, func(ctx context.Context, in *pendingID) (*pendingOne, error) {
		p, err := h.s.PendingByID(ctx, caller(ctx), in.ID)
		if err != nil {
			return nil, err
		}
		return &pendingOne{PendingOf(&p, h.s.Now())}, nil
	})
	frame.Register(a, frame.Timeout(huma.Operation{
		OperationID: "approvePending", Method: http.MethodPost, Path: "/v1/pending/{id}/approve", Tags: []string{"revocations"},
		Summary:     "Agree as the second person: it is committed, and answered when it is durable",
		Description: "Approved again, it gives the same entry.", Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, revocation.MaxWait+frame.Deadline), rights.Revoke, h.approve)
	frame.Register(a, huma.Operation{
		OperationID: "denyPending", Method: http.MethodPost, Path: "/v1/pending/{id}/deny", Tags: []string{"revocations"},
		Summary: "Say no, as the second person; or take back what you have asked for", Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, rights.Revoke, func(ctx context.Context, in *denyInput) (*pendingOne, error) {
		if err := decision(in.Body.Reason); err != nil {
			return nil, err
		}
		p, err := h.s.Deny(ctx, caller(ctx), in.ID, in.Body.Reason)
		if err != nil {
			return nil, err
		}
		return &pendingOne{PendingOf(&p, h.s.Now())}, nil
	})
}

// decision checks the reason of a decision, if it has one.
func decision(reason string) error {
	if reason == "" {
		return nil
	}
	if err := revoke.CheckID("reason", reason); err != nil {
		return problem.FieldError("reason", "%v", err)
	}
	return problem.NoSecret("reason", reason)
}

func (h *handlers) approve(ctx context.Context, in *approveInput) (*entryOutput, error) {
	d, err := wait(in.Wait)
	if err != nil {
		return nil, err
	}
	if err := decision(in.Body.Reason); err != nil {
		return nil, err
	}
	e, err := h.s.Approve(ctx, caller(ctx), in.ID, in.Body.Reason, d)
	if err != nil {
		return nil, err
	}
	return &entryOutput{Status: http.StatusOK, Body: EntryFor(frame.CallerOf(ctx), h.s.Home, e)}, nil
}

// targetsInLists is of how many targets a list tells: a part of a file has 1,000.
const targetsInLists = 10

// listPending reads on until a page is full: only the records tell their state.
func (h *handlers) listPending(ctx context.Context, in *pendingList) (*pendingPage, error) {
	q := frame.QuestionOf(ctx, "pending", []string{in.State, in.Whole})
	after, err := h.pages.After(q, in.Page.Page)
	if err != nil {
		return nil, err
	}
	who := caller(ctx)
	from, err := h.s.From(ctx, who.Tenant)
	if err != nil {
		return nil, err
	}
	ids, err := h.s.Second.Pending.IDs(ctx, who.Tenant)
	if err != nil {
		return nil, err
	}
	items, now := []Pending{}, h.s.Now()
	for _, id := range ids {
		if id <= after {
			continue
		}
		p, err := h.s.PendingFrom(ctx, who, id, from)
		if err != nil && problem.KindOf(err) == problem.NotFound {
			continue // forgotten meanwhile
		}
		if err != nil {
			return nil, err
		}
		if in.State != "all" && p.StateAt(now) != in.State || in.Whole != "" && p.Whole != in.Whole {
			continue
		}
		if len(items) == in.Limit {
			next, err := h.pages.Next(q, items[len(items)-1].ID)
			return &pendingPage{frame.ListOf(items, next)}, err
		}
		one := PendingOf(&p, now)
		one.Targets = one.Targets[:min(len(one.Targets), targetsInLists)]
		items = append(items, one)
	}
	return &pendingPage{frame.ListOf(items, "")}, nil
}
