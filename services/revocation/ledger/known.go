package ledger

import (
	"sync"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/problem"
)

// maxKnown is how many requests of late are remembered, about 250 bytes each.
const maxKnown = 16_384

// known answers the repetition of a request from memory: in a batch it would have
// all refused. What it does not know is in the log.
type known struct {
	mu       sync.Mutex
	now, was map[string]knownEntry // of two generations; the older one is dropped
}

type knownEntry struct {
	digest string
	answer commit.Answer
	until  int64 // Unix seconds: the entry is in the log until then at least
}

func (k *known) keep(id string, e knownEntry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now == nil || len(k.now) >= maxKnown/2 {
		k.now, k.was = map[string]knownEntry{}, k.now
	}
	k.now[id] = e
}

// answer returns what a request was answered before; problem.Conflict if another
// one had this id. Another history of the log may not have the entry.
func (k *known) answer(p *plan, epoch uint64, now int64) (a commit.Answer, ok bool, err error) {
	k.mu.Lock()
	e, ok := k.now[p.id]
	if !ok {
		e, ok = k.was[p.id]
	}
	k.mu.Unlock()
	switch {
	case !ok || e.until < now || e.answer.Epoch != epoch:
		return a, false, nil
	case e.digest != p.digest:
		return a, true, problem.New(problem.Conflict, "the idempotency key was used for another request; use a new one")
	}
	a = e.answer
	a.Repeated = true
	return a, true, nil
}
