package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// backup copies the log's files while the server is stopped, and returns what
// puts the copy back in their place.
func backup(t testing.TB, n *enginetest.NATSServer) (restore func()) {
	t.Helper()
	files := filepath.Join(n.Dir, "jetstream")
	saved := filepath.Join(t.TempDir(), "saved")
	n.Stop()
	if err := os.CopyFS(saved, os.DirFS(files)); err != nil {
		t.Fatal(err)
	}
	n.Start(t)
	return func() {
		t.Helper()
		n.Stop()
		if err := os.RemoveAll(files); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(files, os.DirFS(saved)); err != nil {
			t.Fatal(err)
		}
		n.Start(t)
	}
}

// waitEpoch waits until the ledger is ready in an epoch after the given one.
func waitEpoch(t testing.TB, l *Ledger, after uint64) {
	t.Helper()
	enginetest.Eventually(t, "a new epoch stands", func() error {
		if err := l.Ready(); err != nil {
			return err
		}
		if l.Epoch() <= after {
			return fmt.Errorf("still in epoch %d", l.Epoch())
		}
		return nil
	})
}

func TestLogThatWentBackUnderAServiceLosesNothing(t *testing.T) {
	n := enginetest.NATS(t)
	nc := n.Conn(t, "revocation")
	l := start(t, nc, nil)
	shared := mustCommit(t, l.Ledger, request("k1", commit.Revoke, "principal:alice"))
	held := mustCommit(t, l.Ledger, request("k2", commit.Hold, "client:shared"))
	restore := backup(t, n)
	enginetest.Eventually(t, "the ledger is back", l.Ready)
	cut := mustCommit(t, l.Ledger, request("k3", commit.Revoke, "principal:bob", "session:s"))
	hold := mustCommit(t, l.Ledger, request("k4", commit.Hold, "client:lost"))
	released := mustCommit(t, l.Ledger, request("k5", commit.Release, "client:shared"))
	former := l.Epoch()
	head := l.Head()
	restore()
	waitEpoch(t, l.Ledger, former)

	epochs := l.View().Epochs()
	d := epochs.Current().D
	if d.Less(held.Stamp()) || !d.Less(cut.Stamp()) {
		t.Fatalf("D %s: want what was shared, %s to below %s", d, held.Stamp(), cut.Stamp())
	}
	// A fold of the log alone has everything that was lost.
	l.stop()
	fresh := start(t, nc, nil)
	if fresh.Epoch() != l.Epoch() {
		t.Fatalf("epoch %d after a restart, was %d", fresh.Epoch(), l.Epoch())
	}
	for name, v := range map[string]*revoke.View{"memory": l.View(), "log": fresh.View()} {
		if !v.Hit(keyOf("principal:alice"), revoke.Stamp{Epoch: former, Seq: shared.Sequence - 1}) {
			t.Errorf("%s: the shared cut is gone", name)
		}
		for _, stamp := range []revoke.Stamp{{Epoch: former, Seq: cut.Sequence - 1}, head.Stamp} {
			// What was made in the lost part counts as made at D.
			if !v.Hit(keyOf("principal:bob"), stamp) {
				t.Errorf("%s: the lost cut does not hit %s", name, stamp)
			}
		}
		if v.Hit(keyOf("principal:bob"), revoke.Stamp{Epoch: l.Epoch(), Seq: 1}) {
			t.Errorf("%s: what was made in the new epoch is hit", name)
		}
		if !v.Hit(keyOf("session:s"), revoke.Stamp{Epoch: l.Epoch(), Seq: 1 << 40}) {
			t.Errorf("%s: the lost end is gone", name)
		}
		if !v.Blocked(keyOf("client:lost")) {
			t.Errorf("%s: the lost hold of %d is gone", name, hold.Sequence)
		}
	}
	if l.View().Blocked(keyOf("client:shared")) {
		t.Errorf("memory: the release at %d, of a hold that both histories have, was undone", released.Sequence)
	}
	// The hold from the lost part can be released.
	mustCommit(t, fresh.Ledger, request("k6", commit.Release, "client:lost"))
	if fresh.View().Blocked(keyOf("client:lost")) {
		t.Error("a hold from a lost part can't be released")
	}
}

