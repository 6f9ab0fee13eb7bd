package natsapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/httpapi"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/strictjson"
	"github.com/quash-project/quash/shared/tracing"
)

// ErrorHeader names the kind of a problem in an answer.
const ErrorHeader = "Quash-Error"

// Config is how a Server works.
type Config struct {
	Auth     httpapi.Authorizer   // checks tokens; nil: then every endpoint must be httpapi.Public
	Queue    string               // queue group; empty: "quash"
	Workers  int                  // requests that are answered at once; 0: 64
	Deadline time.Duration        // of one request; 0: 30 s
	MaxBody  int                  // bytes; 0: 1 MiB
	Log      *zap.Logger          // nil: none
	Traces   trace.TracerProvider // nil: none
}

// Endpoint is one function under a subject. Make it with On.
type Endpoint struct {
	name, scope string
	serve       func(ctx context.Context, body []byte) ([]byte, error)
}

// Raw is an answer that is sent as it is.
type Raw []byte

// On returns an endpoint for prefix + name; name "*" takes every one that has no
// endpoint of its own. With a scope the request must carry an access token
// that has it, in the header Authorization; httpapi.Public leaves it to the
// broker who may ask.
func On[Req, Resp any](name, scope string, h func(context.Context, Req) (Resp, error)) Endpoint {
	return Endpoint{name: name, scope: scope, serve: func(ctx context.Context, body []byte) ([]byte, error) {
		var req Req
		if err := strictjson.Decode(body, &req); err != nil {
			return nil, err
		}
		resp, err := h(ctx, req)
		if err != nil {
			return nil, err
		}
		if raw, ok := any(resp).(Raw); ok {
			return raw, nil
		}
		return json.Marshal(resp)
	}}
}

type nameKey struct{}

// Name returns what stood in the place of the wildcard in the request's subject.
func Name(ctx context.Context) string {
	s, _ := ctx.Value(nameKey{}).(string)
	return s
}

// Server answers requests until Stop.
type Server struct {
	c         Config
	prefix    string
	endpoints map[string]Endpoint
	sub       *nats.Subscription
	places    chan struct{} // one a worker
	running   sync.WaitGroup
	ctx       context.Context // ends when Stop gives up waiting
	cancel    context.CancelFunc
}

