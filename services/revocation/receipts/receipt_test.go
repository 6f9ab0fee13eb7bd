package receipts_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/receipts"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// replica is a fleet that has applied a part of a log, and hears some of what guards say.
type replica struct {
	log   *history
	fleet *fleet.Fleet
	upTo  int // messages of the log
}

// history is a log that a test writes. Time is that of synctest.
type history struct {
	messages []wire.Stored
	epoch    uint64
}

func (h *history) write(m wire.Message) wire.Position {
	if m.Kind == wire.KindEpoch {
		h.epoch = m.Epoch
	}
	m.Epoch = h.epoch
	m.ID = fmt.Sprintf("m%d.%d", h.epoch, len(h.messages)+1)
	s := wire.Stored{Sequence: uint64(len(h.messages) + 1), Time: time.Now().UnixMilli(), Message: m}
	h.messages = append(h.messages, s)
	return s.Position()
}

func (h *history) head() wire.Position { return h.messages[len(h.messages)-1].Position() }

func newReplica(h *history) *replica {
	r := &replica{log: h}
	r.fleet = fleet.New(fleet.Config{Log: r})
	return r
}

// Holds and Head implement fleet.Log.
func (r *replica) Holds(p wire.Position) (has, known bool) {
	if p.Seq == 0 || p.Seq > uint64(r.upTo) {
		return false, false
	}
	return r.log.messages[p.Seq-1].Message.ID == p.ID, true
}

func (r *replica) Head() wire.Position {
	if r.upTo == 0 {
		return wire.Position{}
	}
	return r.log.messages[r.upTo-1].Position()
}

func (r *replica) apply(n int) {
	for ; n > 0 && r.upTo < len(r.log.messages); n-- {
		s := r.log.messages[r.upTo]
		r.upTo++
		r.fleet.Applied(s)
	}
}

// server is a guard as it really is.
type server struct {
	name, instance string
	limit          time.Duration
	open           bool
	joined, at     wire.Position
	out            bool
}

type report struct {
	of *server
	at wire.Position
}

