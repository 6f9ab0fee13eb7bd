package issuer

import (
	"math"
	"net/netip"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

// attempted counts a secret that was refused with err, if that is because it was cut or
// is held: whoever sent it still has it. The id of a secret is a hash of all of it, so
// that nobody makes it up. One whose record is gone is known by the log.
func (s *Service) attempted(err error, m *making, secret string, from netip.Addr) {
	if s.d.Attempted == nil || problem.KindOf(err) != problem.NotFound {
		return
	}
	id := idOf(secret)
	k, found := s.d.Store.Keys.Peek(RecordKey(s.cfg.Tenant, id))
	if !found {
		// A key is ended or held, never cut: no stamp lies above this one.
		s.d.Attempted(target(s.cfg.Tenant, revoke.KindKey, id), revoke.Stamp{Epoch: math.MaxUint64, Seq: math.MaxUint64}, from)
		return
	}
	if !k.shows(secret) || !m.now.Before(k.Expires) {
		return // it has merely expired
	}
	targets := keyTargets(&k)
	for _, t := range append(targets[:], m.base[:]...) {
		if s.d.Attempted(t, k.Stamp, from) {
			return
		}
	}
}
