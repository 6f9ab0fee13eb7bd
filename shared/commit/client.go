package commit

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/tracing"
)

// ErrorHeader is set on the answer to a request that failed: it names the kind
// of the problem.Document in the body.
const ErrorHeader = "Quash-Error"

// Client asks the revocation service over NATS. It implements Committer.
type Client struct {
	nc      *nats.Conn
	subject string
	try     time.Duration
}

// NewClient returns a client that asks as the service with this name, which the
// broker vouches for: only its user may publish on its subject.
func NewClient(nc *nats.Conn, service string) *Client {
	return &Client{nc: nc, subject: wire.CommitPrefix + service, try: 3 * time.Second}
}

// attempts bounds how often one Commit asks: a replica that has gone, or a
// leader that is being replaced (4 to 8 s), is outlived.
const attempts = 4

// Commit asks until it has an answer, at most four times, as long as ctx
// allows: the same key is the same request, so that asking again is safe. What
// may have reached a service and was not answered is problem.UnknownOutcome.
func (c *Client) Commit(ctx context.Context, r Request) (a Answer, err error) {
	ctx, span := tracing.Start(ctx, "request "+c.subject, trace.SpanKindClient, onNATS(c.subject)...)
	defer func() { tracing.End(span, err) }()
	return c.commit(ctx, r)
}

// onNATS says in a span where a request goes.
func onNATS(subject string) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String("messaging.system", "nats"), attribute.String("messaging.destination.name", subject)}
}

func (c *Client) commit(ctx context.Context, r Request) (Answer, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return Answer{}, err
	}
	var sent bool // a request has left whose outcome is not known
	var last error
	for i := range attempts {
		if i > 0 && !wait(ctx, time.Duration(i)*250*time.Millisecond) {
			break
		}
		a, again, err := c.once(ctx, body, &sent)
		if err == nil {
			return a, nil
		}
		last = err
		if !again {
			break
		}
	}
	if k := problem.KindOf(last); sent && (k == problem.Unavailable || k == problem.RateLimited || k == problem.UnknownOutcome) {
		e := problem.Wrap(problem.UnknownOutcome, last, "the log did not answer in time: it may or may not have been committed; repeat the request with the same idempotency key")
		e.Key = r.Key
		return Answer{}, e
	}
	return Answer{}, last
}

// once asks once. again tells whether asking again can help.
func (c *Client) once(ctx context.Context, body []byte, sent *bool) (a Answer, again bool, err error) {
	tryCtx, cancel := context.WithTimeout(ctx, c.try)
	defer cancel()
	out := nats.NewMsg(c.subject)
	out.Data = body
	tracing.Inject(ctx, out.Header)
	m, err := c.nc.RequestMsgWithContext(tryCtx, out)
	if err != nil {
		// No responders: the broker says that nobody has got it. A connection
		// that is closed or does not buffer has not sent it. All else may
		// have arrived.
		if !errors.Is(err, nats.ErrNoResponders) && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrReconnectBufExceeded) {
			*sent = true
		}
		return Answer{}, ctx.Err() == nil, problem.Wrap(problem.Unavailable, err, "the revocation service does not answer; nothing was revoked as far as is known, try again")
	}
	if name := m.Header.Get(ErrorHeader); name != "" {
		e := refusal(name, m.Data)
		switch e.Kind {
		case problem.UnknownOutcome:
			*sent, again = true, true
		case problem.Unavailable, problem.RateLimited:
			again = true
		}
		return Answer{}, again, e
	}
	if err := json.Unmarshal(m.Data, &a); err != nil || a.Sequence == 0 {
		*sent = true
		return Answer{}, false, problem.Wrap(problem.Unavailable, err, "the revocation service gave an answer that can't be read")
	}
	return a, false, nil
}

// refusal reads a problem document. An unknown kind becomes Internal.
func refusal(name string, body []byte) *problem.Error {
	var d problem.Document
	if err := json.Unmarshal(body, &d); err != nil {
		return problem.Wrap(problem.ByName(name), err, "the revocation service refused, and gave no reason that can be read")
	}
	return &problem.Error{Kind: problem.ByName(name), Detail: d.Detail, Field: d.Field, Key: d.IdempotencyKey, Existing: d.Existing}
}

// wait sleeps for d and reports whether ctx is still good.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}
