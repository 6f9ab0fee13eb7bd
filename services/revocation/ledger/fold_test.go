package ledger

import (
	"slices"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// A role was cut for long; the log has lost that, and has an older cut for long and a
// newer one for an hour. Together they look like the lost one, and would leave it out
// of force after an hour.
func TestCutThatEndsSoonDoesNotStandForALostOne(t *testing.T) {
	const soon, late = 5_000, 90_000
	k := revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: revoke.KindRole, ID: "r"}.Key()
	own := newFold()
	entry := func(epoch, seq uint64, until int64) {
		own.take(wire.Stored{Sequence: seq, Message: wire.Message{Kind: wire.KindEntry, Epoch: epoch, Until: until, Cut: []revoke.Key{k}}})
	}
	entry(1, 10, late)
	entry(2, 30, soon)
	hear := func(s revoke.State) map[lost][]revoke.Key {
		j := &judge{memory: &memory{}, log: own, epoch: 3, now: 1_000, missing: map[lost][]revoke.Key{}}
		j.hear(k, s, false)
		return j.missing
	}
	remembered := revoke.State{Cut: revoke.Stamp{Epoch: 1, Seq: 20}, Until: late}
	missing := hear(remembered)
	if len(missing) != 1 {
		t.Fatalf("commits again %v, want the cut that is lost", missing)
	}
	for x := range missing {
		if x.op != wire.OpCut || x.at != remembered.Cut || x.until != late {
			t.Errorf("commits again %+v", x)
		}
	}
	if missing := hear(revoke.State{Cut: revoke.Stamp{Epoch: 1, Seq: 10}, Until: late}); len(missing) != 0 {
		t.Errorf("commits again %v, which the log has", missing)
	}
	entry(3, 40, late)
	if missing := hear(remembered); len(missing) != 0 {
		t.Errorf("commits again %v, which a later cut covers", missing)
	}
	if n := len(own.each[k]); n != 1 {
		t.Errorf("keeps %d entries by themselves, want the one that says it all", n)
	}
}

func TestEndThatEndsSoonDoesNotStandForALostOne(t *testing.T) {
	const soon, late = 5_000, 90_000
	k := revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: revoke.KindKey, ID: "k"}.Key()
	own := newFold()
	own.add(k, revoke.State{Ended: true, Until: soon})
	own.add(k, revoke.State{Held: revoke.Stamp{Epoch: 1, Seq: 5}, Until: late})
	j := &judge{memory: &memory{}, log: own, epoch: 3, now: 1_000, missing: map[lost][]revoke.Key{}}
	j.hear(k, revoke.State{Ended: true, Held: revoke.Stamp{Epoch: 1, Seq: 5}, Until: late}, false)
	if len(j.missing) != 1 {
		t.Errorf("commits again %v, want the end that is lost", j.missing)
	}
}

// A role was cut for long, and the log has lost that. In the next epoch it is cut again,
// by an issuer that changes it and whose cut ends soon, before everybody who remembers
// the first one has heard of the epoch: in their memory the second hides the first.
func TestNewerCutInTheLogDoesNotHideALostOne(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	lostCut := mustCommit(t, l.Ledger, request("k1", commit.Revoke, "role:r"))
	l.stop()
	head, k := l.Head(), keyOf("role:r")
	remembered := l.View().State(k)

	l.remember()
	l.own = newFold()
	now := time.Now()
	next := lostCut.Epoch + 1
	d := revoke.Stamp{}
	l.apply(wire.Stored{Sequence: head.Seq + 1, Time: now.UnixMilli(), Message: wire.Message{Kind: wire.KindEpoch, ID: "e", Epoch: next, D: &d}}, "")
	l.apply(wire.Stored{Sequence: head.Seq + 2, Time: now.UnixMilli(), Message: wire.Message{
		Kind: wire.KindEntry, ID: "c", Epoch: next, At: now.UnixMilli(), Until: now.Add(time.Hour).Unix(), Cut: []revoke.Key{k},
	}}, "")
	for x, keys := range l.missing(l.owed).missing {
		if x.op == wire.OpCut && x.at == lostCut.Stamp() && x.until == remembered.Until && slices.Contains(keys, k) {
			return
		}
	}
	t.Error("what was remembered is not committed again")
}

// What two memories say alike is committed again once: an entry names no target twice.
func TestWhatTwoMemoriesSayIsCommittedAgainOnce(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	mustCommit(t, l.Ledger, request("k1", commit.Revoke, "key:k"))
	l.stop()
	l.remember()
	l.own = newFold()
	k := keyOf("key:k")
	l.owed.before[k] = l.View().State(k)
	if err := l.recommit(t.Context(), l.owed); err != nil {
		t.Error(err)
	}
}

