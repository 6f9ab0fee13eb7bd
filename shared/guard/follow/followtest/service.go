package followtest

import (
	"context"
	"fmt"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// holds tells whether the log has this very message at this position, and
// whether it certainly has not.
func (l *Log) holds(p wire.PositionJSON) (yes, no bool) {
	if p.Sequence == 0 {
		return false, false
	}
	if p.Sequence > uint64(len(l.messages)) {
		return false, true
	}
	m := l.messages[p.Sequence-1]
	if m == nil {
		return false, false // gone by its time to live
	}
	return m.Message.ID == p.ID, m.Message.ID != p.ID
}

// judge begins a new epoch if a reader shows that the log has gone back. It
// reports whether the reader's position can't be answered from.
func (l *Log) judge(at wire.PositionJSON, recent []wire.PositionJSON) bool {
	if at.Epoch != 0 && at.Sequence > uint64(len(l.messages)) {
		l.commit(wire.Message{Kind: wire.KindTick}) // then judge
	}
	_, no := l.holds(at)
	ahead := false // of an epoch that the log has lost
	for _, p := range recent {
		_, other := l.holds(p)
		no = no || other
		if p.Epoch > l.epoch {
			ahead, l.epoch = true, p.Epoch
		}
	}
	if no && (ahead || at.Epoch == l.epoch) && !l.cfg.Blind {
		var d revoke.Stamp
		for _, p := range recent {
			if yes, _ := l.holds(p); yes && d.Less(p.Position().Stamp) {
				d = p.Position().Stamp
			}
		}
		l.beginEpoch(d)
	}
	return no
}

func (l *Log) sync(req wire.SyncRequest) (wire.SyncAnswer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Sync++
	if err := req.Check(); err != nil {
		return wire.SyncAnswer{Error: &wire.Refusal{Code: "invalid", Detail: err.Error()}}, nil
	}
	l.judge(req.Position, req.Recent)
	ans := wire.SyncAnswer{Head: l.head().JSON(), Stamp: l.stamp}
	if yes, _ := l.holds(req.Position); !yes {
		return ans, l.whole(&ans)
	}
	for _, m := range l.messages[req.Position.Sequence:] {
		switch {
		case m == nil:
			continue
		case len(ans.Tail) == l.cfg.Tail:
			ans.More = true
			return ans, nil
		}
		if err := known(m.Message); err != nil {
			return ans, err // as decoding the answer would have said
		}
		ans.Tail = append(ans.Tail, *m)
	}
	return ans, nil
}

func known(m wire.Message) error {
	switch m.Kind {
	case wire.KindEpoch, wire.KindEntry, wire.KindKey, wire.KindJoin, wire.KindOut, wire.KindTick:
		return nil
	}
	if m.Optional {
		return nil
	}
	return fmt.Errorf("%w: %q", wire.ErrUnknownKind, m.Kind)
}

func (l *Log) whole(ans *wire.SyncAnswer) error {
	id, err := wire.NewID(l.cfg.Rand)
	if err != nil {
		return err
	}
	snap := wire.Snapshot{ID: id, Epochs: l.view.Epochs(), States: l.view.All}
	for _, kid := range l.order {
		snap.Keys = append(snap.Keys, l.keys[kid])
	}
	pages, err := wire.EncodePages(snap)
	if err != nil {
		return err
	}
	l.snapshots[id] = pages
	ans.Whole = &wire.Whole{Replica: "one", Snapshot: id, Pages: len(pages), Position: l.head().JSON()}
	return nil
}

func (l *Log) page(req wire.PageRequest) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Page++
	pages := l.snapshots[req.Snapshot]
	if req.Page < 0 || req.Page >= len(pages) {
		return nil, &wire.Refusal{Code: "unknown_snapshot", Detail: "no such page"}
	}
	return pages[req.Page], nil
}

// gathering is the probes that one tick will answer.
type gathering struct {
	timer *time.Timer
	done  chan struct{}
	tick  wire.Position
}

func (l *Log) probe(ctx context.Context, req wire.ProbeRequest) (wire.ProbeAnswer, error) {
	l.mu.Lock()
	l.counts.Probe++
	if err := req.Check(); err != nil {
		l.mu.Unlock()
		return wire.ProbeAnswer{Error: &wire.Refusal{Code: "invalid", Detail: err.Error()}}, nil
	}
	l.reports[req.Instance] = req.Position.Position()
	if l.judge(req.Position, req.Recent) && req.Position.Epoch == l.epoch && !l.cfg.Blind {
		l.mu.Unlock()
		return wire.ProbeAnswer{Error: &wire.Refusal{Code: "log_went_back", Detail: "no such position"}}, nil
	}
	g, wait := l.gather, l.cfg.Gather
	if req.Urgent {
		wait = l.cfg.GatherUrgent
	}
	switch {
	case g == nil:
		g = &gathering{done: make(chan struct{})}
		g.timer = time.AfterFunc(wait, func() { l.tickFor(g) })
		l.gather = g
	case req.Urgent && g.timer.Stop():
		g.timer = time.AfterFunc(wait, func() { l.tickFor(g) })
	}
	l.mu.Unlock()
	select {
	case <-g.done:
		return wire.ProbeAnswer{Tick: g.tick.JSON()}, nil
	case <-ctx.Done():
		return wire.ProbeAnswer{}, ctx.Err()
	}
}

func (l *Log) tickFor(g *gathering) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gather == g {
		l.gather = nil
	}
	g.tick = l.place(l.commit(wire.Message{Kind: wire.KindTick}))
	close(g.done)
}

func (l *Log) appendGuard(m wire.Message) wire.JoinAnswer {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.Kind == wire.KindJoin {
		l.counts.Join++
	} else {
		l.counts.Out++
	}
	return wire.JoinAnswer{Position: l.place(l.commit(m)).JSON()}
}

func (l *Log) report(rep wire.Report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Report++
	l.reports[rep.Instance] = rep.Position.Position()
}