func TestEmptiedLogIsFilledAgainFromMemory(t *testing.T) {
	n := enginetest.NATS(t)
	nc := n.Conn(t, "revocation")
	l := start(t, nc, nil)
	var last commit.Answer
	for i := range 30 {
		last = mustCommit(t, l.Ledger, request(fmt.Sprint("k", i), commit.Revoke, fmt.Sprintf("token:t%d", i)))
	}
	former := l.Epoch()
	n.Stop()
	if err := os.RemoveAll(filepath.Join(n.Dir, "jetstream")); err != nil {
		t.Fatal(err)
	}
	n.Start(t)
	waitEpoch(t, l.Ledger, former)
	if d := l.View().Epochs().Current().D; !d.IsZero() {
		t.Fatalf("D %s of a log that shares nothing", d)
	}
	l.stop()
	fresh := start(t, nc, nil)
	for i := range 30 {
		if !fresh.View().Hit(keyOf(fmt.Sprintf("token:t%d", i)), last.Stamp()) {
			t.Fatalf("token:t%d is clean in a fold of the log", i)
		}
	}
}

// recentOf is what a reader that has followed this ledger shows as proof.
func recentOf(l *Ledger) []wire.PositionJSON {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []wire.PositionJSON
	for _, p := range l.ring.positions(wire.MaxRecent) {
		out = append(out, p.JSON())
	}
	return out
}

func TestReaderProvesThatTheLogWentBackToAServiceWithoutMemory(t *testing.T) {
	n := enginetest.NATS(t)
	nc := n.Conn(t, "revocation")
	l := start(t, nc, nil)
	shared := mustCommit(t, l.Ledger, request("k1", commit.Revoke, "principal:alice"))
	restore := backup(t, n)
	enginetest.Eventually(t, "the ledger is back", l.Ready)
	lostOne := mustCommit(t, l.Ledger, request("k2", commit.Revoke, "principal:bob"))
	if err := l.WaitApplied(t.Context(), lostOne.Stamp()); err != nil {
		t.Fatal(err)
	}
	recent := recentOf(l.Ledger)
	former := l.Epoch()
	bob := keyOf("principal:bob")
	state := l.View().State(bob)
	l.stop()
	restore()

	remembered := func(_ context.Context, yield func(revoke.Key, revoke.State) bool) error {
		yield(bob, state)
		return nil
	}
	fresh := start(t, nc, func(c *Config) { c.Remembered = remembered })
	if fresh.Epoch() != former || fresh.View().Hit(bob, shared.Stamp()) {
		t.Fatal("the test's log did not go back")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req := wire.SyncRequest{Instance: "i", Position: recent[0], Recent: recent}
	if a := fresh.Sync(ctx, "g", req); a.Error == nil || a.Error.Code != codeWentBack {
		t.Fatalf("sync with proof: %+v", a)
	}
	waitEpoch(t, fresh.Ledger, former)
	d := fresh.View().Epochs().Current().D
	if d.Less(shared.Stamp()) || !d.Less(lostOne.Stamp()) {
		t.Fatalf("D %s: want %s to below %s", d, shared.Stamp(), lostOne.Stamp())
	}
	if !fresh.View().Hit(bob, shared.Stamp()) {
		t.Fatal("what Redis remembers was not committed again")
	}
	// The same reader is answered with the whole state now, and begins no second epoch.
	now := fresh.Epoch()
	if a := fresh.Sync(ctx, "g", req); a.Error != nil || a.Whole == nil {
		t.Fatalf("sync in the new epoch: %+v", a)
	}
	if fresh.Epoch() != now {
		t.Fatal("a second epoch")
	}
}

func TestReaderWhosePositionTheLogHasProvesNothing(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), nil)
	a := mustCommit(t, l.Ledger, request("k1", commit.Revoke, "principal:alice"))
	if err := l.WaitApplied(t.Context(), a.Stamp()); err != nil {
		t.Fatal(err)
	}
	recent := recentOf(l.Ledger)
	epoch := l.Epoch()
	at := recent[0]
	if got := l.Sync(t.Context(), "g", wire.SyncRequest{Instance: "i", Position: at, Recent: recent}); got.Error != nil || got.Tail == nil {
		t.Fatalf("sync from a good position: %+v", got)
	}
	// A wrong id at the head is proof; a good one beside older wrong ones is not.
	wrong := at
	wrong.ID = "AAAAAAAAAAAAAAAAAAAAAA"
	old := recent[1]
	old.ID = wrong.ID
	if got := l.Sync(t.Context(), "g", wire.SyncRequest{Instance: "i", Position: at, Recent: []wire.PositionJSON{at, old}}); got.Error != nil {
		t.Fatalf("sync whose newest id the log has: %+v", got)
	}
	if l.Epoch() != epoch {
		t.Fatal("an epoch without proof")
	}
	far := at
	far.Epoch = uint64(time.Now().Add(48 * time.Hour).UnixMilli())
	if got := l.Sync(t.Context(), "g", wire.SyncRequest{Instance: "i", Position: far}); got.Error == nil || got.Error.Code != codeInvalid {
		t.Fatalf("an epoch two days ahead: %+v", got)
	}
	if got := l.Sync(t.Context(), "g", wire.SyncRequest{Instance: "i", Position: wrong}); got.Error == nil || got.Error.Code != codeWentBack {
		t.Fatalf("another id at the head: %+v", got)
	}
	waitEpoch(t, l.Ledger, epoch)
}

