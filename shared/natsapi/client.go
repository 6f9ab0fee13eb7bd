package natsapi

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/tracing"
)

// Call asks a Server. Token may be empty. An error that the server gave is a
// problem.Error of its kind; Unavailable when nobody listens, which proves that
// nothing was done; UnknownOutcome when no answer came in time.
func Call[Resp any](ctx context.Context, nc *nats.Conn, subject, token string, req any) (Resp, error) {
	var resp Resp
	data, err := json.Marshal(req)
	if err != nil {
		return resp, err
	}
	m := nats.NewMsg(subject)
	m.Data = data
	if token != "" {
		m.Header.Set("Authorization", "Bearer "+token)
	}
	tracing.Inject(ctx, m.Header)
	answer, err := nc.RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return resp, problem.Wrap(problem.Unavailable, err, "the service is not there now; try again")
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrInvalidConnection):
		return resp, problem.Wrap(problem.Unavailable, err, "not connected to NATS now; try again")
	case err != nil:
		return resp, problem.Wrap(problem.UnknownOutcome, err, "no answer came; whether it was done is unknown")
	}
	if err := ErrorIn(answer); err != nil {
		return resp, err
	}
	if raw, ok := any(&resp).(*Raw); ok {
		*raw = answer.Data
		return resp, nil
	}
	// Not strict: an answer may have members that an older client does not know.
	if err := json.Unmarshal(answer.Data, &resp); err != nil {
		return resp, problem.Wrap(problem.UnknownOutcome, err, "the answer could not be read; whether it was done is unknown")
	}
	return resp, nil
}

// ErrorIn returns the problem in an answer, nil if there is none.
func ErrorIn(answer *nats.Msg) error {
	name := answer.Header.Get(ErrorHeader)
	if name == "" {
		return nil
	}
	var d problem.Document
	if err := json.Unmarshal(answer.Data, &d); err != nil {
		return problem.Wrap(problem.ByName(name), err, "the service refused and its reason could not be read")
	}
	return &problem.Error{Kind: problem.ByName(name), Detail: d.Detail, Field: d.Field, Key: d.IdempotencyKey, Existing: d.Existing}
}
