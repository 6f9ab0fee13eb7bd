package rotator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

func request(key string, emergency bool) Request {
	return Request{
		Key: key, Tenant: tenant, Actor: "alice", Kind: KindSigningKey, Reason: "because", Emergency: emergency,
	}
}

func inState(s *signing.Set, state string) (out []signing.Key) {
	for _, k := range s.Keys {
		if k.State == state {
			out = append(out, k)
		}
	}
	return out
}

func start(t *testing.T, w *world, q Request) Rotation {
	t.Helper()
	r, err := w.rotator().Start(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rotation(t *testing.T, w *world, id string) Rotation {
	t.Helper()
	r, err := w.Rotation(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestFirstKeySignsAtOnceAndANextOneIsPublished(t *testing.T) {
	w := newWorld(t, time.Now)
	w.settle()
	s := w.set()
	if n := len(inState(s, signing.Signing)); n != 1 {
		t.Fatalf("keys that sign: got %d, want 1", n)
	}
	if n := len(inState(s, signing.Published)); n != 1 || len(s.Keys) != 2 {
		t.Fatalf("got %d published of %d keys, want 1 of 2", n, len(s.Keys))
	}
	w.checkLog()
}

func TestFirstKeyWaitsForGuardsThatAreThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		w.guards["api"] = &fakeGuard{behind: true, limit: 15 * time.Second}
		w.settle()
		if n := len(inState(w.set(), signing.Signing)); n != 0 {
			t.Fatal("the key signs, and a guard lacks it")
		}
		w.guards["api"].behind = false
		w.settle()
		if n := len(inState(w.set(), signing.Signing)); n != 1 {
			t.Fatal("the key does not sign, and every guard has it")
		}
	})
}

func TestRotationWaitsForTheLeadTimeAndForEveryGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		w.settle()
		first := inState(w.set(), signing.Signing)[0]
		next := inState(w.set(), signing.Published)[0]

		r := start(t, w, request("k", false))
		w.settle()
		r = rotation(t, w, r.ID)
		if want := next.PublishedAt + DefaultLead.Milliseconds(); r.State != Waiting || r.NotBefore != want {
			t.Fatalf("within the lead time: state %s, not before %d; want waiting, %d", r.State, r.NotBefore, want)
		}
		w.guards["api"] = &fakeGuard{behind: true, limit: time.Hour}
		time.Sleep(DefaultLead)
		w.settle()
		if r = rotation(t, w, r.ID); r.State != Waiting || !slices.Equal(r.Lacking, []string{"api/i"}) {
			t.Fatalf("a guard lacks the key: state %s, lacking %v", r.State, r.Lacking)
		}
		w.guards["api"].behind = false
		w.settle()
		r = rotation(t, w, r.ID)
		if r.State != Signs || r.KeyID != next.ID || r.Previous != first.ID || r.SignsAt == 0 || r.Lacking != nil {
			t.Fatalf("got %+v, want %s to sign after %s", r, next.ID, first.ID)
		}
		s := w.set()
		if s.Find(first.ID).State != signing.Retiring || len(inState(s, signing.Published)) != 1 {
			t.Fatalf("got %+v: want the first key retiring, and a new next one", s.Keys)
		}
		w.checkLog()
	})
}

func TestGuardPastItsLimitOrOpenHoldsNothingUp(t *testing.T) {
	for name, g := range map[string]*fakeGuard{
		"past its limit": {behind: true, limit: 15 * time.Second},
		"open":           {behind: true, limit: time.Hour, open: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, time.Now)
				w.settle()
				w.guards["api"] = g
				time.Sleep(DefaultLead)
				r := start(t, w, request("k", false))
				w.settle()
				if r = rotation(t, w, r.ID); r.State != Signs {
					t.Fatalf("got %+v, want it signing", r)
				}
			})
		})
	}
}

