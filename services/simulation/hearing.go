package simulation

import (
	"time"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/shared/guard/wire"
)

// heard tells one replica where the member is, which passes it on to the others.
func (m *member) heard(to *replica, instance string, at wire.Position) {
	m.mu.Lock()
	away := m.away
	m.mu.Unlock()
	if away || to == nil {
		return
	}
	m.w.overheard(func() {
		if _, f, relay, ok := to.ears(); ok {
			f.Heard(m.name, instance, at)
			relay.Tell(wire.Heard{Name: m.name, Instance: instance, Position: at.JSON()})
		}
	})
}

// overheard does what a message without an answer does: sometimes late, or never.
func (w *world) overheard(do func()) {
	if w.b.goes(30) {
		return
	}
	late := w.c.upTo(5 * time.Millisecond)
	if w.b.goes(50) {
		late = w.c.upTo(5 * time.Second)
	}
	time.AfterFunc(late, do)
}

// ears returns what hears guards; ok is false if it does not run or is cut off.
func (r *replica) ears() (*link, *fleet.Fleet, *fleet.Relay, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.link, r.fleet, r.relay, r.ledger != nil && !r.link.away.Load()
}

// passOn returns how a replica tells the others what it heard over its link: each
// of them by itself, now and then twice.
func (r *replica) passOn(over *link) func(wire.HeardBatch) {
	return func(b wire.HeardBatch) {
		if over.dead.Load() || over.away.Load() {
			return
		}
		for _, o := range r.w.replicas {
			take := func() {
				if _, f, _, ok := o.ears(); ok {
					for _, h := range b.Heard {
						f.Heard(h.Name, h.Instance, h.Position.Position())
					}
				}
			}
			if o == r {
				continue
			}
			r.w.overheard(take)
			if r.w.b.goes(20) {
				r.w.overheard(take)
			}
		}
	}
}
