package simulation

import (
	"context"
	"slices"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// wreck does what goes wrong, until ctx ends.
func (s *scenario) wreck(ctx context.Context) {
	w := s.w
	lastBack := time.Now()
	for pause(ctx, time.Second+w.c.upTo(12*time.Second)) {
		switch w.c.below(15) {
		case 0, 1:
			r := w.replicas[w.c.below(len(w.replicas))]
			s.crash(r)
			s.later(ctx, 20*time.Second, func() { _ = r.start() })
		case 2:
			for _, r := range w.replicas {
				s.crash(r)
			}
			s.later(ctx, 10*time.Second, func() {
				for _, r := range w.replicas {
					_ = r.start()
				}
			})
		case 3:
			r := w.replicas[w.c.below(len(w.replicas))]
			if _, _, _, ok := r.parts(); ok {
				l := r.link
				w.tracef("%s is cut off", r.name())
				l.cut(true)
				s.later(ctx, 30*time.Second, func() { l.cut(false) })
			}
		case 4, 5:
			m := w.guards[w.c.below(len(w.guards))]
			w.tracef("%s is cut off", m.name)
			m.cut(true)
			s.later(ctx, 40*time.Second, func() { m.cut(false) })
		case 6:
			m := w.guards[w.c.below(4)]
			w.tracef("%s restarts", m.name)
			_ = m.restart()
		case 7:
			w.tracef("the broker has no leader")
			w.b.setDown(true)
			s.later(ctx, 10*time.Second, func() { w.b.setDown(false) })
		case 8, 9:
			if time.Since(lastBack) > 20*time.Second && w.b.newest() > 0 {
				lastBack = time.Now()
				s.rollBack(w.c.one(6))
			}
		case 10:
			w.tracef("redis is flushed")
			w.redis.flush()
			s.redisForgets()
		case 11:
			w.tracef("redis falls back")
			w.redis.fallBack()
			s.redisForgets()
		case 12:
			w.tracef("redis fails over")
			w.redis.failOver()
			s.redisForgets()
		case 13:
			// That server and no other, and for long enough: one that takes over meanwhile
			// may not, and one that may already is in the middle of it.
			server, ok := w.redis.letEvict()
			if !ok {
				continue
			}
			w.tracef("redis may evict")
			s.background.Go(func() {
				// Nothing can be said of the first seconds, until it is noticed.
				time.Sleep(15 * time.Second)
				for range 5 {
					w.redis.evict(server)
				}
				s.redisForgets()
				time.Sleep(w.c.upTo(10 * time.Second))
				w.redis.keepAll(server)
			})
		case 14:
			if time.Since(lastBack) > 20*time.Second && w.b.newest() > 0 {
				lastBack = time.Now()
				s.damage()
			}
		}
	}
}

func (s *scenario) later(ctx context.Context, limit time.Duration, do func()) {
	s.background.Go(func() {
		if pause(ctx, s.w.c.upTo(limit)) {
			do()
		}
	})
}

// inLog tells of facts whether the log has them now.
func (s *scenario) inLog() func(*fact) bool {
	says := s.w.b.says()
	return func(f *fact) bool {
		return slices.ContainsFunc(says[f.key], func(st revoke.State) bool { return covers(st, f) })
	}
}

func (s *scenario) crash(r *replica) {
	name := r.name()
	r.crash()
	s.w.truth.ends(name, s.inLog())
	s.w.truth.count("crashes")
}

func (s *scenario) redisForgets() {
	s.w.truth.ends("redis", s.inLog())
	s.w.truth.count("redis faults")
}

// rollBack makes the log go back a little, or altogether.
func (s *scenario) rollBack(all bool) {
	w := s.w
	_, epoch := w.b.fold()
	last := w.b.newest()
	to := uint64(0)
	if all {
		w.tracef("the log is gone")
		w.b.delete()
	} else {
		to = last - min(last-1, uint64(1+w.c.below(60)))
		w.tracef("the log goes back from %d to %d", last, to)
		w.b.rollBack(to)
	}
	s.wentBack(back{time.Now(), epoch, to})
}

// damage has the log lose some of its newest messages, and none of those after them.
func (s *scenario) damage() {
	w := s.w
	_, epoch := w.b.fold()
	last := w.b.newest()
	from := last - min(last-1, uint64(1+w.c.below(60)))
	to := from + uint64(w.c.below(4))
	w.tracef("the log loses %d to %d of %d", from, to, last)
	w.b.lose(from, to)
	s.wentBack(back{time.Now(), epoch, last})
}

// wentBack notes what the log has lost, and who still holds it.
func (s *scenario) wentBack(b back) {
	in := s.inLog()
	n := s.w.truth.wentBack(b, func(f *fact) bool { return !in(f) })
	s.w.tracef("%d acknowledged facts are lost", n)
	s.w.truth.count("the log went back")
}

// remember names who remembers a fact.
func (w *world) remember(f *fact) map[string]bool {
	out := map[string]bool{}
	for _, r := range w.replicas {
		if l, _, _, ok := r.parts(); ok && covers(l.View().State(f.key), f) {
			out[r.name()] = true
		}
	}
	w.redis.mu.Lock()
	text := w.redis.now.values[wire.RedisTargetKey(0, f.key)].text
	w.redis.mu.Unlock()
	if st, err := wire.ParseRedisState(text); err == nil && covers(st, f) {
		out["redis"] = true
	}
	return out
}
