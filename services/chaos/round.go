package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// What a round has.
const (
	principals  = 5
	changers    = 3
	maxTokens   = 24
	stock       = 8 // victims that are made before anything fails
	hotVictims  = 4 // those revoked last, at which everybody looks
	veterans    = 4 // tokens of the round before that are looked at again
	quietTime   = 90 * time.Second
	equalTime   = 20 * time.Second
	lookPause   = 12 * time.Millisecond
	changePause = 60 * time.Millisecond
)

// round is one, while it runs.
type round struct {
	run    *Run
	w      *world
	i, n   int // of the run, and of its seed
	seed   uint64
	rng    *rand.Rand // of the round's own choices
	faults []string   // what was done, for people
	final  bool       // no other comes after it

	goesBack   bool // the log does
	clockIsOff bool // that of a service is, which decides about the ends of holds
	owners     []string
	victims    []*Token    // see victim
	revoked    int         // how many of them were, or are being; with the recorder's lock
	stop       atomic.Bool // the load
	working    sync.WaitGroup
	last       time.Time // when the last part of the round ended
	laps       []string  // how long each took, for people
}

// lap notes how long a part of the round took.
func (r *round) lap(what string) {
	now := time.Now()
	r.laps = append(r.laps, fmt.Sprintf("%s %s", what, now.Sub(r.last).Round(time.Millisecond)))
	r.last = now
}

// play runs a round and returns what it has broken. An error is none of Quash's,
// unless it says that it does not come back.
func (r *round) play(ctx context.Context) ([]Violation, error) {
	chosen := r.choose()
	for _, f := range chosen {
		r.goesBack = r.goesBack || f.name == faultLogBack
		r.clockIsOff = r.clockIsOff || f.name == faultServiceClock
	}
	if err := r.setUp(ctx); err != nil {
		return nil, err
	}
	r.lap("tokens")
	loadCtx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	r.load(loadCtx)
	err := r.breakThings(ctx, chosen)
	r.stop.Store(true)
	if err = errors.Join(err, r.w.mend(ctx)); err != nil {
		return nil, err // the load ends by itself
	}
	r.lap("faults")
	// What is on its way comes through now, or its client gives up.
	late := time.AfterFunc(r.run.pace.last, giveUp)
	r.working.Wait()
	late.Stop()
	r.lap("load")
	if found, err := r.calm(ctx); found != nil || err != nil {
		return found, err
	}
	var found []Violation
	var undecided []string
	r.w.rec.with(func(h *History) { found, undecided = Check(h) })
	r.w.rec.Count(sawUndecided, len(undecided))
	r.lap("check")
	if len(found) > 0 || r.goesBack {
		return found, nil
	}
	found, err = r.proofs(ctx, r.rng)
	r.lap("proofs")
	return found, err
}

// owner names principals; those from principals on are of victims.
func (r *round) owner(i int) string { return fmt.Sprintf("c%x-%d-%d", r.seed, r.n, i) }

// setUp has tokens of new principals, made before anything fails.
func (r *round) setUp(ctx context.Context) error {
	tokens := r.run.ahead
	if tokens == nil {
		var err error
		if tokens, err = r.makeAhead(ctx); err != nil {
			return err
		}
	}
	r.run.ahead = nil
	for i, t := range tokens {
		if i < principals {
			r.owners = append(r.owners, r.owner(i))
		}
		r.add(t)
	}
	r.victims = tokens[principals:]
	return nil
}

