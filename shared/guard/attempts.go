package guard

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/attempts"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// How attempts are reported: at once after a quiet time, gathered otherwise.
const (
	attemptsGather  = 100 * time.Millisecond
	attemptsEvery   = 5 * time.Second
	attemptsTimeout = time.Second
)

// attemptsTeller is a reader by which attempts are reported; *follow.Reader is one.
type attemptsTeller interface {
	TellAttempts(ctx context.Context, list []wire.Attempts) error
	// Spread is how long to wait so that a large fleet does not report all at once.
	Spread() time.Duration
}

// attempted counts a refusal by a cut or a hold. It is not the token's word but the
// signature's that brings it here: of what anybody can make up nothing is counted.
func (g *Guard) attempted(d *Decision, req *Requirement) {
	if d.newest.IsZero() {
		return // a sign-in that a restore has made void: of no entry
	}
	g.attempts.Note(attempts.Of{At: d.newest, Target: d.Target.Key}, req.caller())
}

// caller returns from where a request came, the zero Addr if that is not known.
func (req *Requirement) caller() netip.Addr {
	if req.From != nil {
		return req.From(req.Request)
	}
	r, ok := req.Request.(*http.Request)
	if !ok {
		return netip.Addr{}
	}
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr()
}

// Attempted counts an attempt that somebody else has refused who decides by the guard's
// view, with something of this stamp; it says whether the target refuses that.
func (g *Guard) Attempted(target revoke.Key, stamp revoke.Stamp, from netip.Addr) bool {
	r := g.Reader()
	if r == nil {
		return false
	}
	state, es := r.View().State(target), r.View().Epochs()
	cut := state
	cut.Held = revoke.Stamp{}
	at := state.Newest(cut.Hits(stamp, es), es)
	if at.IsZero() {
		return false
	}
	g.attempts.Note(attempts.Of{At: at, Target: target}, from)
	return true
}

func (g *Guard) tellAttempts(ctx context.Context, r Reader) {
	if t, ok := r.(attemptsTeller); ok {
		tellSums(ctx, g, g.attempts, attemptsEvery, t.Spread, t.TellAttempts)
	}
}

// sums are counts that are told as they stand, never as steps.
type sums[T any] interface {
	// Next is how long there is nothing to tell unless Kicked says so.
	Next() time.Duration
	Kicked() <-chan struct{}
	// Report returns what is to be told now, and Unsent takes back what could not be.
	Report() []T
	Unsent(list []T)
}

// tellSums reports until ctx ends, and then once more. What is lost is told again with
// what comes next; nobody waits for it.
func tellSums[T any](ctx context.Context, g *Guard, s sums[T], every time.Duration, spread func() time.Duration, send func(context.Context, []T) error) {
	now := func(ctx context.Context) bool {
		list := s.Report()
		if len(list) == 0 {
			return false
		}
		ctx, cancel := context.WithTimeout(ctx, attemptsTimeout)
		defer cancel()
		if err := send(ctx, list); err != nil {
			s.Unsent(list)
			g.opts.log.Debug("what became of what was revoked is not reported; the next report tells as much", zap.Error(err))
		}
		return true
	}
	var last time.Time
	for pauseFor(ctx, s.Next(), s.Kicked()) {
		pause := attemptsGather + spread()
		if !last.IsZero() {
			pause = max(pause, every-time.Since(last))
		}
		if !pauseFor(ctx, pause, nil) {
			break
		}
		if now(ctx) {
			last = time.Now()
		}
	}
	now(context.WithoutCancel(ctx))
}

// pauseFor waits for d, a kick or the end of ctx; only the last makes it false.
func pauseFor(ctx context.Context, d time.Duration, kicked <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-kicked:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
