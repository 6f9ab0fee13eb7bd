package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
)

// leaderless is a broker whose stream has no leader for a while: what it is asked
// then is never answered, whoever leads later.
type leaderless struct {
	Broker
	mu    sync.Mutex
	none  bool
	asked int
	end   chan struct{} // of the test: nothing waits any longer
}

// unanswered waits for the end of ctx if there is no leader.
func (b *leaderless) unanswered(ctx context.Context) error {
	b.mu.Lock()
	none := b.none
	if none {
		b.asked++
	}
	b.mu.Unlock()
	if !none {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-b.end:
		return errors.New("the test is over")
	}
}

func (b *leaderless) lead(is bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.none, b.asked = !is, 0
}

// waitAsked waits until something was asked while nobody leads.
func (b *leaderless) waitAsked(t testing.TB) {
	t.Helper()
	enginetest.Eventually(t, "the broker is asked", func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.asked == 0 {
			return errors.New("it is not")
		}
		return nil
	})
}

func (b *leaderless) Get(ctx context.Context, seq uint64) (Raw, error) {
	if err := b.unanswered(ctx); err != nil {
		return Raw{}, err
	}
	return b.Broker.Get(ctx, seq)
}

func (b *leaderless) Publish(ctx context.Context, m *nats.Msg) (uint64, error) {
	if err := b.unanswered(ctx); err != nil {
		return 0, err
	}
	return b.Broker.Publish(ctx, m)
}

func (b *leaderless) Gone(ctx context.Context) bool {
	return b.unanswered(ctx) == nil && b.Broker.Gone(ctx)
}

// startLeaderless returns a ledger that waits for an answer as long as it is let.
func startLeaderless(t *testing.T, nc *nats.Conn, change func(*Config)) (*running, *leaderless) {
	t.Helper()
	broker := &leaderless{end: make(chan struct{})}
	l := start(t, nc, func(c *Config) {
		c.TryTimeout = time.Hour
		if change != nil {
			change(c)
		}
		var err error
		if broker.Broker, err = NewBroker(nc, *c); err != nil {
			t.Fatal(err)
		}
		c.Broker = broker
	})
	t.Cleanup(func() { close(broker.end) })
	return l, broker
}

// TestServiceIsReadyOnceTheLogHasALeader: what it asked before is never answered.
func TestServiceIsReadyOnceTheLogHasALeader(t *testing.T) {
	nc := enginetest.NATS(t).Conn(t, "revocation")
	l, broker := startLeaderless(t, nc, nil)
	broker.lead(false)
	if err := nc.ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	broker.waitAsked(t)
	if l.Ready() == nil {
		t.Error("ready before the log was read again")
	}
	broker.lead(true)
	enginetest.Eventually(t, "the ledger is ready", l.Ready)
}

// TestTickIsRepeatedUntilTheLogHasALeader: one may be lost after the reading was done.
func TestTickIsRepeatedUntilTheLogHasALeader(t *testing.T) {
	l, broker := startLeaderless(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	broker.lead(false)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := repeating(ctx, l.commitTick)
		done <- err
	}()
	broker.waitAsked(t)
	broker.lead(true)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestFeedGoesOnOnceTheLogHasALeader: nothing of it is applied while the service asks
// whether the stream is gone.
func TestFeedGoesOnOnceTheLogHasALeader(t *testing.T) {
	l, broker := startLeaderless(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	broker.lead(false)
	l.lost <- struct{}{}
	broker.waitAsked(t)
	broker.lead(true)
	a := mustCommit(t, l.Ledger, request("k1", commit.Revoke, "principal:alice"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := l.WaitApplied(ctx, a.Stamp()); err != nil {
		t.Error(err)
	}
}

// noConsumers is a JetStream whose cluster has no leader: it makes none.
type noConsumers struct{ jetstream.JetStream }

func (noConsumers) OrderedConsumer(ctx context.Context, _ string, _ jetstream.OrderedConsumerConfig) (jetstream.Consumer, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestFewMessagesAreReadWithoutTheLeaderOfTheCluster: the log has one sooner, and what
// came after the reconnect is little.
func TestFewMessagesAreReadWithoutTheLeaderOfTheCluster(t *testing.T) {
	n := enginetest.NATS(t)
	other := start(t, n.Conn(t, "revocation"), nil)
	nc := n.Dial(t, "revocation") // another one than the other's
	l, broker := startLeaderless(t, nc, func(c *Config) {
		c.wrap = func(js jetstream.JetStream) jetstream.JetStream { return noConsumers{js} }
	})
	broker.lead(false)
	if err := nc.ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	broker.waitAsked(t)
	keys := []string{"k1", "k2", "k3"}
	for _, key := range keys {
		mustCommit(t, other.Ledger, request(key, commit.Revoke, "token:"+key))
	}
	broker.lead(true)
	enginetest.Eventually(t, "the ledger is ready", l.Ready)
	for _, key := range keys {
		if !l.View().State(keyOf("token:" + key)).Ended {
			t.Errorf("%s is missing", key)
		}
	}
}

// TestMessagesAfterTheFewAreReadToo: the first are read one by one, the others by a
// consumer.
func TestMessagesAfterTheFewAreReadToo(t *testing.T) {
	nc := enginetest.NATS(t).Conn(t, "revocation")
	l := start(t, nc, nil)
	target := func(i int) string { return fmt.Sprintf("token:t%d", i) }
	for i := range few + 10 {
		mustCommit(t, l.Ledger, request(fmt.Sprint("k", i), commit.Revoke, target(i)))
	}
	l.stop()
	fresh := start(t, nc, nil)
	for i := range few + 10 {
		if !fresh.View().State(keyOf(target(i))).Ended {
			t.Errorf("%s is missing", target(i))
		}
	}
}
