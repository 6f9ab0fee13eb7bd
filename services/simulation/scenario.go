package simulation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/denylist"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// scenario is one run of a world.
type scenario struct {
	w          *world
	issuers    []*issuer
	background sync.WaitGroup

	mu      sync.Mutex
	tokens  []*thing
	records []*record
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

func (s *scenario) addRecord(r *record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = append(s.records, r)
}

func (s *scenario) token() *thing {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tokens) == 0 {
		return nil
	}
	return s.tokens[s.w.c.below(len(s.tokens))]
}

func (s *scenario) record() *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.records) == 0 {
		return nil
	}
	return s.records[s.w.c.below(len(s.records))]
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
	w.ctx, w.stop = context.WithCancel(context.Background())
	s := &scenario{w: w}
	w.truth.inLog = func(f *fact) bool { return covers(s.stateInLog(f.key), f) }
	if err := s.begin(); err != nil {
		w.truth.broke("%v", err)
	} else {
		s.act(length)
		s.quiet()
	}
	s.end()
	return Result{Broken: w.truth.broken, Counts: w.truth.counts}
}

// begin starts everything and waits until it works.
func (s *scenario) begin() error {
	w := s.w
	w.b.faults.Store(false)
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
			s.issuers = append(s.issuers, &issuer{member: m})
		}
		if err := m.start(); err != nil {
			return err
		}
	}
	for n := range 2 {
		r, err := w.newRedisReader(n)
		if err != nil {
			return err
		}
		w.views = append(w.views, r)
	}
	return w.eventually("everything works", 2*time.Minute, s.healthy)
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
	for _, i := range s.issuers {
		all.Go(func() { s.issue(ctx, i) })
	}
	for _, m := range s.w.guards[:4] {
		all.Go(func() { s.use(ctx, m.decide) })
	}
	for _, v := range s.w.views {
		all.Go(func() { s.use(ctx, v.decide) })
	}
	all.Go(func() {
		for pause(ctx, 5*time.Second+s.w.c.upTo(20*time.Second)) {
			s.w.redis.keep()
		}
	})
	all.Go(func() { s.wreck(ctx) })
	all.Wait()
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
	for range 20 {
		s.nothingSlips()
	}
}

