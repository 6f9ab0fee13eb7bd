package commit

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/tracing"
)

// rotatorService is the name of the only service that may.
const rotatorService = "rotator"

// KeyClient asks the revocation service over NATS for what only the rotator
// may. It implements KeyCommitter. It asks once: the rotator repeats every
// step that has not been recorded.
type KeyClient struct {
	nc  *nats.Conn
	try time.Duration
}

// NewKeyClient returns a client on the rotator's own connection.
func NewKeyClient(nc *nats.Conn) *KeyClient { return &KeyClient{nc: nc, try: 5 * time.Second} }

// CommitKey implements KeyCommitter. An error of kind UnknownOutcome means that
// the message may have been committed; repeat it.
func (c *KeyClient) CommitKey(ctx context.Context, r KeyRequest) (Answer, error) {
	var a Answer
	if err := c.ask(ctx, KeySubject(rotatorService), r, &a, c.try); err != nil {
		return Answer{}, err
	}
	if a.Sequence == 0 {
		return Answer{}, problem.New(problem.UnknownOutcome, "the revocation service answered without a position")
	}
	return a, nil
}

// Lacking implements KeyCommitter.
func (c *KeyClient) Lacking(ctx context.Context, r LackingRequest) (LackingAnswer, error) {
	var a LackingAnswer
	err := c.ask(ctx, LackingSubject(rotatorService), r, &a, c.try+time.Duration(r.WaitMS)*time.Millisecond)
	return a, err
}

func (c *KeyClient) ask(ctx context.Context, subject string, req, answer any, try time.Duration) (err error) {
	ctx, span := tracing.Start(ctx, "request "+subject, trace.SpanKindClient, onNATS(subject)...)
	defer func() { tracing.End(span, err) }()
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, try)
	defer cancel()
	out := nats.NewMsg(subject)
	out.Data = body
	tracing.Inject(ctx, out.Header)
	m, err := c.nc.RequestMsgWithContext(ctx, out)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return problem.Wrap(problem.Unavailable, err, "no revocation service is there; nothing was done, try again")
	case err != nil:
		return problem.Wrap(problem.UnknownOutcome, err, "the revocation service did not answer; it may or may not have been done, repeat it")
	}
	if name := m.Header.Get(ErrorHeader); name != "" {
		return refusal(name, m.Data)
	}
	if err := json.Unmarshal(m.Data, answer); err != nil {
		return problem.Wrap(problem.UnknownOutcome, err, "the revocation service gave an answer that can't be read")
	}
	return nil
}
