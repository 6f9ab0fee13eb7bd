package app

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/quash-project/quash/shared/idempotency"
	"github.com/quash-project/quash/shared/problem"
)

// sums is where spent keeps them: see idempotency.Bucket.
type sums interface {
	Find(ctx context.Context, name string) (idempotency.Note, uint64, error)
	Begin(ctx context.Context, name string, n idempotency.Note) (idempotency.Note, uint64, error)
	Write(ctx context.Context, name string, n idempotency.Note, revision uint64) (uint64, error)
}

// spent adds up among the requests of the last day what each person has hit: it is a sum for
// a while, and no record. Requests of a person that come at once are added by one write.
type spent struct {
	in  sums
	now func() time.Time

	mu      sync.Mutex
	tallies map[string]*tally
}

// tally is what this replica knows of one person's sum.
type tally struct {
	waiting []*adding
	busy    bool
	seen    []spending // what the bucket had when it was asked last
	// owed are not known to be in the bucket: the next write takes them along.
	owed   []spending
	window time.Duration
}

// spending is one request that was added.
type spending struct {
	ID string `json:"id"` // of the request, cut short
	At int64  `json:"at"` // Unix milliseconds
	N  int    `json:"n"`
}

// adding is a request that waits to be added.
type adding struct {
	spending
	limit int
	over  bool
	done  chan error
}

const (
	// spentTries bounds how often a sum is read again that other replicas write at the same time.
	spentTries = 20
	// spentIn bounds one write and what is tried again of it.
	spentIn = 3 * time.Second
	// spentPause is the longest pause before it is tried again, at first.
	spentPause = 4 * time.Millisecond
)

func newSpent(in sums, now func() time.Time) *spent {
	return &spent{in: in, now: now, tallies: map[string]*tally{}}
}

// Add implements revocation.Spent. No more requests are remembered than limit: each has hit
// one thing at least. Where the bucket does not answer, what this replica knows still tells
// that it would be over.
func (s *spent) Add(ctx context.Context, tenant, subject, id string, n, limit int, window time.Duration) (bool, error) {
	name := tenant + ".spent." + idempotency.DigestOf(subject)
	mine := &adding{
		spending: spending{ID: idempotency.DigestOf(id)[:22], At: s.now().UnixMilli(), N: max(n, 1)}, limit: limit, done: make(chan error, 1),
	}
	s.mu.Lock()
	t := s.tally(name)
	t.window = window
	t.waiting = append(t.waiting, mine)
	t.owed = with(t.owed, mine.spending)
	if !t.busy {
		t.busy = true
		go s.work(context.WithoutCancel(ctx), name, t)
	}
	s.mu.Unlock()
	var err error
	select {
	case err = <-mine.done:
		if err == nil {
			return mine.over, nil
		}
	case <-ctx.Done():
		err = problem.Wrap(problem.Unavailable, ctx.Err(), "what was cut of late could not be added up in time; try again")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.within(t.seen, window)
	for _, x := range t.owed {
		known = with(known, x)
	}
	if sum(s.within(known, window)) <= limit {
		return false, err
	}
	t.owed = without(t.owed, mine.ID)
	return true, nil
}

// tally returns that of a name, and forgets those that say nothing any more.
func (s *spent) tally(name string) *tally {
	if t := s.tallies[name]; t != nil {
		return t
	}
	for other, t := range s.tallies {
		if !t.busy && len(s.within(t.seen, t.window)) == 0 && len(s.within(t.owed, t.window)) == 0 {
			delete(s.tallies, other)
		}
	}
	t := &tally{}
	s.tallies[name] = t
	return t
}

// work adds all that waits, and what came meanwhile, until nothing does.
func (s *spent) work(ctx context.Context, name string, t *tally) {
	for {
		s.mu.Lock()
		batch, owed := t.waiting, s.within(t.owed, t.window)
		t.waiting = nil
		if len(batch) == 0 {
			t.busy = false
			s.mu.Unlock()
			return
		}
		window := t.window
		s.mu.Unlock()
		list, err := s.write(ctx, name, batch, owed, window)
		s.mu.Lock()
		if err == nil {
			t.seen = list
			for _, x := range owed {
				t.owed = without(t.owed, x.ID)
			}
		}
		for _, a := range batch {
			a.done <- err
		}
		s.mu.Unlock()
	}
}

// write adds a batch to the sum, and returns what the sum is made of then.
func (s *spent) write(ctx context.Context, name string, batch []*adding, owed []spending, window time.Duration) ([]spending, error) {
	ctx, cancel := context.WithTimeout(ctx, spentIn)
	defer cancel()
	for _, a := range batch {
		owed = without(owed, a.ID)
	}
	for try := range spentTries {
		stands, rev, err := s.in.Find(ctx, name)
		missing := err != nil && problem.KindOf(err) == problem.NotFound
		if err != nil && !missing {
			return nil, err
		}
		var list []spending
		if !missing {
			if err := json.Unmarshal(stands.Answer, &list); err != nil {
				return nil, err
			}
		}
		list = s.within(list, window)
		for _, x := range owed {
			list = with(list, x)
		}
		for _, a := range batch {
			added := with(list, a.spending)
			if a.over = sum(added) > a.limit; !a.over {
				list = added
			}
		}
		next := idempotency.Note{Status: http.StatusOK}
		if next.Answer, err = json.Marshal(list); err != nil {
			return nil, err
		}
		if missing {
			stands, _, err = s.in.Begin(ctx, name, next)
			if err == nil && bytes.Equal(stands.Answer, next.Answer) {
				return list, nil
			}
		} else if _, err = s.in.Write(ctx, name, next, rev); err == nil {
			return list, nil
		}
		if err != nil && problem.KindOf(err) != problem.Conflict {
			return nil, err
		}
		// Another replica was faster.
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(spentPause << min(try, 5))): //nolint:gosec // spreads replicas, keeps nothing secret
		}
	}
	return nil, problem.New(problem.Unavailable, "too many requests of one person at once; try again")
}

// within are those that still count.
func (s *spent) within(list []spending, window time.Duration) []spending {
	out := make([]spending, 0, len(list)+1)
	for _, x := range list {
		if time.UnixMilli(x.At).Add(window).After(s.now()) {
			out = append(out, x)
		}
	}
	return out
}

// with is a list and one more. A request that is there counts once, as often as it is sent:
// as the most that it would have hit, from when it was sent last.
func with(list []spending, x spending) []spending {
	out := make([]spending, 0, len(list)+1)
	for _, y := range list {
		if y.ID == x.ID {
			x.N = max(x.N, y.N)
			continue
		}
		out = append(out, y)
	}
	return append(out, x)
}

func without(list []spending, id string) []spending {
	return slices.DeleteFunc(slices.Clone(list), func(x spending) bool { return x.ID == id })
}

func sum(list []spending) (n int) {
	for _, x := range list {
		n += x.N
	}
	return n
}
