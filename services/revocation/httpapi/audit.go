package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"
	"golang.org/x/mod/sumdb/note"

	"github.com/quash-project/quash/services/revocation/audit"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// Trail is the audit trail as it is asked for over HTTP.
type Trail struct {
	Kept TrailStore
	Home string // the tenant whose auditors see everything
	// Since tells since when a tenant is there; see revocation.Service.Since.
	Since func(ctx context.Context, tenant string) (time.Time, error)
	// Origin is the first line of checkpoints: it names this trail among all.
	Origin string
	// Signer gives the key that signs checkpoints; nil: there is none.
	Signer func(context.Context) (note.Signer, error)
	Log    *zap.Logger
	// Wait is how long a question waits for the trail to come up. Default 10 s: it comes
	// up too when another replica has to take over.
	Wait time.Duration
}

// TrailStore is where the trail is kept.
type TrailStore interface {
	audit.Pages
	// Await returns the last page once everything is in the trail that was committed
	// before; audit.Behind is the error when that takes longer.
	Await(ctx context.Context, wait time.Duration) (audit.Stored, error)
	// Last returns the last page that is there, and how many there have been.
	Last(ctx context.Context) (audit.Stored, uint64, error)
}

// behindAgain is when a question is good to be repeated that has waited in vain.
const behindAgain = 2 * time.Second

// AuditItem is one thing that happened, as the audit trail has it.
type AuditItem struct {
	Page     uint64     `json:"page" doc:"of the audit trail"`
	Item     int        `json:"item" doc:"its place in that page, from 0"`
	StoredAt frame.Time `json:"stored_at" doc:"by the broker's clock; since and until are about it"`
	At       frame.Time `json:"at" doc:"when it was done, by the clock of whoever did it"`
	Type     string     `json:"type" doc:"as dev.quash.log.entry, dev.quash.record.put, dev.quash.record.remove"`
	Actor    string     `json:"actor"`
	Reason   string     `json:"reason"`
	Tenant   string     `json:"tenant,omitempty" doc:"none: it is about the installation"`
	Service  string     `json:"service,omitempty" doc:"that asked for it"`
	Op       string     `json:"op,omitempty"`
	ID       string     `json:"id,omitempty" doc:"of a revocation, hold or release"`
	Issuer   string     `json:"issuer,omitempty" doc:"of the targets, if it is not the tenant's own"`
	Targets  []string   `json:"targets,omitempty" doc:"kind:id, or target keys where the ids are not known any more"`
	Target   string     `json:"target,omitempty" doc:"in an export, in place of targets: each has a line"`
	Bucket   string     `json:"bucket,omitempty" doc:"of a record"`
	Key      string     `json:"key,omitempty" doc:"of a record; what it holds is in the trail as a digest alone"`
	KeyID    string     `json:"kid,omitempty" doc:"of a signing key"`
	Guard    string     `json:"guard,omitempty" doc:"that has joined, or is out"`
	Instance string     `json:"instance,omitempty" doc:"of that guard"`
	Incident string     `json:"incident,omitempty" doc:"under which it was done, or whose notebook it is"`
	Request  string     `json:"request,omitempty" doc:"the id of the request that led to it, as X-Request-Id has it in the answer"`
	Approved string     `json:"approved_by,omitempty" doc:"the second person, where there was one"`
	Glass    bool       `json:"break_glass,omitempty" doc:"no second person was waited for, or the break-glass identity did it"`
	Source   string     `json:"source" doc:"the stream that it was read from"`
	Sequence uint64     `json:"sequence" doc:"its place there"`
	Digest   string     `json:"digest" doc:"SHA-256 over what was stored, as schemas/audit.json says"`
}

