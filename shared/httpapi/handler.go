package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/tracing"
)

type eventKey struct{}

// event is what is known of a request; handlers add to it. Owned by its request.
type event struct {
	id      string
	err     error
	secrets []string // that stood in the URL
}

// RequestID returns the id of the request that ctx belongs to.
func RequestID(ctx context.Context) string {
	if e, ok := ctx.Value(eventKey{}).(*event); ok {
		return e.id
	}
	return ""
}

// WithRequestID gives a request that came by another way an id, as Handler does.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, eventKey{}, &event{id: id})
}

// note keeps an error for the request's log line.
func note(ctx context.Context, err error) {
	if e, ok := ctx.Value(eventKey{}).(*event); ok {
		e.err = err
	}
}

// NewRequestID returns an id for a request: its log line has it, and its error.
func NewRequestID() string {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// Handler returns mux with what all requests have: an id, no-store, problem
// documents for unknown paths (404) and methods (405, with Allow), a 500 for a
// panic, one log line, and a span by traces, where that is not nil. A request with a
// secret of ours in its URL is refused, and told to leaks.
func Handler(mux *http.ServeMux, log *zap.Logger, traces trace.TracerProvider, leaks ...Leaks) http.Handler {
	if log == nil {
		log = zap.NewNop()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		e := &event{id: NewRequestID()}
		handler, pattern := mux.Handler(r)
		ctx, span := begin(r, traces, pattern, e.id)
		r = r.WithContext(context.WithValue(ctx, eventKey{}, e))
		h := w.Header()
		h.Set("X-Request-Id", e.id)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		rec := &recorder{ResponseWriter: w}
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				defer panic(p) // after the line about it
			default:
				log.Error("panic in a request", zap.String("request_id", e.id), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
				if rec.status == 0 {
					problem.Write(rec, problem.New(problem.Internal, "internal error; the operator's log says more"), e.id)
				}
			}
			finish(span, rec.code(), e.err)
			line(log, r, rec.code(), e, time.Since(start))
		}()
		if !IsClean(r) {
			problem.Write(rec, problem.New(problem.NotFound, "there is nothing at this path"), e.id)
			return
		}
		if found := inURL(r.URL, leaks); len(found) > 0 {
			e.secrets = found
			e.err = refuseURL(rec, r, pattern, e.id, found, leaks)
			return
		}
		if pattern == "" {
			unmatched(rec, r, handler, e.id)
		} else {
			mux.ServeHTTP(rec, r)
		}
		suspect(r, rec.code(), pattern, leaks)
	})
}

// IsClean reports whether a request's path is written in the one way that a
// ServeMux serves. It answers any other with a redirect, after which clients
// send body and credentials once more; whoever puts a mux before Handler keeps
// such requests from it.
func IsClean(r *http.Request) bool {
	p := r.URL.EscapedPath()
	clean := path.Clean(p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return p == clean && strings.HasPrefix(p, "/")
}

// line never has the query, in which tokens have been put, and of the path no
// secret that was taken for an id.
func line(log *zap.Logger, r *http.Request, status int, e *event, took time.Duration) {
	path := apikey.Redact(r.URL.Path)
	for _, s := range e.secrets {
		path = strings.ReplaceAll(path, s, "[redacted]")
	}
	fields := []zap.Field{
		zap.String("request_id", e.id), zap.String("method", r.Method), zap.String("path", path),
		zap.Int("status", status), zap.Duration("took", took),
	}
	if id := tracing.ID(r.Context()); id != "" {
		fields = append(fields, zap.String("trace_id", id))
	}
	switch {
	case e.err != nil && status >= http.StatusInternalServerError:
		log.Error("request", append(fields, zap.String("error", apikey.Redact(e.err.Error())))...)
	case e.err != nil:
		log.Info("request", append(fields, zap.String("error", apikey.Redact(e.err.Error())))...)
	default:
		log.Info("request", fields...)
	}
}

// unmatched asks the mux's own answer what it would be, and says it as a problem.
func unmatched(w http.ResponseWriter, r *http.Request, own http.Handler, id string) {
	probe := &discard{header: http.Header{}}
	own.ServeHTTP(probe, r)
	if probe.status != http.StatusMethodNotAllowed {
		problem.Write(w, problem.New(problem.NotFound, "there is nothing at this path"), id)
		return
	}
	allow := probe.header.Get("Allow")
	w.Header().Set("Allow", allow)
	problem.Write(w, problem.New(problem.Method, "this path takes %s", allow), id)
}

// discard is a ResponseWriter that keeps status and header.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// recorder remembers the status for the log line.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// code is the status that the caller gets, also of a handler that wrote nothing.
func (r *recorder) code() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

// Flush is for streams.
func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

// Unwrap lets http.ResponseController reach Flush and deadlines.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