func TestAtMostOneNewEpochInAGap(t *testing.T) {
	l := start(t, enginetest.NATS(t).Conn(t, "revocation"), func(c *Config) { c.EpochGap = time.Hour })
	show := func() *wire.Refusal {
		p := l.Head().JSON()
		p.ID = "AAAAAAAAAAAAAAAAAAAAAA"
		return l.Sync(t.Context(), "liar", wire.SyncRequest{Instance: "i", Position: p}).Error
	}
	first := l.Epoch()
	if show() == nil {
		t.Fatal("no refusal")
	}
	waitEpoch(t, l.Ledger, first)
	second := l.Epoch()
	for range 3 {
		if show() == nil {
			t.Fatal("no refusal")
		}
		if err := l.Fresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if l.Epoch() != second {
		t.Fatal("a third epoch within the gap")
	}
}

func TestMessageOfAFormerEpochCountsWhereItStands(t *testing.T) {
	n := enginetest.NATS(t)
	nc := n.Conn(t, "revocation")
	l := start(t, nc, nil)
	first := l.Epoch()
	p := l.Head().JSON()
	p.ID = "AAAAAAAAAAAAAAAAAAAAAA"
	l.Sync(t.Context(), "g", wire.SyncRequest{Instance: "i", Position: p})
	waitEpoch(t, l.Ledger, first)
	made := l.Head().Stamp // in the new epoch, before the late cut

	id, err := wire.NewID(l.cfg.Rand)
	if err != nil {
		t.Fatal(err)
	}
	late := wire.Message{Kind: wire.KindEntry, ID: id, Epoch: first, Cut: []revoke.Key{keyOf("principal:late")}, At: time.Now().UnixMilli(), Until: time.Now().Add(time.Hour).Unix()}
	pos, err := l.publish(t.Context(), outgoing{subject: wire.LogEntry + hashOf("late"), message: late, body: []byte("{}"), ttl: time.Hour})
	if !errors.Is(err, errUnknown) {
		t.Fatalf("an acknowledgement for a former epoch: %v, want an unknown outcome", err)
	}
	if err := l.WaitApplied(t.Context(), revoke.Stamp{Epoch: l.Epoch(), Seq: pos.Seq}); err != nil {
		t.Fatal(err)
	}
	l.stop()
	for name, l := range map[string]*running{"live": l, "replayed": start(t, nc, nil)} {
		if !l.View().Hit(keyOf("principal:late"), made) {
			t.Errorf("%s: the late cut misses what was made before it", name)
		}
	}
}

// TestMessageThatIsMissingInTheMiddleIsLost: a broker that is started on a file with a
// flipped byte serves the log without that message, and says nothing. A service that
// reads it anew takes back from Redis what was lost, one that had read it from memory.
func TestMessageThatIsMissingInTheMiddleIsLost(t *testing.T) {
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprintf("running=%t", running), func(t *testing.T) {
			n := enginetest.NATS(t)
			nc := n.Conn(t, "revocation")
			var was *Ledger
			remembers := func(c *Config) {
				c.Remembered = func(_ context.Context, yield func(revoke.Key, revoke.State) bool) error {
					if was != nil {
						was.View().All(yield)
					}
					return nil
				}
			}
			l := start(t, nc, remembers)
			mustCommit(t, l.Ledger, request("k1", commit.Revoke, "principal:alice"))
			cut := mustCommit(t, l.Ledger, request("k2", commit.Revoke, "principal:bob", "session:s"))
			mustCommit(t, l.Ledger, request("k3", commit.Hold, "client:shared"))
			mustCommit(t, l.Ledger, request("k4", commit.Revoke, "principal:carol"))
			former := l.Epoch()
			if !running {
				l.stop()
				was = l.Ledger
			}
			n.Stop()
			flip(t, n.Dir, cut.ID)
			n.Start(t)
			again := l
			if !running {
				again = start(t, nc, remembers)
			}
			waitEpoch(t, again.Ledger, former)
			again.stop()
			fresh := start(t, nc, nil)
			if fresh.Epoch() != again.Epoch() {
				t.Errorf("epoch %d after one more start, was %d: what was made good is found again", fresh.Epoch(), again.Epoch())
			}
			v := fresh.View()
			if !v.Hit(keyOf("principal:bob"), revoke.Stamp{Epoch: former, Seq: cut.Sequence - 1}) || !v.Hit(keyOf("session:s"), revoke.Stamp{Epoch: former, Seq: 1 << 40}) {
				t.Error("the lost entry is not in the log again")
			}
			if v.Hit(keyOf("principal:bob"), revoke.Stamp{Epoch: former, Seq: cut.Sequence + 1}) {
				t.Error("what was made after the lost entry is hit by it")
			}
			if !v.Blocked(keyOf("client:shared")) || !v.Hit(keyOf("principal:carol"), revoke.Stamp{Epoch: former, Seq: 1}) {
				t.Error("what stood above the lost entry is gone")
			}
		})
	}
}