func auditItemOf(f *audit.Found) AuditItem {
	return AuditItem{
		Page: f.Place.Page, Item: f.Place.Item, StoredAt: frame.Time(f.Stored), At: frame.Time(f.At), Type: f.Type, Actor: f.Actor, Reason: f.Reason,
		Tenant: f.Tenant, Service: f.Service, Op: f.Op, ID: f.Entry, Issuer: f.Issuer, Targets: f.Targets, Bucket: f.Bucket, Key: f.Key,
		KeyID: f.KeyID, Guard: f.Guard, Instance: f.Instance, Incident: f.Incident, Request: f.Request, Approved: f.ApprovedBy, Glass: f.BreakGlass, Source: f.Source, Sequence: f.Item.Sequence, Digest: f.Digest.String(),
	}
}

// AuditWanted are the parameters by which items are looked for.
type AuditWanted struct {
	Actor  string `query:"actor" maxLength:"512"`
	Target string `query:"target" maxLength:"2048" doc:"kind:id, or a target key"`
	Type   string `query:"type" maxLength:"100" doc:"as dev.quash.log.entry"`
	Record string `query:"record" maxLength:"1024" doc:"BUCKET, or BUCKET/KEY"`
	Tenant string `query:"tenant" maxLength:"63" doc:"whose items; by default all that you may see"`
	// Incident and Request are ids.
	Incident string `query:"incident" maxLength:"100" doc:"what was done under an incident, with its notebook"`
	Request  string `query:"request" maxLength:"64" doc:"what one request has changed: its X-Request-Id"`
	Since    string `query:"since" maxLength:"40" doc:"stored then or later, as RFC 3339 writes it"`
	Until    string `query:"until" maxLength:"40" doc:"stored then or before"`
}

type searchInput struct {
	frame.Page
	AuditWanted
	Order string `query:"order" enum:"newest,oldest" default:"newest" doc:"which come first"`
}

type searchOutput struct{ Body frame.List[AuditItem] }

type trailHandlers struct {
	Trail
	pages frame.Pages
}

// RegisterAudit adds the operations about the audit trail to an API.
func RegisterAudit(a *frame.API, pages frame.Pages, t Trail) {
	if t.Log == nil {
		t.Log = zap.NewNop()
	}
	if t.Wait == 0 {
		t.Wait = 10 * time.Second
	}
	h := &trailHandlers{Trail: t, pages: pages}
	frame.Register(a, huma.Operation{
		OperationID: "searchAudit", Method: http.MethodGet, Path: "/v1/audit", Tags: []string{"audit"},
		Summary: "Search the audit trail",
		Description: "Everything is in the answer that was committed before the request came. A page may have fewer items than the limit, or none, " +
			"and go on all the same: a long trail is looked through by parts.",
	}, rights.AuditRead, h.search)
	h.streams(a)
}

// filter checks what is looked for, and keeps tenants to what is theirs.
func (h *trailHandlers) filter(ctx context.Context, w AuditWanted) (audit.Filter, error) {
	f := audit.Filter{Tenant: w.Tenant, Actor: w.Actor, Type: w.Type, Record: w.Record, Target: w.Target, Incident: w.Incident, Request: w.Request}
	if w.Tenant != "" {
		if err := revoke.CheckName("tenant", w.Tenant); err != nil {
			return f, problem.FieldError("tenant", "%s", err)
		}
	}
	if own := frame.CallerOf(ctx).Tenant; own != h.Home {
		if w.Tenant != "" && w.Tenant != own {
			return f, &problem.Error{Kind: problem.Forbidden, Field: "tenant", Detail: "your token is of another tenant"}
		}
		f.Tenant = own
	}
	if w.Incident != "" {
		if err := commit.CheckIncident(w.Incident); err != nil {
			return f, problem.FieldError("incident", "%s", err)
		}
	}
	if err := commit.CheckRequestID(w.Request); err != nil {
		return f, problem.FieldError("request", "%s", err)
	}
	if w.Target != "" {
		_, err := revoke.ParseTarget(h.Home, revoke.Own, w.Target)
		if err != nil {
			if _, isNoKey := revoke.ParseKey(w.Target); isNoKey != nil {
				return f, problem.FieldError("target", "%s", err)
			}
		}
	}
	for _, one := range []struct {
		name, text string
		into       *time.Time
	}{{"since", w.Since, &f.Since}, {"until", w.Until, &f.Until}} {
		if one.text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, one.text)
		if err != nil {
			return f, problem.FieldError(one.name, "want a time as in 2026-01-31T12:00:00Z")
		}
		*one.into = at
	}
	if f.Tenant == "" || f.Tenant == h.Home || f.Tenant != frame.CallerOf(ctx).Tenant {
		return f, nil // the home tenant sees what was under every name
	}
	there, err := h.Since(ctx, f.Tenant)
	if there.After(f.Since) {
		f.Since = there
	}
	return f, err
}