func TestRotationIsNotOverBeforeIssuersHaveTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		w.settle()
		w.guards["issuer"] = &fakeGuard{behind: true, limit: 15 * time.Second}
		r := start(t, w, request("k", true))
		w.settle()
		if got := rotation(t, w, r.ID); got.State != Waiting {
			t.Fatalf("the issuer still signs with the old key, and the rotation is %s", got.State)
		}
		if len(inState(w.set(), signing.Published)) != 1 {
			t.Error("the new next key waits for the issuer; want it published meanwhile")
		}
		w.guards["issuer"].behind = false
		w.settle()
		if got := rotation(t, w, r.ID); got.State != Signs {
			t.Fatalf("got %+v, want it signing", got)
		}
	})
}

func TestEmergencyPromotesAtOnceAndRevokes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		w.settle()
		first := inState(w.set(), signing.Signing)[0]
		w.guards["api"] = &fakeGuard{behind: true, limit: 15 * time.Second}
		before := len(w.entries())
		r := start(t, w, request("k", true))
		w.settle()
		r = rotation(t, w, r.ID)
		if r.State != Signs || r.Previous != first.ID || !slices.Equal(r.Lacking, []string{"api/i"}) {
			t.Fatalf("got %+v, want it signing, and api/i named", r)
		}
		old := w.set().Find(first.ID)
		if old.State != signing.Revoked || old.Sealed != nil || old.EndedBy == nil {
			t.Fatalf("got %+v, want it revoked, without its private half", old)
		}
		var got []string
		for _, m := range w.entries()[before:] {
			if m.state == nil {
				got = append(got, "end "+name(m.ends, r))
			} else {
				got = append(got, m.state.State+" "+name(m.state.KeyID, r))
			}
		}
		want := []string{"signing new", "end old", "revoked old", "published next"}
		if !slices.Equal(got, want) {
			t.Errorf("messages: got %v, want %v", got, want)
		}
		w.checkLog()
	})
}

func name(kid string, r Rotation) string {
	switch kid {
	case r.KeyID:
		return "new"
	case r.Previous:
		return "old"
	}
	return "next"
}

func TestSameRequestIsTheSameRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		w.settle()
		a := start(t, w, request("k", true))
		w.settle()
		b := start(t, w, request("k", true))
		w.settle()
		if a.ID != b.ID || len(w.set().Keys) != 3 {
			t.Errorf("rotations %s and %s, %d keys: want one rotation and 3 keys", a.ID, b.ID, len(w.set().Keys))
		}
		_, err := w.rotator().Start(t.Context(), request("k", false))
		if problem.KindOf(err) != problem.Conflict {
			t.Errorf("another request under the same key: got %v, want a conflict", err)
		}
	})
}

func TestRevokedTargetOfTheSigningKeyRotatesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		w.settle()
		old := inState(w.set(), signing.Signing)[0]
		target, _ := signing.Target(tenant, old.ID)
		w.ended[target.Key()] = true
		w.settle()
		s := w.set()
		if s.Find(old.ID).State != signing.Revoked || len(inState(s, signing.Signing)) != 1 {
			t.Fatalf("got %+v, want %s revoked and another one signing", s.Keys, old.ID)
		}
	})
}

func TestRevokedNextKeyIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		w.settle()
		next := inState(w.set(), signing.Published)[0]
		target, _ := signing.Target(tenant, next.ID)
		w.ended[target.Key()] = true
		w.settle()
		s := w.set()
		if s.Find(next.ID).State != signing.Revoked || len(inState(s, signing.Published)) != 1 {
			t.Fatalf("got %+v, want %s revoked and another one published", s.Keys, next.ID)
		}
	})
}

func TestLivingKeysAreSentAgainInANewEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		w.settle()
		start(t, w, request("k", true))
		w.settle()
		before := len(w.entries())
		w.with(func() { w.epoch = 2000 })
		w.settle()
		got := map[string]int{}
		for _, m := range w.entries()[before:] {
			got[m.state.State]++
		}
		if got[signing.Signing] != 1 || got[signing.Published] != 1 || got[signing.Revoked] != 1 || len(got) != 3 {
			t.Errorf("sent again: got %v, want one each of signing, published, revoked", got)
		}
		w.settle()
		if n := len(w.entries()) - before; n != 3 {
			t.Errorf("messages in the new epoch: got %d, want 3", n)
		}
	})
}

func TestAlgorithmOfARequestStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		w.settle()
		q := request("k", false)
		q.Alg = signing.EdDSA
		start(t, w, q)
		w.settle()
		time.Sleep(DefaultLead)
		w.settle()
		s := w.set()
		if got := inState(s, signing.Signing)[0].Alg; got != signing.EdDSA {
			t.Errorf("signing key: got %s, want EdDSA", got)
		}
		if got := inState(s, signing.Published)[0].Alg; got != signing.EdDSA {
			t.Errorf("next key: got %s, want EdDSA", got)
		}
		w.checkLog()
	})
}

// A year and a half of doing nothing but asking the machine what is to be done.
func TestKeysLiveAndDieByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		r := w.rotator()
		r.cfg.Idle = time.Hour
		go func() { done <- r.Run(ctx) }()
		p := testPolicy()
		for day := range 550 {
			synctest.Wait()
			s := w.set()
			if day > 0 {
				signers := inState(s, signing.Signing)
				if len(signers) != 1 || len(inState(s, signing.Published)) != 1 {
					t.Fatalf("day %d: %+v: want one signing and one published", day, s.Keys)
				}
				if left := time.Until(signers[0].EndTime()); left < p.TokenLife {
					t.Fatalf("day %d: the key that signs has %s left", day, left)
				}
			}
			for _, k := range inState(s, signing.Retiring) {
				if age := time.Since(time.UnixMilli(k.StoppedAt)); age > 26*time.Hour {
					t.Fatalf("day %d: key %d has been retiring for %s", day, k.Number, age)
				}
			}
			time.Sleep(24 * time.Hour)
		}
		s := w.set()
		if s.Born < 7 || s.Born > 9 {
			t.Errorf("keys made in 550 days: got %d, want 7 to 9", s.Born)
		}
		if err := r.Ready(); err != nil {
			t.Errorf("Ready: %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		w.checkLog()
	})
}

func TestRetiringKeyStaysUntilItsLastTokenHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		w.settle()
		old := inState(w.set(), signing.Signing)[0]
		time.Sleep(DefaultLead)
		start(t, w, request("k", false))
		w.settle()
		time.Sleep(testPolicy().TokenLife)
		w.settle()
		if got := w.set().Find(old.ID).State; got != signing.Retiring {
			t.Fatalf("one token life later: got %s, want retiring", got)
		}
		time.Sleep(12 * time.Minute)
		w.settle()
		if k := w.set().Find(old.ID); k.State != signing.Gone || k.Sealed != nil {
			t.Fatalf("with slack: got %+v, want gone, without its private half", k)
		}
	})
}

// Every outside call of a whole story fails once, in both ways; settle kills
// the rotator after every step anyway.
func TestKilledBetweenAnyTwoStepsItGoesOn(t *testing.T) {
	story := func(t *testing.T, failAt int, lost bool) (calls int) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, time.Now)
			w.failAt, w.lost = failAt, lost
			again := func(q Request) Rotation {
				r, err := w.rotator().Start(t.Context(), q)
				if err != nil {
					r = start(t, w, q)
				}
				return r
			}
			w.settle()
			time.Sleep(DefaultLead)
			a := again(request("a", false))
			w.settle()
			b := again(request("b", true))
			w.settle()
			time.Sleep(2 * time.Hour)
			w.settle()
			s := w.set()
			if len(inState(s, signing.Signing)) != 1 || len(inState(s, signing.Published)) != 1 ||
				len(inState(s, signing.Gone)) != 1 || len(inState(s, signing.Revoked)) != 1 || len(s.Keys) != 4 {
				t.Errorf("got %+v, want one each of gone, revoked, signing, published", s.Keys)
			}
			ra, rb := rotation(t, w, a.ID), rotation(t, w, b.ID)
			if ra.State != Signs || rb.State != Signs || rb.Previous != ra.KeyID || s.Find(rb.KeyID).State != signing.Signing {
				t.Errorf("rotations: %+v and %+v", ra, rb)
			}
			w.checkLog()
			calls = w.calls
		})
		return calls
	}
	n := story(t, -1, false)
	if n < 20 {
		t.Fatalf("the story has only %d calls", n)
	}
	for i := range n {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("call=%d/lost=%v", i, lost), func(t *testing.T) { story(t, i, lost) })
		}
	}
}

func TestTwoReplicasDoItOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		a, b := w.rotator(), w.rotator()
		done := make(chan error, 2)
		go func() { done <- a.Run(ctx) }()
		go func() { done <- b.Run(ctx) }()
		time.Sleep(time.Minute)
		var ids []string
		for i := range 5 {
			r, err := a.Start(ctx, request(fmt.Sprint(i), true))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Start(ctx, request(fmt.Sprint(i), true)); err != nil {
				t.Fatal(err)
			}
			if r, err = b.Wait(ctx, tenant, r.ID, time.Minute); err != nil || r.State != Signs {
				t.Fatalf("rotation %d: %+v, %v", i, r, err)
			}
			ids = append(ids, r.KeyID)
		}
		time.Sleep(time.Minute)
		cancel()
		<-done
		<-done
		if s := w.set(); s.Born != 7 || len(slices.Compact(ids)) != 5 {
			t.Errorf("keys made: %d, by rotations %v; want 7 and 5 different ones", s.Born, ids)
		}
		w.checkLog()
	})
}

// A replica that read the keys before another one replaced the key that signs sees that
// key's target ended, and begins a rotation: it must not replace the new key too.
func TestRotationBegunTooLateReplacesNothing(t *testing.T) {
	for _, emergency := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, time.Now)
			w.settle()
			time.Sleep(DefaultLead)
			late, set := w.rotator(), w.set()
			old := inState(set, signing.Signing)[0]
			asked := start(t, w, request("a", true))
			w.settle()
			now := time.Now()
			if !emergency {
				now = now.Add(testPolicy().KeyLife)
			}
			steps, _ := testPolicy().Todo(set, Facts{Now: now, Epoch: w.epoch, Ended: func(kid string) bool { return emergency && kid == old.ID }})
			if len(steps) == 0 || steps[0].Action != Begin {
				t.Fatalf("with the keys as they were: %v, want a rotation to be begun", steps)
			}
			if err := late.do(t.Context(), set, steps[0]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(DefaultLead)
			w.settle()
			signs := inState(w.set(), signing.Signing)[0]
			if by := rotation(t, w, asked.ID).KeyID; signs.ID != by || w.set().Born != 3 {
				t.Errorf("%s signs, of %d keys; want %s, of 3", signs.ID, w.set().Born, by)
			}
			if r := rotation(t, w, rotationID(tenant, automatic, steps[0].Request.Key)); r.State != Signs || r.KeyID != signs.ID {
				t.Errorf("the rotation that came too late: %+v", r)
			}
		})
	}
}

func TestEmergencyDoesNotQueueBehindARotationThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		w.settle()
		time.Sleep(DefaultLead)
		ctx, cancel := context.WithCancel(t.Context())
		r := w.rotator()
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		w.with(func() { w.guards["api"] = &fakeGuard{behind: true, limit: 10 * time.Hour} })
		if _, err := r.Start(ctx, request("slow", false)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10100 * time.Millisecond) // in the middle of a question to the fleet
		began := time.Now()
		rot, err := r.Start(ctx, request("now", true))
		if err != nil {
			t.Fatal(err)
		}
		if rot, err = r.Wait(ctx, tenant, rot.ID, time.Minute); err != nil || rot.State != Signs {
			t.Fatalf("got %+v, %v", rot, err)
		}
		if d := time.Since(began); d > 200*time.Millisecond {
			t.Errorf("it took %s", d)
		}
		cancel()
		<-done
	})
}

func TestRotatorWithTheWrongKEKMakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		w.settle()
		next := inState(w.set(), signing.Published)[0]
		right := w.kek
		w.kek = newWorld(t, time.Now).kek
		time.Sleep(DefaultLead)
		start(t, w, request("k", false))
		_, _, err := w.rotator().Advance(t.Context(), homeTenant)
		if !errors.Is(err, seal.ErrWrongKEK) {
			t.Fatalf("got %v, want the wrong key-encryption key to be named", err)
		}
		if s := w.set(); s.Born != 2 || s.Find(next.ID).State != signing.Published {
			t.Errorf("got %+v, want nothing changed", s.Keys)
		}
		// The stolen key goes all the same, and the rest waits for the right file.
		r := start(t, w, request("e", true))
		for err = nil; err == nil; {
			_, _, err = w.rotator().Advance(t.Context(), homeTenant)
		}
		w.kek = right
		w.settle()
		if r = rotation(t, w, r.ID); r.State != Signs || r.KeyID != next.ID {
			t.Errorf("got %+v, want %s to sign", r, next.ID)
		}
	})
}

func TestTamperedNextKeyIsReplacedAndNeverSigns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		w.settle()
		bad := inState(w.set(), signing.Published)[0].ID
		if _, err := w.ChangeSet(t.Context(), tenant, func(s *signing.Set) error {
			c := s.Find(bad).Sealed.Ciphertext
			c[len(c)-1] ^= 1
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		r := start(t, w, request("k", true))
		w.settle()
		s := w.set()
		if r = rotation(t, w, r.ID); r.State != Signs || r.KeyID == bad || s.Find(bad).State != signing.Gone {
			t.Errorf("got %+v, keys %+v: want a fresh key to sign, and %s gone", r, s.Keys, bad)
		}
		w.checkLog()
	})
}

// TestOnlyTheEndOfAKeyWakesItsWorker: revocations come by the hundreds a second, and
// nearly all of them are of tokens.
func TestOnlyTheEndOfAKeyWakesItsWorker(t *testing.T) {
	w := newWorld(t, time.Now)
	w.settle()
	r := w.rotator()
	if _, _, err := r.Advance(t.Context(), r.cfg.Home); err != nil {
		t.Fatal(err)
	}
	r.Ends([]revoke.Key{{1}, {2}})
	if len(r.worker(tenant).kick) != 0 {
		t.Error("woken by what is none of its keys")
	}
	for _, k := range w.set().Keys {
		own, err := signing.Target(tenant, k.ID)
		if err != nil {
			t.Fatal(err)
		}
		r.Ends([]revoke.Key{{1}, own.Key()})
		select {
		case <-r.worker(tenant).kick:
		default:
			t.Errorf("not woken by the end of the %s key", k.State)
		}
	}
}

// TestWhatWaitsIsFoundByWhoAskedForIt: so that a schedule does not begin one rotation after the
// other while the first waits for guards.
func TestWhatWaitsIsFoundByWhoAskedForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Now)
		r, ctx := w.rotator(), t.Context()
		weekly := request("a", false)
		weekly.Actor = "schedule:weekly"
		if _, ok, err := r.WaitsFor(weekly.Tenant, weekly.Actor); ok || err != nil {
			t.Fatalf("before: %t, %v", ok, err)
		}
		first, err := r.Start(ctx, weekly)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok, err := r.WaitsFor(weekly.Tenant, weekly.Actor); !ok || err != nil || got.ID != first.ID {
			t.Errorf("%+v, %t, %v, want %s", got, ok, err, first.ID)
		}
		if got, ok, err := r.WaitsFor(weekly.Tenant, "schedule:other"); ok || err != nil {
			t.Errorf("another one's: %+v, %v", got, err)
		}
	})
}