// flip changes a byte of the message with an id in the log's file.
func flip(t testing.TB, dir, id string) {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", wire.Stream, "msgs", "*.blk"))
	if err != nil || len(blocks) != 1 {
		t.Fatalf("blocks %q, %v", blocks, err)
	}
	data, err := os.ReadFile(blocks[0])
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(data, []byte(id))
	if i < 0 {
		t.Fatalf("no message with the id %s", id)
	}
	data[i] ^= 1
	if err := os.WriteFile(blocks[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// lateBroker hands on an answer after something else has happened.
type lateBroker struct {
	Broker
	meanwhile func()
	afterRead func() // and the reading fails, and the next one before it has begun
	fails     bool
}

func (b *lateBroker) Read(ctx context.Context, from uint64, yield func(Raw) (bool, error)) error {
	if b.fails {
		b.fails = false
		return errors.New("the server is not there yet")
	}
	err := b.Broker.Read(ctx, from, yield)
	if do := b.afterRead; do != nil {
		b.afterRead, b.fails = nil, true
		do()
		return errors.New("the server is gone")
	}
	return err
}

func (b *lateBroker) Get(ctx context.Context, seq uint64) (Raw, error) {
	r, err := b.Broker.Get(context.WithoutCancel(ctx), seq)
	if do := b.meanwhile; do != nil && err == nil {
		b.meanwhile = nil
		do()
	}
	return r, err
}

// TestAnswerOfTheLogThatWasIsNoAnswer: a repeated request is answered by what the log
// has; an answer that is under way while the log goes back must not be taken for one of
// the log that is.
func TestAnswerOfTheLogThatWasIsNoAnswer(t *testing.T) {
	n := enginetest.NATS(t)
	nc := n.Conn(t, "revocation")
	other := start(t, nc, nil)
	restore := backup(t, n)
	enginetest.Eventually(t, "the ledger is back", other.Ready)
	for i := range 20 {
		mustCommit(t, other.Ledger, request(fmt.Sprint("k", i), commit.Revoke, fmt.Sprintf("token:t%d", i)))
	}
	late := &lateBroker{}
	l := start(t, nc, func(c *Config) {
		c.TryTimeout = 20 * time.Second
		var err error
		if late.Broker, err = NewBroker(nc, *c); err != nil {
			t.Fatal(err)
		}
		c.Broker = late
	})
	former := l.Epoch()
	late.meanwhile = func() {
		restore()
		enginetest.Eventually(t, "a new epoch has begun", func() error {
			if l.Epoch() == former {
				return errors.New("not yet")
			}
			return l.Ready()
		})
	}
	a, err := l.Commit(t.Context(), request("k19", commit.Revoke, "token:t19"), "test")
	for problem.KindOf(err) == problem.UnknownOutcome || problem.KindOf(err) == problem.Unavailable {
		a, err = l.Commit(t.Context(), request("k19", commit.Revoke, "token:t19"), "test")
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, s, err := l.Find(t.Context(), a.ID); err != nil || s.Position().Stamp != a.Stamp() {
		t.Errorf("answered with %s, and the log has it at %s, %v", a.Stamp(), s.Position().Stamp, err)
	}
}

// TestLogThatGoesBackWhileAServiceStarts: what a first try had read is remembered by
// nobody else, and a second one must not take it for a part of the log.
func TestLogThatGoesBackWhileAServiceStarts(t *testing.T) {
	n := enginetest.NATS(t)
	nc := n.Conn(t, "revocation")
	other := start(t, nc, nil)
	restore := backup(t, n)
	enginetest.Eventually(t, "the ledger is back", other.Ready)
	cut := mustCommit(t, other.Ledger, request("k1", commit.Revoke, "principal:alice"))
	former := other.Epoch()
	other.stop()
	l := start(t, nc, func(c *Config) {
		b, err := NewBroker(nc, *c)
		if err != nil {
			t.Fatal(err)
		}
		c.Broker = &lateBroker{Broker: b, afterRead: restore}
	})
	waitEpoch(t, l.Ledger, former)
	l.stop()
	if fresh := start(t, nc, nil); !fresh.View().Hit(keyOf("principal:alice"), revoke.Stamp{Epoch: former, Seq: cut.Sequence - 1}) {
		t.Error("what was read before the log went back is not in it again")
	}
}

// TestWhatOutlivesTheLogIsCommittedAgain: the log has an entry that says the same as the
// lost one, and leaves it a year earlier.
func TestWhatOutlivesTheLogIsCommittedAgain(t *testing.T) {
	n := enginetest.NATS(t)
	nc := n.Conn(t, "revocation")
	l := start(t, nc, nil)
	long := mustCommit(t, l.Ledger, request("k1", commit.Revoke, "key:k"))
	want := l.View().State(keyOf("key:k")).Until
	short := request("k2", commit.Revoke, "key:k")
	short.Record = true
	mustCommit(t, l.Ledger, short)
	former := l.Epoch()
	n.Stop()
	flip(t, n.Dir, long.ID)
	n.Start(t)
	waitEpoch(t, l.Ledger, former)
	l.stop()
	if got := start(t, nc, nil).View().State(keyOf("key:k")); !got.Ended || got.Until != want {
		t.Errorf("the log says %+v, want it to count until %d", got, want)
	}
}
