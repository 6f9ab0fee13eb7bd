package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/services/revocation/receipts"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// Receipt is how far a revocation has come, signed.
type Receipt struct {
	receipts.Document
	JWS string `json:"jws" doc:"the same, signed: a compact JWS that can be verified with the keys of /v1/receipts/keys, now or later"`
}

// TransformSchema is for huma.
func (Receipt) TransformSchema(r huma.Registry, s *huma.Schema) *huma.Schema {
	return frame.OrNull(r, s, "redis")
}

// ReceiptSummary is a receipt in a list, as it was written last.
type ReceiptSummary struct {
	ID          string     `json:"id"`
	Op          string     `json:"op" enum:"revoke,hold,release"`
	Epoch       uint64     `json:"epoch"`
	Sequence    uint64     `json:"sequence"`
	CommittedAt frame.Time `json:"committed_at"`
	Targets     int        `json:"targets" doc:"how many it has"`
	Target      string     `json:"target" doc:"the first of them"`
	Reason      string     `json:"reason"`
	Actor       string     `json:"actor"`
	Complete    bool       `json:"complete"`
}

// ProofKey is a key that signs receipts, or did.
type ProofKey struct {
	KeyType    string      `json:"kty" enum:"OKP"`
	Curve      string      `json:"crv" enum:"Ed25519"`
	X          string      `json:"x"`
	KeyID      string      `json:"kid" doc:"its RFC 7638 thumbprint"`
	Use        string      `json:"use" enum:"sig"`
	Alg        string      `json:"alg" enum:"EdDSA"`
	ValidFrom  frame.Time  `json:"valid_from"`
	ValidUntil *frame.Time `json:"valid_until,omitempty" doc:"missing: it signs"`
}

// ProofKeys is a JWK Set.
type ProofKeys struct {
	Keys []ProofKey `json:"keys"`
}

type (
	receiptInput struct {
		ID     string `path:"id" maxLength:"100"`
		Wait   string `query:"wait" doc:"wait so long for it to be complete, as in 5s; 1m at most"`
		Format string `query:"format" enum:"json,jws,html" doc:"json (default), jws: the signed form alone, html: a page to read or print; goes before Accept"`
	}
	receiptsInput  struct{ frame.Page }
	receiptsOutput struct{ Body frame.List[ReceiptSummary] }
	proofKeys      struct{ Body ProofKeys }
)

// The content types of a receipt.
const (
	typeJSON = "application/json"
	typeJWS  = "application/jose" // RFC 7515, section 9.2.1
	typeHTML = "text/html"
)

// Runs tells which requests go on that were admitted with what a receipt is of.
type Runs interface {
	Of(ctx context.Context, r *receipts.Receipt) ([]receipts.Running, error)
}

// RegisterReceipts adds the receipts of k, signed in the name of an installation.
func RegisterReceipts(a *frame.API, pages frame.Pages, k *receipts.Keeper, runs Runs, s *revocation.Service, installation string) {
	h := &receiptHandlers{k: k, runs: runs, s: s, installation: installation, pages: pages}
	const who = rights.Revoke + "|" + rights.AuditRead
	frame.Register(a, huma.Operation{
		OperationID: "listReceipts", Method: http.MethodGet, Path: "/v1/receipts", Tags: []string{"receipts"},
		Summary: "All receipts, newest first",
	}, who, h.list)
	one := a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Receipt](), true, "Receipt")
	text := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	show := huma.Operation{
		OperationID: "getReceipt", Method: http.MethodGet, Path: "/v1/receipts/{id}", Tags: []string{"receipts"},
		Summary: "How far a revocation has come, signed; kept longer than the log has it", Errors: []int{http.StatusNotFound},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			typeJSON: {Schema: one}, typeJWS: text, typeHTML: text,
		}}},
	}
	frame.Register(a, frame.Timeout(show, revocation.MaxWait+frame.Deadline), who, h.show)
	frame.Register(a, huma.Operation{
		OperationID: "getReceiptKeys", Method: http.MethodGet, Path: "/v1/receipts/keys", Tags: []string{"receipts"},
		Summary: "The keys that sign receipts, with all former ones: keep them to verify receipts later", Errors: []int{http.StatusServiceUnavailable},
	}, frame.Public, h.keys)
}

type receiptHandlers struct {
	k            *receipts.Keeper
	runs         Runs
	s            *revocation.Service
	installation string
	pages        frame.Pages
}

