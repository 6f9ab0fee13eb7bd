package ledger

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// another returns a message that the log never had at a sequence.
func another(l *Ledger, seq uint64) wire.Stored {
	return wire.Stored{Sequence: seq, Time: time.Now().UnixMilli(), Message: wire.Message{
		Kind: wire.KindEntry, ID: "AAAAAAAAAAAAAAAAAAAAAA", Epoch: l.Epoch(), Until: time.Now().Add(time.Hour).Unix(), Cut: []revoke.Key{keyOf("principal:x")},
	}}
}

// The log loses what it has just acknowledged, and gives its sequence to another
// message, before this service has read either.
func TestAnotherMessageThanWasAcknowledgedShowsThatTheLogWentBack(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	a := mustCommit(t, l.Ledger, request("k1", commit.Revoke, "principal:alice"))
	if err := l.WaitApplied(t.Context(), a.Stamp()); err != nil {
		t.Fatal(err)
	}
	l.stop()
	for name, same := range map[string]bool{"the same": true, "another": false} {
		acked, stands := another(l.Ledger, l.Head().Seq+1), another(l.Ledger, l.Head().Seq+1)
		if !same {
			acked.Message.ID = "BBBBBBBBBBBBBBBBBBBBBB"
		}
		l.doubt.Store(nil)
		l.sawAck(acked.Position(), acked.Message)
		l.apply(stands, "")
		if got := l.doubts(l.Epoch()); got == same {
			t.Errorf("%s: doubts it: %v", name, got)
		}
		if n := len(l.acked); n != 0 {
			t.Errorf("%s: %d are waited for that were read", name, n)
		}
	}
}

// Reading for a new epoch ended early, and is tried again: meanwhile the log has lost a
// part of what was read, and has other messages there.
func TestWhatAnEarlierTryHasReadIsNotForgotten(t *testing.T) {
	n := enginetest.NATS(t)
	l := start(t, n.Conn(t, "revocation"), nil)
	mustCommit(t, l.Ledger, request("k1", commit.Revoke, "principal:alice"))
	l.stop()
	l.own = newFold()
	if err := l.readWhole(t.Context()); err != nil {
		t.Fatalf("the log as it was: %v", err)
	}
	l.apply(another(l.Ledger, l.Head().Seq+1), "")
	other := start(t, n.Conn(t, "revocation"), nil)
	mustCommit(t, other.Ledger, request("k2", commit.Revoke, "principal:bob"))
	other.stop()
	if err := l.readWhole(t.Context()); !errors.Is(err, errWentBack) || !l.doubts(l.Epoch()) {
		t.Errorf("%v, doubts it: %v; want that the log went back", err, l.doubts(l.Epoch()))
	}
}

// Where a clock is behind, the number of an epoch tells nothing of the time, and must
// not be given twice: the log may have lost the first one that had it.
func TestEpochsByAClockThatIsBehindHaveDifferentNumbers(t *testing.T) {
	l, err := New(Config{NATS: enginetest.NATS(t).Conn(t, "revocation"), Log: testLog(t), Now: func() time.Time { return time.UnixMilli(1000) }})
	if err != nil {
		t.Fatal(err)
	}
	had := map[uint64]bool{}
	for range 4 {
		number, err := l.numberAbove(5000)
		if err != nil || number <= 5000 || number > 5000+1<<16 {
			t.Fatalf("%d, %v", number, err)
		}
		had[number] = true
	}
	if len(had) == 1 {
		t.Errorf("four epochs after the same one have the number %v", had)
	}
	if number, err := l.numberAbove(999); err != nil || number != 1000 {
		t.Errorf("%d, %v, want the time", number, err)
	}
}

// Redis holds what was said in an epoch that the log has lost, and that nobody else
// remembers: it can be said again only in one above.
func TestEpochThatOnlyRedisRemembersIsGoneAbove(t *testing.T) {
	n := enginetest.NATS(t)
	first := start(t, n.Conn(t, "revocation"), nil)
	first.stop()
	until := time.Now().Add(time.Hour).Unix()
	lost := revoke.Stamp{Epoch: first.Epoch() + 5000, Seq: 563}
	redis := map[revoke.Key]revoke.State{
		keyOf("principal:cut"):      {Cut: lost, CutAt: time.Now().UnixMilli(), Until: until},
		keyOf("principal:held"):     {Held: lost, Until: until},
		keyOf("principal:released"): {Held: revoke.Stamp{Epoch: lost.Epoch, Seq: 500}, Released: lost, Until: until},
		keyOf("principal:undated"):  {Cut: lost, Until: until},
		keyOf("principal:garbage"):  {Cut: revoke.Stamp{Epoch: first.Epoch() + uint64((48 * time.Hour).Milliseconds()), Seq: 1}, CutAt: time.Now().UnixMilli(), Until: until},
	}
	l := start(t, n.Conn(t, "revocation"), func(c *Config) {
		c.Remembered = func(_ context.Context, yield func(revoke.Key, revoke.State) bool) error {
			for k, s := range redis {
				if !yield(k, s) {
					break
				}
			}
			return nil
		}
	})
	if l.Epoch() <= lost.Epoch {
		t.Errorf("epoch %d, want one above %d", l.Epoch(), lost.Epoch)
	}
	l.stop()
	log := start(t, n.Conn(t, "revocation"), nil) // all that it knows is the log
	if !log.View().Hit(keyOf("principal:cut"), revoke.Stamp{Epoch: first.Epoch(), Seq: 1}) {
		t.Error("the cut is lost")
	}
	if !log.View().Blocked(keyOf("principal:held")) {
		t.Error("the hold is lost")
	}
	if log.View().Blocked(keyOf("principal:released")) || log.View().Blocked(keyOf("principal:garbage")) {
		t.Error("what was released is held, or what nobody can have said counts")
	}
}