// TestNothingUnprovedGetsIn: whatever is lost, late, doubled or out of order, whoever
// joins or leaves in the middle, and however two replicas and a restarted one write in
// turns, a receipt names as confirmed only who has applied the entry, and is complete
// only when nobody can decide without it any more. What was proved stays.
func TestNothingUnprovedGetsIn(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) { oneStory(t, rand.New(rand.NewPCG(seed, 7))) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func oneStory(t *testing.T, r *rand.Rand) {
	h := &history{}
	h.write(wire.Message{Kind: wire.KindEpoch, Epoch: 1, D: &revoke.Stamp{}})
	replicas := []*replica{newReplica(h), newReplica(h)}
	var servers []*server
	join := func() {
		s := &server{name: "orders", instance: fmt.Sprint("i", len(servers)), limit: time.Duration(1+r.IntN(15)) * time.Second, open: r.IntN(6) == 0}
		past := wire.PastDeny
		if s.open {
			past = wire.PastAllow
		}
		s.joined = h.write(wire.Message{Kind: wire.KindJoin, Name: s.name, Instance: s.instance, LimitMS: s.limit.Milliseconds(), Past: past})
		s.at = s.joined
		servers = append(servers, s)
	}
	for range 1 + r.IntN(4) {
		join()
	}
	for range r.IntN(3) {
		h.write(wire.Message{Kind: wire.KindTick})
	}
	entry := h.write(wire.Message{Kind: wire.KindEntry})
	committed := time.Now()
	stands := receipts.Receipt{CommittedAt: committed.UnixMilli(), Epoch: entry.Epoch, Sequence: entry.Seq}
	var flying []report
	var began time.Time // of a second epoch
	for range 60 {
		switch r.IntN(12) {
		case 0:
			join() // in the middle: it has the entry by its join
		case 1:
			h.write(wire.Message{Kind: wire.KindTick})
		case 2, 3: // a server applies some more, and tells
			s := servers[r.IntN(len(servers))]
			if s.at.Epoch == h.epoch && s.at.Seq < h.head().Seq {
				s.at = h.messages[s.at.Seq+uint64(r.IntN(int(h.head().Seq-s.at.Seq)))].Position()
			}
			flying = append(flying, report{s, s.at})
		case 4, 5, 6: // a report comes: any of them, at any replica, perhaps again
			if len(flying) == 0 {
				continue
			}
			i := r.IntN(len(flying))
			f := flying[i]
			replicas[r.IntN(2)].fleet.Heard(f.of.name, f.of.instance, f.at)
			if r.IntN(3) > 0 {
				flying = slices.Delete(flying, i, i+1)
			}
		case 7, 8:
			replicas[r.IntN(2)].apply(1 + r.IntN(4))
		case 9:
			time.Sleep(time.Duration(r.IntN(5000)) * time.Millisecond)
		case 10:
			switch s := servers[r.IntN(len(servers))]; {
			case r.IntN(4) == 0: // a replica starts anew, and knows nothing of what was said
				replicas[r.IntN(2)] = newReplica(h)
			case r.IntN(3) == 0 && !s.out:
				s.out = true
				h.write(wire.Message{Kind: wire.KindOut, Name: s.name, Instance: s.instance, By: wire.BySelf})
			case r.IntN(4) == 0 && h.epoch == 1:
				shared := h.head().Stamp
				h.write(wire.Message{Kind: wire.KindEpoch, Epoch: 2, D: &shared})
				began = time.Now()
			}
		default:
			// A replica judges what stood there when it read, and writes; or another has
			// written meanwhile, and it reads again.
			stands = judgedBy(t, r, replicas, stands, entry.Stamp)
			check(t, stands, servers, entry, committed, began)
		}
		if t.Failed() {
			return
		}
	}
}

func judgedBy(t *testing.T, r *rand.Rand, replicas []*replica, stands receipts.Receipt, at revoke.Stamp) receipts.Receipt {
	e := fleet.Entry{At: at, CommittedAt: time.UnixMilli(stands.CommittedAt)}
	one := replicas[0].fleet.Wait(t.Context(), e, 0)
	two := replicas[1].fleet.Wait(t.Context(), e, 0)
	if r.IntN(2) == 0 {
		one, two = two, one
	}
	before := stands
	stands = stands.With(one, time.Now())
	if r.IntN(2) == 0 {
		stands = stands.With(two, time.Now())
	}
	for _, c := range before.Confirmed {
		if !slices.ContainsFunc(stands.Confirmed, func(x receipts.Confirmed) bool { return x.Instance == c.Instance && x.At <= c.At }) {
			t.Errorf("%s had confirmed, and is not named any more", c.Instance)
		}
	}
	if before.Complete && fmt.Sprint(before) != fmt.Sprint(stands) {
		t.Errorf("a complete receipt was changed: %+v to %+v", before, stands)
	}
	return stands
}

// check holds a receipt against how things really are.
func check(t *testing.T, r receipts.Receipt, servers []*server, entry wire.Position, committed, began time.Time) {
	named := map[string]int{}
	for _, c := range r.Confirmed {
		named[c.Instance]++
	}
	for _, u := range r.Unconfirmed {
		named[u.Instance]++
	}
	for _, o := range r.Out {
		named[o.Instance]++
	}
	for i, n := range named {
		if n > 1 {
			t.Errorf("%s is named %d times", i, n)
		}
	}
	for _, s := range servers {
		has := !s.at.Less(entry.Stamp)
		confirmed := slices.ContainsFunc(r.Confirmed, func(c receipts.Confirmed) bool { return c.Instance == s.instance })
		if confirmed && !has {
			t.Errorf("%s is confirmed, and is at %s", s.instance, s.at)
		}
		if slices.ContainsFunc(r.Out, func(o receipts.Out) bool { return o.Instance == s.instance }) && !s.out {
			t.Errorf("%s is told to be out, and is not", s.instance)
		}
		if !r.Complete || !s.joined.Less(entry.Stamp) || has || s.out {
			continue
		}
		judged := time.UnixMilli(r.JudgedAt)
		if s.open {
			t.Errorf("complete, and %s is open", s.instance)
		} else if judged.Before(committed.Add(s.limit)) {
			t.Errorf("complete at %s, and %s decides without it until %s", judged, s.instance, committed.Add(s.limit))
		}
	}
	if r.Complete && r.JudgedEpoch == 2 && time.UnixMilli(r.JudgedAt).Before(began.Add(wire.MaxLimit)) {
		t.Errorf("complete in a new epoch after %s, before whoever has not noticed is past the largest limit", time.UnixMilli(r.JudgedAt).Sub(began))
	}
}

// TestANewEpochVoidsWhatIsNotComplete: a judgement of the former epoch comes too late,
// and who is missing in the new one is not told to be out.
func TestANewEpochVoidsWhatIsNotComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &history{}
		h.write(wire.Message{Kind: wire.KindEpoch, Epoch: 1, D: &revoke.Stamp{}})
		h.write(wire.Message{Kind: wire.KindJoin, Name: "orders", Instance: "a", LimitMS: 15000, Past: wire.PastDeny})
		h.write(wire.Message{Kind: wire.KindJoin, Name: "orders", Instance: "b", LimitMS: 15000, Past: wire.PastDeny})
		entry := h.write(wire.Message{Kind: wire.KindEntry})
		e := fleet.Entry{At: entry.Stamp, CommittedAt: time.Now()}
		behind, ahead := newReplica(h), newReplica(h)
		behind.apply(9)
		for _, i := range []string{"a", "b"} {
			behind.fleet.Heard("orders", i, entry)
		}
		old := behind.fleet.Wait(t.Context(), e, 0)
		if !old.Complete {
			t.Fatal("not complete before")
		}
		h.write(wire.Message{Kind: wire.KindEpoch, Epoch: 2, D: &entry.Stamp})
		ahead.apply(9)
		r := receipts.Receipt{Epoch: 1, Sequence: entry.Seq, JudgedEpoch: 1, Unconfirmed: []receipts.Unconfirmed{{Name: "orders", Instance: "a"}, {Name: "orders", Instance: "b"}}}
		opened := r
		opened.Unconfirmed = []receipts.Unconfirmed{{Name: "orders", Instance: "o", Open: true}}
		settled := time.Now().Add(wire.MaxLimit).UnixMilli()
		r = r.With(ahead.fleet.Wait(t.Context(), e, 0), time.Now())
		if r.Complete || r.JudgedEpoch != 2 || len(r.Out) != 0 || len(r.Unconfirmed) != 2 {
			t.Fatalf("after the new epoch: %+v, want nobody out or left away, and it not complete", r)
		}
		if r = r.With(old, time.Now()); r.Complete || len(r.Confirmed) > 0 {
			t.Errorf("what was judged in the former epoch is taken: %+v", r)
		}
		time.Sleep(wire.MaxLimit - time.Second)
		if r = r.With(ahead.fleet.Wait(t.Context(), e, 0), time.Now()); r.Complete {
			t.Error("complete before the largest limit has passed")
		}
		time.Sleep(2 * time.Second)
		if r = r.With(ahead.fleet.Wait(t.Context(), e, 0), time.Now()); !r.Complete {
			t.Error("not complete after the largest limit")
		}
		if len(r.Unconfirmed) != 2 || len(r.Out) != 0 {
			t.Errorf("%+v: want both that had not confirmed named", r)
		}
		for _, u := range r.Unconfirmed {
			if u.FencedBy < settled || !u.Fenced || u.Former != 1 {
				t.Errorf("%+v, want it fenced by %d, when the largest limit had passed", u, settled)
			}
		}
		for range 2 {
			opened = opened.With(ahead.fleet.Wait(t.Context(), e, 0), time.Now())
		}
		if opened.Complete || len(opened.Out) != 0 || len(opened.Unconfirmed) != 1 || !opened.Unconfirmed[0].Open {
			t.Errorf("an open guard that the new epoch does not know: %+v, want it named, and this not complete", opened)
		}
	})
}