// nothingSlips has everybody decide on everything once more.
func (s *scenario) nothingSlips() {
	x := s.token()
	if x == nil {
		return
	}
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

// fold is what the log itself says, read apart from the ledger.
func (b *broker) fold() (*revoke.View, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expire()
	v := revoke.NewView()
	var here uint64
	for _, m := range b.messages {
		s, err := wire.FromHeader(feedHeader(m))
		if err != nil {
			panic(err)
		}
		if s.Message.Kind != wire.KindEpoch {
			s.Message.Epoch = max(s.Message.Epoch, here)
		}
		here = max(here, s.Message.Epoch)
		for k, st := range s.Message.States(s.Position().Stamp) {
			v.Merge(k, st)
		}
		if e, ok := s.Message.EpochState(); ok {
			v.MergeEpoch(e)
		}
	}
	return v, here
}

func (s *scenario) stateInLog(k revoke.Key) revoke.State {
	log, _ := s.w.b.fold()
	return log.State(k)
}

// means is what a state comes to, whatever it was made of.
type means struct {
	ended, held bool
	cut         revoke.Stamp
}

func meansOf(s revoke.State, es revoke.Epochs) means {
	return means{s.Ended, es.Clamp(s.Released).Less(s.Held), s.Cut}
}

// converged compares every view with the log's own fold.
func (s *scenario) converged() error {
	log, epoch := s.w.b.fold()
	compare := func(who string, of func(revoke.Key) revoke.State, es revoke.Epochs, exact bool) error {
		if es.Current().Number != epoch {
			return fmt.Errorf("%s is in epoch %d, the log in %d", who, es.Current().Number, epoch)
		}
		for _, f := range s.w.truth.facts {
			k, name := f[0].key, f[0].target
			want, got := meansOf(log.State(k), log.Epochs()), meansOf(of(k), es)
			if !exact && !es.Clamp(of(k).Released).Less(log.State(k).Held) {
				want.held = false // it knows of a release that the log has lost
			}
			if want != got && (exact || want.ended && !got.ended || want.held && !got.held || got.cut.Less(want.cut)) {
				return fmt.Errorf("%s has %+v of %s, the log %+v (states %+v and %+v; epochs %+v; %s)", who, got, name, want, of(k), log.State(k), es, factsOf(f))
			}
		}
		return nil
	}
	var errs []error
	for _, r := range s.w.replicas {
		if l, _, _, ok := r.parts(); ok {
			errs = append(errs, compare(r.name(), l.View().State, l.View().Epochs(), true))
		}
	}
	for _, m := range s.w.guards {
		v := m.current().View()
		errs = append(errs, compare(m.name, v.State, v.Epochs(), false)) // it may know what everybody else has lost
	}
	s.w.redis.mu.Lock()
	values := copyOf(s.w.redis.now.values)
	s.w.redis.mu.Unlock()
	meta, err := wire.ParseRedisMeta(values[wire.RedisMetaKey(0)].text)
	if err != nil {
		return err
	}
	errs = append(errs, compare("redis", func(k revoke.Key) revoke.State {
		st, _ := wire.ParseRedisState(values[wire.RedisTargetKey(0, k)].text)
		return st
	}, meta.Epochs, false)) // what it fell back to may be lost everywhere else
	return errors.Join(errs...)
}

// factsOf is what was done to a target, for people.
func factsOf(facts []*fact) string {
	var out []string
	for _, f := range facts {
		out = append(out, fmt.Sprintf("%s asked %s, answered %s as %s", f.op, clock(f.asked), clock(f.acked), f.at))
	}
	return strings.Join(out, "; ")
}

// covers reports whether a state has a fact in it.
func covers(st revoke.State, f *fact) bool {
	switch {
	case f.op == commit.Release:
		return true
	case f.op == commit.Hold:
		return !st.Held.Less(f.at) || !st.Released.Less(f.at)
	case f.target.Kind.Final():
		return st.Ended
	}
	return !st.Cut.Less(f.at)
}

// nothingLost wants every acknowledged fact in the log that anybody had held.
func (s *scenario) nothingLost() {
	log, _ := s.w.b.fold()
	for _, f := range s.w.truth.all {
		released := f.op == commit.Hold && s.w.truth.mayBeReleased(f, time.Now())
		if !f.acked.IsZero() && !f.excused && !released && !covers(log.State(f.key), f) {
			var has []string
			for _, r := range s.w.replicas {
				if l, _, _, ok := r.parts(); ok {
					has = append(has, fmt.Sprintf("%s %+v", r.name(), l.View().State(f.key)))
				}
			}
			s.w.truth.broke("%s of %s, acknowledged at %s as %s, is lost (lost before: %t, held by %v); the log has %+v, epochs %+v; %s", f.op, f.target, clock(f.acked), f.at, f.lost, f.holders, log.State(f.key), log.Epochs(), strings.Join(has, "; "))
		}
	}
}

// anew makes a token for everybody who is not held, and wants it taken everywhere.
func (s *scenario) anew() error {
	for n := range nNames {
		i := s.issuers[n%len(s.issuers)]
		x := i.make(s.w.ctx, "a new token", []revoke.Target{principal(n)}, nil)
		// A reader keeps what it knew, also a hold that was never answered and that the
		// log has lost.
		if i.current().View().Blocked(principal(n).Key()) {
			s.w.truth.count("held for the last time")
			continue
		}
		if x == nil {
			st, log := i.current().View().State(principal(n).Key()), s.stateInLog(principal(n).Key())
			return fmt.Errorf("%s makes no token for p%d: it has %+v, the log %+v, epochs %+v", i.name, n, st, log, i.current().View().Epochs())
		}
		for _, m := range s.w.guards {
			if !m.decide(x) && !m.current().View().Blocked(principal(n).Key()) {
				return fmt.Errorf("%s refuses a new token of p%d with stamp %s", m.name, n, x.stamp)
			}
		}
		for _, v := range s.w.views {
			// What Redis fell back to may hold what is lost everywhere else.
			if res, _ := v.check(x); res.Outcome == denylist.Incomplete || res.Outcome == denylist.Hit && res.State.Held.IsZero() {
				return fmt.Errorf("%s refuses a new token of p%d with stamp %s", v.name, n, x.stamp)
			}
		}
	}
	return nil
}
