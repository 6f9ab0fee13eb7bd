package ledger

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/shared/guard/wire"
)

// Repeat returns the headers with which the broker has republished the log's newest epoch.
// A message on the feed that has them is a repeat to whoever takes it for one of the log,
// and changes nothing: every reader begins with that epoch.
func (l *Ledger) Repeat(ctx context.Context) (nats.Header, error) {
	if err := l.Ready(); err != nil {
		return nil, err
	}
	e, err := l.getLast(ctx, wire.LogEpoch)
	if err == nil {
		err = e.err
	}
	if err != nil {
		return nil, fmt.Errorf("the log's epoch: %w", err)
	}
	if m := e.stored.Message; m.Kind != wire.KindEpoch || m.Epoch != l.Epoch() {
		return nil, fmt.Errorf("the log is in epoch %d, and this service in %d", m.Epoch, l.Epoch())
	}
	text, err := wire.Encode(e.stored.Message)
	if err != nil {
		return nil, fmt.Errorf("the log's epoch: %w", err)
	}
	return nats.Header{
		wire.Header:       {string(text)},
		"Nats-Sequence":   {strconv.FormatUint(e.seq, 10)},
		"Nats-Time-Stamp": {time.UnixMilli(e.stored.Time).UTC().Format(time.RFC3339Nano)},
	}, nil
}
