package guard

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quash-project/quash/shared/guard/keys"
	"github.com/quash-project/quash/shared/guard/wire"
)

// tenants are the issuers below one whose Tenants is set. They are learnt by their signing
// keys; a read never waits.
type tenants struct {
	of      *issuer
	keys    *keys.Family
	mu      sync.Mutex
	issuers atomic.Pointer[map[string]*issuer] // by tenant
}

func (iss *issuer) openTenants() error {
	family, err := keys.NewFamily(iss.Tenant, iss.URL, iss.Trust, iss.Algs)
	if err != nil {
		return err
	}
	iss.set, iss.tenants = family.Home(), &tenants{of: iss, keys: family}
	iss.tenants.issuers.Store(&map[string]*issuer{})
	return nil
}

// apply takes a key message that is about this issuer, or a tenant below it.
func (iss *issuer) apply(m wire.Message, now time.Time) error {
	if iss.tenants == nil {
		return iss.set.Apply(m, now)
	}
	return iss.tenants.apply(m, now)
}

func (ts *tenants) apply(m wire.Message, now time.Time) error {
	tenant, err := ts.keys.Apply(m, now)
	if err != nil || tenant == ts.of.Tenant {
		return err
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	known := *ts.issuers.Load()
	if known[tenant] != nil {
		return nil
	}
	i := ts.of.Issuer
	i.URL, i.Tenant, i.Tenants = wire.TenantIssuer(ts.of.URL, tenant), tenant, false
	iss, err := named(i)
	if err != nil {
		return err
	}
	iss.set = ts.keys.Set(tenant)
	next := maps.Clone(known)
	next[tenant] = iss
	ts.issuers.Store(&next)
	return nil
}

// issuer returns the one with a URL, nil if it is not known; below says whether it could be
// a tenant's.
func (ts *tenants) issuer(url string) (iss *issuer, below bool) {
	tenant, below := wire.TenantOf(ts.of.URL, url)
	if !below {
		return nil, false
	}
	return (*ts.issuers.Load())[tenant], true
}
