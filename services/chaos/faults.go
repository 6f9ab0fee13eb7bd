package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quash-project/quash/services/deployment"
)

// fault is one way in which something fails for a while.
type fault struct {
	name   string
	weight int
	alone  bool // no other beside it: what it takes away others must still have
	do     func(*round, context.Context, *rand.Rand) error
}

// faultLogBack is known by name: what the checker asks of the others it can't ask
// while the log goes back.
const faultLogBack = "log-back"

const (
	faultDisk         = "disk-full"
	faultServiceClock = "service-clock"
)

// faults are all of them.
func faults() []fault {
	return []fault{
		{name: "kill", weight: 4, do: (*round).killService},
		{name: "stop", weight: 4, do: (*round).stopProcess},
		{name: "nats-kill", weight: 3, do: (*round).killNode},
		{name: "nats-kill-all", weight: 2, do: (*round).killAllNodes},
		{name: "nats-apart", weight: 3, do: (*round).partNodes},
		{name: "cut", weight: 3, do: linkFault("cut", func(*rand.Rand) state { return state{cut: true} })},
		{name: "half-open", weight: 5, do: linkFault("half-open", func(rng *rand.Rand) state {
			up := rng.IntN(3)
			return state{upStill: up != 0, downStill: up != 1}
		})},
		{name: "slow", weight: 5, do: linkFault("slow", func(rng *rand.Rand) state {
			return state{late: time.Duration(20+rng.IntN(280)) * time.Millisecond}
		})},
		{name: "lossy", weight: 3, do: linkFault("lossy", func(rng *rand.Rand) state {
			return state{stall: 0.02 + 0.2*rng.Float64(), reset: 0.01 * rng.Float64()}
		})},
		{name: faultPackets, weight: 3, do: (*round).losePackets},
		{name: "redis-flush", weight: 2, do: (*round).flushRedis},
		{name: "redis-kill", weight: 2, do: (*round).killRedis},
		{name: "redis-old", weight: 2, do: (*round).oldRedis},
		{name: "redis-evict", weight: 2, do: (*round).evictRedis},
		{name: "redis-failover", weight: 2, do: (*round).failOver},
		{name: faultDisk, weight: 2, do: (*round).fillDisks},
		{name: faultLogBack, weight: 2, alone: true, do: (*round).logBack},
		{name: "guard", weight: 1, do: (*round).renewGuard},
		{name: "guard-clock", weight: 1, do: (*round).wrongGuardClock},
		{name: faultServiceClock, weight: 2, do: (*round).wrongServiceClock},
	}
}

// can reports whether a fault can be had here.
func (w *world) can(fault string) bool {
	switch fault {
	case faultDisk:
		return w.disks != nil
	case faultPackets:
		return w.packets != nil
	}
	return true
}

// Faults are the names of all faults.
func Faults() (names []string) {
	for _, f := range faults() {
		names = append(names, f.name)
	}
	return names
}

// choose takes one fault in turn, so that all come in as many rounds as there are,
// and some more by their weight.
func (r *round) choose() (chosen []fault) {
	var all, weighed []fault
	for _, f := range faults() {
		if !r.w.can(f.name) || len(r.run.o.Only) > 0 && !slices.Contains(r.run.o.Only, f.name) {
			continue
		}
		all = append(all, f)
		for range f.weight {
			weighed = append(weighed, f)
		}
	}
	deck, at := (r.n-1)/len(all), (r.n-1)%len(all)
	first := all[rand.New(rand.NewPCG(r.seed, 1<<32+uint64(deck))).Perm(len(all))[at]]
	chosen = append(chosen, first)
	for range r.rng.IntN(r.run.pace.atOnce) {
		if more := weighed[r.rng.IntN(len(weighed))]; !first.alone && !more.alone {
			chosen = append(chosen, more)
		}
	}
	return chosen
}

// breakThings lets the faults come while the load goes on, and waits until they
// are over.
func (r *round) breakThings(ctx context.Context, chosen []fault) error {
	var all sync.WaitGroup
	errs := make([]error, len(chosen))
	for i, f := range chosen {
		rng := rand.New(rand.NewPCG(r.rng.Uint64(), r.rng.Uint64()))
		all.Go(func() {
			sleep(ctx, r.lasts(rng, 300*time.Millisecond, time.Second))
			errs[i] = f.do(r, ctx, rng)
			r.w.rec.Count("fault "+f.name, 1)
		})
	}
	all.Wait()
	sleep(ctx, r.lasts(r.rng, 200*time.Millisecond, 800*time.Millisecond))
	return errors.Join(errs...)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)))
}

// lasts is between, in a round that is longer or shorter.
func (r *round) lasts(rng *rand.Rand, least, most time.Duration) time.Duration {
	return time.Duration(float64(between(rng, least, most)) * r.run.pace.faults)
}

// did notes for people what a fault does.
func (r *round) did(format string, args ...any) {
	r.w.rec.with(func(*History) { r.faults = append(r.faults, fmt.Sprintf(format, args...)) })
}

func one(rng *rand.Rand, names []string) string { return names[rng.IntN(len(names))] }

// The kinds of processes: engines start before services.
var (
	serviceKinds = []string{"revocation", "rotator", "issuer", "balancer", "demo"}
	allKinds     = append([]string{"nats", "redis"}, serviceKinds...)
)

