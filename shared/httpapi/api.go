package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/danielgtaylor/huma/v2/yaml"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/problem"
)

// Limits of a request where its operation has no other.
const (
	MaxBody     = 64 << 10 // bytes; Operation.MaxBodyBytes is another
	MaxBulkBody = 1 << 20  // for operations that take many things at once
	// Deadline of an operation; Timeout is another.
	Deadline = 30 * time.Second
)

const (
	timeoutKey = "quash.timeout"
	alsoKey    = "quash.also"
	scopeName  = "quash"
)

// API is one service's.
type API struct {
	Huma huma.API
	mux  *http.ServeMux
	auth Authorizer
	log  *zap.Logger
	// memory is empty where no operation is Idempotent.
	memory Memory
}

// New returns an API on mux. Its OpenAPI document is at /openapi/NAME.json and .yaml, and
// for older tools at /openapi/NAME-3.0.json and .yaml.
func New(mux *http.ServeMux, name string, auth Authorizer, log *zap.Logger) *API {
	replaceErrors()
	if log == nil {
		log = zap.NewNop()
	}
	c := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "Quash " + name, Version: "1"},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					scopeName: {Type: "http", Scheme: "bearer", BearerFormat: "JWT"},
				},
			},
		},
		OpenAPIPath:                  "", // huma's older form names scopes where it may not
		DocsPath:                     "", // huma's loads scripts from elsewhere
		SchemasPath:                  "", // and its hook that links schemas is not set
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	}
	a := &API{Huma: humago.New(mux, c), mux: mux, auth: auth, log: log}
	a.documents("/openapi/" + name)
	return a
}

// documents serves the document in all its forms, each made when it is first asked
// for: then every operation has been registered.
func (a *API) documents(path string) {
	newer := func() ([]byte, error) { return a.OpenAPI().MarshalJSON() }
	older := func() ([]byte, error) { return Older(a.OpenAPI()) }
	asYAML := func(of func() ([]byte, error)) func() ([]byte, error) {
		return func() ([]byte, error) {
			text, err := of()
			if err != nil {
				return nil, err
			}
			var out bytes.Buffer
			err = yaml.Convert(&out, bytes.NewReader(text))
			return out.Bytes(), err
		}
	}
	for suffix, write := range map[string]func() ([]byte, error){
		".json": newer, "-3.0.json": older, ".yaml": asYAML(newer), "-3.0.yaml": asYAML(older),
	} {
		text := sync.OnceValues(write)
		kind := "application/openapi+" + suffix[len(suffix)-len("json"):]
		a.mux.HandleFunc("GET "+path+suffix, func(w http.ResponseWriter, r *http.Request) {
			body, err := text()
			if err != nil {
				Error(w, r, err, "")
				return
			}
			w.Header().Set("Content-Type", kind)
			_, _ = w.Write(body) // the caller may have gone
		})
	}
}

// OpenAPI returns the document, for tests and for schemas/.
func (a *API) OpenAPI() *huma.OpenAPI { return a.Huma.OpenAPI() }

// Timeout returns op with another deadline, for operations that wait.
func Timeout(op huma.Operation, d time.Duration) huma.Operation {
	if op.Metadata == nil {
		op.Metadata = map[string]any{}
	}
	op.Metadata[timeoutKey] = d
	return op
}

// Register adds an operation that needs a scope ("a|b": one of them), or is
// Authenticated or Public. It panics on an operation without one, at start.
func Register[I, O any](a *API, op huma.Operation, scope string, handler func(context.Context, *I) (*O, error)) {
	if scope == "" {
		panic(fmt.Sprintf("operation %s %s says not who may call it", op.Method, op.Path))
	}
	deadline, ok := op.Metadata[timeoutKey].(time.Duration)
	if !ok {
		deadline = Deadline
	}
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = MaxBody
	}
	strict, takesBody := bodyReader[I](op.MaxBodyBytes)
	failures(&op, scope, takesBody)
	conditions[I](&op)
	repeatable := remembers[I]()
	op.MaxBodyBytes++       // huma refuses a body of exactly its limit
	op.BodyReadTimeout = -1 // huma's deadline would also end the context of a request that waits; readBody has one
	op.Middlewares = append(op.Middlewares, func(ctx huma.Context, next func(huma.Context)) {
		who, err := a.caller(ctx, scope)
		if err == nil {
			ctx, err = strict(ctx)
		}
		if err == nil && repeatable {
			ctx, err = ask(ctx, who)
		}
		if err != nil {
			a.fail(ctx, err, scope)
			return
		}
		next(huma.WithValue(ctx, callerKey{}, who))
	})
	huma.Register(a.Huma, op, func(ctx context.Context, in *I) (*O, error) {
		ctx, cancel := context.WithTimeout(ctx, deadline)
		defer cancel()
		out, err := once(ctx, &a.memory, deadline, func(ctx context.Context) (*O, error) { return handler(ctx, in) })
		if err != nil {
			return nil, answerOf(ctx, err)
		}
		if t, ok := any(out).(interface{ orElse(status int) }); ok {
			t.orElse(cmp.Or(op.DefaultStatus, http.StatusOK))
		}
		return out, nil
	})
	for _, s := range a.OpenAPI().Components.Schemas.Map() {
		noNullLists(s)
	}
	a.describe(&op)
}

