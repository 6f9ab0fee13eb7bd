package httpapi

import (
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/services/revocation/incidents"
	"github.com/quash-project/quash/services/revocation/receipts"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/rights"
)

// IncidentSummary is a notebook in a list.
type IncidentSummary struct {
	ID       string      `json:"id"`
	Title    string      `json:"title"`
	Severity string      `json:"severity" enum:"low,medium,high,critical"`
	State    string      `json:"state" enum:"open,closed"`
	OpenedAt frame.Time  `json:"opened_at"`
	OpenedBy string      `json:"opened_by"`
	ClosedAt *frame.Time `json:"closed_at,omitempty"`
	ClosedBy string      `json:"closed_by,omitempty"`
}

// Incident is a notebook.
type Incident struct {
	IncidentSummary
	CloseReason string               `json:"close_reason,omitempty"`
	Notes       []incidents.ToldNote `json:"notes"`
	Plans       []incidents.ToldPlan `json:"plans" doc:"what was shown before cuts"`
}

func summaryOf(x *incidents.Incident) IncidentSummary {
	s := IncidentSummary{
		ID: x.ID, Title: x.Title, Severity: x.Severity, State: x.State(), OpenedAt: frame.Time(x.Opened.At), OpenedBy: x.Opened.Actor,
	}
	if c := x.Closed; c != nil {
		s.ClosedAt, s.ClosedBy = instant(c.At), c.Actor
	}
	return s
}

func incidentOf(x incidents.Incident) Incident {
	out := Incident{IncidentSummary: summaryOf(&x), Notes: []incidents.ToldNote{}, Plans: []incidents.ToldPlan{}}
	if x.Closed != nil {
		out.CloseReason = x.Closed.Reason
	}
	for _, n := range x.Notes {
		out.Notes = append(out.Notes, incidents.ToldNote{At: frame.Time(n.At), Actor: n.Actor, Text: n.Text})
	}
	for _, p := range x.Plans {
		out.Plans = append(out.Plans, incidents.ToldPlan{
			At: frame.Time(p.At), Actor: p.Actor, ID: p.ID, Op: p.Op, Target: p.Target, Targets: p.Targets, Hits: p.Hits,
		})
	}
	return out
}

type (
	openIncidentInput struct {
		frame.Idempotent
		Body struct {
			Title    string `json:"title" maxLength:"200" doc:"what it is about, in one line"`
			Severity string `json:"severity,omitempty" enum:"low,medium,high,critical" doc:"medium by default"`
		}
	}
	listIncidentsInput  struct{ frame.Page }
	listIncidentsOutput struct{ Body frame.List[IncidentSummary] }
	incidentInput       struct {
		ID string `path:"id" maxLength:"100"`
	}
	noteInput struct {
		frame.Idempotent
		ID   string `path:"id" maxLength:"100"`
		Body struct {
			Text string `json:"text" maxLength:"4096" doc:"a remark; without secrets"`
		}
	}
	closeIncidentInput struct {
		frame.Idempotent
		ID   string `path:"id" maxLength:"100"`
		Body struct {
			Reason string `json:"reason" maxLength:"1024" doc:"how it ended"`
		}
	}
	reportInput struct {
		ID     string `path:"id" maxLength:"100"`
		Format string `query:"format" enum:"json,markdown,html" doc:"json (default), markdown, or html: a page to read or print; goes before Accept"`
	}
	incidentOutput struct{ Body Incident }
)

const typeMarkdown = "text/markdown" // RFC 7763

type incidentHandlers struct {
	books              *incidents.Books
	home, installation string
	pages              frame.Pages
}

// RegisterIncidents adds the notebooks of incidents.
func RegisterIncidents(a *frame.API, pages frame.Pages, books *incidents.Books, home, installation string) {
	h := &incidentHandlers{books: books, home: home, installation: installation, pages: pages}
	const readers = rights.Revoke + "|" + rights.AuditRead
	tags := []string{"incidents"}
	frame.Register(a, huma.Operation{
		OperationID: "openIncident", Method: http.MethodPost, Path: "/v1/incidents", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Open a notebook: what is done under it is gathered",
	}, rights.Revoke, h.open)
	frame.Register(a, huma.Operation{
		OperationID: "listIncidents", Method: http.MethodGet, Path: "/v1/incidents", Tags: tags, Summary: "All incidents, newest first",
	}, readers, h.list)
	frame.Register(a, huma.Operation{
		OperationID: "getIncident", Method: http.MethodGet, Path: "/v1/incidents/{id}", Tags: tags,
		Summary: "A notebook: notes, and plans that were seen", Errors: []int{http.StatusNotFound},
	}, readers, h.show)
	frame.Register(a, huma.Operation{
		OperationID: "addIncidentNote", Method: http.MethodPost, Path: "/v1/incidents/{id}/notes", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Write a remark in a notebook", Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, rights.Revoke, h.note)
	frame.Register(a, huma.Operation{
		OperationID: "closeIncident", Method: http.MethodPost, Path: "/v1/incidents/{id}/close", Tags: tags,
		Summary: "Close a notebook: nothing is gathered in it any more", Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, rights.Revoke, h.close)
	doc := a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[incidents.Report](), true, "Report")
	text := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	frame.Register(a, huma.Operation{
		OperationID: "getIncidentReport", Method: http.MethodGet, Path: "/v1/incidents/{id}/report", Tags: tags,
		Summary: "One document for the record: who did what when, with signed receipts", Errors: []int{http.StatusNotFound},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			typeJSON: {Schema: doc}, typeMarkdown: text, typeHTML: text,
		}}},
	}, readers, h.report)
}

