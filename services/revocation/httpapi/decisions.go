package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/shared/guard"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// maxToken is the longest token that is looked at; a guard takes no longer one.
const maxToken = 16 << 10

type decideInput struct {
	Body struct {
		Token    string   `json:"token"`
		Scopes   []string `json:"scopes,omitempty" maxItems:"100" doc:"that the route wants"`
		Audience string   `json:"audience,omitempty" doc:"that the resource server has; none: any"`
		Fresh    bool     `json:"fresh,omitempty" doc:"prove the log's head before deciding"`
	}
}

// Hit is a target of the token that refuses it.
type Hit struct {
	Target string      `json:"target"`
	How    string      `json:"how" enum:"held,ended,cut"`
	Since  Place       `json:"since"`
	At     *frame.Time `json:"at,omitempty" doc:"when that was committed, where it is known"`
}

// Check is the outcome of one check.
type Check struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// Decision is what a guard would say, and why.
type Decision struct {
	Allowed   bool           `json:"allowed"`
	Status    int            `json:"status" doc:"HTTP status that a guard would answer"`
	Error     string         `json:"error,omitempty" doc:"RFC 6750 error code"`
	Check     string         `json:"check,omitempty" doc:"the check that failed"`
	Reason    string         `json:"reason,omitempty"`
	Target    string         `json:"target,omitempty" doc:"the target that hits"`
	Hits      []Hit          `json:"hits"`
	Checks    []Check        `json:"checks"`
	Epoch     uint64         `json:"epoch"`
	Sequence  uint64         `json:"sequence" doc:"how far the view had applied the log"`
	Staleness string         `json:"staleness" doc:"how old the view was at most"`
	Proved    bool           `json:"proved" doc:"the signature is that of a trusted key; otherwise claims are mere words"`
	Claims    map[string]any `json:"claims,omitempty"`
}

type decideOutput struct{ Body Decision }

func (h *handlers) decisions(a *frame.API) {
	frame.Register(a, huma.Operation{
		OperationID: "decide", Method: http.MethodPost, Path: "/v1/decisions", Tags: []string{"decisions"},
		Summary: "Would a guard take this token, and why",
	}, rights.Decide, h.decide)
}

func (h *handlers) decide(ctx context.Context, in *decideInput) (*decideOutput, error) {
	if in.Body.Token == "" {
		return nil, problem.FieldError("token", "is empty")
	}
	if len(in.Body.Token) > maxToken {
		return nil, problem.FieldError("token", "has %d bytes: a guard takes %d at most", len(in.Body.Token), maxToken)
	}
	req := guard.Requirement{Scopes: in.Body.Scopes, AnyAudience: in.Body.Audience == ""}
	if in.Body.Audience != "" {
		req.Audience = []string{in.Body.Audience}
	}
	if in.Body.Fresh {
		req.MaxStale = guard.Probe
	}
	return &decideOutput{decisionOf(h.s.Explain(ctx, caller(ctx), in.Body.Token, req))}, nil
}

func decisionOf(e guard.Explanation) Decision {
	d := Decision{
		Allowed: e.Allowed(), Status: e.HTTPStatus(), Error: e.Error, Check: e.Check, Reason: e.Reason,
		Target: e.Target.String(), Hits: []Hit{}, Checks: []Check{}, Epoch: e.Position.Epoch, Sequence: e.Position.Seq,
		Staleness: e.ViewStaleness.Round(time.Millisecond).String(), Proved: e.Proved,
	}
	for _, t := range e.Hits() {
		hit := Hit{Target: t.String(), How: t.Cause, Since: place(t.Since)}
		if t.State.CutAt != 0 && t.Cause != guard.CauseHeld {
			at := frame.Millis(t.State.CutAt)
			hit.At = &at
		}
		d.Hits = append(d.Hits, hit)
	}
	for _, c := range e.Checks {
		d.Checks = append(d.Checks, Check{Check: c.Check, OK: c.OK, Detail: c.Detail})
	}
	if e.Claims != nil && len(e.Claims.Raw) > 0 {
		if json.Unmarshal(e.Claims.Raw, &d.Claims) != nil {
			d.Claims = nil // it was decoded strictly before: can't happen
		}
	}
	return d
}
