package simulation

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quash-project/quash/services/issuer"
)

const issuerURL = "https://quash.test"

// issuerAt is one replica of the issuer, or the place of one.
type issuerAt struct {
	w *world
	m *member // its reader

	starts atomic.Bool // somebody is about to start it

	mu sync.Mutex
	p  *process // nil: it does not run
}

// process is one life of an issuer.
type process struct {
	w       *world
	m       *member
	dead    atomic.Bool // nothing that it does has an effect any more
	service *issuer.Service
	stalls  []func(bool) // of its copies
	ctx     context.Context
	end     context.CancelFunc

	mu   sync.Mutex
	stop context.CancelFunc // of what it does by itself
	done chan struct{}
}

// start starts it with empty copies. Its member must run.
func (i *issuerAt) start() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.p != nil {
		return nil
	}
	p := &process{w: i.w, m: i.m}
	p.ctx, p.end = context.WithCancel(context.Background())
	r := i.w.records
	store := &issuer.Store{
		Tenants: newTable(p, r.tenants), Principals: newTable(p, r.principals), Keys: newTable(p, r.keys), Clients: newTable(p, r.clients),
		Roles: newTable(p, r.roles), Bindings: newTable(p, r.bindings),
		Turn: func(context.Context, string) (func(), error) { return func() {}, nil }, // nobody rules here
	}
	var err error
	p.service, err = issuer.New(issuer.Config{Issuer: issuerURL, Tenant: tenant}, issuer.Deps{
		Store: store, Reader: readerOf{i.m}, Committer: committer{p}, Signers: signer{},
		Log: i.w.log.Named(i.m.name), Now: i.m.now, Rand: i.w.c,
	})
	if err != nil {
		return err
	}
	i.p = p
	p.run()
	return nil
}

func newTable[T any](p *process, b *bucket[T]) *table[T] {
	t := &table[T]{b: b, p: p}
	t.begin(p.w.c.upTo(500 * time.Millisecond))
	p.stalls = append(p.stalls, t.stall)
	return t
}

// run has the process go on with what was not finished.
func (p *process) run() {
	ctx, stop := context.WithCancel(p.ctx)
	done := make(chan struct{})
	p.mu.Lock()
	p.stop, p.done = stop, done
	p.mu.Unlock()
	go func() { defer close(done); _ = p.service.Run(ctx) }()
}

// sleep has it do nothing by itself: its machine sleeps. What it knows it keeps.
func (p *process) sleep() {
	p.mu.Lock()
	stop, done := p.stop, p.done
	p.mu.Unlock()
	stop()
	<-done
}

// crash ends it between any two steps.
func (i *issuerAt) crash() {
	i.mu.Lock()
	p := i.p
	i.p = nil
	i.mu.Unlock()
	if p == nil {
		return
	}
	i.w.tracef("%s crashes", i.m.name)
	p.dead.Store(true)
	p.end()
	p.sleep()
}

// again starts it anew: another instance, that knows nothing.
func (i *issuerAt) again() error {
	if !i.starts.CompareAndSwap(false, true) {
		return nil
	}
	defer i.starts.Store(false)
	if i.current() != nil {
		return nil
	}
	i.w.tracef("%s starts", i.m.name)
	if err := i.m.restart(); err != nil {
		return err
	}
	return i.start()
}

func (i *issuerAt) current() *process {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.p
}

var (
	errDead = errors.New("simulated: the process is dead")
	errLost = errors.New("simulated: the answer was lost")
)

func (p *process) away() bool { return p.dead.Load() || p.m.cutOff() }

func (m *member) cutOff() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.away
}

// late is how long after a write its copy hears of it.
func (p *process) late() time.Duration {
	if p.w.b.goes(25) {
		return p.w.c.upTo(4 * time.Second)
	}
	return p.w.c.upTo(5 * time.Millisecond)
}

// dawdle is slow now and then: something happens between two steps.
func (p *process) dawdle() {
	if p.w.b.goes(12) {
		time.Sleep(p.w.c.upTo(400 * time.Millisecond))
	}
}

// question asks the record store: the way there, what it does, and the way back.
func (p *process) question(ctx context.Context, finishes bool, do func() error) error {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	lose := func() bool {
		return p.m.cutOff() || p.w.b.goes(80) || finishes && p.w.records.troubled.Load() && !p.w.c.one(3)
	}
	late := p.w.c.upTo(3 * time.Millisecond)
	if p.w.b.goes(40) {
		late = p.w.c.upTo(2 * time.Second)
	}
	if p.dead.Load() {
		return errDead
	}
	if !pause(ctx, late) || lose() {
		if p.w.b.goes(3) {
			// Given up, or dead, and on its way all the same.
			time.AfterFunc(p.w.c.upTo(10*time.Second), func() { _ = do() })
		}
		<-ctx.Done()
		return errNoAnswer
	}
	err := do()
	if !pause(ctx, p.w.c.upTo(3*time.Millisecond)) || lose() {
		<-ctx.Done()
		return errNoAnswer
	}
	if p.dead.Load() {
		return errDead
	}
	return err
}

// stall has some of its copies hear nothing any more, or all of them everything.
func (p *process) stall(stalled bool) {
	for _, stall := range p.stalls {
		if !stalled || p.w.c.one(2) {
			stall(stalled)
		}
	}
}

// wreckIssuers crashes issuers and stalls their copies, until ctx ends.
func (s *scenario) wreckIssuers(ctx context.Context) {
	for pause(ctx, time.Second+s.w.c.upTo(15*time.Second)) {
		i := s.issuers[s.w.c.below(len(s.issuers))]
		p := i.current()
		if p == nil {
			continue
		}
		if s.w.c.one(3) {
			s.w.tracef("copies of %s stall", i.m.name)
			p.stall(true)
			s.later(ctx, 30*time.Second, func() { p.stall(false) })
			continue
		}
		i.crash()
		s.w.truth.count("crashes of issuers")
		s.later(ctx, 10*time.Second, func() { _ = i.again() })
	}
}

// mendIssuers has all of them work.
func (s *scenario) mendIssuers() {
	s.w.records.troubled.Store(false)
	s.w.records.mute.Store(false)
	for _, i := range s.issuers {
		if p := i.current(); p != nil {
			p.stall(false)
		} else if err := i.again(); err != nil {
			s.w.truth.broke("%v", err)
		}
	}
}
