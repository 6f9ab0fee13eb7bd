package simulation

import (
	"context"
	"fmt"
	"time"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// names of what is revoked, few enough that it is hit again and again.
const nNames = 5

func principal(n int) revoke.Target { return own(revoke.KindPrincipal, fmt.Sprint("p", n)) }

// respond revokes, holds and releases until ctx ends.
func (s *scenario) respond(ctx context.Context, n int) {
	for i := 0; pause(ctx, 200*time.Millisecond+s.w.c.upTo(4*time.Second)); i++ {
		target := principal(s.w.c.below(nNames))
		op := commit.Revoke
		switch s.w.c.below(12) {
		case 0, 1:
			if a := pick(s, &s.apps); a != nil {
				target = own(revoke.KindClient, a.id)
			}
		case 2:
			if k := pick(s, &s.keys); k != nil {
				target = own(revoke.KindKey, k.id)
			}
		case 3:
			if r := pick(s, &s.roles); r != nil {
				target = own(revoke.KindRole, r.id)
			}
		case 4, 5:
			op = commit.Hold
		case 6, 7:
			op = commit.Release
		}
		s.commit(ctx, fmt.Sprintf("r%d-%d", n, i), op, target)
	}
}

// commit asks until it is answered, some times of more than one replica.
func (s *scenario) commit(ctx context.Context, key string, op commit.Op, target revoke.Target) {
	f := s.w.truth.ask(op, target)
	q := commit.Request{Key: key, Tenant: tenant, Op: op, Reason: "simulated", Actor: "responder", Targets: []commit.Target{{Issuer: revoke.Own, Kind: target.Kind, ID: target.ID}}}
	for range 6 {
		r := s.w.any(false)
		if r == nil {
			if !pause(ctx, 500*time.Millisecond) {
				return
			}
			continue
		}
		l, _, _, ok := r.parts()
		if !ok {
			continue
		}
		try, cancel := context.WithTimeout(ctx, 8*time.Second)
		a, err := l.Commit(try, q, "sim")
		cancel()
		if err == nil && !r.link.dead.Load() { // the answer of a dead process reaches nobody
			s.w.truth.answered(f, a.Stamp(), r.number)
			s.w.truth.count("commits")
			s.follow(ctx, f, fleet.Entry{At: a.Stamp(), CommittedAt: time.UnixMilli(a.CommittedAt)})
			return
		}
		if err == nil {
			continue
		}
		s.w.truth.count("refused or unknown commits")
		if k := problem.KindOf(err); k == problem.Conflict || ctx.Err() != nil {
			return
		}
		pause(ctx, s.w.c.upTo(time.Second))
	}
}

// follow asks how far an entry has come, and notes what it is told.
func (s *scenario) follow(ctx context.Context, f *fact, e fleet.Entry) {
	s.background.Go(func() {
		for range 12 {
			if !pause(ctx, s.w.c.upTo(8*time.Second)) {
				return
			}
			r := s.w.any(true)
			if r == nil {
				continue
			}
			l, fl, _, ok := r.parts()
			if !ok {
				continue
			}
			short, cancel := context.WithTimeout(ctx, time.Second)
			err := l.WaitApplied(short, e.At)
			cancel()
			if err != nil || l.Epoch() != e.At.Epoch {
				continue
			}
			c := fl.Wait(ctx, e, 0)
			if r.link.dead.Load() {
				continue
			}
			if s.w.truth.told(f, c, r.offset) {
				return
			}
		}
	})
}

// told notes what a service says about a fact. off is by how much the clock differs
// by which it speaks.
func (t *truth) told(f *fact, c fleet.Confirmation, off time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for _, g := range c.Confirmed {
		if _, ok := f.confirmed[g.Instance]; !ok {
			f.confirmed[g.Instance] = now
			t.counts["confirmed"]++
		}
	}
	for _, g := range c.Unconfirmed {
		if !g.Open && f.confirmed[g.Instance].IsZero() {
			f.confirmed[g.Instance] = g.FencedBy.Add(-off)
			t.counts["fenced"]++
		}
	}
	if c.Complete && f.complete.IsZero() {
		f.complete = now
		t.counts["complete"]++
	}
	return c.Complete
}
