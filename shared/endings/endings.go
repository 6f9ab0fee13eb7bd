// Package endings is "mark, log, finish": the one way in which a stored thing
// is taken away, narrowed or ended.
//
//  1. Mark: the record is marked as ending by compare-and-set, with a random
//     id, actor, reason and time, and with what is to be committed. From then on
//     nothing is made from it any more.
//  2. Log: the entry is committed with the mark's id as idempotency key. The
//     caller is answered after this step: whatever crashes now, it is revoked.
//  3. Finish: once the own reader has applied that commit, the record is removed
//     or rewritten, if it still carries that mark.
//
// Each step may be done any number of times by any number of replicas, and
// every replica goes on with marks that are older than some seconds (Sweep):
// a crash or a lost answer between two steps makes it later, never wrong.
package endings

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/apikey"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Meta says who changed a record last, why and when. Every record has one.
type Meta struct {
	Actor  string    `json:"actor"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
	// Request is the id of the request that did so.
	Request string `json:"request,omitempty"`
}

// Mark stands in a record that is ending.
type Mark struct {
	ID string `json:"id"` // random; the idempotency key of the entry
	Meta
	// Targets is what the entry revokes. It is part of the mark, so that every
	// repetition is the same request.
	Targets []commit.Target `json:"targets"`
	// Record is commit.Request.Record: the records of all targets die too.
	Record bool `json:"record,omitempty"`
	// Next is what the record becomes, in the words of its service; empty: it
	// is removed.
	Next []byte `json:"next,omitempty"`
}

// NewMark returns a mark with a random id.
func NewMark(rand io.Reader, meta Meta, targets ...commit.Target) (*Mark, error) {
	id, err := apikey.RandomID(rand)
	if err != nil {
		return nil, err
	}
	return &Mark{ID: id, Meta: meta, Targets: targets}, nil
}

// Ending is a marked record, and how to finish it.
type Ending struct {
	Name   string // the record, for the operator's log
	Tenant string
	Mark   *Mark
	// Finish removes or rewrites the record if it still carries the mark, and
	// otherwise does nothing. It is called after the own reader has applied the
	// commit, possibly several times.
	Finish func(ctx context.Context) error
}

// Reader is what is needed of the reader of the log.
type Reader interface {
	WaitFor(ctx context.Context, s revoke.Stamp) error
}

// Runner does the second and third step. All fields are required.
type Runner struct {
	Committer commit.Committer
	Reader    Reader
	Log       *zap.Logger
	Now       func() time.Time
}

// finishIn is how long a caller is kept for the third step after the second
// has succeeded: it takes milliseconds, and if not, Sweep does it.
const finishIn = 2 * time.Second

// Run commits what the mark says, and finishes. It returns without an error as
// soon as the commit is durable; its errors are those of a Committer.
func (r *Runner) Run(ctx context.Context, e Ending) (commit.Answer, error) {
	a, err := r.log(ctx, e)
	if err != nil {
		return commit.Answer{}, err
	}
	// The caller may have gone; the third step is worth doing all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishIn)
	defer cancel()
	if err := r.finish(ctx, e, a); err != nil {
		r.Log.Warn("committed, but the record could not be finished yet; a sweep will",
			zap.String("record", e.Name), zap.String("mark", e.Mark.ID), zap.Error(err))
	}
	return a, nil
}

func (r *Runner) finish(ctx context.Context, e Ending, a commit.Answer) error {
	if err := r.Reader.WaitFor(ctx, a.Stamp()); err != nil {
		return fmt.Errorf("apply the own commit: %w", err)
	}
	return e.Finish(ctx)
}

// log commits the mark's targets: one entry for up to wire.MaxTargets, more as
// entries with numbered keys. The answer is that of the last.
func (r *Runner) log(ctx context.Context, e Ending) (commit.Answer, error) {
	var last commit.Answer
	rest := e.Mark.Targets
	for n := 0; n == 0 || len(rest) > 0; n++ {
		key := e.Mark.ID
		if n > 0 {
			key += "-" + strconv.Itoa(n)
		}
		batch := rest[:min(len(rest), wire.MaxTargets)]
		rest = rest[len(batch):]
		a, err := r.Committer.Commit(ctx, commit.Request{
			Key: key, Tenant: e.Tenant, Op: commit.Revoke, Targets: batch,
			Reason: e.Mark.Reason, Actor: e.Mark.Actor, Record: e.Mark.Record, RequestID: e.Mark.Request,
		})
		if err != nil {
			return commit.Answer{}, fmt.Errorf("end %s: %w", e.Name, err)
		}
		last = a
	}
	return last, nil
}

// A sweep goes on with so many endings at once, and with each for so long at a time: what has
// a million records takes its time, and must not keep others waiting.
const (
	sweepAtOnce = 8
	sweepFor    = time.Minute
)

// Age is how old a mark is when other replicas go on with it.
const Age = 5 * time.Second

// Sweep goes on with every mark in pending that is older than Age, each period,
// until ctx ends. Several replicas may do so at once.
func (r *Runner) Sweep(ctx context.Context, period time.Duration, pending func() []Ending) {
	t := time.NewTicker(period)
	defer t.Stop()
	s := sweep{Runner: r, under: map[string]bool{}}
	defer s.all.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, e := range pending() {
			// A mark from the future is another replica's wrong clock: it is as
			// old as it can be told.
			if age := r.Now().Sub(e.Mark.At); age >= 0 && age < Age || ctx.Err() != nil {
				continue
			}
			s.begin(ctx, e)
		}
	}
}

// sweep is which endings are under way.
type sweep struct {
	*Runner
	all   sync.WaitGroup
	mu    sync.Mutex
	under map[string]bool // by the id of the mark
}

// begin goes on with an ending, unless that is under way or there is no room: the next
// round comes soon.
func (s *sweep) begin(ctx context.Context, e Ending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.under[e.Mark.ID] || len(s.under) >= sweepAtOnce {
		return
	}
	s.under[e.Mark.ID] = true
	s.all.Go(func() {
		if err := s.goOn(ctx, e); err != nil && ctx.Err() == nil {
			s.Log.Warn("an ending goes on later", zap.String("record", e.Name), zap.String("mark", e.Mark.ID), zap.Error(err))
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.under, e.Mark.ID)
	})
}

func (r *Runner) goOn(ctx context.Context, e Ending) error {
	ctx, cancel := context.WithTimeout(ctx, sweepFor)
	defer cancel()
	a, err := r.log(ctx, e)
	if err != nil {
		return err
	}
	return r.finish(ctx, e, a)
}
