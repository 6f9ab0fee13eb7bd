package issuer_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/rights"
)

// Who may make tenants rules them, and is no admin of the first tenant for that.
func TestAdminsOfTheFirstTenantAreMadeByWhoHoldsAsMuch(t *testing.T) {
	b, _ := ruled(t)
	ctx, maker := t.Context(), operator()
	maker.Scopes = []string{rights.TenantsWrite}
	_, _, err := b.CreateAdmin(ctx, maker, "default", 0, "test")
	if problem.KindOf(err) != problem.Forbidden {
		t.Errorf("an admin of the first tenant by tenants:write alone: %v", err)
	}
	must2(b.CreateAdmin(ctx, operator(), "default", 0, "test"))(t)
	must(t, 0, errOf(b.CreateTenant(ctx, maker, "acme", issuer.Limits{}, "test")))
	must2(b.CreateAdmin(ctx, maker, "acme", 0, "test"))(t)
	must(t, 0, errOf(b.DeleteTenant(ctx, maker, "acme", "test")))
	_, _, err = b.CreateAdmin(ctx, maker, "acme", 0, "test")
	stays(t, "an admin of a tenant that is being deleted", err)
}

// late is a table of a replica whose copy shows a mark that others have finished.
type late[T any] struct {
	*fakeTable[T]
	marked T
}

func (l late[T]) Group(name string) []T {
	if name == issuer.MarkedGroup {
		return []T{l.marked}
	}
	return l.fakeTable.Group(name)
}

// replica is another one, with a copy of its own.
func (b *bench) replica(t *testing.T, store *issuer.Store) *bench {
	t.Helper()
	service, err := issuer.New(issuer.Config{Issuer: "https://quash.test", Tenant: "default"}, issuer.Deps{
		Store: store, Reader: b.log, Committer: b.log, Signers: fakeSigner{}, Log: zap.NewNop(), Now: time.Now, Rand: rand.Reader,
	})
	must(t, 0, err)
	return &bench{Service: service}
}

func TestLateReplicaClearsNoTenantOfAReusedName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := ruled(t)
		ctx := t.Context()
		must(t, 0, errOf(b.CreateTenant(ctx, operator(), "acme", issuer.Limits{}, "test")))
		must(t, 0, errOf(b.DeleteTenant(ctx, operator(), "acme", "test")))
		marked, err := b.tenants.Load(ctx, "acme")
		if err != nil || marked.Mark == nil {
			t.Fatalf("%+v, %v: want it marked", marked, err)
		}
		stop := b.running(t)
		time.Sleep(2 * time.Minute)
		stop()
		if left, err := b.Remains(ctx, operator(), "acme"); err != nil || !left.None() {
			t.Fatalf("%+v, %v: want nothing left", left, err)
		}
		must(t, 0, errOf(b.CreateTenant(ctx, operator(), "acme", issuer.Limits{}, "test")))
		must2(b.CreateAdmin(ctx, operator(), "acme", 0, "test"))(t)
		before, err := b.Remains(ctx, operator(), "acme")
		must(t, 0, err)
		stop = b.replica(t, &issuer.Store{
			Tenants: late[issuer.Tenant]{b.tenants, marked}, Principals: b.principals, Keys: b.keys, Clients: b.clients, Roles: b.roles, Bindings: b.bindings, Uses: b.uses,
		}).running(t)
		time.Sleep(time.Minute)
		stop()
		if after, err := b.Remains(ctx, operator(), "acme"); err != nil || after != before || before.Keys != 1 {
			t.Errorf("of the new tenant %+v is left, %v; there was %+v", after, err, before)
		}
	})
}

// Of the first tenant one exports only what one may read.
func TestExportOfTheFirstTenantWantsTheScopes(t *testing.T) {
	b, _ := ruled(t)
	ctx, reader := t.Context(), operator()
	reader.Scopes = []string{rights.TenantsRead}
	must(t, 0, errOf(b.CreateTenant(ctx, operator(), "acme", issuer.Limits{}, "test")))
	must(t, 0, errOf(b.ExportTenant(ctx, reader, "acme")))
	if _, err := b.ExportTenant(ctx, reader, "default"); problem.KindOf(err) != problem.Forbidden {
		t.Errorf("by tenants:read alone: %v", err)
	}
	reader.Scopes = append(reader.Scopes, rights.PrincipalsRead, rights.ClientsRead, rights.KeysRead, rights.RolesRead)
	must(t, 0, errOf(b.ExportTenant(ctx, reader, "default")))
}

// Several tenants may have imported one key: it has leaked for each.
func TestLeakedKeyOfSeveralTenantsIsNotedInEach(t *testing.T) {
	b, _ := ruled(t)
	ctx := t.Context()
	const secret = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"
	sum := sha256.Sum256([]byte(secret))
	hash := hex.EncodeToString(sum[:])
	ids := map[string]string{}
	for _, tenant := range []string{"acme", "globex"} {
		must(t, 0, errOf(b.CreateTenant(ctx, operator(), tenant, issuer.Limits{}, "test")))
		caller := operator()
		caller.Tenant = tenant
		made, err := b.In(tenant).ImportKeys(ctx, caller, []issuer.ImportedKey{{SHA256: hash, NewKey: issuer.NewKey{Owner: "alice"}}}, "test")
		if err != nil || made[0].Outcome != issuer.Imported {
			t.Fatalf("%s: %+v, %v", tenant, made, err)
		}
		ids[tenant] = made[0].ID
	}
	must(t, 0, b.ReportLeak(ctx, secret, "a paste", netip.MustParseAddr("192.0.2.1")))
	for tenant, id := range ids {
		if k, err := b.keys.Load(ctx, issuer.RecordKey(tenant, id)); err != nil || k.Leak == nil || k.Leak.Where != "a paste" {
			t.Errorf("%s: %+v, %v", tenant, k.Leak, err)
		}
	}
}

// An exchange that the tenant's limit refuses takes nothing from its key's.
func TestWhatTheTenantsLimitRefusesCountsForNoKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := ruled(t)
		ctx := t.Context()
		must(t, 0, errOf(b.SetLimits(ctx, operator(), "default", issuer.Limits{TokensPerSecond: 1}, "test")))
		_, secret, err := b.CreateKey(ctx, operator(), issuer.NewKey{Owner: "alice", RateLimit: 2, Reason: "test"})
		must(t, 0, err)
		exchange := func() error { return second(b.Exchange(ctx, issuer.TokenRequest{APIKey: secret.Reveal()})) }
		time.Sleep(time.Minute)
		must(t, 0, exchange())
		for range 3 {
			if err := exchange(); problem.KindOf(err) != problem.RateLimited || !strings.Contains(err.Error(), "tenant") {
				t.Fatalf("the second of one second: %v", err)
			}
		}
		time.Sleep(time.Second)
		must(t, 0, exchange())
		time.Sleep(time.Second)
		if err := exchange(); problem.KindOf(err) != problem.RateLimited || !strings.Contains(err.Error(), "key") {
			t.Errorf("the third of the key's two: %v", err)
		}
	})
}
