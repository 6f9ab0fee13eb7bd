package ledger

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Bounds of one tail. An answer must fit into a message of the broker, whose
// default is 1 MiB.
const (
	maxTail      = 4096
	maxTailBytes = 512 << 10
)

// refusal codes.
const (
	codeNotReady = "not_ready"
	codeWentBack = "log_went_back"
	codeInvalid  = "invalid"
)

func notReadyRefusal(err error) *wire.Refusal {
	return &wire.Refusal{Code: codeNotReady, Detail: err.Error()}
}

// Sync answers a reader (by the name of its NATS user) with a tail, if the log
// holds the very message that it names, and otherwise with the announcement of
// the whole state.
func (l *Ledger) Sync(ctx context.Context, reader string, r wire.SyncRequest) wire.SyncAnswer {
	if err := l.Ready(); err != nil {
		return wire.SyncAnswer{Error: notReadyRefusal(err)}
	}
	at := r.Position.Position()
	if refusal := l.judge(ctx, reader, at, r.Recent); refusal != nil {
		return wire.SyncAnswer{Error: refusal}
	}
	if answer, ok := l.tail(at); ok {
		return answer
	}
	whole, err := l.announce()
	if err != nil {
		return wire.SyncAnswer{Error: notReadyRefusal(err)}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return wire.SyncAnswer{Whole: &whole, Head: l.head.JSON(), Stamp: l.stamp}
}

// tail returns what came after a position that the log holds.
func (l *Ledger) tail(at wire.Position) (wire.SyncAnswer, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at.Seq == 0 {
		return wire.SyncAnswer{}, false
	}
	if has, _ := l.holdsLocked(at); !has {
		return wire.SyncAnswer{}, false
	}
	a := wire.SyncAnswer{Head: l.head.JSON(), Stamp: l.stamp, Tail: []wire.Stored{}}
	size := 0
	for i := l.ring.search(at.Seq + 1); i < l.ring.len(); i++ {
		it := l.ring.at(i)
		if size += len(it.raw) + 64; len(a.Tail) == maxTail || size > maxTailBytes && len(a.Tail) > 0 {
			a.More = true
			break
		}
		s, err := it.stored()
		if err != nil {
			return wire.SyncAnswer{}, false // can't be: it was decoded before
		}
		a.Tail = append(a.Tail, s)
	}
	return a, true
}

// Probe answers with a tick that is committed after the call.
func (l *Ledger) Probe(ctx context.Context, reader string, r wire.ProbeRequest) wire.ProbeAnswer {
	if err := l.Ready(); err != nil {
		return wire.ProbeAnswer{Error: notReadyRefusal(err)}
	}
	if len(r.Recent) > 0 {
		if refusal := l.judge(ctx, reader, r.Position.Position(), r.Recent); refusal != nil {
			return wire.ProbeAnswer{Error: refusal}
		}
	} else if at := r.Position.Position(); l.contradicts(at) {
		// No new epoch yet: the reader shows more than this when it comes again.
		return wire.ProbeAnswer{Error: &wire.Refusal{Code: codeWentBack, Detail: "the log has another message at the reader's position"}}
	}
	at, err := l.ticks.ask(ctx, r.Urgent)
	if err != nil {
		return wire.ProbeAnswer{Error: notReadyRefusal(err)}
	}
	return wire.ProbeAnswer{Tick: at.JSON()}
}

// contradicts reports whether the log has certainly something else at a position
// of the current history.
func (l *Ledger) contradicts(at wire.Position) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	has, known := l.holdsLocked(at)
	return at.Seq != 0 && at.Epoch == l.epoch && known && !has
}

// judge refuses a reader whose positions show that the log went back, after it
// has told Run. A position above the head is judged after a tick.
func (l *Ledger) judge(ctx context.Context, reader string, at wire.Position, recent []wire.PositionJSON) *wire.Refusal {
	var shown []wire.Position
	if at.Seq != 0 {
		shown = append(shown, at)
	}
	for _, p := range recent {
		shown = append(shown, p.Position())
	}
	epoch, head := l.Epoch(), l.Head()
	var top revoke.Stamp
	for _, p := range shown {
		top = top.Max(p.Stamp)
	}
	if top.Epoch < epoch || len(shown) == 0 {
		return nil // of a history that is known to be over
	}
	if top.Epoch > epoch || top.Seq > head.Seq {
		waitCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if err := l.Fresh(waitCtx); err != nil {
			return notReadyRefusal(err)
		}
		epoch, head = l.Epoch(), l.Head()
	}
	if top.Epoch > epoch && top.Epoch > l.latestEpoch() {
		return &wire.Refusal{Code: codeInvalid, Detail: "the epoch " + strconv.FormatUint(top.Epoch, 10) + " is more than a day ahead of the clock"}
	}
	why := l.conflict(shown, epoch, head)
	if why == "" {
		return nil
	}
	l.tell(proof{why: why, by: reader, epoch: epoch, recent: shown, shown: top.Epoch})
	return &wire.Refusal{Code: codeWentBack, Detail: why}
}