func writer(ctx context.Context) incidents.Writer {
	c := frame.CallerOf(ctx)
	w := incidents.Writer{Tenant: c.Tenant, Actor: c.Actor(), Request: frame.RequestID(ctx)}
	if a := frame.AttemptOf(ctx); a != nil {
		w.Try = a
	}
	return w
}

func (h *incidentHandlers) open(ctx context.Context, in *openIncidentInput) (*incidentOutput, error) {
	x, err := h.books.Open(ctx, writer(ctx), in.Body.Title, in.Body.Severity)
	if err != nil {
		return nil, err
	}
	return &incidentOutput{incidentOf(x)}, nil
}

func (h *incidentHandlers) list(ctx context.Context, in *listIncidentsInput) (*listIncidentsOutput, error) {
	question := frame.QuestionOf(ctx, "incidents", nil)
	after, err := h.pages.After(question, in.Page.Page)
	if err != nil {
		return nil, err
	}
	page, last, err := h.books.List(ctx, question.Tenant, after, in.Limit)
	if err != nil {
		return nil, err
	}
	next := ""
	if last != "" {
		if next, err = h.pages.Next(question, last); err != nil {
			return nil, err
		}
	}
	items := make([]IncidentSummary, 0, len(page))
	for i := range page {
		items = append(items, summaryOf(&page[i]))
	}
	return &listIncidentsOutput{frame.ListOf(items, next)}, nil
}

func (h *incidentHandlers) show(ctx context.Context, in *incidentInput) (*incidentOutput, error) {
	x, err := h.books.Find(ctx, frame.CallerOf(ctx).Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	return &incidentOutput{incidentOf(x)}, nil
}

func (h *incidentHandlers) note(ctx context.Context, in *noteInput) (*incidentOutput, error) {
	x, err := h.books.Note(ctx, writer(ctx), in.ID, in.Body.Text)
	if err != nil {
		return nil, err
	}
	return &incidentOutput{incidentOf(x)}, nil
}

func (h *incidentHandlers) close(ctx context.Context, in *closeIncidentInput) (*incidentOutput, error) {
	x, err := h.books.Close(ctx, writer(ctx), in.ID, in.Body.Reason)
	if err != nil {
		return nil, err
	}
	return &incidentOutput{incidentOf(x)}, nil
}

func (h *incidentHandlers) report(ctx context.Context, in *reportInput) (*huma.StreamResponse, error) {
	who := frame.CallerOf(ctx)
	// Guards serve all tenants: their names are for the home tenant alone.
	r, err := h.books.Report(ctx, who.Tenant, in.ID, h.installation, who.Tenant == h.home)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	page, err := r.Page()
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(c huma.Context) {
		c.SetHeader("Vary", "Accept")
		c.SetHeader("Cache-Control", "no-store")
		kind, body := typeJSON, text
		switch reportForm(in.Format, c.Header("Accept")) {
		case typeMarkdown:
			kind, body = typeMarkdown+"; charset=utf-8", r.Markdown()
		case typeHTML:
			kind, body = typeHTML+"; charset=utf-8", page
			c.SetHeader("Content-Security-Policy", receipts.PagePolicy)
		}
		c.SetHeader("Content-Type", kind)
		c.SetStatus(http.StatusOK)
		_, _ = c.BodyWriter().Write(body) // the caller may have gone
	}}, nil
}

// reportForm returns the content type that was asked for; see formOf.
func reportForm(format, accept string) string {
	switch format {
	case "json":
		return typeJSON
	case "markdown":
		return typeMarkdown
	case "html":
		return typeHTML
	}
	for part := range strings.SplitSeq(accept, ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err != nil || params["q"] == "0" {
			continue
		}
		switch kind {
		case typeJSON, typeMarkdown, typeHTML:
			return kind
		}
	}
	return typeJSON
}