// Handle adds a handler outside of huma, for streams; it needs a scope all the
// same, and has no deadline of ours: its context ends when the token is hit or expires
// (guard.ErrHit and guard.ErrExpired are the causes). What it answers stands in op.Responses.
func (a *API) Handle(op huma.Operation, scope string, h http.HandlerFunc) {
	if scope == "" {
		panic(fmt.Sprintf("handler %s %s says not who may call it", op.Method, op.Path))
	}
	failures(&op, scope, false)
	a.document(&op)
	a.mux.HandleFunc(op.Method+" "+op.Path, func(w http.ResponseWriter, r *http.Request) {
		if scope != Public {
			who, err := Authorize(r.Context(), a.auth, r.Header.Values("Authorization"), scope)
			if err != nil {
				Error(w, r, err, scope)
				return
			}
			ctx := WithCaller(r.Context(), who)
			if who.watch != nil {
				var stop context.CancelFunc
				ctx, stop = who.watch(ctx)
				defer stop()
			}
			r = r.WithContext(ctx)
		}
		if err := checkPlain(r, op.Parameters); err != nil {
			Error(w, r, err, scope)
			return
		}
		h(w, r)
	})
}

func (a *API) caller(ctx huma.Context, scope string) (Caller, error) {
	if scope == Public {
		return Caller{}, nil
	}
	var sent []string
	ctx.EachHeader(func(name, value string) {
		if strings.EqualFold(name, "Authorization") {
			sent = append(sent, value)
		}
	})
	return Authorize(ctx.Context(), a.auth, sent, scope)
}

func (a *API) fail(ctx huma.Context, err error, scope string) {
	r, w := humago.Unwrap(ctx)
	Error(w, r, err, scope)
}

// Error answers a request with the problem of err, its challenge and request id.
// Scope is what the operation wanted; it may be empty.
func Error(w http.ResponseWriter, r *http.Request, err error, scope string) {
	note(r.Context(), err)
	for k, v := range errorHeaders(err, len(r.Header.Values("Authorization")) > 0, scope) {
		w.Header()[k] = v
	}
	problem.Write(w, err, RequestID(r.Context()))
}

// Problem is the body of every answer that is not a success.
type Problem struct {
	problem.Document
	cause error
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus returns the HTTP status, for huma.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders returns Retry-After where it belongs, for huma.
func (p *Problem) GetHeaders() http.Header { return errorHeaders(p.cause, true, "") }

// ContentType is that of RFC 9457, for huma.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// Unwrap returns the error behind it, which the caller does not see.
func (p *Problem) Unwrap() error { return p.cause }

func answerOf(ctx context.Context, err error) *Problem {
	note(ctx, err)
	return &Problem{Document: problem.DocumentOf(err, RequestID(ctx)), cause: err}
}

// replaceErrors puts our problem documents in the place of huma's, whose own
// repeat the value that was refused, and so a secret. Huma has them in package
// variables only.
var replaceErrors = sync.OnceFunc(func() {
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		if ctx == nil {
			return answerOf(context.Background(), humaError(status, msg, errs))
		}
		return answerOf(ctx.Context(), humaError(status, msg, errs))
	}
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return answerOf(context.Background(), humaError(status, msg, errs))
	}
})

// humaError is the problem behind an error of huma's own.
func humaError(status int, msg string, errs []error) error {
	kind := kindOf(status)
	if kind == problem.Internal && status < 500 {
		kind = problem.Invalid
	}
	cause := errors.Join(errs...)
	if kind == problem.Internal {
		return problem.Wrap(kind, cause, "internal error; the operator's log says more")
	}
	for _, err := range errs {
		var d *huma.ErrorDetail
		if errors.As(err, &d) {
			_, field, found := strings.Cut(d.Location, ".") // "body.owner", "query.limit"
			if !found {
				field = d.Location
			}
			// Huma names a missing member in the text only.
			if name, ok := strings.CutPrefix(d.Message, "expected required property "); ok {
				name, _, _ = strings.Cut(name, " ")
				return problem.FieldError(strings.TrimPrefix(field+"."+name, "body."), "is required")
			}
			return problem.FieldError(field, "%s", d.Message)
		}
	}
	return problem.Wrap(kind, cause, "%s", msg)
}
