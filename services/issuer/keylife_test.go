package issuer_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/services/issuer"
)

// running runs the service beside a test, until the test has ended.
func (b *bench) running(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = b.Run(ctx) }()
	return func() { cancel(); <-done }
}

func (b *bench) key(t *testing.T, n issuer.NewKey) (issuer.Key, string) {
	t.Helper()
	n.Owner = "alice"
	k, secret, err := b.CreateKey(t.Context(), operator(), n)
	if err != nil {
		t.Fatal(err)
	}
	return k, secret.Reveal()
}

func (b *bench) use(t *testing.T, secret, from string) {
	t.Helper()
	_, err := b.Exchange(t.Context(), issuer.TokenRequest{APIKey: secret, Client: issuer.ClientAuth{From: netip.MustParseAddr(from)}})
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bench) writes(name string) (n int) {
	p := b.p
	if len(name) > 4 && name[:4] == "uses" {
		p = b.uses.p
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.steps {
		if s == name {
			n++
		}
	}
	return n
}

// A key that is used all the time is written of now and then; what was seen last is
// written at the end.
func TestUsesAreWrittenNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		stop := b.running(t)
		k, secret := b.key(t, issuer.NewKey{})
		for range 3600 {
			b.use(t, secret, "192.0.2.1")
			time.Sleep(time.Second)
		}
		if n := b.writes("uses.create") + b.writes("uses.change"); n < 10 || n > 13 {
			t.Errorf("%d writes in an hour of a use each second, want one in 5 minutes", n)
		}
		if n := b.writes("keys.change"); n != 0 {
			t.Errorf("%d writes of the key's record", n)
		}
		b.use(t, secret, "192.0.2.2")
		at := time.Now().UTC().Truncate(time.Minute)
		if u := b.UseOf(&k); !u.At.Equal(at) || u.From.String() != "192.0.2.2" {
			t.Errorf("%+v: want what was seen just now", u)
		}
		time.Sleep(6 * time.Minute) // and it is not used any more
		if u, _ := b.uses.Peek("default." + k.ID); !u.At.Equal(at) {
			t.Errorf("%+v stands there, want the last use", u)
		}
		time.Sleep(time.Minute)
		b.use(t, secret, "192.0.2.3")
		stop()
		if u, _ := b.uses.Peek("default." + k.ID); u.From.String() != "192.0.2.3" {
			t.Errorf("%+v stands there after the end, want the last use", u)
		}
	})
}

// What another replica has seen later stays.
func TestLaterUseWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		stop := b.running(t)
		defer stop()
		k, secret := b.key(t, issuer.NewKey{})
		b.use(t, secret, "192.0.2.1")
		other := issuer.Use{Tenant: "default", ID: k.ID, At: time.Now().UTC().Truncate(time.Minute).Add(2 * time.Minute), From: netip.MustParseAddr("192.0.2.9"), Until: k.Expires}
		b.uses.mu.Lock()
		b.uses.rows["default."+k.ID] = other
		b.uses.mu.Unlock()
		time.Sleep(20 * time.Minute)
		if u, _ := b.uses.Peek("default." + k.ID); u != other || b.UseOf(&k) != other {
			t.Errorf("%+v stands there, %+v is told; want the later", u, b.UseOf(&k))
		}
	})
}

func TestUnusedSinceIsByUseAndBirth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		old, oldSecret := b.key(t, issuer.NewKey{})
		unused, _ := b.key(t, issuer.NewKey{})
		time.Sleep(48 * time.Hour)
		b.use(t, oldSecret, "192.0.2.1")
		young, _ := b.key(t, issuer.NewKey{})
		ids := func(f issuer.KeyFilter) (out []string) {
			keys, err := b.Keys(t.Context(), operator(), f)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range keys {
				out = append(out, k.ID)
			}
			return out
		}
		if got := ids(issuer.KeyFilter{UnusedFor: 24 * time.Hour}); !slices.Equal(got, []string{unused.ID}) {
			t.Errorf("for a day: %q, want %s alone, not %s or %s", got, unused.ID, old.ID, young.ID)
		}
		if got := ids(issuer.KeyFilter{UnusedSince: time.Now().Add(-24 * time.Hour)}); !slices.Equal(got, []string{unused.ID}) {
			t.Errorf("since yesterday: %q, want %s alone", got, unused.ID)
		}
	})
}

