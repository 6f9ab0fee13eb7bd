package rotator

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/signing"
)

func (w *world) setTenant(name string, ending bool) {
	w.with(func() {
		if w.tenants == nil {
			w.tenants = map[string]bool{}
		}
		w.tenants[name] = ending
		w.wake()
	})
}

func TestTenantsGetKeysOfTheirOwnAndLoseThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		a, b := w.rotator(), w.rotator()
		done := make(chan error, 2)
		go func() { done <- a.Run(ctx) }()
		go func() { done <- b.Run(ctx) }()
		set := func() (signing.Set, error) { return w.Set(ctx, "acme") }
		for round := range 2 { // the name may be given again
			w.setTenant("acme", false)
			time.Sleep(time.Minute)
			s, err := set()
			if err != nil || s.Issuer != "http://issuer/t/acme" || len(inState(&s, signing.Signing)) != 1 || len(inState(&s, signing.Published)) != 1 {
				t.Fatalf("round %d: %+v, %v; want one key that signs and one next to it", round, s, err)
			}
			q := request(fmt.Sprint(round), true)
			q.Tenant = "acme"
			r, err := a.Start(ctx, q)
			if err == nil {
				r, err = b.Wait(ctx, "acme", r.ID, time.Minute)
			}
			if err != nil || r.State != Signs {
				t.Fatalf("rotation of its keys: %+v, %v", r, err)
			}
			var kids []string
			if s, err = set(); err != nil {
				t.Fatal(err)
			}
			for _, k := range s.Keys {
				if k.State != signing.Planned {
					kids = append(kids, k.ID)
				}
			}
			w.setTenant("acme", true)
			time.Sleep(time.Minute)
			if _, err := set(); problem.KindOf(err) != problem.NotFound {
				t.Fatalf("round %d: the keys of a deleted tenant: %v", round, err)
			}
			if ids, err := w.Rotations("acme"); err != nil || len(ids) > 0 {
				t.Errorf("round %d: rotations of a deleted tenant: %q, %v", round, ids, err)
			}
			// One that a replica took in which had not heard of the end.
			late := q
			late.Key = "late"
			if err := w.CreateRotation(ctx, newRotation(late, 1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if ids, err := w.Rotations("acme"); err != nil || len(ids) > 0 {
				t.Errorf("round %d: a late rotation of a deleted tenant: %q, %v", round, ids, err)
			}
			if _, err := a.Start(ctx, q); problem.KindOf(err) != problem.Invalid {
				t.Errorf("a rotation for a deleted tenant: %v", err)
			}
			for _, kid := range kids {
				if !w.told(kid, signing.Revoked) && !w.told(kid, signing.Gone) || !w.endedInLog(kid) && !w.told(kid, signing.Gone) {
					t.Errorf("round %d: the log was not told the end of %s", round, kid)
				}
			}
		}
		cancel()
		<-done
		<-done
	})
}

// Killed between any two steps, the next rotator goes on until nothing is left.
func TestClosingATenantSurvivesEveryFault(t *testing.T) {
	for n := range 12 {
		for _, lost := range []bool{false, true} {
			w := newWorld(t, time.Now)
			w.setTenant("acme", false)
			acme := Tenant{Name: "acme", Issuer: "http://issuer/t/acme"}
			for progress := true; progress; {
				var err error
				if progress, _, err = w.rotator().Advance(t.Context(), acme); err != nil {
					t.Fatal(err)
				}
			}
			w.setTenant("acme", true)
			acme.Ending = true
			w.with(func() { w.failAt, w.lost = w.calls+n, lost })
			var err error
			for try := 0; !errors.Is(err, errNothingLeft); try++ {
				if _, _, err = w.rotator().Advance(t.Context(), acme); try > 100 {
					t.Fatalf("call %d, lost %t: it does not come to an end: %v", n, lost, err)
				}
			}
		}
	}
}

// A replica whose copy still shows the end of a tenant leaves alone what is of one that was
// given the name since.
func TestALateReplicaClosesNothingOfANewTenant(t *testing.T) {
	w := newWorld(t, time.Now)
	w.setTenant("acme", false)
	acme := Tenant{Name: "acme", Issuer: "http://issuer/t/acme"}
	for progress := true; progress; {
		var err error
		if progress, _, err = w.rotator().Advance(t.Context(), acme); err != nil {
			t.Fatal(err)
		}
	}
	q := request("new", true)
	q.Tenant = "acme"
	if err := w.CreateRotation(t.Context(), newRotation(q, 1)); err != nil {
		t.Fatal(err)
	}
	before := string(w.sets["acme"])
	had, _ := w.Rotations("acme")
	w.setTenant("acme", true)
	w.again = map[string]bool{"acme": true}
	acme.Ending = true
	progress, again, err := w.rotator().Advance(t.Context(), acme)
	if err != nil || progress || again.IsZero() {
		t.Errorf("progress %t, again %v, %v; want to be asked later", progress, again, err)
	}
	if ids, _ := w.Rotations("acme"); len(ids) != len(had) || string(w.sets["acme"]) != before {
		t.Errorf("rotations %q of %q are left, its keys as before: %t", ids, had, string(w.sets["acme"]) == before)
	}
	// Nor what was made after it had looked.
	w.again = nil
	set, err := w.Set(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	set.CreatedAt--
	if progress, _, err := w.rotator().close(t.Context(), "acme", set, nil); err != nil || progress || string(w.sets["acme"]) != before {
		t.Errorf("progress %t, %v; its keys as before: %t", progress, err, string(w.sets["acme"]) == before)
	}
}

func (w *world) told(kid, state string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.log {
		if l.state != nil && l.state.KeyID == kid && l.state.State == state {
			return true
		}
	}
	return false
}

func (w *world) endedInLog(kid string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.log {
		if l.ends == kid {
			return true
		}
	}
	return false
}

// The record of a tenant's keys goes after all else that is kept of it: once that is gone the
// name can be given again.
func TestTheKeysOfATenantGoAfterAllElse(t *testing.T) {
	w := newWorld(t, time.Now)
	w.setTenant("acme", false)
	acme := Tenant{Name: "acme", Issuer: "http://issuer/t/acme"}
	for progress := true; progress; {
		var err error
		if progress, _, err = w.rotator().Advance(t.Context(), acme); err != nil {
			t.Fatal(err)
		}
	}
	w.setTenant("acme", true)
	acme.Ending = true
	left := true
	advance := func() error {
		r := w.rotator()
		r.Clear = func(_ context.Context, tenant string) error {
			if tenant != "acme" {
				t.Errorf("cleared %q", tenant)
			}
			if left {
				return errFault
			}
			return nil
		}
		_, _, err := r.Advance(t.Context(), acme)
		return err
	}
	var err error
	for range 20 {
		err = advance()
	}
	if _, there := w.sets["acme"]; !there || !errors.Is(err, errFault) {
		t.Fatalf("its keys are there: %t, %v; want them to wait for what is left", there, err)
	}
	left = false
	for try := 0; !errors.Is(err, errNothingLeft); try++ {
		if err = advance(); try > 20 {
			t.Fatalf("it does not come to an end: %v", err)
		}
	}
}
