package simulation

import (
	"context"
	"sync"
	"time"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/wire"
)

// nightLong is how long nothing runs: the entries of records that are dead by
// themselves come to their end meanwhile, those of the broker too.
const nightLong = wire.MaxTokenLife + 3*wire.Slack

// night stops everything in the middle of endings, until their entries have come to
// their end, and starts it again. Then only the mark says of what was not finished
// that it is dead, and only its own age says of a copy that it is too old. One issuer
// crashes; the machine of the other sleeps, and wakes with the copy of the evening.
func (s *scenario) night() {
	w := s.w
	w.tracef("evening")
	asleep := s.issuers[w.c.below(2)]
	s.evening(asleep)
	w.tracef("night")
	var p *process
	for _, i := range s.issuers {
		if i == asleep && i.current() != nil {
			p = i.current()
			p.stall(true)
			p.sleep()
			continue
		}
		i.crash()
	}
	w.b.faults.Store(false)
	for _, m := range w.guards {
		m.stop()
	}
	for _, v := range w.views {
		v.end()
		<-v.done
	}
	for _, r := range w.replicas {
		s.crash(r)
	}
	s.background.Wait() // who asks about what is confirmed
	time.Sleep(nightLong)
	w.truth.allOver()
	s.dawn(p)
}

// evening ends a lot at once, while most of what is to finish it gets lost. What
// sleeps hears nothing of it.
func (s *scenario) evening(asleep *issuerAt) {
	w := s.w
	w.b.setDown(false)
	s.mendIssuers()
	for _, r := range w.replicas {
		_ = r.start()
		r.link.cut(false)
	}
	for _, m := range w.guards {
		m.cut(false)
	}
	_ = w.eventually("everything works", time.Minute, s.healthy)
	ctx, cancel := context.WithTimeout(w.ctx, 8*time.Second)
	defer cancel()
	if p := asleep.current(); p != nil {
		p.stall(true)
	}
	w.records.troubled.Store(true)
	defer w.records.troubled.Store(false)
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			for pause(ctx, w.c.upTo(time.Second)) {
				if w.c.one(2) {
					s.takeOne(ctx)
				} else {
					s.deleteKey(ctx, pick(s, &s.keys))
				}
			}
		})
	}
	all.Wait()
}

// dawn starts everything again. For a while no issuer can commit, and everything is
// tried that was taken away.
func (s *scenario) dawn(slept *process) {
	w := s.w
	w.tracef("dawn")
	w.records.mute.Store(true)
	for _, r := range w.replicas {
		_ = r.start()
	}
	for _, m := range w.guards {
		_ = m.start()
	}
	for _, i := range s.issuers {
		_ = i.start()
	}
	if slept != nil {
		slept.run()
	}
	if err := s.newViews(); err != nil {
		w.truth.broke("%v", err)
	}
	ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for pause(ctx, w.c.upTo(200*time.Millisecond)) {
				of := &s.keys
				if w.c.one(2) {
					of = &s.dead
				}
				if x := s.exchangeOf(ctx, pick(s, of)); x != nil {
					s.everybody(x)
				}
			}
		})
	}
	all.Wait()
}

// allOver notes what has come to its end in the log.
func (t *truth) allOver() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.all {
		f.over = f.over || f.op == commit.Revoke && !f.direct
	}
}
