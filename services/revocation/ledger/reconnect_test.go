package ledger

import (
	"context"
	"errors"
	"testing"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
)

// switching is a broker whose connection is another one from the second message of a
// reading on.
type switching struct {
	Broker
	reconnects uint64
}

func (s *switching) Reconnects() uint64 { return s.reconnects }

func (s *switching) Read(ctx context.Context, from uint64, yield func(Raw) (bool, error)) error {
	return s.Broker.Read(ctx, from, func(r Raw) (bool, error) {
		more, err := yield(r)
		s.reconnects++
		return more, err
	})
}

// The server that is read from after a reconnect may have another log: what it has at
// the next sequence is not what comes next here.
func TestReadingDoesNotGoOnOnAnotherConnection(t *testing.T) {
	n := enginetest.NATS(t)
	l := start(t, n.Conn(t, "revocation"), nil)
	for _, key := range []string{"k1", "k2", "k3"} {
		mustCommit(t, l.Ledger, request(key, commit.Revoke, "principal:"+key))
	}
	head := l.Head().Seq
	l.stop()
	again := start(t, n.Conn(t, "revocation"), nil)
	again.stop()
	b := &switching{Broker: again.broker}
	again.broker, again.connections = b, 0
	again.mu.Lock()
	again.head.Seq = head - 3
	again.mu.Unlock()
	if err := again.readOn(t.Context(), head); !errors.Is(err, errReconnected) {
		t.Errorf("%v, want that it was another connection", err)
	}
	if got := again.Head().Seq; got != head-2 {
		t.Errorf("read to %d, want the one message of the former connection, %d", got, head-2)
	}
}
