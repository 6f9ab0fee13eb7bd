package ledger

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/tracing"
)

// CommitKey appends one key message. Readers believe what the rotator's identity
// key has signed, and nothing of what stands around it; here only the form is
// checked, and that both speak of one key.
func (l *Ledger) CommitKey(ctx context.Context, r commit.KeyRequest, service string) (a commit.Answer, err error) {
	ctx, span := tracing.Start(ctx, "commit key", trace.SpanKindInternal)
	defer func() { endCommit(span, a, err) }()
	target, err := revoke.NewTarget(r.Tenant, revoke.Own, revoke.KindSigningKey, r.KeyID)
	if err != nil {
		return commit.Answer{}, problem.FieldError("kid", "%s", err)
	}
	now := l.cfg.Now()
	if r.Until <= now.Unix() {
		return commit.Answer{}, problem.FieldError("until", "has passed")
	}
	state, err := claimed(r.JWS)
	if err != nil || state.KeyID != r.KeyID || state.Tenant != r.Tenant {
		return commit.Answer{}, problem.FieldError("jws", "is not about this key of this tenant")
	}
	if err := l.Ready(); err != nil {
		return commit.Answer{}, err
	}
	id, err := wire.NewID(l.cfg.Rand)
	if err != nil {
		return commit.Answer{}, err
	}
	m := wire.Message{Kind: wire.KindKey, ID: id, At: now.UnixMilli(), Until: r.Until, KeyID: r.KeyID, JWS: r.JWS}
	d := EventData{Op: state.State, Tenant: r.Tenant, Service: service, Actor: r.Actor, Reason: r.Reason, KeyID: r.KeyID}
	if d.Actor == "" {
		d.Actor = service
	}
	if d.Reason == "" {
		d.Reason = "the state of a signing key"
	}
	at, err := l.appendMessage(ctx, wire.LogKey+target.Key().String(), m, ttlOf(r.Until, now), d)
	switch {
	case errors.Is(err, errRefused):
		return commit.Answer{}, problem.Wrap(problem.Invalid, err, "the log does not take this key message")
	case errors.Is(err, errNotStored):
		return commit.Answer{}, problem.Wrap(problem.Unavailable, err, "the log can't commit now; nothing was done, try again")
	case err != nil:
		return commit.Answer{}, problem.Wrap(problem.UnknownOutcome, err, "it may or may not be committed; send it again, a second one is harmless")
	}
	return commit.Answer{ID: id, Epoch: at.Epoch, Sequence: at.Seq, CommittedAt: m.At}, nil
}

// claimed reads what a JWS says, without believing it.
func claimed(jws string) (wire.KeyState, error) {
	var s wire.KeyState
	parts := strings.Split(jws, ".")
	if len(parts) != 3 {
		return s, errors.New("not a compact JWS")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(payload, &s)
}