func (h *receiptHandlers) list(ctx context.Context, in *receiptsInput) (*receiptsOutput, error) {
	question := frame.QuestionOf(ctx, "receipts", nil)
	text, err := h.pages.After(question, in.Page.Page)
	if err != nil {
		return nil, err
	}
	after, err := listedAt(text)
	if err != nil {
		return nil, err
	}
	from, err := h.s.From(ctx, question.Tenant)
	if err != nil {
		return nil, err
	}
	page, err := h.k.List(question.Tenant, after, in.Limit)
	if err != nil {
		return nil, err
	}
	next := ""
	if len(page) > in.Limit {
		page = page[:in.Limit]
		last := page[len(page)-1]
		if next, err = h.pages.Next(question, fmt.Sprintf("%d.%d.%s", last.Epoch, last.Sequence, last.ID)); err != nil {
			return nil, err
		}
	}
	read, err := h.k.Read(ctx, page)
	if err != nil {
		return nil, err
	}
	items := make([]ReceiptSummary, 0, len(read))
	for i := range read {
		r := &read[i]
		if r.At().Less(from) {
			next = "" // so are those that follow
			break
		}
		x := ReceiptSummary{
			ID: r.ID, Op: r.Op, Epoch: r.Epoch, Sequence: r.Sequence, CommittedAt: frame.Millis(r.CommittedAt),
			Targets: len(r.Targets), Reason: r.Reason, Actor: r.Actor, Complete: r.Complete,
		}
		if len(r.Targets) > 0 {
			x.Target = r.Targets[0]
		}
		items = append(items, x)
	}
	return &receiptsOutput{frame.ListOf(items, next)}, nil
}

// listedAt reads after which receipt a page begins. Whoever likes can make its token.
func listedAt(text string) (l receipts.Listed, err error) {
	if text == "" {
		return l, nil
	}
	epoch, rest, _ := strings.Cut(text, ".")
	seq, id, _ := strings.Cut(rest, ".")
	l.ID = id
	if l.Epoch, err = strconv.ParseUint(epoch, 10, 64); err == nil {
		l.Sequence, err = strconv.ParseUint(seq, 10, 64)
	}
	if err != nil || id == "" {
		return receipts.Listed{}, problem.FieldError("page", "want next_page of an answer to the same question")
	}
	return l, nil
}

func (h *receiptHandlers) show(ctx context.Context, in *receiptInput) (*huma.StreamResponse, error) {
	d, err := wait(in.Wait)
	if err != nil {
		return nil, err
	}
	who := frame.CallerOf(ctx)
	r, err := h.k.Find(ctx, who.Tenant, in.ID, d)
	if err != nil {
		return nil, err
	}
	// Guards serve all tenants: their names are for the home tenant alone, signed or not.
	names := who.Tenant == h.s.Home
	doc := r.Tell(names)
	// What runs still proves nothing, and must not stand in the way of what does.
	if runs, err := h.runs.Of(ctx, &r); err == nil {
		doc.Runs(runs, names)
	}
	payload, err := doc.Payload(h.installation, h.s.Now())
	if err != nil {
		return nil, err
	}
	jws, err := h.k.Keys.Sign(ctx, receipts.Type, payload)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(Receipt{doc, jws})
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(c huma.Context) {
		c.SetHeader("Vary", "Accept")
		c.SetHeader("Cache-Control", "no-store")
		kind, body := typeJSON, text
		switch formOf(in.Format, c.Header("Accept")) {
		case typeJWS:
			kind, body = typeJWS, []byte(jws)
		case typeHTML:
			if page, err := receipts.Page(doc, h.installation, jws); err == nil {
				kind, body = typeHTML+"; charset=utf-8", page
				c.SetHeader("Content-Security-Policy", receipts.PagePolicy)
			}
		}
		c.SetHeader("Content-Type", kind)
		c.SetStatus(http.StatusOK)
		_, _ = c.BodyWriter().Write(body) // the caller may have gone
	}}, nil
}

// formOf returns the content type that was asked for. JSON is what programs get that
// say nothing, or that they take anything.
func formOf(format, accept string) string {
	switch format {
	case "json":
		return typeJSON
	case "jws":
		return typeJWS
	case "html":
		return typeHTML
	}
	for part := range strings.SplitSeq(accept, ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err != nil || params["q"] == "0" {
			continue
		}
		switch kind {
		case typeJSON, typeJWS, typeHTML:
			return kind // the first that we have: nobody weighs these against each other
		}
	}
	return typeJSON
}

func (h *receiptHandlers) keys(ctx context.Context, _ *struct{}) (*proofKeys, error) {
	set, err := h.k.Keys.Public(ctx)
	if err != nil {
		return nil, err
	}
	out := &proofKeys{Body: ProofKeys{Keys: make([]ProofKey, 0, len(set.Keys))}}
	for _, k := range set.Keys {
		p := ProofKey{KeyType: k.KeyType, Curve: k.Curve, X: k.X, KeyID: k.KeyID, Use: k.Use, Alg: k.Alg, ValidFrom: frame.Time(k.ValidFrom)}
		if k.ValidUntil != nil {
			until := frame.Time(*k.ValidUntil)
			p.ValidUntil = &until
		}
		out.Body.Keys = append(out.Body.Keys, p)
	}
	return out, nil
}
