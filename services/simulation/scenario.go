package simulation

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/guard/wire"
)

// scenario is one run of a world.
type scenario struct {
	w          *world
	issuers    []*issuerAt
	targets    targeter
	background sync.WaitGroup

	mu       sync.Mutex
	tokens   []*thing
	keys     []*apiKey
	dead     []*apiKey // those that were refused
	apps     []*app
	roles    []*role
	bindings []*binding
}

const kept = 120

func (s *scenario) addToken(x *thing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = append(s.tokens, x)
	if len(s.tokens) > kept {
		i := s.w.c.below(len(s.tokens)) // old ones stay as long as new ones
		s.tokens = append(s.tokens[:i], s.tokens[i+1:]...)
	}
}

func (s *scenario) token() *thing {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tokens) == 0 {
		return nil
	}
	return s.tokens[s.w.c.below(len(s.tokens))]
}

// use has a guard decide without end.
func (s *scenario) use(ctx context.Context, decide func(*thing) bool) {
	for pause(ctx, 20*time.Millisecond+s.w.c.upTo(150*time.Millisecond)) {
		x := s.token()
		if x == nil {
			continue
		}
		if decide(x) {
			s.w.truth.count("taken")
		} else {
			s.w.truth.count("refused")
		}
	}
}

// Result is what a run has shown.
type Result struct {
	Broken []string
	Counts map[string]int
}

// Run runs one seed, for about so long in virtual time. It must be called in a
// bubble of testing/synctest.
func Run(seed uint64, length time.Duration, log *zap.Logger, trace func(string, ...any)) Result {
	c := newChance(seed)
	w := &world{c: c, b: newBroker(c), truth: newTruth(), log: log, traces: trace}
	w.redis = newRedis(w.b)
	w.records = newRecords(w)
	w.ctx, w.stop = context.WithCancel(context.Background())
	s := &scenario{w: w}
	w.truth.inLog = func(f *fact) bool { return s.inLog()(f) }
	w.truth.held = w.remember
	if err := s.begin(); err != nil {
		w.truth.broke("%v", err)
	} else {
		s.act(length)
		if c.below(5) < 2 {
			s.night()
		}
		s.quiet()
	}
	s.end()
	return Result{Broken: w.truth.broken, Counts: w.truth.counts}
}

// begin starts everything and waits until it works.
func (s *scenario) begin() error {
	w := s.w
	w.b.faults.Store(false)
	var err error
	if s.targets, err = newTargeter(); err != nil {
		return err
	}
	for n := range 2 + w.c.below(2) {
		r := &replica{w: w, number: n, offset: w.c.upTo(4*time.Minute) - 2*time.Minute}
		w.replicas = append(w.replicas, r)
		if err := r.start(); err != nil {
			return err
		}
	}
	for i, m := range []*member{
		{name: "deny-5", limit: 5 * time.Second, past: wire.PastDeny},
		{name: "deny-15", limit: 15 * time.Second, past: wire.PastDeny},
		{name: "deny-60", limit: time.Minute, past: wire.PastDeny},
		{name: "allow-15", limit: 15 * time.Second, past: wire.PastAllow},
		{name: "issuer-a", limit: 15 * time.Second, past: wire.PastDeny},
		{name: "issuer-b", limit: 15 * time.Second, past: wire.PastDeny},
	} {
		m.w, m.off = w, w.c.upTo(4*time.Minute)-2*time.Minute
		w.guards = append(w.guards, m)
		if i >= 4 {
			s.issuers = append(s.issuers, &issuerAt{w: w, m: m})
		}
		if err := m.start(); err != nil {
			return err
		}
	}
	for _, i := range s.issuers {
		if err := i.start(); err != nil {
			return err
		}
	}
	if err := s.newViews(); err != nil {
		return err
	}
	return w.eventually("everything works", 2*time.Minute, s.healthy)
}

// newViews starts those that have Redis alone.
func (s *scenario) newViews() error {
	s.w.views = nil
	for n := range 2 {
		r, err := s.w.newRedisReader(n)
		if err != nil {
			return err
		}
		s.w.views = append(s.w.views, r)
	}
	return nil
}