// A hold, its release and another hold are lost. One replica knows the first two alone,
// and commits the release again, by a position of the new epoch: that is later than every
// position of the old one, and does not speak of the second hold.
func TestReleaseOfWhoLacksTheLastHoldDoesNotEndIt(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	first := mustCommit(t, l.Ledger, request("k1", commit.Hold, "principal:alice"))
	mustCommit(t, l.Ledger, request("k2", commit.Release, "principal:alice"))
	second := mustCommit(t, l.Ledger, request("k3", commit.Hold, "principal:alice"))
	l.stop()
	k, next, head := keyOf("principal:alice"), first.Epoch+1, l.Head().Seq
	l.remember()
	l.own = newFold()
	d, begins := revoke.Stamp{}, revoke.Stamp{Epoch: next, Seq: head + 1}
	now := time.Now()
	l.apply(wire.Stored{Sequence: head + 1, Time: now.UnixMilli(), Message: wire.Message{Kind: wire.KindEpoch, ID: "e", Epoch: next, D: &d}}, "")
	held := func(seq uint64, recommitted *revoke.Stamp) bool {
		t.Helper()
		l.apply(wire.Stored{Sequence: head + seq, Time: now.UnixMilli(), Message: wire.Message{
			Kind: wire.KindEntry, ID: "r", Epoch: next, At: now.UnixMilli(), Until: now.Add(time.Hour).Unix(),
			Release: map[revoke.Key]revoke.Stamp{k: begins}, Recommitted: recommitted,
		}}, "")
		for x, keys := range l.missing(l.owed).missing {
			if x.op == wire.OpHold && slices.Contains(keys, k) {
				if !x.at.IsZero() {
					t.Errorf("held at %s, which the release is later than", x.at)
				}
				return true
			}
		}
		return false
	}
	one, two := first.Stamp(), second.Stamp()
	if !held(2, &one) {
		t.Error("the second hold is released by who did not know it")
	}
	if held(3, &two) {
		t.Error("held anew after a release that is known to be later")
	}
	clear(l.own.reach)
	if held(4, nil) {
		t.Error("held anew after a release that somebody asked for in the new epoch")
	}
}

// A release in what the log shares with the history before is no release by somebody who
// knew less: what it names is released for who has missed it.
func TestReleaseOfTheSharedHistoryIsNotUndone(t *testing.T) {
	k := revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: revoke.KindPrincipal, ID: "alice"}.Key()
	held, d := revoke.Stamp{Epoch: 1, Seq: 50}, revoke.Stamp{Epoch: 1, Seq: 200}
	own := newFold()
	own.take(wire.Stored{Sequence: 50, Message: wire.Message{Kind: wire.KindEntry, Epoch: 1, Until: 90_000, Hold: []revoke.Key{k}}})
	own.take(wire.Stored{Sequence: 120, Message: wire.Message{Kind: wire.KindEntry, Epoch: 1, Until: 90_000, Release: map[revoke.Key]revoke.Stamp{k: held}}})
	own.take(wire.Stored{Sequence: 201, Message: wire.Message{Kind: wire.KindEpoch, Epoch: 2, D: &d}})
	j := &judge{memory: &memory{}, log: own, epoch: 2, begin: revoke.Stamp{Epoch: 2, Seq: 201}, now: 1_000, missing: map[lost][]revoke.Key{}}
	j.hear(k, revoke.State{Held: held, Until: 90_000}, true) // Redis has missed the release
	if len(j.missing) != 0 {
		t.Errorf("commits again %v", j.missing)
	}
}

// A hold without an end gets none from an earlier one that had.
func TestHoldWithoutAnEndIsCommittedAgainWithoutOne(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	timed := request("k1", commit.Hold, "principal:alice")
	timed.ForMS, timed.Then = time.Hour.Milliseconds(), wire.ThenRelease
	mustCommit(t, l.Ledger, timed)
	mustCommit(t, l.Ledger, request("k2", commit.Release, "principal:alice"))
	second := mustCommit(t, l.Ledger, request("k3", commit.Hold, "principal:alice"))
	l.stop()
	l.remember()
	l.own = newFold()
	d := revoke.Stamp{}
	l.apply(wire.Stored{Sequence: l.Head().Seq + 1, Time: time.Now().UnixMilli(), Message: wire.Message{Kind: wire.KindEpoch, ID: "e", Epoch: second.Epoch + 1, D: &d}}, "")
	for x, keys := range l.missing(l.owed).missing {
		if x.op == wire.OpHold && slices.Contains(keys, keyOf("principal:alice")) {
			if x.holdEnd != 0 || x.at != second.Stamp() {
				t.Errorf("%+v: want the hold without an end, at %s", x, second.Stamp())
			}
			return
		}
	}
	t.Error("the hold is not committed again")
}
