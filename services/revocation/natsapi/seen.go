package natsapi

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/services/revocation"
	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// maxQuestions is how many questions to the fleet may be open at once: each goes to
// everybody.
const maxQuestions = 8

// questions are those that this replica has asked of all guards, by their id.
type questions struct {
	mu   sync.Mutex
	open map[string]*question
}

// question is one that is waited for.
type question struct {
	names   map[string]string // of who may answer, by instance
	waited  map[string]bool   // instances that can answer, and have not yet
	answers map[string]revocation.Remembered
	all     chan struct{} // closed when nobody is waited for
}

// newQuestion is one to these guards. One that is past its limit may be gone: it is heard,
// and not waited for.
func newQuestion(of []fleet.Guard) *question {
	q := &question{names: map[string]string{}, waited: map[string]bool{}, answers: map[string]revocation.Remembered{}, all: make(chan struct{})}
	for _, g := range of {
		q.names[g.Instance] = g.Name
		if g.State != fleet.StateFenced && g.State != fleet.StateOut {
			q.waited[g.Instance] = true
		}
	}
	if len(q.waited) == 0 {
		close(q.all)
	}
	return q
}

var (
	errTooMany = errors.New("too many questions to the fleet are open")
	errAsked   = fmt.Errorf("a question has 1 to %d targets", wire.MaxAsked)
)

// Seen implements revocation.Memories. Any number of replicas may ask at once: each hears
// the answers to its own questions.
func (s *Server) Seen(ctx context.Context, targets []revoke.Key, of []fleet.Guard) (map[string]revocation.Remembered, error) {
	if len(targets) == 0 || len(targets) > wire.MaxAsked {
		return nil, errAsked
	}
	id, err := wire.NewID(rand.Reader)
	if err != nil {
		return nil, err
	}
	q := newQuestion(of)
	if !s.asking.begin(id, q) {
		return nil, errTooMany
	}
	defer s.asking.end(id)
	header, err := s.Ledger.Repeat(ctx)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(wire.Question{ID: id, Replica: s.Ledger.Replica(), Targets: targets})
	if err != nil {
		return nil, err
	}
	if err := s.NATS.PublishMsg(&nats.Msg{Subject: wire.FeedAsk, Data: data, Header: header}); err != nil {
		return nil, fmt.Errorf("ask the fleet: %w", err)
	}
	select {
	case <-q.all:
	case <-ctx.Done(): // who has not said by now is told as such
	}
	return s.asking.end(id), nil
}

func (a *questions) begin(id string, q *question) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.open) >= maxQuestions {
		return false
	}
	if a.open == nil {
		a.open = map[string]*question{}
	}
	a.open[id] = q
	return true
}

// end returns what was said until now. What comes later is left out.
func (a *questions) end(id string) map[string]revocation.Remembered {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.open[id]
	delete(a.open, id)
	if q == nil {
		return nil
	}
	return q.answers
}

// take notes an answer of a guard with this name, for which the broker vouches. It counts
// for an instance alone that has joined under the name. Of several the one counts that
// says more: a guard can't take back that it has seen something.
func (a *questions) take(name string, s wire.Seen, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.open[s.Question]
	if q == nil || name == "" || q.names[s.Instance] != name {
		return
	}
	is := revocation.Remembered{Seen: s.Seen, WrongPPM: s.WrongPPM, Since: now.Add(-time.Duration(s.ForMS) * time.Millisecond)}
	if was, ok := q.answers[s.Instance]; !ok || is.Seen && !was.Seen {
		q.answers[s.Instance] = is
	}
	if q.waited[s.Instance] {
		delete(q.waited, s.Instance)
		if len(q.waited) == 0 {
			close(q.all)
		}
	}
}

func (s *Server) heardSeen(m *nats.Msg) {
	if a, err := wire.DecodeRequest[wire.Seen](m.Data); err == nil {
		s.asking.take(reader(m.Subject), a, s.Now())
	}
}
