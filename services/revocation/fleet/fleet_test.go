package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/problem"
)

// world is a fleet beside a log that the test writes. Time is that of synctest.
type world struct {
	t      *testing.T
	fleet  *fleet.Fleet
	epoch  uint64
	seq    uint64
	ids    map[uint64]string
	full   error // of Join and Out
	joined []wire.JoinRequest
	outs   []ledger.OutOrder
}

type redisView struct {
	mu sync.Mutex
	at revoke.Stamp
}

func (r *redisView) apply(s revoke.Stamp) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = s
}

func (r *redisView) AppliedAt(s revoke.Stamp) (time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at.Less(s) {
		return time.Time{}, false
	}
	return time.Now(), true
}

func newWorld(t *testing.T, cfg fleet.Config) *world {
	w := &world{t: t, ids: map[uint64]string{}}
	cfg.Log = w
	w.fleet = fleet.New(cfg)
	w.write(wire.Message{Kind: wire.KindEpoch, Epoch: 1, D: &revoke.Stamp{}})
	return w
}

// Holds and Head implement fleet.Log.
func (w *world) Holds(p wire.Position) (has, known bool) {
	id, ok := w.ids[p.Seq]
	return ok && id == p.ID, ok
}

func (w *world) Head() wire.Position {
	p := wire.Position{ID: w.ids[w.seq]}
	p.Epoch, p.Seq = w.epoch, w.seq
	return p
}

// Join and Out implement fleet.Appender.
func (w *world) Join(_ context.Context, name string, r wire.JoinRequest) (wire.Position, error) {
	if w.full != nil {
		return wire.Position{}, w.full
	}
	w.joined = append(w.joined, r)
	return w.write(wire.Message{Kind: wire.KindJoin, Name: name, Instance: r.Instance, LimitMS: r.LimitMS, Past: r.Past}), nil
}

func (w *world) Out(_ context.Context, o ledger.OutOrder) (wire.Position, error) {
	if w.full != nil {
		return wire.Position{}, w.full
	}
	w.outs = append(w.outs, o)
	return w.write(wire.Message{Kind: wire.KindOut, Name: o.Name, Instance: o.Instance, By: o.By}), nil
}

// write appends a message and applies it.
func (w *world) write(m wire.Message) wire.Position {
	w.seq++
	if m.Epoch == 0 {
		m.Epoch = w.epoch
	}
	w.epoch = m.Epoch
	m.ID = fmt.Sprintf("m%d.%d", w.epoch, w.seq)
	w.ids[w.seq] = m.ID
	w.fleet.Applied(wire.Stored{Sequence: w.seq, Time: time.Now().UnixMilli(), Message: m})
	return w.Head()
}

func (w *world) join(name, instance, past string, limit time.Duration) {
	w.t.Helper()
	a := w.fleet.Join(w.t.Context(), w, name, wire.JoinRequest{Instance: instance, LimitMS: limit.Milliseconds(), Past: past})
	if a.Error != nil {
		w.t.Fatalf("%s does not join: %v", instance, a.Error)
	}
}

func (w *world) entry() fleet.Entry {
	return fleet.Entry{At: w.write(wire.Message{Kind: wire.KindEntry}).Stamp, CommittedAt: time.Now()}
}

func (w *world) heard(name, instance string) { w.fleet.Heard(name, instance, w.Head()) }

func (w *world) now(e fleet.Entry) fleet.Confirmation { return w.fleet.Wait(w.t.Context(), e, 0) }

// names are the instances that have and have not confirmed.
func names(c fleet.Confirmation) string {
	var has, lacks []string
	for _, x := range c.Confirmed {
		has = append(has, x.Instance)
	}
	for _, x := range c.Unconfirmed {
		lacks = append(lacks, x.Instance)
	}
	return fmt.Sprintf("%s|%s|%t", strings.Join(has, ","), strings.Join(lacks, ","), c.Complete)
}

func (w *world) want(e fleet.Entry, want string) {
	w.t.Helper()
	if got := names(w.now(e)); got != want {
		w.t.Errorf("confirmed|unconfirmed|complete: %s, want %s", got, want)
	}
}

func TestConfirmedByWhoSaidSoAndNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fleet.Config{})
		w.join("orders", "a", wire.PastDeny, 15*time.Second)
		w.join("orders", "b", wire.PastDeny, 15*time.Second)
		before := w.Head()
		e := w.entry()
		w.join("orders", "late", wire.PastDeny, 15*time.Second) // has it by its join
		w.want(e, "|a,b|false")
		w.fleet.Heard("orders", "a", before) // below it
		w.want(e, "|a,b|false")
		w.heard("billing", "a") // another's name, which the broker vouches for
		w.want(e, "|a,b|false")
		w.fleet.Heard("orders", "a", wire.Position{Stamp: e.At, ID: "another"}) // not this log's message
		w.want(e, "|a,b|false")
		w.heard("orders", "stranger")
		time.Sleep(time.Second)
		w.heard("orders", "a")
		w.want(e, "a|b|false")
		if at := w.now(e).Confirmed[0].At; !at.Equal(time.Now()) {
			t.Errorf("confirmed at %s, want when it was heard, %s", at, time.Now())
		}
		w.heard("orders", "b")
		w.want(e, "a,b||true")
	})
}

// TestPositionAheadOfTheReplicaCountsOnceItIsThere: reports may overtake the
// feed of the replica that hears them.
func TestPositionAheadOfTheReplicaCountsOnceItIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fleet.Config{})
		w.join("orders", "a", wire.PastDeny, 15*time.Second)
		w.join("orders", "b", wire.PastDeny, 15*time.Second)
		next := wire.Position{Stamp: revoke.Stamp{Epoch: 1, Seq: w.seq + 1}, ID: fmt.Sprintf("m1.%d", w.seq+1)}
		w.fleet.Heard("orders", "a", next)
		next.ID = "of another history"
		w.fleet.Heard("orders", "b", next)
		w.want(w.entry(), "a|b|false")
	})
}

func TestSilentGuardIsFencedAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fleet.Config{ViewLimit: 20 * time.Second})
		w.join("orders", "deny", wire.PastDeny, 15*time.Second)
		w.join("orders", "redis", wire.PastRedis, 15*time.Second) // bounded by the Redis readers' limit too
		e := w.entry()
		for _, u := range w.now(e).Unconfirmed {
			want := map[string]time.Duration{"deny": 15 * time.Second, "redis": 20 * time.Second}[u.Instance]
			if got := u.FencedBy.Sub(e.CommittedAt); got != want || u.Open {
				t.Errorf("%s is fenced after %s, open %t; want %s", u.Instance, got, u.Open, want)
			}
		}
		began := time.Now()
		if c := w.fleet.Wait(t.Context(), e, time.Minute); !c.Complete || len(c.Unconfirmed) != 2 {
			t.Errorf("after their limits: %s, want complete with both named", names(c))
		}
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("complete after %s, want at the moment of the last fence, 20s", took)
		}
		for _, g := range w.fleet.List() {
			if g.State != fleet.StateFenced && g.Instance == "deny" {
				t.Errorf("%s is %s, want fenced", g.Instance, g.State)
			}
		}
	})
}

func TestGuardThatAllowsIsOpenAndNeverComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fleet.Config{})
		w.join("batch", "open", wire.PastAllow, 15*time.Second)
		e := w.entry()
		time.Sleep(30 * 24 * time.Hour)
		c := w.now(e)
		if names(c) != "|open|false" || !c.Unconfirmed[0].Open || !c.Unconfirmed[0].FencedBy.IsZero() {
			t.Errorf("%+v, want it open, and never bounded", c)
		}
		if _, err := w.Out(t.Context(), ledger.OutOrder{Name: "batch", Instance: "open", By: wire.ByOperator}); err != nil {
			t.Fatal(err)
		}
		w.want(e, "|open|false") // it may not have seen the out
		w.heard("batch", "open")
		w.want(e, "||true") // it has seen that it is out, and joins anew before it accepts
	})
}

