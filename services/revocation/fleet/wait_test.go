package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// anyLog has whatever is named, up to its head.
type anyLog struct{ head wire.Position }

func (l *anyLog) Holds(p wire.Position) (has, known bool) {
	known = !l.head.Less(p.Stamp)
	return known, known
}
func (l *anyLog) Head() wire.Position { return l.head }

// waited is a fleet of n guards that have joined, and an entry after them.
func waited(n int) (*Fleet, *anyLog, Entry) {
	l := &anyLog{}
	f := New(Config{Log: l})
	l.write(f, wire.Message{Kind: wire.KindEpoch, Epoch: 1, D: &revoke.Stamp{}})
	for i := range n {
		l.join(f, i)
	}
	l.write(f, wire.Message{Kind: wire.KindEntry, Epoch: 1})
	return f, l, Entry{At: l.head.Stamp, CommittedAt: time.Now()}
}

func (l *anyLog) write(f *Fleet, m wire.Message) {
	l.head.Epoch, l.head.Seq = m.Epoch, l.head.Seq+1
	f.Applied(wire.Stored{Sequence: l.head.Seq, Time: time.Now().UnixMilli(), Message: m})
}

func (l *anyLog) join(f *Fleet, i int) {
	l.write(f, wire.Message{
		Kind: wire.KindJoin, Epoch: 1, Name: "orders", Instance: fmt.Sprint(i), LimitMS: 15000, Past: wire.PastDeny,
	})
}

// TestAWaitJudgesOnlyWhoIsLeft: of a large fleet all reports would otherwise pay
// for all guards, under the lock that they want themselves.
func TestAWaitJudgesOnlyWhoIsLeft(t *testing.T) {
	f, log, e := waited(100)
	var l look
	for i := range 100 {
		if c, _ := f.confirmLocked(e, time.Now(), &l); len(l.left) != 100-i || len(c.Confirmed) != i || len(c.Unconfirmed) != 100-i || c.Complete {
			t.Fatalf("after %d reports: %d left, %d confirmed, %d not, complete: %t", i, len(l.left), len(c.Confirmed), len(c.Unconfirmed), c.Complete)
		}
		f.Heard("orders", fmt.Sprint(i), log.head)
		if i > 0 { // confirmed in the look above: to judge it again would show
			f.guards[fmt.Sprint(i-1)].at = wire.Position{}
		}
	}
	if c, _ := f.confirmLocked(e, time.Now(), &l); len(c.Confirmed) != 100 || !c.Complete {
		t.Errorf("at the end %d confirmed, complete: %t", len(c.Confirmed), c.Complete)
	}
}

// TestAWaitSeesWhoJoins: a replica that reads the log from its beginning meets the
// guards below an entry one after the other.
func TestAWaitSeesWhoJoins(t *testing.T) {
	f, log, e := waited(1)
	e.At.Seq += 2
	var l look
	f.Heard("orders", "0", log.head)
	f.confirmLocked(e, time.Now(), &l)
	log.join(f, 1)
	log.write(f, wire.Message{Kind: wire.KindEntry, Epoch: 1})
	f.Heard("orders", "0", log.head)
	if c, _ := f.confirmLocked(e, time.Now(), &l); len(c.Unconfirmed) != 1 || c.Complete {
		t.Errorf("%+v: want the guard that joined meanwhile unconfirmed", c)
	}
	log.write(f, wire.Message{Kind: wire.KindOut, Epoch: 1, Name: "orders", Instance: "1", By: wire.BySelf})
	if c, _ := f.confirmLocked(e, time.Now(), &l); len(c.Unconfirmed) != 0 || !c.Complete {
		t.Errorf("%+v: want it gone once it is out", c)
	}
}
