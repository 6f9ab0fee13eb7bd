package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Config is what a Ledger needs. NATS or Broker is required.
type Config struct {
	// NATS is the connection of the revocation service, in the log's account.
	NATS *nats.Conn
	// Broker is used instead of that of NATS, if it is there.
	Broker Broker
	Log    *zap.Logger // nil: none
	Now    func() time.Time
	Rand   io.Reader
	// Replicas of the stream: 1 (default), 3 or 5.
	Replicas int
	// SyncAlways says that every server of the deployment syncs before it
	// acknowledges (jetstream { sync_interval: always }). A client can't see it;
	// when it is false the start-up check says what may be lost.
	SyncAlways bool
	// Foreign are the registered foreign issuers by their short name, with the
	// longest session that each gives: entries about them live so long.
	Foreign map[string]time.Duration
	// Remembered yields what Redis holds, for a new epoch. Nil: nothing.
	Remembered func(ctx context.Context, yield func(revoke.Key, revoke.State) bool) error
	// RingSize is how many recent messages are kept to serve tails. Default 65,536.
	RingSize int
	// OrdinaryGather and UrgentGather are how long probes are gathered for one
	// tick. Defaults 1 s and 20 ms.
	OrdinaryGather, UrgentGather time.Duration
	// EpochGap is the least time between two new epochs. Default one minute.
	EpochGap time.Duration
	// SnapshotLife is how long one snapshot of the whole state serves all who
	// ask. Default one minute.
	SnapshotLife time.Duration
	// TryTimeout bounds one attempt to publish. Default 2 s.
	TryTimeout time.Duration

	// wrap puts faults between the ledger and JetStream, in tests.
	wrap func(jetstream.JetStream) jetstream.JetStream
}

func (c *Config) defaults() error {
	if c.NATS == nil && c.Broker == nil {
		return errors.New("ledger: no NATS connection")
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.Replicas != 1 && c.Replicas != 3 && c.Replicas != 5 {
		return fmt.Errorf("ledger: %d replicas: want 1, 3 or 5", c.Replicas)
	}
	setDefault(&c.RingSize, 65_536)
	setDefault(&c.OrdinaryGather, time.Second)
	setDefault(&c.UrgentGather, 20*time.Millisecond)
	setDefault(&c.EpochGap, time.Minute)
	setDefault(&c.SnapshotLife, time.Minute)
	setDefault(&c.TryTimeout, 2*time.Second)
	return nil
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Observer is told of every message in the order of the log, by the goroutine
// that applies it: it must not block.
type Observer interface {
	// Restarted is called before the log is read again from its beginning: at
	// the start, and when a new epoch has begun.
	Restarted()
	// Applied is called after the message was folded into the view.
	Applied(wire.Stored)
}
