package natsapi

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/tracing"
)

// maxLackingWait is how long a LackingRequest may wait.
const maxLackingWait = 10 * time.Second

// longest is how long a request may take.
func longest(subject string) time.Duration {
	if strings.HasSuffix(subject, commit.LackingSuffix) {
		return maxLackingWait + answerTime
	}
	return answerTime
}

// busy refuses in the form that whoever asked expects.
func busy(subject string) *nats.Msg {
	if strings.HasPrefix(subject, wire.GuardPrefix) {
		return answerJSON(refused("busy", "too many requests at once; try again"))
	}
	return failed(problem.New(problem.Unavailable, "too many requests at once; nothing was done, try again"))
}

// failed is the answer to a service: a problem document, and its kind in a header.
func failed(err error) *nats.Msg {
	doc := problem.DocumentOf(err, "")
	m := answerJSON(doc)
	m.Header = nats.Header{commit.ErrorHeader: {problem.KindOf(err).Name()}}
	return m
}

// service returns the NATS user of a service in a subject: quash.commit.SERVICE
func service(subject string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(subject, wire.CommitPrefix), ".")
	return name
}

// decode reads a request of a service strictly; its own Check comes later.
func decode[T any](data []byte) (T, error) {
	v, err := wire.DecodeRequest[T](data)
	if err != nil {
		return v, problem.Wrap(problem.Invalid, err, "the request can't be read: %s", err)
	}
	return v, nil
}

// traced makes a span of a request of a service. Those of guards have none: there is
// no request behind them.
func (s *Server) traced(name string, op func(context.Context, *nats.Msg) *nats.Msg) func(context.Context, *nats.Msg) *nats.Msg {
	subject := wire.CommitPrefix + name
	return func(ctx context.Context, m *nats.Msg) *nats.Msg {
		ctx, span := tracing.Begin(ctx, s.Traces, "answer "+subject, http.Header(m.Header),
			attribute.String("messaging.system", "nats"), attribute.String("messaging.destination.name", subject))
		defer span.End()
		answer := op(ctx, m)
		if kind := answer.Header.Get(commit.ErrorHeader); kind != "" {
			tracing.Ended(span, problem.ByName(kind))
		}
		return answer
	}
}

func (s *Server) commit(ctx context.Context, m *nats.Msg) *nats.Msg {
	r, err := decode[commit.Request](m.Data)
	if err != nil {
		return failed(err)
	}
	if s.Canaries == nil || !commit.IsCanary(service(m.Subject), r.Op, r.Targets) {
		return s.result(s.Ledger.Commit(ctx, r, service(m.Subject)))
	}
	asked := s.Canaries.Now()
	a, err := s.Ledger.Commit(ctx, r, service(m.Subject))
	switch {
	case err != nil:
		s.Canaries.Missed()
	case !a.Repeated:
		s.Canaries.Measure(asked, fleet.Entry{At: a.Stamp(), CommittedAt: time.UnixMilli(a.CommittedAt)})
	}
	return s.result(a, err)
}

func (s *Server) result(v any, err error) *nats.Msg {
	if err != nil {
		if k := problem.KindOf(err); k == problem.Internal || k == problem.Unavailable || k == problem.UnknownOutcome {
			s.Log.Warn("a request of a service failed", zap.Error(err))
		}
		return failed(err)
	}
	return answerJSON(v)
}

// commitMore serves quash.commit.SERVICE.key and .lacking.
func (s *Server) commitMore(ctx context.Context, m *nats.Msg) *nats.Msg {
	from := service(m.Subject)
	switch {
	case from != "rotator":
		return failed(problem.New(problem.Forbidden, "only the rotator sends key messages"))
	case strings.HasSuffix(m.Subject, commit.KeySuffix):
		r, err := decode[commit.KeyRequest](m.Data)
		if err != nil {
			return failed(err)
		}
		return s.result(s.Ledger.CommitKey(ctx, r, from))
	case strings.HasSuffix(m.Subject, commit.LackingSuffix):
		r, err := decode[commit.LackingRequest](m.Data)
		if err != nil {
			return failed(err)
		}
		return s.result(s.lacking(ctx, r))
	}
	return failed(problem.New(problem.NotFound, "there is no such request"))
}

func (s *Server) lacking(ctx context.Context, r commit.LackingRequest) (commit.LackingAnswer, error) {
	if r.Sequence == 0 || r.WaitMS < 0 {
		return commit.LackingAnswer{}, problem.FieldError("sequence", "is missing, or wait_ms is negative")
	}
	if err := s.Ledger.Ready(); err != nil {
		return commit.LackingAnswer{}, err
	}
	// Whoever joined before the position is known once it was applied here.
	if err := s.Ledger.WaitApplied(ctx, r.Stamp()); err != nil {
		return commit.LackingAnswer{}, err
	}
	e := fleet.Entry{At: r.Stamp(), CommittedAt: time.UnixMilli(r.CommittedAt)}
	wait := min(time.Duration(r.WaitMS)*time.Millisecond, maxLackingWait)
	lacking, err := s.Fleet.Lacking(ctx, e, r.Name, wait)
	if err != nil {
		return commit.LackingAnswer{}, err
	}
	a := commit.LackingAnswer{Lacking: []commit.Lacking{}}
	for _, u := range lacking {
		l := commit.Lacking{Name: u.Name, Instance: u.Instance, Open: u.Open, Fenced: u.Fenced}
		if !u.Open {
			l.FencedBy = u.FencedBy.UnixMilli()
		}
		a.Lacking = append(a.Lacking, l)
	}
	return a, nil
}