// Serve subscribes to prefix + "*" and answers by the endpoints.
func Serve(nc *nats.Conn, prefix string, c Config, endpoints ...Endpoint) (*Server, error) {
	if c.Queue == "" {
		c.Queue = "quash"
	}
	if c.Workers == 0 {
		c.Workers = 64
	}
	if c.Deadline == 0 {
		c.Deadline = httpapi.Deadline
	}
	if c.MaxBody == 0 {
		c.MaxBody = httpapi.MaxBulkBody
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	s := &Server{c: c, prefix: prefix, endpoints: map[string]Endpoint{}, places: make(chan struct{}, c.Workers)}
	for _, e := range endpoints {
		if e.scope == "" || (e.scope != httpapi.Public && c.Auth == nil) {
			return nil, fmt.Errorf("endpoint %s%s says not who may call it, or nobody can check that", prefix, e.name)
		}
		s.endpoints[e.name] = e
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	var err error
	if s.sub, err = nc.QueueSubscribe(prefix+"*", c.Queue, s.receive); err != nil {
		s.cancel()
		return nil, fmt.Errorf("subscribe to %s*: %w", prefix, err)
	}
	return s, nil
}

// Stop takes no new request, and returns when those accepted are answered or ctx
// ends; then they are cancelled.
func (s *Server) Stop(ctx context.Context) {
	drained, done := make(chan struct{}), make(chan struct{})
	s.sub.SetClosedHandler(func(string) { close(drained) })
	if err := s.sub.Drain(); err != nil { // what the client has buffered is still handed over
		close(drained) // the connection is closed: nothing more comes
	}
	go func() {
		select {
		case <-drained:
			s.running.Wait()
		case <-ctx.Done():
		}
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	s.cancel()
}

// request is one that was received.
type request struct {
	m     *nats.Msg
	id    string
	began time.Time
}

// receive runs in the subscription's own goroutine: it must not wait.
func (s *Server) receive(m *nats.Msg) {
	r := request{m: m, id: httpapi.NewRequestID(), began: time.Now()}
	select {
	case s.places <- struct{}{}:
	default:
		err := problem.New(problem.Unavailable, "too many requests at once; try again")
		s.fail(r, err)
		s.line(s.ctx, r, err)
		return
	}
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		defer func() { <-s.places }()
		s.answer(r)
	}()
}

func (s *Server) answer(r request) {
	ctx, cancel := context.WithTimeout(httpapi.WithRequestID(s.ctx, r.id), s.c.Deadline)
	defer cancel()
	name := strings.TrimPrefix(r.m.Subject, s.prefix)
	e, ok := s.endpoints[name]
	if !ok {
		e, ok = s.endpoints["*"]
	}
	// By the endpoint: what stands in the place of a wildcard is the caller's.
	ctx, span := tracing.Begin(ctx, s.c.Traces, "answer "+s.prefix+e.name, http.Header(r.m.Header),
		attribute.String("messaging.system", "nats"), attribute.String("messaging.destination.name", s.prefix+e.name), attribute.String("quash.request_id", r.id))
	var err error
	defer func() {
		if p := recover(); p != nil {
			s.c.Log.Error("panic in a request", zap.String("request_id", r.id), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			err = problem.New(problem.Internal, "internal error; the operator's log says more")
			s.fail(r, err)
		}
		tracing.End(span, err)
		s.line(ctx, r, err)
	}()
	var body []byte
	if !ok {
		err = problem.New(problem.NotFound, "there is no operation of this name")
	} else {
		body, err = s.call(ctx, e, name, r.m)
	}
	if err != nil {
		s.fail(r, err)
		return
	}
	if r.m.Reply != "" {
		s.sent(r, r.m.Respond(body))
	}
}

func (s *Server) call(ctx context.Context, e Endpoint, name string, m *nats.Msg) ([]byte, error) {
	if e.scope != httpapi.Public {
		who, err := httpapi.Authorize(ctx, s.c.Auth, m.Header.Values("Authorization"), e.scope)
		if err != nil {
			return nil, err
		}
		ctx = httpapi.WithCaller(ctx, who)
	}
	if len(m.Data) > s.c.MaxBody {
		return nil, problem.New(problem.TooLarge, "the body may have %d bytes at most", s.c.MaxBody)
	}
	return e.serve(context.WithValue(ctx, nameKey{}, name), m.Data)
}

func (s *Server) fail(r request, err error) {
	if r.m.Reply == "" {
		return
	}
	data, merr := json.Marshal(problem.DocumentOf(err, r.id))
	if merr != nil {
		return // a Document always marshals
	}
	answer := nats.NewMsg(r.m.Reply)
	answer.Header.Set(ErrorHeader, problem.KindOf(err).Name())
	answer.Data = data
	s.sent(r, r.m.RespondMsg(answer))
}

func (s *Server) sent(r request, err error) {
	if err != nil {
		s.c.Log.Warn("answer not sent", zap.String("request_id", r.id), zap.Error(err))
	}
}

// line is the request's, as one over HTTP has it.
func (s *Server) line(ctx context.Context, r request, err error) {
	fields := []zap.Field{
		zap.String("request_id", r.id), zap.String("subject", apikey.Redact(r.m.Subject)), zap.Duration("took", time.Since(r.began)),
	}
	if id := tracing.ID(ctx); id != "" {
		fields = append(fields, zap.String("trace_id", id))
	}
	if err == nil {
		s.c.Log.Info("request", fields...)
		return
	}
	kind := problem.KindOf(err)
	log := s.c.Log.Info
	if kind.Status() >= http.StatusInternalServerError {
		log = s.c.Log.Error
	}
	log("request", append(fields, zap.String("kind", kind.Name()), zap.String("error", apikey.Redact(err.Error())))...)
}