// conflict says what in the shown positions can't be in this log; empty: nothing.
func (l *Ledger) conflict(shown []wire.Position, epoch uint64, head wire.Position) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range shown {
		if p.Epoch > epoch {
			return fmt.Sprintf("the epoch %d is not in the log", p.Epoch)
		}
		if p.Epoch < epoch {
			continue
		}
		has, known := l.holdsLocked(p)
		switch {
		case p.Seq > head.Seq:
			return fmt.Sprintf("the log ends at %d, and a reader has %d", head.Seq, p.Seq)
		case has:
			return "" // its newest one is there: the reader is behind, or wrong
		case known:
			return fmt.Sprintf("the log has another message at %d than a reader", p.Seq)
		}
	}
	return ""
}

// Join appends the join of a reader's instance, each time a message of its own.
func (l *Ledger) Join(ctx context.Context, reader string, r wire.JoinRequest) (wire.Position, error) {
	m := wire.Message{Kind: wire.KindJoin, Name: reader, Instance: r.Instance, LimitMS: r.LimitMS, Past: r.Past}
	return l.Append(ctx, wire.LogJoin+r.Instance, m, wire.JoinLife, EventData{
		Op: "join", Service: "revocation", Actor: reader, Reason: "a reader joins", Name: reader, Instance: r.Instance,
	})
}

// Out appends the end of a join. By is one of the words of wire.Message.By.
func (l *Ledger) Out(ctx context.Context, o OutOrder) (wire.Position, error) {
	m := wire.Message{Kind: wire.KindOut, Name: o.Name, Instance: o.Instance, By: o.By}
	return l.Append(ctx, wire.LogOut+o.Instance, m, wire.JoinLife, EventData{
		Op: "out", Service: "revocation", Actor: o.Actor, Reason: o.Reason, Name: o.Name, Instance: o.Instance,
	})
}

// OutOrder says who is out, by whose word and why.
type OutOrder struct {
	Name, Instance, By, Actor, Reason string
}

// Shown judges positions that something else than a reader has (Redis' meta, say).
func (l *Ledger) Shown(ctx context.Context, by string, newestFirst []wire.Position) error {
	var recent []wire.PositionJSON
	for _, p := range newestFirst {
		recent = append(recent, p.JSON())
	}
	if refusal := l.judge(ctx, by, wire.Position{}, recent); refusal != nil {
		return refusal
	}
	return nil
}

// Find returns the event of an entry and where it stands.
func (l *Ledger) Find(ctx context.Context, id string) (Event, wire.Stored, error) {
	r, err := l.getLast(ctx, wire.LogEntry+id)
	if err != nil {
		return Event{}, wire.Stored{}, err
	}
	e, err := readEvent(r.data)
	at, wrong := l.place(r)
	s := r.stored
	s.Message.Epoch = at.Epoch
	return e, s, errors.Join(err, r.err, wrong)
}

// EventAt returns the event of a message that was applied.
func (l *Ledger) EventAt(ctx context.Context, s wire.Stored) (Event, error) {
	r, err := l.getBySeq(ctx, s.Sequence)
	if err != nil {
		return Event{}, err
	}
	if r.stored.Message.ID != s.Message.ID {
		return Event{}, ErrNoMessage // the log went back since
	}
	return readEvent(r.data)
}

// EventOf returns the event at a position, if the log still has it.
func (l *Ledger) EventOf(ctx context.Context, at revoke.Stamp) (Event, error) {
	r, err := l.getBySeq(ctx, at.Seq)
	if err != nil {
		return Event{}, err
	}
	stands, err := l.place(r)
	if err != nil {
		return Event{}, err
	}
	if stands.Epoch != at.Epoch {
		return Event{}, ErrNoMessage
	}
	return readEvent(r.data)
}

// Asked reports whether the log has the entry of an idempotency key: then its request was
// answered before, or should have been.
func (l *Ledger) Asked(ctx context.Context, tenant, service, key string) (bool, error) {
	_, _, err := l.Find(ctx, hashOf("entry", tenant, service, key))
	if errors.Is(err, ErrNoMessage) {
		return false, nil
	}
	return err == nil, err
}
