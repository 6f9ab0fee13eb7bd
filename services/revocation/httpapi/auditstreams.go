package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation/audit"
	frame "github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// jsonLines is the type of a stream of JSON documents, one a line.
const jsonLines = "application/jsonl"

// TrailEnds is the first line of the pages of the trail.
type TrailEnds struct {
	Pages  uint64 `json:"pages" doc:"how many there have been: one that does not follow was cut off"`
	Behind string `json:"behind,omitempty" doc:"what the trail lacks of what was committed before the request came"`
}

// TrailPage is each line after it.
type TrailPage struct {
	Number   uint64     `json:"number"`
	StoredAt frame.Time `json:"stored_at"`
	Body     []byte     `json:"body" doc:"the page to the letter, in base64: see schemas/audit.json"`
}

func param(name, about string) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: about, Schema: &huma.Schema{Type: huma.TypeString}}
}

// linesOf describes an answer of lines that each are one of these.
func linesOf(a *frame.API, about string, one ...reflect.Type) map[string]*huma.Response {
	var each []*huma.Schema
	for _, t := range one {
		each = append(each, a.OpenAPI().Components.Schemas.Schema(t, true, t.Name()))
	}
	return map[string]*huma.Response{"200": {
		Description: about,
		// Without a schema: many tools take it for one document of JSON.
		Content: map[string]*huma.MediaType{jsonLines: {Extensions: map[string]any{"x-quash-lines": each}}},
	}}
}

// streams adds what is no document of JSON.
func (h *trailHandlers) streams(a *frame.API) {
	a.Handle(huma.Operation{
		OperationID: "exportAudit", Method: http.MethodGet, Path: "/v1/audit/export", Tags: []string{"audit"},
		Summary: "The audit trail as JSON Lines, the oldest first: one a target of an entry, one of anything else",
		Description: "An answer that ends well has everything that was committed before the request came; one that can't go on is broken off. " +
			"With follow it goes on with what comes; an empty line says now and then that it is alive.",
		Parameters: []*huma.Param{
			param("actor", ""), param("target", "kind:id, or a target key"), param("type", "as dev.quash.log.entry"), param("record", "BUCKET, or BUCKET/KEY"),
			param("tenant", "whose items; by default all that you may see"), param("since", "stored then or later, as RFC 3339 writes it"), param("until", "stored then or before"),
			param("from", "begin with this page of the trail: the page of the last line that was read"),
			param("follow", "true: go on with what comes"),
			param("for", "with follow: end the stream after so long, as in 10s; 1h at most. By default it ends with the request"),
		},
		Responses: linesOf(a, "a stream", reflect.TypeFor[AuditItem]()),
	}, rights.AuditRead, h.export)
	a.Handle(huma.Operation{
		OperationID: "readAuditPages", Method: http.MethodGet, Path: "/v1/audit/pages", Tags: []string{"audit"},
		Summary:    "The pages of the audit trail as they are stored, for who verifies them; the installation's auditors only",
		Parameters: []*huma.Param{param("from", "begin with this page; the first by default")},
		Responses:  linesOf(a, "a stream: first of all what there should be, then the pages that there are", reflect.TypeFor[TrailEnds](), reflect.TypeFor[TrailPage]()),
	}, rights.AuditRead, h.raw)
	a.Handle(huma.Operation{
		OperationID: "showAuditCheckpoint", Method: http.MethodGet, Path: "/v1/audit/checkpoint", Tags: []string{"audit"},
		Summary:     "What the audit trail is now, signed, to be kept elsewhere; the installation's auditors only",
		Description: "A C2SP signed note with a tlog-checkpoint: the origin, how many pages there are, and the SHA-256 of the last of them.",
		Responses: map[string]*huma.Response{"200": {
			Description: "a signed note",
			Content:     map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}},
	}, rights.AuditRead, h.checkpoint)
}

// ofHome refuses auditors of tenants: pages are about everybody.
func (h *trailHandlers) ofHome(ctx context.Context) error {
	if own := frame.CallerOf(ctx).Tenant; own != h.Home {
		return problem.New(problem.Forbidden, "only the auditors of the tenant %q can do this: it is about all tenants; GET /v1/audit tells of yours", h.Home)
	}
	return nil
}

// number reads the number of a page.
func number(r *http.Request, name string) (uint64, error) {
	q := r.URL.Query()
	if !q.Has(name) {
		return 1, nil
	}
	n, err := strconv.ParseUint(q.Get(name), 10, 64)
	if err != nil || n == 0 || n == audit.Endless {
		return 0, problem.FieldError(name, "want the number of a page, from 1")
	}
	return n, nil
}

// exporting is what an export is asked for.
type exporting struct {
	filter audit.Filter
	from   uint64
	follow bool
	last   time.Duration // 0: as long as its request
}

func (h *trailHandlers) exporting(r *http.Request) (e exporting, err error) {
	q := r.URL.Query()
	w, err := wantedOf(q)
	if err != nil {
		return e, err
	}
	if e.filter, err = h.filter(r.Context(), w); err != nil {
		return e, err
	}
	if e.from, err = number(r, "from"); err != nil {
		return e, err
	}
	if e.last, err = lasts(r); err != nil {
		return e, err
	}
	switch text := q.Get("follow"); {
	case text == "true":
		e.follow = true
	case text != "" && text != "false" || text == "" && q.Has("follow"):
		return e, problem.FieldError("follow", "want true or false")
	case e.last > 0:
		return e, problem.FieldError("for", "goes with follow=true: without it the stream ends by itself")
	}
	return e, nil
}

