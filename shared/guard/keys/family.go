package keys

import (
	"crypto/ed25519"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Family holds the keys of an installation's own issuer and of its tenants, whose issuers
// stand below it (wire.TenantIssuer). A tenant is known from the first message on that a
// trusted identity key has signed for it. Its methods are safe for concurrent use; Set never
// waits.
type Family struct {
	home   *Set
	others atomic.Pointer[map[string]*Set] // by tenant
	mu     sync.Mutex                      // held by Apply
}

// NewFamily returns a family of which only the home tenant is known, without keys. The rest
// is as with NewSet.
func NewFamily(tenant, issuer string, trust, algs []string) (*Family, error) {
	home, err := NewSet(tenant, issuer, trust, algs)
	if err != nil {
		return nil, err
	}
	f := &Family{home: home}
	f.others.Store(&map[string]*Set{})
	return f, nil
}

// Home returns the keys of the installation's own issuer.
func (f *Family) Home() *Set { return f.home }

// Set returns the keys of a tenant, nil while nothing is known of it.
func (f *Family) Set(tenant string) *Set {
	if tenant == f.home.tenant {
		return f.home
	}
	return (*f.others.Load())[tenant]
}

// Apply takes what a key message says, as Set.Apply does, and returns whose key it is about.
func (f *Family) Apply(m wire.Message, now time.Time) (tenant string, err error) {
	state, err := decode(m)
	if err != nil {
		return "", err
	}
	if state.Tenant == f.home.tenant {
		return state.Tenant, f.home.Apply(m, now)
	}
	if revoke.CheckName("tenant", state.Tenant) != nil || state.Issuer != wire.TenantIssuer(f.home.issuer, state.Tenant) {
		return "", ErrOther
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	known := *f.others.Load()
	s := known[state.Tenant]
	if s == nil {
		s = newSet(state.Tenant, state.Issuer, f.home.trust, f.home.algs)
	}
	if err := s.Apply(m, now); err != nil {
		return "", err
	}
	if known[state.Tenant] == nil {
		next := maps.Clone(known)
		next[state.Tenant] = s
		f.others.Store(&next)
	}
	return state.Tenant, nil
}

func newSet(tenant, issuer string, trust []ed25519.PublicKey, algs []string) *Set {
	s := &Set{tenant: tenant, issuer: issuer, trust: trust, algs: algs}
	s.keys.Store(&map[string]*Key{})
	return s
}
