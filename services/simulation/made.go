package simulation

import (
	"fmt"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// born is when that of a thing was made which a target hits.
func (x *thing) born(k revoke.Key) time.Time {
	at := x.made
	for i, have := range x.targets {
		if have == k && !x.from[i].at.IsZero() && x.from[i].at.Before(at) {
			at = x.from[i].at
		}
	}
	return at
}

// ofLost reports whether a thing, or something that it is made of, has a stamp of
// that which the log has lost: it is given out again.
func (x *thing) ofLost(b back) bool {
	lost := func(at time.Time, s revoke.Stamp) bool { return at.Before(b.at) && s.Epoch == b.epoch && s.Seq > b.to }
	if lost(x.made, x.stamp) {
		return true
	}
	for _, o := range x.from {
		if !o.at.IsZero() && lost(o.at, o.stamp) {
			return true
		}
	}
	return false
}

// made notes a token that was issued. What it is made of had its stamp no later
// than the store says now; so much can be said of what hits it.
func (s *scenario) made(t issuer.Token, keyID, name string) (*thing, error) {
	targets, c, err := s.targets.of(t.Text)
	if err != nil {
		s.w.truth.broke("%v", err)
		return nil, err
	}
	x := &thing{name: name, targets: targets, stamp: c.Stamp, scopes: c.Scopes, made: time.Now(), expires: c.Expires, from: make([]origin, len(targets))}
	key, ok := s.w.records.origin(own(revoke.KindKey, keyID).Key())
	if !ok {
		s.w.truth.broke("%s is made of a key that never was", name)
	}
	for i, k := range targets {
		o, ok := s.w.records.origin(k)
		// Principal, client and grant hit the key; and a binding may come with it.
		if !ok || o.at.Before(key.at) && !s.w.records.isRole(k) {
			o = key
		}
		x.from[i] = o
	}
	for _, i := range s.issuers {
		x.known = append(x.known, knownAt(i.m, targets))
	}
	return x, nil
}

// known is what an issuer knew of the targets of a token when that was made: to trace by.
type known struct {
	issuer string
	pos    revoke.Stamp
	cuts   []revoke.Stamp
}

func knownAt(m *member, targets []revoke.Key) known {
	r := m.current()
	k := known{issuer: m.name, pos: r.Position().Stamp}
	for _, t := range targets {
		k.cuts = append(k.cuts, r.View().State(t).Cut)
	}
	return k
}

// traced says of a target of a token when that was made which it hits, and what the
// issuers knew of it.
func (x *thing) traced(k revoke.Key) string {
	for i, have := range x.targets {
		if have != k {
			continue
		}
		out := fmt.Sprintf("its origin got %s at %s", x.from[i].stamp, clock(x.from[i].at))
		for _, is := range x.known {
			out += fmt.Sprintf("; %s was at %s, with a cut at %s", is.issuer, is.pos, is.cuts[i])
		}
		return out
	}
	return "no target of it"
}

func own(kind revoke.Kind, id string) revoke.Target {
	return revoke.Target{Tenant: tenant, Issuer: revoke.Own, Kind: kind, ID: id}
}

// isRole reports whether a target is a role.
func (s *records) isRole(k revoke.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.born[k].role
}