// search answers with a page of what was found. Its token names where it ended, and the
// page of the trail up to which all pages of the answer look.
func (h *trailHandlers) search(ctx context.Context, in *searchInput) (*searchOutput, error) {
	f, err := h.filter(ctx, in.AuditWanted)
	if err != nil {
		return nil, err
	}
	q := audit.Query{Filter: f, Newest: in.Order == "newest", Limit: in.Limit}
	question := frame.QuestionOf(ctx, "audit", []any{in.AuditWanted, in.Order})
	if in.Page.Page == "" {
		last, err := h.Kept.Await(ctx, h.Wait)
		if err != nil {
			return nil, trailProblem(err)
		}
		q.Last = last.Number
	} else {
		text, err := h.pages.After(question, in.Page.Page)
		if err != nil {
			return nil, err
		}
		if _, err := fmt.Sscanf(text, "%d %d %d", &q.Last, &q.After.Page, &q.After.Item); err != nil {
			return nil, problem.FieldError("page", "want next_page of an answer to the same question")
		}
		// A trail that went back has lost what the answer before has told.
		if last, _, err := h.Kept.Last(ctx); err != nil {
			return nil, trailProblem(err)
		} else if last.Number < q.Last {
			return nil, trailProblem(&audit.Behind{Source: audit.Stream, Upto: last.Number, Head: q.Last})
		}
	}
	found, err := audit.Search(ctx, h.Kept, q)
	if err != nil {
		return nil, trailProblem(err)
	}
	items := make([]AuditItem, 0, len(found.Found))
	for i := range found.Found {
		items = append(items, auditItemOf(&found.Found[i]))
	}
	next := ""
	if found.More {
		if next, err = h.pages.Next(question, fmt.Sprintf("%d %d %d", q.Last, found.Next.Page, found.Next.Item)); err != nil {
			return nil, err
		}
	}
	return &searchOutput{frame.ListOf(items, next)}, nil
}

// trailProblem says what is wrong with the trail, or that it can't be read now.
func trailProblem(err error) error {
	if behind := (*audit.Behind)(nil); errors.As(err, &behind) {
		e := problem.Wrap(problem.Unavailable, err, "the audit trail does not have everything yet that was committed; try again")
		e.RetryAfter = behindAgain
		return e
	}
	if broken := (*audit.Broken)(nil); errors.As(err, &broken) {
		return problem.Wrap(problem.Internal, err, "page %d of the audit trail is damaged: quash audit verify says more", broken.Number)
	}
	return problem.Wrap(problem.Unavailable, err, "the audit trail can't be read now; try again")
}

// wantedOf reads the same parameters in the request of a stream.
func wantedOf(q url.Values) (w AuditWanted, err error) {
	for _, one := range []struct {
		name string
		into *string
		most int
	}{
		{"actor", &w.Actor, 512},
		{"target", &w.Target, 2048},
		{"type", &w.Type, 100},
		{"record", &w.Record, 1024},
		{"tenant", &w.Tenant, 63},
		{"incident", &w.Incident, 100},
		{"request", &w.Request, 64},
		{"since", &w.Since, 40},
		{"until", &w.Until, 40},
	} {
		if *one.into = q.Get(one.name); len(*one.into) > one.most {
			return w, problem.FieldError(one.name, "has %d bytes: %d at most", len(*one.into), one.most)
		}
	}
	return w, nil
}