// export streams what is looked for.
func (h *trailHandlers) export(w http.ResponseWriter, r *http.Request) {
	e, err := h.exporting(r)
	if err != nil {
		frame.Error(w, r, err, "")
		return
	}
	last, err := h.Kept.Await(r.Context(), h.Wait)
	if err == nil && e.from > last.Number+1 {
		// A trail that went back has lost what the caller has read: an empty answer would say that nothing came since.
		err = &audit.Behind{Source: audit.Stream, Upto: last.Number, Head: e.from - 1}
	}
	if err != nil {
		frame.Error(w, r, trailProblem(err), "")
		return
	}
	from := e.from
	if !e.filter.Since.IsZero() {
		first, err := audit.FirstSince(r.Context(), h.Kept, e.filter.Since, last.Number)
		if err != nil {
			frame.Error(w, r, trailProblem(err), "")
			return
		}
		from = max(from, first)
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if e.last > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, e.last, errOver)
		defer cancel()
	}
	to := last.Number
	if e.follow {
		to = audit.Endless
	}
	lines := h.begin(w)
	err = lines.all(ctx, func(line func(any) error) error {
		return audit.Export(ctx, h.Kept, e.filter, from, to, func(f *audit.Found) error {
			item := auditItemOf(f)
			targets := item.Targets
			item.Targets = nil
			if len(targets) == 0 {
				return line(item)
			}
			for _, item.Target = range targets {
				if err := line(item); err != nil {
					return err
				}
			}
			return nil
		})
	})
	lines.end(ctx, err)
}

// raw streams the pages themselves, also those of a trail that is damaged or behind: who
// verifies it says what is wrong.
func (h *trailHandlers) raw(w http.ResponseWriter, r *http.Request) {
	err := h.ofHome(r.Context())
	var from uint64
	if err == nil {
		from, err = number(r, "from")
	}
	if err != nil {
		frame.Error(w, r, err, "")
		return
	}
	ends := TrailEnds{}
	if _, err := h.Kept.Await(r.Context(), h.Wait); err != nil {
		ends.Behind = err.Error()
	}
	var last audit.Stored
	if last, ends.Pages, err = h.Kept.Last(r.Context()); err != nil {
		frame.Error(w, r, trailProblem(err), "")
		return
	}
	lines := h.begin(w)
	err = lines.all(r.Context(), func(line func(any) error) error {
		if err := line(ends); err != nil {
			return err
		}
		return h.Kept.Pages(r.Context(), from, last.Number, func(p audit.Stored) error {
			return line(TrailPage{Number: p.Number, StoredAt: frame.Time(p.At), Body: p.Body})
		})
	})
	lines.end(r.Context(), err)
}

// checkpoint signs what the trail is now.
func (h *trailHandlers) checkpoint(w http.ResponseWriter, r *http.Request) {
	signed, err := h.signed(r.Context())
	if err != nil {
		frame.Error(w, r, err, "")
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(signed) // the caller may have gone
}

func (h *trailHandlers) signed(ctx context.Context) ([]byte, error) {
	if err := h.ofHome(ctx); err != nil {
		return nil, err
	}
	if h.Signer == nil {
		return nil, problem.New(problem.Unavailable, "this service has no key to sign checkpoints with")
	}
	by, err := h.Signer(ctx)
	if err != nil {
		return nil, problem.Wrap(problem.Unavailable, err, "the key that signs checkpoints can't be had now; try again")
	}
	last, err := h.Kept.Await(ctx, h.Wait)
	if err != nil {
		return nil, trailProblem(err)
	}
	if last.Number == 0 {
		return nil, problem.New(problem.Unavailable, "the audit trail has no page yet; try again")
	}
	return audit.CheckpointOf(h.Origin, last).Sign(by)
}

// slowest is how long a reader may take for a line.
const slowest = 30 * time.Second

// lines writes JSON Lines.
type lines struct {
	w   http.ResponseWriter
	out *http.ResponseController
	log *zap.Logger
}

func (h *trailHandlers) begin(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", jsonLines)
	w.WriteHeader(http.StatusOK)
	return &lines{w, http.NewResponseController(w), h.Log}
}

// all writes what produce hands to line, as it comes, and says that it is alive while
// nothing does.
func (l *lines) all(ctx context.Context, produce func(line func(any) error) error) error {
	if err := l.out.Flush(); err != nil {
		return err
	}
	come, done, gone := make(chan []byte, 1), make(chan error, 1), make(chan struct{})
	defer close(gone)
	go func() {
		defer close(come)
		done <- produce(func(v any) error {
			text, err := json.Marshal(v)
			if err != nil {
				return err
			}
			select {
			case come <- append(text, '\n'):
				return nil
			case <-gone:
				return context.Canceled
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	alive := time.NewTicker(idle)
	defer alive.Stop()
	for {
		var text []byte
		select {
		case t, ok := <-come:
			if !ok {
				return <-done
			}
			text = t
			alive.Reset(idle)
		case <-alive.C:
			text = []byte{'\n'}
		}
		if over(ctx) {
			return context.Cause(ctx)
		}
		// A reader that has stopped would pin what it is sent for as long as it stays.
		if err := l.out.SetWriteDeadline(time.Now().Add(slowest)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		if _, err := l.w.Write(text); err != nil {
			return err
		}
		if len(come) > 0 {
			continue // together with the next
		}
		if err := l.out.Flush(); err != nil {
			return err
		}
	}
}

// end ends an answer. One that could not go on is broken off, so that nobody takes it for
// the whole.
func (l *lines) end(ctx context.Context, err error) {
	switch {
	case over(ctx):
		l.log.Info("an answer about the audit trail was broken off: its request is over", zap.Error(context.Cause(ctx)))
	case err != nil && ctx.Err() == nil:
		l.log.Error("an answer about the audit trail was broken off", zap.Error(err))
	default:
		return
	}
	panic(http.ErrAbortHandler)
}
