package ledger

import (
	"context"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

func begin(t testing.TB, l *Ledger, o EpochOrder) revoke.Epoch {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := l.BeginEpoch(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestOperatorBeginsAnEpochOfARestore: nobody can notice by itself that a log was
// restored when all memory of what came after is gone with it; an operator says so.
func TestOperatorBeginsAnEpochOfARestore(t *testing.T) {
	n := enginetest.NATS(t)
	nc := n.Conn(t, "revocation")
	first := start(t, nc, nil)
	kept := mustCommit(t, first.Ledger, request("k1", commit.Revoke, "principal:alice"))
	restore := backup(t, n)
	backupAt := time.Now()
	enginetest.Eventually(t, "the ledger is back", first.Ready)
	// Things were made in what is lost, with stamps that the log gives out again.
	for range 5 {
		mustCommit(t, first.Ledger, request(time.Now().String(), commit.Revoke, "token:t"))
	}
	made := first.Head().Stamp
	first.stop() // all memory ends
	restore()
	l := start(t, nc, nil)
	former := l.Epoch()
	if former != made.Epoch {
		t.Fatalf("a service without memory has begun epoch %d by itself", former)
	}
	for l.Head().Seq <= made.Seq { // the log goes past it
		mustCommit(t, l.Ledger, request(time.Now().String(), commit.Revoke, "token:u"))
	}
	cut := mustCommit(t, l.Ledger, request("k2", commit.Revoke, "principal:bob"))
	e := begin(t, l.Ledger, EpochOrder{Actor: "alice", Reason: "restored from a copy", Backup: backupAt})
	if e.Number <= former || !e.Restore || e.D.Less(kept.Stamp()) || !e.D.Less(made) {
		t.Fatalf("%+v: want a restore, after epoch %d, shared from %s to below %s", e, former, kept.Stamp(), made)
	}
	enginetest.Eventually(t, "ready", l.Ready)
	lost := revoke.Stamp{Epoch: former, Seq: cut.Sequence + 100} // far above, in what is lost
	if !l.View().Hit(keyOf("principal:bob"), lost) {
		t.Error("what was made in the lost history escapes a cut that came after it")
	}
	if !l.View().Hit(keyOf("principal:alice"), revoke.Stamp{Epoch: former, Seq: kept.Sequence - 1}) || l.View().Hit(keyOf("principal:alice"), lost) {
		t.Error("what the backup had counts otherwise than before")
	}
	if es := l.View().Epochs(); !es.Void(lost) || es.Void(l.Head().Stamp) {
		t.Error("sign-ins of before are void, and later ones not")
	}
	enginetest.Eventually(t, "it is said who did it", func() error {
		r, err := l.getLast(t.Context(), "quash.log.epoch")
		if err != nil {
			return err
		}
		ev, err := readEvent(r.data)
		if err == nil && (ev.Data.Actor != "alice" || ev.Data.Reason != "restored from a copy") {
			t.Errorf("the event says %+v", ev.Data)
		}
		return err
	})
}

// TestBackupIsFoundByTheSilenceOfTheLog, by a clock that is moved on while nothing
// is stored.
func TestBackupIsFoundByTheSilenceOfTheLog(t *testing.T) {
	n := enginetest.NATS(t)
	l := start(t, n.Conn(t, "revocation"), nil)
	if d, err := l.sharedUntil(t.Context(), time.Time{}); err != nil || !d.IsZero() {
		t.Errorf("a young log without a silence: %s, %v; want nothing shared", d, err)
	}
	a := mustCommit(t, l.Ledger, request("k1", commit.Revoke, "principal:alice"))
	at := time.Now()
	mustCommit(t, l.Ledger, request("k2", commit.Revoke, "principal:bob"))
	if d, err := l.sharedUntil(t.Context(), at); err != nil || d.Less(a.Stamp()) {
		t.Errorf("until %s: %s, %v; want %s at least", at, d, err, a.Stamp())
	}
	if d, err := l.sharedUntil(t.Context(), time.UnixMilli(1)); err != nil || !d.IsZero() {
		t.Errorf("of before the log: %s, %v", d, err)
	}
	// Two hours later nothing of it is of the last hour.
	later := start(t, n.Conn(t, "revocation"), nil)
	later.cfg.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if d, err := later.sharedUntil(t.Context(), time.Time{}); err != nil || d.Less(a.Stamp()) {
		t.Errorf("two hours later: %s, %v; want all", d, err)
	}
}

func TestSilence(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for name, tc := range map[string]struct {
		ago  []time.Duration // of each message, by sequence from 1 on
		want uint64
	}{
		"an empty log":                   {nil, 0},
		"a young log":                    {[]time.Duration{9 * time.Second, 5 * time.Second, 0}, 0},
		"a young log with a silence":     {[]time.Duration{40 * time.Second, 35 * time.Second, 20 * time.Second, 15 * time.Second}, 2},
		"the first of two":               {[]time.Duration{90 * time.Second, 60 * time.Second, 55 * time.Second, 20 * time.Second}, 1},
		"nothing of late":                {[]time.Duration{72 * time.Hour, 3 * time.Hour}, 2},
		"silent into the last hour":      {[]time.Duration{72 * time.Hour, 3 * time.Hour, 40 * time.Minute, 40*time.Minute - 5*time.Second}, 2},
		"ticks through the last hour":    {[]time.Duration{72 * time.Hour, time.Hour + 2*time.Second, time.Hour - 3*time.Second, time.Hour - 8*time.Second}, 2},
		"and a silence at the end of it": {[]time.Duration{72 * time.Hour, time.Hour + 2*time.Second, time.Hour - 3*time.Second, time.Hour - 8*time.Second, time.Minute}, 4},
	} {
		q := quiet{since: now.Add(-lately)}
		for i, ago := range tc.ago {
			q.see(revoke.Stamp{Epoch: 1, Seq: uint64(i + 1)}, now.Add(-ago))
		}
		if got := q.shared().Seq; got != tc.want {
			t.Errorf("%s: shared up to %d, want %d", name, got, tc.want)
		}
	}
}

func TestOrderOfASecondOperatorIsAConflict(t *testing.T) {
	n := enginetest.NATS(t)
	l := start(t, n.Conn(t, "revocation"), nil)
	p := l.ownProof("late")
	done := make(chan error, 1)
	p.order, p.done = &EpochOrder{Actor: "bob", Reason: "late"}, done
	begin(t, l.Ledger, EpochOrder{Actor: "alice", Reason: "first"})
	l.proofs <- p
	if err := <-done; problem.KindOf(err) != problem.Conflict {
		t.Errorf("an order of before the epoch that stands: %v, want a conflict", err)
	}
}

func TestRestoredLogBeginsAnEpochBeforeAnyService(t *testing.T) {
	n := enginetest.NATS(t)
	nc := n.Conn(t, "revocation")
	first := start(t, nc, nil)
	a := mustCommit(t, first.Ledger, request("k1", commit.Revoke, "principal:alice"))
	first.stop()
	e, err := BeginRestored(t.Context(), Config{NATS: nc}, EpochOrder{Actor: "alice", Reason: "a restore", Last: first.Head().Seq})
	if err != nil || e.D.Less(a.Stamp()) || !e.Restore {
		t.Fatalf("%+v, %v", e, err)
	}
	l := start(t, nc, nil)
	if got := l.View().Epochs().Current(); got != e {
		t.Errorf("the service is in %+v, want %+v", got, e)
	}
}

// TestNoHoldComesBackInAnyMemory: a hold and its release are lost together; who knew
// both would hold again, since a lost release counts as what is shared.
func TestNoHoldComesBackInAnyMemory(t *testing.T) {
	n := enginetest.NATS(t)
	nc := n.Conn(t, "revocation")
	l := start(t, nc, nil)
	mustCommit(t, l.Ledger, request("k0", commit.Hold, "client:kept", "client:again"))
	restore := backup(t, n)
	enginetest.Eventually(t, "the ledger is back", l.Ready)
	mustCommit(t, l.Ledger, request("k1", commit.Hold, "client:both"))
	mustCommit(t, l.Ledger, request("k2", commit.Release, "client:both"))
	mustCommit(t, l.Ledger, request("k3", commit.Release, "client:kept"))
	mustCommit(t, l.Ledger, request("k4", commit.Hold, "client:held"))
	// Here the first hold is there still, and its release and another hold are not.
	mustCommit(t, l.Ledger, request("k5", commit.Release, "client:again"))
	mustCommit(t, l.Ledger, request("k6", commit.Hold, "client:again"))
	mustCommit(t, l.Ledger, request("k7", commit.Release, "client:again"))
	former := l.Epoch()
	restore()
	waitEpoch(t, l.Ledger, former)
	fresh := start(t, nc, nil)
	for name, held := range map[string]bool{"client:both": false, "client:kept": false, "client:again": false, "client:held": true} {
		for who, v := range map[string]*revoke.View{"the one that remembers": l.View(), "a new one": fresh.View()} {
			if got := v.Blocked(keyOf(name)); got != held {
				t.Errorf("%s: %s is held: %t, want %t", who, name, got, held)
			}
		}
	}
}
