package ledger

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/tracing"
)

// outgoing is a message on its way to the broker.
type outgoing struct {
	subject string
	message wire.Message // its Epoch is set by publish
	body    []byte
	ttl     time.Duration // 0: for ever
	// expect is the sequence of the newest message of the subject; nil: whatever.
	expect *uint64
}

// The outcomes of a publish other than success.
var (
	// errNotStored: certainly not; trying again may help.
	errNotStored = errors.New("not stored")
	// errRefused: certainly not, and trying again does not help.
	errRefused = errors.New("refused by the broker")
	// errUnknown: it may be stored.
	errUnknown = errors.New("outcome unknown")
	// errBusy: another message of that subject is in flight, or has just been.
	errBusy = fmt.Errorf("%w: the subject is in flight", errNotStored)
	// errWentBack: stored, in a history that is not the one that was known.
	errWentBack = fmt.Errorf("%w: the log went back", errUnknown)
)

// errExists says that the subject has a message already.
type errExists struct{ seq uint64 }

func (e errExists) Error() string { return fmt.Sprintf("the subject has a message at %d", e.seq) }

// The broker's codes (server/errors.json of nats-server 2.15).
const (
	codeMaxPayload   = 10054
	codeHeadersLarge = 10097
	codeStoreFailed  = 10077
	codeBadTTL       = 10165
)

// publish stores one message and returns where it stands. The acknowledgement
// of one that was sent in an epoch which is not the current one any more is an
// unknown outcome.
func (l *Ledger) publish(ctx context.Context, o outgoing) (wire.Position, error) {
	epoch, before := l.current()
	if o.message.Epoch == 0 {
		o.message.Epoch = epoch
	}
	if o.message.Epoch != epoch {
		epoch, before = o.message.Epoch, 0 // what was seen says nothing of another one
	}
	head, err := wire.Encode(o.message)
	if err != nil {
		return wire.Position{}, fmt.Errorf("%w: %w", errRefused, err)
	}
	msg := &nats.Msg{Subject: o.subject, Data: o.body, Header: nats.Header{wire.Header: {string(head)}}}
	if o.ttl > 0 {
		msg.Header[jetstream.MsgTTLHeader] = []string{strconv.FormatInt(int64(o.ttl/time.Second), 10)}
	}
	if o.expect != nil {
		msg.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(*o.expect, 10)}
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.TryTimeout)
	defer cancel()
	seq, err := l.store(ctx, msg, o)
	if err != nil {
		if errors.Is(err, jetstream.ErrNoStreamResponse) {
			select {
			case l.lost <- struct{}{}:
			default: // it will look anyway
			}
		}
		return wire.Position{}, classify(err)
	}
	p := wire.Position{ID: o.message.ID}
	p.Epoch, p.Seq = epoch, seq
	if seq <= before {
		if l.Epoch() == epoch {
			l.wentBack(fmt.Sprintf("a commit was acknowledged at %d, at or below %d", seq, before))
		}
		return p, errWentBack
	}
	if o.message.Kind != wire.KindEpoch && (l.Epoch() != epoch || l.doubts(epoch)) {
		return p, fmt.Errorf("%w: a new epoch has begun, or has to", errUnknown)
	}
	l.sawAck(p, o.message)
	return p, nil
}

// store sends a message alone, or with others where that is faster: entries on one
// synced node.
func (l *Ledger) store(ctx context.Context, m *nats.Msg, o outgoing) (seq uint64, err error) {
	ctx, span := tracing.Start(ctx, "publish "+wire.Stream, trace.SpanKindProducer)
	defer func() { endStore(span, err) }()
	if o.message.Kind == wire.KindEntry && l.cfg.Replicas == 1 && l.cfg.SyncAlways {
		return l.group.publish(ctx, m)
	}
	return l.broker.Publish(ctx, m)
}

// classify tells what the broker's error says about the message.
func classify(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case jetstream.JSErrCodeStreamWrongLastSequence:
			if _, n, ok := strings.Cut(api.Description, "wrong last sequence: "); ok {
				if seq, perr := strconv.ParseUint(strings.TrimSpace(n), 10, 64); perr == nil {
					return errExists{seq: seq}
				}
			}
			return fmt.Errorf("%w: %w", errBusy, err)
		case jetstream.JSErrCodeStreamWrongLastSequenceConstant:
			return fmt.Errorf("%w: %w", errBusy, err)
		case codeMaxPayload, codeHeadersLarge, codeBadTTL:
			return fmt.Errorf("%w: %w", errRefused, err)
		case codeStoreFailed:
			return fmt.Errorf("%w: %w", errUnknown, err) // a part of it may be on disk
		}
		return fmt.Errorf("%w: %w", errNotStored, err)
	}
	// Nobody has got it, or it has not left: the connection buffers nothing.
	if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrReconnectBufExceeded) {
		return fmt.Errorf("%w: %w", errNotStored, err)
	}
	if errors.Is(err, nats.ErrMaxPayload) {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	return fmt.Errorf("%w: %w", errUnknown, err)
}

// Append stores a message that is its own each time (a join, an out, a key): no
// idempotency. An error means that it may or may not be there.
func (l *Ledger) Append(ctx context.Context, subject string, m wire.Message, ttl time.Duration, d EventData) (wire.Position, error) {
	if err := l.Ready(); err != nil {
		return wire.Position{}, err
	}
	return l.appendMessage(ctx, subject, m, ttl, d)
}

func (l *Ledger) appendMessage(ctx context.Context, subject string, m wire.Message, ttl time.Duration, d EventData) (wire.Position, error) {
	now := l.cfg.Now()
	if m.ID == "" {
		id, err := wire.NewID(l.cfg.Rand)
		if err != nil {
			return wire.Position{}, err
		}
		m.ID = id
	}
	if m.At == 0 {
		m.At = now.UnixMilli()
	}
	body, err := newEvent(m, now, d)
	if err != nil {
		return wire.Position{}, err
	}
	p, err := l.publish(ctx, outgoing{subject: subject, message: m, body: body, ttl: ttl})
	if err == nil {
		l.ticks.soon()
	}
	return p, err
}