func TestWhoIsOutCountsNoMore(t *testing.T) {
	for _, c := range []struct {
		by   string
		want string // at once
	}{
		{wire.BySelf, "||true"}, {wire.ByProof, "||true"}, {wire.ByOperator, "|a|false"},
	} {
		t.Run(c.by, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fleet.Config{})
				w.join("orders", "a", wire.PastDeny, 15*time.Second)
				if _, err := w.Out(t.Context(), ledger.OutOrder{Name: "orders", Instance: "a", By: c.by}); err != nil {
					t.Fatal(err)
				}
				outAt := time.Now()
				time.Sleep(14 * time.Second)
				e := w.entry()
				w.want(e, c.want)
				// Put out by an operator it may not know so: it counts as long as it can decide.
				time.Sleep(time.Until(outAt.Add(15 * time.Second)))
				w.want(e, "||true")
				w.join("orders", "a", wire.PastDeny, 15*time.Second) // and joins again
				w.want(w.entry(), "|a|false")
				w.want(e, "||true")
			})
		})
	}
}

func TestRedisViewCountsAsAReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		view := &redisView{}
		w := newWorld(t, fleet.Config{Redis: view})
		e := w.entry()
		c := w.now(e)
		if c.Complete || c.Redis == nil || !c.Redis.AppliedAt.IsZero() || !c.Redis.FencedBy.Equal(e.CommittedAt.Add(3*time.Second)) {
			t.Errorf("before: %+v, %+v", c, c.Redis)
		}
		time.AfterFunc(time.Second, func() { view.apply(e.At) })
		if c := w.fleet.Wait(t.Context(), e, time.Minute); !c.Complete || c.Redis.AppliedAt.IsZero() {
			t.Errorf("after: %+v", c)
		}
	})
}

// TestNothingIsCompleteWhileGuardsOfAFormerHistoryMayDecide: whoever has not
// noticed the new epoch decides until its limit, and is not listed in it.
func TestNothingIsCompleteWhileGuardsOfAFormerHistoryMayDecide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fleet.Config{})
		w.join("orders", "a", wire.PastDeny, 15*time.Second)
		w.join("batch", "open", wire.PastAllow, 15*time.Second)
		w.write(wire.Message{Kind: wire.KindEpoch, Epoch: 2, D: &revoke.Stamp{Epoch: 1, Seq: 1}})
		e := w.entry()
		w.want(e, "|open|false") // what nothing bounds stays, also across histories
		w.heard("batch", "open")
		w.want(e, "open||false")
		time.Sleep(wire.MaxLimit)
		w.want(e, "open||true")
	})
}

func TestJoinLongerThanTheMostIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fleet.Config{MaxLimit: 30 * time.Second})
		a := w.fleet.Join(t.Context(), w, "orders", wire.JoinRequest{Instance: "a", LimitMS: 30_001, Past: wire.PastDeny})
		if a.Error == nil || !strings.Contains(a.Error.Detail, "30s") {
			t.Errorf("%+v, want a refusal that names the most", a)
		}
		w.join("orders", "a", wire.PastDeny, 30*time.Second)
		a = w.fleet.Join(t.Context(), w, "billing", wire.JoinRequest{Instance: "a", LimitMS: 1000, Past: wire.PastDeny})
		if a.Error == nil {
			t.Error("another identity took the instance over")
		}
		if a := w.fleet.Leave(t.Context(), w, "billing", wire.OutRequest{Instance: "a"}); a.Error == nil {
			t.Error("another identity took the instance out")
		}
		w.full = errors.New("the log is away")
		if a := w.fleet.Join(t.Context(), w, "orders", wire.JoinRequest{Instance: "b", LimitMS: 1000, Past: wire.PastDeny}); a.Error == nil {
			t.Error("joined though nothing was committed")
		}
	})
}