// makeAhead makes the tokens with which a round begins.
func (r *round) makeAhead(ctx context.Context) ([]*Token, error) {
	var all sync.WaitGroup
	tokens, errs := make([]*Token, principals+stock), make([]error, principals+stock)
	for i := range tokens {
		all.Go(func() {
			errs[i] = until(ctx, time.Now().Add(quietTime), func() (err error) {
				tokens[i], err = r.make(ctx, r.w.clients[i%2], r.owner(i))
				return err
			})
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("no token can be had in quiet: %w", err)
	}
	return tokens, nil
}

// load works until stop: each worker by choices of its own.
func (r *round) load(ctx context.Context) {
	work := func(pause time.Duration, do func(rng *rand.Rand)) {
		rng := rand.New(rand.NewPCG(r.rng.Uint64(), r.rng.Uint64()))
		r.working.Go(func() {
			for !r.stop.Load() && ctx.Err() == nil {
				do(rng)
				time.Sleep(pause/2 + time.Duration(rng.Int64N(int64(pause))))
			}
		})
	}
	for range changers {
		work(changePause, func(rng *rand.Rand) {
			if op, target := r.whatToChange(rng); target != "" {
				r.change(ctx, rng, op, target)
			}
		})
	}
	work(changePause, func(rng *rand.Rand) { r.duel(ctx, rng) })
	if r.run.o.Copies == 1 {
		work(400*time.Millisecond, func(*rand.Rand) { r.burst(ctx) })
	}
	work(200*time.Millisecond, func(rng *rand.Rand) {
		if len(r.tokens()) < maxTokens {
			if _, err := r.mint(ctx, r.w.clients[rng.IntN(2)], r.owners[rng.IntN(len(r.owners))]); err != nil {
				r.w.rec.Count(sawNoToken, 1) // the owner may be held, or the issuer away
			}
		}
	})
	work(130*time.Millisecond, func(rng *rand.Rand) { r.victim(ctx, rng) })
	work(100*time.Millisecond, func(rng *rand.Rand) { r.follow(ctx, rng) })
	for _, g := range r.w.guards {
		work(lookPause, func(rng *rand.Rand) { r.w.rec.look(g.look(ctx, r.toLookAt(rng), false)) })
		if e, ok := g.(*embedded); ok && e.name != "redis" {
			// By themselves: a probe of who is cut off waits as long as that lasts, and
			// what is claimed meanwhile is what a round is for.
			work(5*lookPause, func(rng *rand.Rand) { r.w.rec.look(g.look(ctx, r.toLookAt(rng), true)) })
		}
	}
}

// victim revokes a token that nobody else touches and that all have seen living:
// who is behind still takes it, and has to say so. It was made before anything
// failed: of one made later its stamp tells that one is behind.
func (r *round) victim(ctx context.Context, rng *rand.Rand) {
	var t *Token
	r.w.rec.with(func(*History) {
		if r.revoked < len(r.victims) {
			t = r.victims[r.revoked]
			r.revoked++
		}
	})
	if t != nil {
		r.change(ctx, rng, opRevoke, one(rng, t.targets()))
	}
}

// hot are the victims that were revoked last, and the next one.
func (r *round) hot() (tokens []*Token) {
	r.w.rec.with(func(*History) {
		tokens = r.victims[max(0, r.revoked-hotVictims):min(r.revoked+1, len(r.victims))]
	})
	return tokens
}

func (r *round) toLookAt(rng *rand.Rand) *Token {
	if hot := r.hot(); rng.IntN(2) == 0 {
		return hot[rng.IntN(len(hot))]
	}
	tokens := r.tokens()
	return tokens[rng.IntN(len(tokens))]
}

// duel holds at one replica and releases at once at the other, which may not have
// heard of it yet. It has a principal for itself, so that the order is the asker's.
func (r *round) duel(ctx context.Context, rng *rand.Rand) {
	target, at := "principal:"+r.owners[len(r.owners)-1], rng.IntN(2)
	for range 1 + rng.IntN(3) {
		r.send(ctx, r.newChange(opHold, target), at)
	}
	r.send(ctx, r.newChange(opRelease, target), 1-at)
}

func (r *round) tokens() (tokens []*Token) {
	r.w.rec.with(func(h *History) { tokens = h.Tokens })
	return tokens // it is only ever appended to
}

// whatToChange chooses among the round's own principals, keys and tokens.
func (r *round) whatToChange(rng *rand.Rand) (op, target string) {
	t := r.tokens()[rng.IntN(len(r.tokens()))]
	if !slices.Contains(r.owners[:len(r.owners)-1], t.Owner) {
		return "", "" // of the round before, which stay as they are; or of the duel
	}
	target = t.Principal
	switch p := rng.Float64(); {
	case p < 0.10:
		target = t.Key
	case p < 0.20:
		target = t.ItsToken
	}
	switch p := rng.Float64(); {
	case p < 0.30:
		return opHold, target
	case p < 0.86:
		return opRelease, target
	}
	return opRevoke, target
}

// next keeps of a history what the round after looks at again: some tokens, with
// all that was ever asked about them.
func (h *History) next() *History {
	n := &History{}
	for _, t := range h.Tokens[max(0, len(h.Tokens)-veterans):] {
		t.AfterCut, t.ID = false, len(n.Tokens)+1
		n.Tokens = append(n.Tokens, t)
	}
	about := map[string]bool{}
	for _, t := range n.Tokens {
		for _, target := range t.targets() {
			about[target] = true
		}
	}
	for _, x := range h.Changes {
		if about[x.Target] {
			x.wrongClock = x.wrongClock || h.WrongClock
			n.Changes = append(n.Changes, x)
		}
	}
	n.Backs = h.Backs
	return n
}
