package doctor

import (
	"crypto/tls"
	"maps"
	"slices"
	"sync"
	"time"
)

// seen collects the certificates of the servers that a client has dialled.
type seen struct {
	now func() time.Time

	mu  sync.Mutex
	all map[string]Finding
}

func newSeen(now func() time.Time) *seen { return &seen{now: now, all: map[string]Finding{}} }

func (s *seen) add(addr string, state *tls.ConnectionState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[addr] = certificate(addr, state, s.now())
}

func (s *seen) list() []Finding {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Finding
	for _, addr := range slices.Sorted(maps.Keys(s.all)) {
		out = append(out, s.all[addr])
	}
	return out
}