func TestAtTheCapTheOldestPastItsLimitMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fleet.Config{Cap: 4})
		for _, x := range []struct{ instance, past string }{
			{"open", wire.PastAllow}, {"old", wire.PastDeny}, {"middle", wire.PastDeny}, {"young", wire.PastDeny},
		} {
			w.join("orders", x.instance, x.past, 15*time.Second)
			time.Sleep(time.Second)
		}
		w.join("billing", "other", wire.PastDeny, 15*time.Second) // has a cap of its own
		a := w.fleet.Join(t.Context(), w, "orders", wire.JoinRequest{Instance: "new", LimitMS: 15_000, Past: wire.PastDeny})
		if a.Error == nil || a.Error.Code != "cap" {
			t.Fatalf("%+v, want a refusal by the cap: all are within their limit", a)
		}
		w.join("orders", "young", wire.PastDeny, 15*time.Second) // who is in may join again
		time.Sleep(16 * time.Second)
		w.heard("orders", "young")
		time.Sleep(time.Millisecond)
		w.join("orders", "new", wire.PastDeny, 15*time.Second)
		if len(w.outs) != 1 || w.outs[0].Instance != "old" || w.outs[0].By != wire.ByProof {
			t.Errorf("put out: %+v, want the oldest that is past its limit, and never one that is open", w.outs)
		}
	})
}

func TestJoinsOfOpenGuardsAreRenewedAndOthersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fleet.Config{})
		w.join("orders", "deny", wire.PastDeny, 15*time.Second)
		w.join("batch", "open", wire.PastAllow, 15*time.Second)
		time.Sleep(23 * time.Hour)
		w.fleet.Renew(t.Context(), w)
		if len(w.joined) != 2 {
			t.Fatalf("renewed before a day: %+v", w.joined)
		}
		time.Sleep(time.Hour)
		w.full = errors.New("the log is away")
		w.fleet.Renew(t.Context(), w)
		w.full = nil
		w.fleet.Renew(t.Context(), w)
		if len(w.joined) != 3 || w.joined[2].Instance != "open" || w.joined[2].Past != wire.PastAllow {
			t.Fatalf("after a day: %+v, want the open one's join again, once it can be", w.joined)
		}
		// A join counts for two days; the clocks' slack and the limit later it is forgotten.
		e := w.entry()
		time.Sleep(wire.JoinLife - 24*time.Hour + wire.Slack + 15*time.Second)
		if !slices.ContainsFunc(w.now(e).Unconfirmed, func(u fleet.Unconfirmed) bool { return u.Instance == "deny" }) {
			t.Error("a guard was forgotten while it could decide")
		}
		time.Sleep(time.Millisecond)
		w.want(e, "|open|false")
		w.fleet.Renew(t.Context(), w)
		if l := w.fleet.List(); len(l) != 1 || l[0].Instance != "open" {
			t.Errorf("listed: %+v, want the open one", l)
		}
	})
}

// TestReplayForgetsNobodyWhoIsOpen: a service that reads the log again keeps what
// a guard that allows has said; nothing else bounds that one.
func TestReplayForgetsNobodyWhoIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fleet.Config{})
		w.join("orders", "deny", wire.PastDeny, 15*time.Second)
		w.join("batch", "open", wire.PastAllow, 15*time.Second)
		w.fleet.Restarted()
		w.want(w.entry(), "|open|false")
	})
}

func TestGoneTakesOutAllOfItsNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fleet.Config{})
		w.join("demo", "a", wire.PastDeny, 15*time.Second)
		w.join("issuer", "b", wire.PastDeny, 15*time.Second)
		w.join("app", "c", wire.PastDeny, 15*time.Second)
		if err := w.fleet.Gone(t.Context(), w, []string{"demo", "issuer"}, "its process is gone"); err != nil {
			t.Fatal(err)
		}
		w.want(w.entry(), "|c|false")
		w.full = errors.New("the log is away")
		if err := w.fleet.Gone(t.Context(), w, []string{"app"}, "its process is gone"); err == nil {
			t.Error("said to be gone though nothing was committed")
		}
	})
}

func (w *world) lacking(e fleet.Entry, name string, d time.Duration) []fleet.Unconfirmed {
	w.t.Helper()
	l, err := w.fleet.Lacking(w.t.Context(), e, name, d)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// Who reads the log again knows no guards at first: nothing is complete by that, and
// nobody lacks nothing.
func TestNothingIsCompleteWhileTheLogIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fleet.Config{})
		w.join("orders", "o", wire.PastDeny, 15*time.Second)
		e := w.entry()
		w.fleet.Restarted()
		if c := w.fleet.Wait(t.Context(), e, time.Second); c.Complete {
			t.Error("complete, by who has read nothing")
		}
		if l, err := w.fleet.Lacking(t.Context(), e, "", time.Second); problem.KindOf(err) != problem.Unavailable {
			t.Errorf("%+v, %v; want that it can't tell", l, err)
		}
	})
}