// signal reaches a process that has not ended: another one may have its number then.
func signal(p deployment.Process, s syscall.Signal) {
	if p.Runs() {
		_ = syscall.Kill(p.PID, s) // it may end just now
	}
}

// kill ends a process as a crash does.
func (w *world) kill(name string) error {
	p, err := w.process(name)
	if err != nil {
		return err
	}
	if p.Runs() { // another fault may have been first
		signal(p, syscall.SIGKILL)
		w.rec.Count(sawKill, 1)
	}
	for range 500 {
		if !p.Runs() {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%s can't be killed", name)
}

// restart starts a process again that another fault has not started already.
func (w *world) restart(name string) error {
	w.processes.Lock()
	defer w.processes.Unlock()
	p, err := w.process(name)
	if err != nil || p.Runs() {
		return err
	}
	return deployment.Restart(w.dir, name)
}

// crash kills some processes together, and starts them again after a while.
func (r *round) crash(ctx context.Context, down time.Duration, names ...string) error {
	r.did("kill %s for %s", strings.Join(names, ", "), down.Round(time.Millisecond))
	for _, name := range names {
		if err := r.w.kill(name); err != nil {
			return err
		}
	}
	sleep(ctx, down)
	for _, name := range names {
		if err := r.w.restart(name); err != nil {
			return err
		}
	}
	return nil
}

func (r *round) killService(ctx context.Context, rng *rand.Rand) error {
	return r.crash(ctx, r.lasts(rng, 50*time.Millisecond, 2*time.Second), one(rng, r.w.names(serviceKinds...)))
}

func (r *round) killNode(ctx context.Context, rng *rand.Rand) error {
	return r.crash(ctx, r.lasts(rng, 50*time.Millisecond, 3*time.Second), one(rng, r.w.names("nats")))
}

func (r *round) killAllNodes(ctx context.Context, rng *rand.Rand) error {
	return r.crash(ctx, r.lasts(rng, 50*time.Millisecond, 2*time.Second), r.w.names("nats")...)
}

func (r *round) stopProcess(ctx context.Context, rng *rand.Rand) error {
	name, still := one(rng, r.w.names(allKinds...)), r.lasts(rng, 500*time.Millisecond, 4*time.Second)
	r.did("stop %s for %s", name, still.Round(time.Millisecond))
	p, err := r.w.process(name)
	if err != nil {
		return err
	}
	signal(p, syscall.SIGSTOP) // another fault may have killed it
	sleep(ctx, still)
	signal(p, syscall.SIGCONT)
	return nil
}

// partNodes takes one node from the other two, while its clients go on to reach it.
func (r *round) partNodes(ctx context.Context, rng *rand.Rand) error {
	node, still := one(rng, r.w.names("nats")), r.lasts(rng, time.Second, 6*time.Second)
	s := state{cut: true}
	if rng.IntN(2) == 0 {
		s = state{upStill: true, downStill: true}
	}
	r.did("take %s from the cluster for %s, cut %t", node, still.Round(time.Millisecond), s.cut)
	match := func(x *link) bool {
		return strings.HasSuffix(x.to, " cluster") && (x.from == node || x.from == "" || strings.HasPrefix(x.to, node+" "))
	}
	r.w.links.set(s, match)
	sleep(ctx, still)
	r.w.links.set(state{}, match)
	return nil
}

// ways chooses a way to spoil: most often of guards, one or all, and else
// of the revocation service, on which most rests.
func ways(rng *rand.Rand, w *world) (from []string, to string) {
	guards := []string{"near", "short", "asks", "redis", "demo-1", "demo-2"}
	switch p := rng.Float64(); {
	case p < 0.25:
		from = guards
	case p < 0.60:
		from = []string{one(rng, guards)}
	case p < 0.85:
		from = []string{one(rng, w.names("revocation"))}
	default:
		from = []string{one(rng, w.names("rotator", "issuer"))}
	}
	to = one(rng, []string{"nats-", "nats-", "nats-", "nats-1", "redis-"})
	if from[0] == "redis" {
		to = "redis-" // it goes nowhere else
	}
	return from, to
}

// linkFault spoils the way of one process, or of all guards, to NATS or to Redis.
func linkFault(name string, how func(*rand.Rand) state) func(*round, context.Context, *rand.Rand) error {
	return func(r *round, ctx context.Context, rng *rand.Rand) error {
		s, still := how(rng), r.lasts(rng, time.Second, 5*time.Second)
		from, to := ways(rng, r.w)
		r.did("%s between %s and %s* for %s", name, strings.Join(from, ", "), to, still.Round(time.Millisecond))
		match := clientLinks(from, to)
		r.w.links.set(s, match)
		sleep(ctx, still)
		r.w.links.set(state{}, match)
		return nil
	}
}

// clientLinks are those of some processes to the engines that a prefix names.
func clientLinks(from []string, to string) func(*link) bool {
	return func(x *link) bool {
		return slices.Contains(from, x.from) && strings.HasPrefix(x.to, to) && strings.HasSuffix(x.to, " clients")
	}
}

func (r *round) anyEmbedded(rng *rand.Rand) *embedded {
	var all []*embedded
	for _, g := range r.w.guards {
		if e, ok := g.(*embedded); ok {
			all = append(all, e)
		}
	}
	return all[rng.IntN(len(all))]
}

func (r *round) renewGuard(_ context.Context, rng *rand.Rand) error {
	e := r.anyEmbedded(rng)
	r.did("end guard %s and start another", e.name)
	e.stop()
	return e.start()
}