func (w *world) eventually(what string, limit time.Duration, ok func() error) error {
	end := time.Now().Add(limit)
	for {
		err := ok()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: not after %s: %w", what, limit, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func (s *scenario) healthy() error {
	for _, r := range s.w.replicas {
		l, _, _, ok := r.parts()
		if !ok {
			return fmt.Errorf("%s does not run", r.name())
		}
		if err := l.Ready(); err != nil {
			return fmt.Errorf("%s: %w", r.name(), err)
		}
	}
	for _, m := range s.w.guards {
		staleness, err := m.current().Check()
		if err == nil && staleness > m.limit {
			err = fmt.Errorf("it is %s behind", staleness)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	for _, i := range s.issuers {
		if p := i.current(); p == nil || p.service.Ready() != nil {
			return fmt.Errorf("the issuer %s is not ready", i.m.name)
		}
	}
	for _, v := range s.w.views {
		if st := v.reader.Status(); !st.Complete {
			return fmt.Errorf("%s: %w", v.name, st.Reason)
		}
	}
	return nil
}

// act lets everybody do their worst.
func (s *scenario) act(length time.Duration) {
	ctx, cancel := context.WithTimeout(s.w.ctx, length)
	defer cancel()
	s.w.b.faults.Store(true)
	var all sync.WaitGroup
	for n := range 2 {
		all.Go(func() { s.respond(ctx, n) })
	}
	s.load(ctx, &all)
	all.Go(func() { s.takeAway(ctx) })
	all.Go(func() { s.wreckIssuers(ctx) })
	all.Go(func() {
		for pause(ctx, 5*time.Second+s.w.c.upTo(20*time.Second)) {
			s.w.redis.keep()
		}
	})
	all.Go(func() { s.wreck(ctx) })
	all.Wait()
}

// load has tokens made and used until ctx ends.
func (s *scenario) load(ctx context.Context, all *sync.WaitGroup) {
	for n := range 2 {
		all.Go(func() { s.issue(ctx, n) })
	}
	for _, m := range s.w.guards[:4] {
		all.Go(func() { s.use(ctx, m.decide) })
	}
	for _, v := range s.w.views {
		all.Go(func() { s.use(ctx, v.decide) })
	}
}

// quiet ends all faults, and wants everything to come together.
func (s *scenario) quiet() {
	w := s.w
	w.tracef("quiet")
	w.b.faults.Store(false)
	w.b.setDown(false)
	for _, r := range w.replicas {
		if err := r.start(); err != nil {
			w.truth.broke("%v", err)
		}
		r.link.cut(false)
	}
	for _, m := range w.guards {
		m.cut(false)
	}
	s.mendIssuers()
	if err := w.eventually("everything works again", 5*time.Minute, s.healthy); err != nil {
		w.truth.broke("stuck: %v", err)
		return
	}
	if err := w.eventually("all views are the log's fold", time.Minute, s.converged); err != nil {
		w.truth.broke("views differ: %v", err)
	}
	s.nothingLost()
	if err := w.eventually("what is made anew is taken", 2*time.Minute, s.anew); err != nil {
		w.truth.broke("%v", err)
	}
	if err := w.eventually("nothing stays marked", time.Minute, s.finished); err != nil {
		w.truth.broke("%v", err)
	}
	for range 20 {
		s.nothingSlips()
	}
}

// nothingSlips has everybody decide on everything once more.
func (s *scenario) nothingSlips() {
	if x := s.token(); x != nil {
		s.everybody(x)
	}
}

func (s *scenario) everybody(x *thing) {
	for _, m := range s.w.guards {
		m.decide(x)
	}
	for _, v := range s.w.views {
		v.decide(x)
	}
}

func (s *scenario) end() {
	s.w.stop()
	s.background.Wait()
	for _, i := range s.issuers {
		i.crash()
	}
	for _, m := range s.w.guards {
		m.stop()
	}
	for _, v := range s.w.views {
		v.end()
		<-v.done
	}
	for _, r := range s.w.replicas {
		r.crash()
	}
	time.Sleep(30 * time.Second) // what is still on its way arrives
}
