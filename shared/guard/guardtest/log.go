package guardtest

import (
	"context"
	"crypto/rand"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// begin starts an epoch with an empty log.
func (q *Quash) begin(d revoke.Stamp, restored bool) {
	q.feed.Lock()
	defer q.feed.Unlock()
	q.mu.Lock()
	q.epoch = max(q.epoch+1, uint64(q.now().UnixMilli()))
	q.messages = nil
	m := wire.Message{Kind: wire.KindEpoch, D: &d, Restore: restored}
	stored, subs := q.append(m)
	q.mu.Unlock()
	deliver(stored, subs)
}

// commit appends a message and delivers it to whoever is connected.
func (q *Quash) commit(m wire.Message) wire.Position {
	q.feed.Lock()
	defer q.feed.Unlock()
	q.mu.Lock()
	stored, subs := q.append(m)
	q.mu.Unlock()
	deliver(stored, subs)
	return stored.Position()
}

// append is called with mu held.
func (q *Quash) append(m wire.Message) (wire.Stored, []*subscription) {
	q.tb.Helper()
	id, err := wire.NewID(rand.Reader)
	if err != nil {
		q.tb.Fatalf("guardtest: %v", err)
	}
	m.ID, m.Epoch = id, q.epoch
	text, err := wire.Encode(m) // as it would travel: what can't be sent is the test's fault
	if err == nil {
		m, err = wire.Decode(text)
	}
	if err != nil {
		q.tb.Fatalf("guardtest: %v", err)
	}
	s := wire.Stored{Sequence: uint64(len(q.messages)) + 1, Time: q.now().UnixMilli(), Message: m}
	q.messages = append(q.messages, s)
	for k, state := range m.States(s.Position().Stamp) {
		q.view.Merge(k, state)
	}
	if e, ok := m.EpochState(); ok {
		q.view.MergeEpoch(e)
	}
	if m.Kind == wire.KindEpoch || m.Kind == wire.KindEntry {
		q.stamp = s.Position().Stamp
	}
	if q.cut {
		return s, nil
	}
	return s, q.subscriptions()
}

func (q *Quash) subscriptions() []*subscription {
	subs := make([]*subscription, 0, len(q.subs))
	for s := range q.subs {
		subs = append(subs, s)
	}
	return subs
}

func deliver(m wire.Stored, subs []*subscription) {
	for _, s := range subs {
		s.deliver(m, nil)
	}
}

// service is how readers see a Quash: follow.Source and follow.Feed.
type service Quash

type subscription struct {
	deliver func(wire.Stored, error)
	lost    func()
}

// Subscribe implements follow.Feed.
func (s *service) Subscribe(deliver func(wire.Stored, error), lost func()) (stop func(), err error) {
	sub := &subscription{deliver, lost}
	s.mu.Lock()
	s.subs[sub] = struct{}{}
	s.mu.Unlock()
	return func() {
		s.feed.Lock() // whoever delivers has finished
		defer s.feed.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subs, sub)
	}, nil
}

func (s *service) reachable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut {
		return errCut
	}
	return nil
}

// Sync implements follow.Source. The log is short: a tail from the asked
// position, and from the beginning for who has none of this history.
func (s *service) Sync(_ context.Context, req wire.SyncRequest) (wire.SyncAnswer, error) {
	if err := s.reachable(); err != nil {
		return wire.SyncAnswer{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := req.Position
	head := s.messages[len(s.messages)-1].Position()
	ans := wire.SyncAnswer{Head: head.JSON(), Stamp: s.stamp}
	switch held := at.Sequence > 0 && at.Sequence <= uint64(len(s.messages)) && s.messages[at.Sequence-1].Position() == at.Position(); {
	case at.Sequence == 0, held:
		ans.Tail = append(ans.Tail, s.messages[at.Sequence:]...)
	default:
		ans.Error = &wire.Refusal{Code: "log_went_back", Detail: "the log does not hold that position"}
	}
	return ans, nil
}

// Page implements follow.Source; Sync announces none.
func (s *service) Page(context.Context, string, wire.PageRequest) ([]byte, error) {
	return nil, &wire.Refusal{Code: "unknown_snapshot", Detail: "there are no snapshots here"}
}

// Probe implements follow.Source.
func (s *service) Probe(context.Context, wire.ProbeRequest) (wire.ProbeAnswer, error) {
	if err := s.reachable(); err != nil {
		return wire.ProbeAnswer{}, err
	}
	return wire.ProbeAnswer{Tick: (*Quash)(s).commit(wire.Message{Kind: wire.KindTick}).JSON()}, nil
}

// Join implements follow.Source.
func (s *service) Join(_ context.Context, req wire.JoinRequest) (wire.JoinAnswer, error) {
	if err := s.reachable(); err != nil {
		return wire.JoinAnswer{}, err
	}
	m := wire.Message{Kind: wire.KindJoin, Name: "guardtest", Instance: req.Instance, LimitMS: req.LimitMS, Past: req.Past}
	return wire.JoinAnswer{Position: (*Quash)(s).commit(m).JSON()}, nil
}

// Out implements follow.Source.
func (s *service) Out(_ context.Context, req wire.OutRequest) (wire.JoinAnswer, error) {
	if err := s.reachable(); err != nil {
		return wire.JoinAnswer{}, err
	}
	m := wire.Message{Kind: wire.KindOut, Name: "guardtest", Instance: req.Instance, By: "self"}
	return wire.JoinAnswer{Position: (*Quash)(s).commit(m).JSON()}, nil
}

// Attempts implements follow.AttemptsSource.
func (s *service) Attempts(_ context.Context, r wire.AttemptsReport) error {
	if err := s.reachable(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts = append(s.attempts, r)
	return nil
}

// Running implements follow.RunningSource.
func (s *service) Running(_ context.Context, r wire.RunningReport) error {
	if err := s.reachable(); err != nil {
		return err
	}
	if err := r.Check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = append(s.running, r)
	return nil
}

// Report implements follow.Source.
func (s *service) Report(context.Context, wire.Report) error { return s.reachable() }