// Each warning is told once, in time; of a key that is revoked, or that is younger than
// the warning, none is.
func TestEndsAreToldInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		stop := b.running(t)
		defer stop()
		k, _ := b.key(t, issuer.NewKey{Life: 15 * 24 * time.Hour})
		b.key(t, issuer.NewKey{Life: 12 * time.Hour})
		dead, _ := b.key(t, issuer.NewKey{Life: 15 * 24 * time.Hour})
		if _, err := b.DeleteKey(t.Context(), operator(), dead.ID, "a test"); err != nil {
			t.Fatal(err)
		}
		want := []time.Time{k.Expires.Add(-14 * 24 * time.Hour), k.Expires.Add(-24 * time.Hour)}
		time.Sleep(15 * 24 * time.Hour)
		if len(b.told) != 2 {
			t.Fatalf("told %d times, want 2", len(b.told))
		}
		for i, e := range b.told {
			if late := e.At.Sub(want[i]); e.Key.ID != k.ID || late < 0 || late > 15*time.Minute {
				t.Errorf("%d: told of %s, %v after its time", i, e.Key.ID, late)
			}
		}
	})
}

// Whatever becomes of the answer to the write that decides, it is told at least once and
// by the one that wrote.
func TestEndIsToldThoughAnswersAreLost(t *testing.T) {
	for _, what := range []outcome{failed, lost} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			stop := b.running(t)
			defer stop()
			b.key(t, issuer.NewKey{Life: 14*24*time.Hour + time.Hour})
			b.p.mu.Lock()
			b.p.at, b.p.what = b.p.n, what
			b.p.mu.Unlock()
			time.Sleep(4 * time.Hour)
			if n := len(b.told); n != 1 {
				t.Errorf("outcome %d: told %d times, want once", what, n)
			}
		})
	}
}

// A replica that crashes between the event and the record leaves it to the next one.
func TestEndIsToldAgainAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		k, _ := b.key(t, issuer.NewKey{Life: 14*24*time.Hour + time.Hour})
		b.p.mu.Lock()
		b.p.at, b.p.what = b.p.n, failed // as far as the record knows, it never was there
		b.p.mu.Unlock()
		told := make(chan struct{}, 1)
		b.onTold = func() { told <- struct{}{} }
		stop := b.running(t)
		<-told
		stop()
		if n := len(b.told); n != 1 || !b.keys.rows[issuer.RecordKey("default", k.ID)].Warned.IsZero() {
			t.Fatalf("told %d times, want once and nothing noted", n)
		}
		b.onTold = nil
		stop = b.running(t)
		time.Sleep(2 * time.Hour)
		stop()
		if n := len(b.told); n != 2 || b.told[0].Before != b.told[1].Before || b.keys.rows[issuer.RecordKey("default", k.ID)].Warned.IsZero() {
			t.Errorf("told %d times, want once more, and noted", n)
		}
	})
}

// The id of an imported key comes again with its hash, so that its end must be
// remembered for longer than that of a key of ours, whose id never does.
func TestDeletedImportStaysDead(t *testing.T) {
	b := newBench(t)
	keys := []issuer.ImportedKey{{NewKey: issuer.NewKey{Owner: "alice"}, SHA256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a07"}}
	importIt := func() issuer.Import {
		t.Helper()
		out, err := b.ImportKeys(t.Context(), operator(), keys, "a test")
		if err != nil {
			t.Fatal(err)
		}
		return out[0]
	}
	got := importIt()
	if got.Outcome != issuer.Imported {
		t.Fatalf("%+v", got)
	}
	if _, err := b.DeleteKey(t.Context(), operator(), got.ID, "leaked"); err != nil {
		t.Fatal(err)
	}
	b.log.pass()
	if again := importIt(); again.Outcome != issuer.Refused {
		t.Errorf("imported after it was deleted: %+v, want it refused", again)
	}
}

// Who finds a key can't know whose it is, and shows it to the installation's own issuer;
// another tenant's learns nothing by it.
func TestKeyOfATenantIsNotedWhereverItIsShown(t *testing.T) {
	b := newBench(t)
	b.tenants.rows["acme"], b.tenants.rows["other"] = issuer.Tenant{Name: "acme"}, issuer.Tenant{Name: "other"}
	caller := operator()
	caller.Tenant = "acme"
	k, secret, err := b.In("acme").CreateKey(t.Context(), caller, issuer.NewKey{Owner: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	noted := func() bool { return b.keys.rows["acme."+k.ID].Leak != nil }
	if err := b.In("other").ReportLeak(t.Context(), secret.Reveal(), "here", netip.Addr{}); err != nil || noted() {
		t.Errorf("shown to another tenant's issuer: %v, noted: %t; want nothing", err, noted())
	}
	if err := b.ReportLeak(t.Context(), secret.Reveal(), "here", netip.Addr{}); err != nil || !noted() {
		t.Errorf("%v, noted: %t", err, noted())
	}
	if n := b.In("other").Stats().Leaked; n != 1 {
		t.Errorf("counted %d times, want once for all tenants", n)
	}
}
