package guardtest

import (
	"context"
	"crypto/rand"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Ask asks every guard whether it has accepted a token of any of the targets in the last
// day. Seen has the answers, as they come.
func (q *Quash) Ask(targets ...string) (question string) {
	q.tb.Helper()
	id, err := wire.NewID(rand.Reader)
	if err != nil {
		q.tb.Fatalf("guardtest: %v", err)
	}
	asked := wire.Question{ID: id, Replica: "guardtest", Targets: make([]revoke.Key, 0, len(targets))}
	for _, t := range q.parse(targets) {
		asked.Targets = append(asked.Targets, t.Key())
	}
	if err := asked.Check(); err != nil {
		q.tb.Fatalf("guardtest: %v", err)
	}
	q.mu.Lock()
	var all []func(wire.Question)
	for _, deliver := range q.asking {
		all = append(all, deliver)
	}
	q.mu.Unlock()
	for _, deliver := range all {
		deliver(asked)
	}
	return id
}

// Seen returns the answers to a question that have come.
func (q *Quash) Seen(question string) (answers []wire.Seen) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, a := range q.answers {
		if a.Question == question {
			answers = append(answers, a)
		}
	}
	return answers
}

// Questions implements follow.QuestionFeed.
func (s *service) Questions(deliver func(wire.Question)) (stop func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastAsking++
	n := s.lastAsking
	s.asking[n] = deliver
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.asking, n)
	}, nil
}

// Seen implements follow.SeenSource.
func (s *service) Seen(_ context.Context, _ string, a wire.Seen) error {
	if err := s.reachable(); err != nil {
		return err
	}
	if err := a.Check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = append(s.answers, a)
	return nil
}
