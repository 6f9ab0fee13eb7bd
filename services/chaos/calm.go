package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quash-project/quash/shared/client"
	"github.com/quash-project/quash/shared/client/api"
	"github.com/quash-project/quash/shared/guard"
)

// calm, after everything was mended, waits until all say that they are ready and know the
// newest entry, and records what everybody says then.
func (r *round) calm(ctx context.Context) ([]Violation, error) {
	deadline := time.Now().Add(quietTime)
	if err := r.ready(ctx, deadline); err != nil {
		return stuck(err), ctx.Err()
	}
	r.lap("ready")
	var all sync.WaitGroup
	for _, owner := range r.owners {
		all.Go(func() { r.anew(ctx, owner) })
	}
	var ahead error
	if next := r.run.round(r.w, r.i+1); next != nil {
		all.Go(func() { r.run.ahead, ahead = next.makeAhead(ctx) })
	}
	err := r.marker(ctx, deadline)
	all.Wait()
	if err = errors.Join(err, ahead); err != nil {
		return stuck(err), ctx.Err()
	}
	r.lap("known")
	if err := r.askAll(ctx); err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	r.lap("final")
	return nil, nil
}

func stuck(err error) []Violation { return []Violation{{promiseStuck, err.Error()}} }

// until tries until it succeeds or the time is over.
func until(ctx context.Context, deadline time.Time, try func() error) error {
	for {
		err := try()
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// ready waits until every service and guard says that it is. Who needs longer than
// the pace gives is behind: the next faults meet it while it recovers, and it must
// be ready again within quietTime.
func (r *round) ready(ctx context.Context, deadline time.Time) error {
	settle := deadline
	if !r.final {
		settle = time.Now().Add(r.run.pace.settle)
	}
	asks := map[string]func() error{}
	for _, name := range r.w.names("revocation", "rotator", "issuer", "demo") {
		asks[name] = func() error { return r.w.readyz(ctx, name) }
	}
	for _, g := range r.w.guards {
		if e, ok := g.(*embedded); ok {
			asks[e.name] = func() error { return e.current().Ready() }
		}
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	late := map[string]error{}
	for name, ask := range asks {
		all.Go(func() {
			if err := until(ctx, settle, ask); err != nil {
				mu.Lock()
				defer mu.Unlock()
				late[name] = fmt.Errorf("%s is not ready: %w", name, err)
			}
		})
	}
	all.Wait()
	return r.run.note(r, late)
}

// note keeps since when who is behind, and returns the error of one that is for too
// long.
func (run *Run) note(r *round, late map[string]error) (err error) {
	maps.DeleteFunc(run.behind, func(name string, _ time.Time) bool { return late[name] == nil })
	for _, name := range slices.Sorted(maps.Keys(late)) {
		since, was := run.behind[name]
		if !was {
			since = time.Now()
			run.behind[name] = since
		}
		if time.Since(since) > quietTime || r.final {
			err = late[name]
		}
	}
	if len(late) > 0 {
		r.laps = append(r.laps, "not waited for "+strings.Join(slices.Sorted(maps.Keys(late)), " "))
	}
	return err
}

// there are those of some watchers who are not behind.
func (run *Run) there(all []watcher) []watcher {
	return slices.DeleteFunc(slices.Clone(all), func(g watcher) bool { _, is := run.behind[g.title()]; return is })
}

// readyz asks a process whether it is ready.
func (w *world) readyz(ctx context.Context, name string) error {
	p, err := w.process(name)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Addresses[1]+"/readyz", nil)
	if err != nil {
		return err
	}
	if status, text := w.fetch(req); status != http.StatusOK {
		return errors.New(text)
	}
	return nil
}

// marker revokes something new and waits until every guard knows.
func (r *round) marker(ctx context.Context, deadline time.Time) error {
	owner := fmt.Sprintf("c%x-%d-marker", r.seed, r.n)
	var t *Token
	if err := until(ctx, deadline, func() (err error) {
		t, err = r.mint(ctx, r.w.clients[0], owner)
		return err
	}); err != nil {
		return err
	}
	everyone := func(what string, want func(Verdict) bool) error {
		for _, g := range r.run.there(r.w.guards) {
			err := until(ctx, deadline, func() error {
				if l := g.look(ctx, t, false); !want(l.Verdict) {
					return fmt.Errorf("%s does not see that %s: %s: %s", g.title(), what, l.Verdict, l.Why)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := everyone("a new token is good", func(v Verdict) bool { return v == Allowed }); err != nil {
		return err
	}
	body := api.CommitRevocationJSONRequestBody{Op: opRevoke, Targets: []string{t.Principal}, Reason: "chaos: all was quiet"}
	revoke := func() error {
		_, err := r.w.clients[1].CommitRevocation(ctx, nil, body, client.IdempotencyKey(owner))
		return err
	}
	if err := until(ctx, deadline, revoke); err != nil {
		return fmt.Errorf("revoke in quiet: %w", err)
	}
	return everyone("it was revoked", func(v Verdict) bool { return v == Dead })
}

// anew makes a token that everybody has to take in the end, if nothing holds its
// owner; then nobody gets one.
func (r *round) anew(ctx context.Context, owner string) {
	var t *Token
	err := until(ctx, time.Now().Add(3*time.Second), func() (err error) {
		t, err = r.mint(ctx, r.w.clients[0], owner)
		var refused *client.Refused
		if errors.As(err, &refused) && refused.Status != http.StatusServiceUnavailable {
			return nil // it is held; or wrongly so, which the tokens of before tell
		}
		return err
	})
	if err == nil && t != nil {
		r.w.rec.with(func(*History) { t.AfterCut = true })
		r.w.rec.Count(sawAnew, 1)
	}
}

// askAll records what everybody says in the end, and the log itself: once it is the
// same, or as it is when the time for that is over. What a client gave up, and what
// services commit again, may come at any moment before.
func (r *round) askAll(ctx context.Context) error {
	var all []Look
	var stored map[int]int
	var fold map[int]Verdict
	var broken error
	_ = until(ctx, time.Now().Add(equalTime), func() error { // what is wrong then is for the checker
		all = nil
		if stored, fold, broken = r.w.log.read(ctx, r.w, r.tokens()); broken != nil {
			return broken
		}
		differ := false
		for _, t := range r.tokens() {
			var first Verdict
			for i, g := range r.run.there(append(r.w.guards, r.replicas()...)) {
				l := g.look(ctx, t, false)
				l.Final = true
				all = append(all, l)
				if i == 0 {
					first = l.Verdict
					differ = differ || (first == Allowed) != (fold[t.ID] == Allowed)
				}
				differ = differ || l.Verdict == Unable || l.Verdict == Other || (l.Verdict == Allowed) != (first == Allowed) || t.AfterCut && l.Verdict != Allowed
			}
		}
		if differ {
			return errors.New("not the same")
		}
		return nil
	})
	r.w.rec.with(func(h *History) {
		h.Stored, h.Fold = stored, fold
		h.Looks = append(h.Looks, all...)
	})
	return broken
}

// replicas are those of the revocation service, who decide too.
func (r *round) replicas() []watcher {
	return []watcher{&replica{r.w, 0}, &replica{r.w, 1}}
}

type replica struct {
	w      *world
	client int
}

func (x *replica) title() string { return fmt.Sprintf("revocation-%d", x.client+1) }

func (x *replica) look(ctx context.Context, t *Token, _ bool) Look {
	l := Look{By: x.title(), Guard: Who{Name: x.title()}, Token: t.ID, Asked: x.w.rec.Now()}
	answer, err := x.w.clients[x.client].Decide(ctx, api.DecideJSONRequestBody{Token: t.Text, Scopes: []string{"orders:read"}})
	d := answer.Value
	l.Answered, l.Why = x.w.rec.Now(), d.Reason
	switch {
	case err != nil:
		l.Why = err.Error()
	case d.Allowed:
		l.Verdict = Allowed
	case d.Status == http.StatusServiceUnavailable:
	case d.Check != guard.CheckTargets:
		l.Verdict = Other
	case strings.HasPrefix(d.Reason, guard.CauseHeld):
		l.Verdict = Held
	default:
		l.Verdict = Dead
	}
	return l
}
