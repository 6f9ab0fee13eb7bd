package fleet

import (
	"sync"
	"time"

	"github.com/quash-project/quash/shared/guard/wire"
)

// gatherHeard is how long a relay collects what comes after a first position: it
// makes a confirmation later by that, and of the probes and reports of a fleet
// some 40 messages a second.
const gatherHeard = 25 * time.Millisecond

// Relay passes on what this replica alone has heard of guards, so that a probe or
// a report need come to one replica only. What is lost makes a confirmation later:
// the guard's next probe tells as much.
type Relay struct {
	Send func(wire.HeardBatch)

	mu        sync.Mutex
	gathering bool
	batch     []wire.Heard
	place     map[[2]string]int // in the batch, by name and instance: who says another's says nothing
}

// Tell passes a position on: at once after a quiet time, with others otherwise.
func (r *Relay) Tell(h wire.Heard) {
	r.mu.Lock()
	defer r.mu.Unlock()
	who := [2]string{h.Name, h.Instance}
	if i, ok := r.place[who]; ok {
		r.batch[i] = h
		return
	}
	if r.place == nil {
		r.place = map[[2]string]int{}
	}
	r.place[who] = len(r.batch)
	r.batch = append(r.batch, h)
	if !r.gathering {
		r.gathering = true
		r.flush()
		time.AfterFunc(gatherHeard, r.next)
	} else if len(r.batch) == wire.MaxHeard {
		r.flush()
	}
}

// next sends what was gathered, and goes on gathering until nothing comes.
func (r *Relay) next() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gathering = len(r.batch) > 0; r.gathering {
		r.flush()
		time.AfterFunc(gatherHeard, r.next)
	}
}

// flush sends under mu, so that batches go out in their order.
func (r *Relay) flush() {
	r.Send(wire.HeardBatch{Heard: r.batch})
	r.batch = nil
	clear(r.place)
}
