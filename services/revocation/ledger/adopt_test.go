package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// noTicks is a broker that acknowledges no tick while fail is set.
type noTicks struct {
	jetstream.JetStream
	fail *atomic.Bool
}

func (n noTicks) PublishMsg(ctx context.Context, m *nats.Msg, o ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	if n.fail.Load() && m.Subject == wire.LogTick {
		return nil, errors.New("no answer")
	}
	return n.JetStream.PublishMsg(ctx, m, o...)
}

// stands waits until a ledger that does not run has caught up.
func stands(t *testing.T, l *Ledger) {
	t.Helper()
	enginetest.Eventually(t, "it has caught up", func() error { return l.catchUp(t.Context()) })
}

// A start has read the log and was not finished; then the log goes back, and the first
// try to read the new epoch gets no tick. The next one must not judge by what the log
// that was had.
func TestNoEpochIsJudgedByTheLogThatWas(t *testing.T) {
	n := enginetest.NATS(t)
	var fail atomic.Bool
	nc := n.Conn(t, "revocation")
	l := start(t, nc, func(c *Config) {
		c.wrap = func(js jetstream.JetStream) jetstream.JetStream { return noTicks{js, &fail} }
	})
	mustCommit(t, l.Ledger, request("k", commit.Revoke, "principal:alice"))
	l.stop()
	restore := backup(t, n)
	other := start(t, nc, nil)
	const many = 20
	for i := range many {
		mustCommit(t, other.Ledger, request(fmt.Sprint("l", i), commit.Revoke, fmt.Sprint("session:s", i)))
	}
	other.stop()
	enginetest.Eventually(t, "it has read the log", func() error { return l.reload(t.Context()) })
	former := l.Epoch()
	restore()
	fail.Store(true)
	enginetest.Eventually(t, "a new epoch is in the log", func() error {
		err := l.newEpoch(t.Context(), l.ownProof("a test"))
		e, lastErr := l.getLast(t.Context(), wire.LogEpoch)
		if lastErr != nil || e.stored.Message.Epoch <= former {
			return errors.Join(err, lastErr, errors.New("not yet"))
		}
		return nil
	})
	fail.Store(false)
	stands(t, l.Ledger)
	log := start(t, nc, nil) // all that it knows is the log
	for i := range many {
		if !log.View().Hit(keyOf(fmt.Sprint("session:s", i)), revoke.Stamp{Epoch: log.Epoch(), Seq: 1}) {
			t.Errorf("session:s%d is not in the log", i)
		}
	}
}

// The log loses the epoch that is being adopted: what was said before it is owed still.
func TestNobodySettlesInAnEpochBelowOneThatWasHeardOf(t *testing.T) {
	n := enginetest.NATS(t)
	nc := n.Conn(t, "revocation")
	l := start(t, nc, nil)
	mustCommit(t, l.Ledger, request("k1", commit.Revoke, "principal:alice"))
	l.stop()
	restore := backup(t, n)
	other := start(t, nc, nil)
	mustCommit(t, other.Ledger, request("k2", commit.Revoke, "session:s", "principal:bob"))
	mustCommit(t, other.Ledger, request("k3", commit.Hold, "client:c"))
	stands(t, l.Ledger)
	first := l.Epoch()
	begin(t, other.Ledger, EpochOrder{Actor: "a", Reason: "r"})
	other.stop()
	l.remember()
	if err := l.readWhole(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := l.Epoch()
	restore()
	stands(t, l.Ledger)
	if l.Epoch() <= second {
		t.Errorf("it stands in %d, and has heard of %d", l.Epoch(), second)
	}
	log := start(t, nc, nil)
	if !log.View().Hit(keyOf("session:s"), revoke.Stamp{Epoch: log.Epoch(), Seq: 1}) || !log.View().Hit(keyOf("principal:bob"), revoke.Stamp{Epoch: first, Seq: 1}) || !log.View().Blocked(keyOf("client:c")) {
		t.Error("what was lost with the epoch is not in the log")
	}
}

// Whoever had heard of an epoch that the log has lost judges as one who had not.
func TestLostEpochCountsNoMore(t *testing.T) {
	for _, restored := range []bool{false, true} {
		n := enginetest.NATS(t)
		nc := n.Conn(t, "revocation")
		l := start(t, nc, nil)
		before := mustCommit(t, l.Ledger, request("k1", commit.Revoke, "principal:alice")).Stamp()
		l.stop()
		restore := backup(t, n)
		other := start(t, nc, nil)
		if restored {
			begin(t, other.Ledger, EpochOrder{Actor: "a", Reason: "r"})
		} else {
			other.stop()
			if err := other.newEpoch(t.Context(), other.ownProof("a test")); err != nil {
				t.Fatal(err)
			}
		}
		other.stop()
		stands(t, l.Ledger)
		lost := l.Epoch()
		restore()
		stands(t, l.Ledger)
		log := start(t, nc, nil) // all that it knows is the log
		stands(t, other.Ledger)
		for who, es := range map[string]revoke.Epochs{"who begins the next": l.View().Epochs(), "who hears of it": other.View().Epochs()} {
			switch {
			case restored && (!es.Void(before) || !log.View().Epochs().Void(before)):
				t.Errorf("%s: what a restore made void counts again: %v, the log %v", who, es, log.View().Epochs())
			case !restored && (es.Has(lost) || !slices.Equal(es, log.View().Epochs())):
				t.Errorf("%s: epochs %v, the log has %v", who, es, log.View().Epochs())
			}
		}
		log.stop()
	}
}

func TestLogThatIsMadeAnewWhileAnEpochIsAdopted(t *testing.T) {
	n := enginetest.NATS(t)
	nc := n.Conn(t, "revocation")
	l := start(t, nc, nil)
	mustCommit(t, l.Ledger, request("k", commit.Revoke, "principal:alice"))
	l.stop()
	for _, made := range []bool{false, true} {
		l.remember()
		n.Stop()
		if err := os.RemoveAll(filepath.Join(n.Dir, "jetstream")); err != nil {
			t.Fatal(err)
		}
		n.Start(t)
		if made { // and is empty
			enginetest.Eventually(t, "an empty log", func() error { return l.setUpStream(t.Context()) })
		}
		stands(t, l.Ledger)
		log := start(t, nc, nil)
		if !log.View().Hit(keyOf("principal:alice"), revoke.Stamp{Epoch: 1, Seq: 1}) {
			t.Errorf("made before: %t: the cut is lost", made)
		}
		log.stop()
	}
}

// A proof that comes late speaks of an epoch that is over.
func TestLateProofTakesNoDoubtAway(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	l.stop()
	late := l.ownProof("late")
	l.mu.Lock()
	l.epoch++
	l.mu.Unlock()
	l.wentBack("a test")
	l.tell(late)
	if !l.doubts(l.Epoch()) {
		t.Error("the present epoch is not doubted any more")
	}
}

// The feed was faster than the acknowledgement.
func TestAcknowledgementThatComesLateIsCompared(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	l.stop()
	stands := another(l.Ledger, l.Head().Seq+1)
	acked := stands
	acked.Message.ID = "BBBBBBBBBBBBBBBBBBBBBB"
	l.apply(stands, "")
	l.sawAck(acked.Position(), acked.Message)
	if !l.doubts(l.Epoch()) {
		t.Error("another message than was acknowledged is there, and nobody has noticed")
	}
}