func TestLackingIsAnsweredAsSoonAsNobodyLacksIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fleet.Config{})
		w.join("issuer", "i", wire.PastDeny, 15*time.Second)
		w.join("orders", "o", wire.PastDeny, 15*time.Second)
		e := w.entry()
		began := time.Now()
		if l := w.lacking(e, "issuer", 2*time.Second); len(l) != 1 || time.Since(began) != 2*time.Second {
			t.Errorf("%+v after %s, want the issuer after all the wait", l, time.Since(began))
		}
		time.AfterFunc(time.Second, func() { w.heard("issuer", "i") })
		began = time.Now()
		if l := w.lacking(e, "issuer", 5*time.Second); len(l) != 0 || time.Since(began) > 2*time.Second {
			t.Errorf("%+v after %s, want nobody soon after the issuer was heard", l, time.Since(began))
		}
		if l := w.lacking(e, "", 0); len(l) != 1 || l[0].Instance != "o" {
			t.Errorf("of all names: %+v, want o", l)
		}
		// A fence does not end a lack: what a key waits for is that it was applied.
		time.Sleep(time.Minute)
		if l := w.lacking(e, "", 0); len(l) != 1 {
			t.Errorf("past its fence: %+v, want o still", l)
		}
	})
}

// TestEntryOfWhoHadNotHeardOfTheEpochStandsInIt: its answer names the former one,
// and a guard in the new one may still be below it.
func TestEntryOfWhoHadNotHeardOfTheEpochStandsInIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fleet.Config{})
		w.write(wire.Message{Kind: wire.KindEpoch, Epoch: 2, D: &revoke.Stamp{Epoch: 1, Seq: 1}})
		w.join("orders", "a", wire.PastDeny, 15*time.Second)
		w.heard("orders", "a")
		late := w.entry() // stands above the epoch's message
		late.At.Epoch = 1 // as its committer believed
		w.want(late, "|a|false")
		w.heard("orders", "a")
		time.Sleep(wire.MaxLimit)
		w.want(late, "a||true")
	})
}

// TestClocksOfReplicasDiffer: another replica committed, by a clock that is minutes
// behind or ahead; this one counts from when it had applied the entry.
func TestClocksOfReplicasDiffer(t *testing.T) {
	for _, off := range []time.Duration{-3 * time.Minute, 3 * time.Minute, -8 * time.Second} {
		t.Run(off.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fleet.Config{})
				w.join("orders", "a", wire.PastDeny, 15*time.Second)
				time.Sleep(time.Minute)
				e := w.entry()
				e.CommittedAt = e.CommittedAt.Add(off)
				time.Sleep(14 * time.Second)
				w.want(e, "|a|false")
				if by := w.now(e).Unconfirmed[0].FencedBy; time.Until(by) <= 0 {
					t.Errorf("fenced by %s, which is over", by)
				}
				time.Sleep(2 * time.Second)
				w.want(e, "|a|true")
			})
		})
	}
}

// TestLogThatWasMadeAnewIsNotTheFirst: guards of the one that is gone may decide for
// their limit.
func TestLogThatWasMadeAnewIsNotTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fleet.Config{})
		w.want(w.entry(), "||true") // a first start has nobody to wait for
		w.fleet.Restarted()
		w.seq, w.ids = 0, map[uint64]string{}
		w.write(wire.Message{Kind: wire.KindEpoch, Epoch: 2, D: &revoke.Stamp{}})
		e := w.entry()
		w.want(e, "||false")
		time.Sleep(wire.MaxLimit)
		w.want(e, "||true")
	})
	synctest.Test(t, func(t *testing.T) { // and to who has no memory of it, by what is committed again
		w := newWorld(t, fleet.Config{})
		w.write(wire.Message{Kind: wire.KindEntry, Recommitted: &revoke.Stamp{Epoch: 0, Seq: 7}})
		w.want(w.entry(), "||false")
	})
}
