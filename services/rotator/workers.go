package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/signing"
)

// worker is what keeps the keys of one tenant.
type worker struct {
	kick chan struct{} // holds one

	mu    sync.Mutex
	state error // after the last step: nil if nothing is wrong
	// watched are the targets of the keys that were last looked at.
	watched map[revoke.Key]bool
}

var errStarting = errors.New("the signing keys have not been looked at yet")

func newWorker() *worker { return &worker{kick: make(chan struct{}, 1), state: errStarting} }

func (w *worker) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

func (w *worker) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = err
}

// watch notes the keys of a set before they are held against the reader: what ends
// before is seen there, and of what ends later Ends tells.
func (w *worker) watch(tenant string, set *signing.Set) {
	watched := make(map[revoke.Key]bool, len(set.Keys))
	for _, k := range set.Keys {
		if t, err := signing.Target(tenant, k.ID); err == nil {
			watched[t.Key()] = true
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watched = watched
}

func (w *worker) has(targets []revoke.Key) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(targets, func(k revoke.Key) bool { return w.watched[k] })
}

// tenant returns a tenant whose keys are kept, or have to be removed.
func (r *Rotator) tenant(name string) (Tenant, bool) {
	if name == r.cfg.Home.Name {
		return r.cfg.Home, true
	}
	ending, there := r.Store.Tenants()[name]
	return Tenant{Name: name, Issuer: wire.TenantIssuer(r.cfg.Home.Issuer, name), Ending: ending}, there
}

// Living reports whether there is a tenant that is not ending, as far as the store has seen.
func (r *Rotator) Living(name string) bool {
	t, there := r.tenant(name)
	return there && !t.Ending
}

// worker returns that of a tenant, which is there from the first time on.
func (r *Rotator) worker(name string) *worker {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.workers[name]
	if w == nil {
		w = newWorker()
		r.workers[name] = w
	}
	return w
}

func (r *Rotator) allWorkers() []*worker {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*worker, 0, len(r.workers))
	for _, w := range r.workers {
		out = append(out, w)
	}
	return out
}

// Home is the tenant of the installation itself.
func (r *Rotator) Home() string { return r.cfg.Home.Name }

// Ready returns nil when the installation's own tenant has a key that signs and nothing
// keeps the rotator from doing what is to be done for it. What another tenant lacks is
// logged: it is no reason to send nobody here.
func (r *Rotator) Ready() error {
	w := r.worker(r.cfg.Home.Name)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state != nil {
		return fmt.Errorf("tenant %s: %w", r.cfg.Home.Name, w.state)
	}
	return nil
}

// Kick makes the workers look again: the reader has learnt something.
func (r *Rotator) Kick() {
	for _, w := range r.allWorkers() {
		w.wake()
	}
}

// Ends makes those workers look again that have one of the targets, which the reader
// shows as ended. Most of what ends is a token.
func (r *Rotator) Ends(targets []revoke.Key) {
	for _, w := range r.allWorkers() {
		if w.has(targets) {
			w.wake()
		}
	}
}

// Run works until ctx ends: for each tenant that there is, and for each that is ending
// until nothing of it is left.
func (r *Rotator) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	working := map[string]bool{} // whether the tenant was ending when its worker began
	ended := make(chan string)
	begin := func(name string, ending bool) {
		working[name] = ending
		all.Go(func() {
			r.work(ctx, name, r.worker(name))
			select {
			case ended <- name:
			case <-ctx.Done():
			}
		})
	}
	begin(r.cfg.Home.Name, false)
	cleared := map[string]bool{} // ending tenants of which nothing is left
	for {
		changed := r.Store.Changed()
		for name, ending := range r.Store.Tenants() {
			if !ending {
				delete(cleared, name)
			}
			if _, works := working[name]; !works && !(cleared[name] && r.forgotten(name)) && name != r.cfg.Home.Name {
				begin(name, ending)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case name := <-ended:
			delete(working, name)
			cleared[name] = !r.Living(name)
		}
	}
}

// idle is how long a worker rests at most: the more tenants, the longer, since each asks
// the broker then.
func (r *Rotator) idle() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(r.cfg.Idle, min(r.cfg.Idle*time.Duration(1+len(r.workers)/10), time.Minute))
}

// How long a worker pauses after an error; the shorter also after a lost race.
const (
	minPause = 50 * time.Millisecond
	maxPause = 2 * time.Second
)

// work keeps the keys of a tenant until ctx ends, or an ending tenant has none any more.
func (r *Rotator) work(ctx context.Context, name string, w *worker) {
	pause := minPause
	said := ""
	for ctx.Err() == nil {
		changed := r.Store.Changed()
		t, there := r.tenant(name)
		if !there {
			return
		}
		progress, again, err := r.Advance(ctx, t)
		if errors.Is(err, errNothingLeft) {
			return
		}
		if progress {
			pause, said = minPause, ""
			continue
		}
		if ctx.Err() != nil {
			return
		}
		wait := min(r.idle(), max(minPause, again.Sub(r.Now())))
		if err != nil {
			w.note(err)
			if said != err.Error() {
				said = err.Error()
				r.Log.Warn("signing keys: trying again", zap.String("tenant", t.Name), zap.Error(err))
			}
			wait, pause = pause, min(2*pause, maxPause)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-w.kick:
		case <-timer.C:
		}
		timer.Stop()
	}
}
