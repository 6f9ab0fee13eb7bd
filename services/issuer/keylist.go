package issuer

import (
	"context"
	"slices"
	"time"
)

// State says in a word what a record is good for.
type State string

// The states of records.
const (
	StateActive  State = "active"
	StateExpired State = "expired"
	StateEnding  State = "ending"  // somebody is removing it
	StateHeld    State = "held"    // a release brings it back
	StateRevoked State = "revoked" // it stays dead, unless it is renewed
)

// StateOf says what is left of a record by what hits it, for people who look at it; it
// decides nothing. expires is zero for what has no end.
func (s *Service) StateOf(marked bool, expires time.Time, hits []Hit) State {
	switch {
	case marked:
		return StateEnding
	case !expires.IsZero() && !s.d.Now().Before(expires):
		return StateExpired
	case len(hits) == 0:
		return StateActive
	case slices.ContainsFunc(hits, func(h Hit) bool { return !h.Held }):
		return StateRevoked
	}
	return StateHeld
}

// stateOfKey is StateOf of a key.
func (s *Service) stateOfKey(k *Key) State { state, _ := s.KeyStanding(k); return state }

// KeyStanding is Standing of a key.
func (s *Service) KeyStanding(k *Key) (State, []string) {
	return s.Standing(k.Mark != nil || k.over(s.d.Now()), k.Expires, s.HitBy(k.Stamp, KeyTargets(k)...))
}

// Standing is StateOf, with the targets that hit by name.
func (s *Service) Standing(marked bool, expires time.Time, hits []Hit) (State, []string) {
	var by []string
	for _, h := range hits {
		if !slices.Contains(by, h.Target) {
			by = append(by, h.Target)
		}
	}
	return s.StateOf(marked, expires, hits), by
}

// KeyFilter narrows a list. Empty parts don't.
type KeyFilter struct {
	Owner         string
	Client        string
	Kind          KeyKind
	Labels        map[string]string // all of these
	State         State
	ExpiresWithin time.Duration // those whose end is no further away
	// UnusedFor and UnusedSince are for those that were not used since then, nor made: one
	// of the two.
	UnusedFor   time.Duration
	UnusedSince time.Time
	Creator     string
	Having      []string  // labels, with whatever value
	From, To    time.Time // made not before From, and before To
}

func (f *KeyFilter) unusedSince(now time.Time) time.Time {
	if f.UnusedFor > 0 {
		return now.Add(-f.UnusedFor)
	}
	return f.UnusedSince
}

// fits reports whether a key is one of those that are asked for; what costs more comes
// later.
func (s *Service) fits(k *Key, f *KeyFilter) bool {
	switch {
	case f.Owner != "" && k.Owner != f.Owner, f.Client != "" && k.Client != f.Client, f.Kind != "" && k.Kind != f.Kind:
		return false
	case f.Creator != "" && k.Creator != f.Creator, !f.From.IsZero() && k.Created.Before(f.From), !f.To.IsZero() && !k.Created.Before(f.To):
		return false
	case f.ExpiresWithin > 0 && k.Expires.After(s.d.Now().Add(f.ExpiresWithin)):
		return false
	}
	if since := f.unusedSince(s.d.Now()); !since.IsZero() && (!k.Created.Before(since) || !s.UseOf(k).At.Before(since)) {
		return false
	}
	if !labelled(k.Labels, f.Labels) || !having(k.Labels, f.Having) {
		return false
	}
	if f.State == "" {
		return true
	}
	return s.stateOfKey(k) == f.State
}

// labelled reports whether all wanted labels are there.
func labelled(have, want map[string]string) bool {
	for name, value := range want {
		if is, ok := have[name]; !ok || is != value {
			return false
		}
	}
	return true
}

// having reports whether there are labels of all these names.
func having(have map[string]string, names []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { _, ok := have[name]; return !ok })
}

// Keys returns the keys of the tenant that fit, oldest first.
func (s *Service) Keys(_ context.Context, c Caller, f KeyFilter) ([]Key, error) {
	if err := s.checkTenant(c); err != nil {
		return nil, err
	}
	group := TenantGroup(c.Tenant)
	switch {
	case f.Client != "":
		group = ClientGroup(c.Tenant, f.Client)
	case f.Owner != "":
		group = OwnerGroup(c.Tenant, f.Owner)
	}
	out := slices.DeleteFunc(s.d.Store.Keys.Group(group), func(k Key) bool { return !s.fits(&k, &f) })
	slices.SortFunc(out, func(a, b Key) int { return byAge(a.Created, a.ID, b.Created, b.ID) })
	return out, nil
}

func byAge(a time.Time, aID string, b time.Time, bID string) int {
	if c := a.Compare(b); c != 0 {
		return c
	}
	switch {
	case aID < bID:
		return -1
	case aID > bID:
		return 1
	}
	return 0
}
