package issuer_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/services/issuer/delivery"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/problem"
)

func newOwner(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	must(t, 0, err)
	return id
}

// scheduler is who asks for what a schedule fires.
func scheduler() issuer.Caller { return issuer.Caller{Actor: "schedule:weekly", Tenant: "default"} }

func (b *bench) fire(ctx context.Context, id, firing string, overlap time.Duration) (issuer.UnattendedAnswer, error) {
	return b.RotateUnattended(ctx, scheduler(), issuer.KeyRef{Key: id}, issuer.Unattended{Firing: firing, Overlap: overlap, Reason: "routine"})
}

// collect gets the new secret as the owner does.
func (b *bench) collect(t *testing.T, id, current string, owner *age.X25519Identity) (delivery.Content, error) {
	t.Helper()
	d, err := b.Collect(t.Context(), self(id), id, issuer.Collect{Current: current, Reason: "mine"})
	if err != nil {
		return delivery.Content{}, err
	}
	return delivery.Open(d.Sealed, owner)
}

// self is whoever asks with a token of a key.
func self(id string) issuer.Caller {
	return issuer.Caller{Actor: "key_" + id, Tenant: "default", Client: "key_" + id, Targets: []revoke.Key{(revoke.Target{Tenant: "default", Issuer: revoke.Own, Kind: revoke.KindKey, ID: id}).Key()}}
}

// A firing makes one successor, whose secret nobody has but its owner: it waits in no record and
// no line of the log in clear, is given out once, and both keys are good until the old one ends.
func TestUnattendedRotationIsForItsOwnerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		stop := b.running(t)
		defer stop()
		owner := newOwner(t)
		k, old := b.key(t, issuer.NewKey{Scopes: []string{"a"}, Recipient: owner.Recipient().String()})
		first, err := b.fire(t.Context(), k.ID, "f1", time.Hour)
		must(t, 0, err)
		if first.Outcome != issuer.UnattendedSealed || first.Key != k.ID || first.Next == "" || !first.Until.Equal(must(t, b.keys.rows["default."+k.ID], nil).Rotation.Until) {
			t.Errorf("%+v", first)
		}
		if again, err := b.fire(t.Context(), k.ID, "f1", time.Hour); err != nil || again != first {
			t.Errorf("the same firing: %+v, %v; want %+v", again, err, first)
		}
		if _, err := b.fire(t.Context(), k.ID, "f2", time.Hour); problem.KindOf(err) != problem.Conflict {
			t.Errorf("another firing within the overlap: %v", err)
		}
		got, err := b.collect(t, k.ID, old, owner)
		must(t, 0, err)
		if got.ID != first.Next || got.Previous != k.ID || got.Tenant != "default" || !got.Until.Equal(first.Until) {
			t.Errorf("sealed is %s of %s, %s, %v", got.ID, got.Previous, got.Tenant, got.Until)
		}
		if c, ok := b.gives(got.Secret); !ok || c.Scope != "a" {
			t.Errorf("the new one gives %t %q", ok, c.Scope)
		}
		if _, ok := b.gives(old); !ok {
			t.Error("the old one gives nothing within the overlap")
		}
		for _, rows := range []any{b.keys.rows, b.deliveries.rows} {
			if strings.Contains(fmt.Sprintf("%+v", rows), got.Secret) {
				t.Error("a record has the secret in clear")
			}
		}
		_, err = b.Collect(t.Context(), operator(), k.ID, issuer.Collect{Scope: scopeOf, Reason: "r"})
		if problem.KindOf(err) != problem.Conflict || !strings.Contains(err.Error(), "key_"+k.ID) {
			t.Errorf("collected twice: %v, want who has it", err)
		}
		time.Sleep(time.Hour + 5*time.Second)
		if _, ok := b.gives(old); ok {
			t.Error("the old one gives a token after its end")
		}
		if _, ok := b.gives(got.Secret); !ok {
			t.Error("the new one gives nothing")
		}
		if len(b.deliveries.rows) != 0 {
			t.Errorf("%d sealed secrets are left", len(b.deliveries.rows))
		}
		// Asked again when the old one is gone, and then for the next by the old name.
		if again, err := b.fire(t.Context(), k.ID, "f1", time.Hour); err != nil || again.Next != first.Next || again.Outcome != issuer.UnattendedSealed {
			t.Errorf("the same firing later: %+v, %v", again, err)
		}
		next, err := b.fire(t.Context(), k.ID, "f2", time.Hour)
		if err != nil || next.Key != first.Next {
			t.Errorf("the next firing: %+v, %v; want the successor rotated", next, err)
		}
		if n, _ := b.stored(next.Next); n.Recipient == nil || n.Recipient.Age != owner.Recipient().String() {
			t.Error("the successor has not inherited the recipient")
		}
	})
}

// What nobody collects is taken back when the overlap ends: whoever uses the old key has nothing else.
func TestWhatNobodyCollectsIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		stop := b.running(t)
		defer stop()
		owner := newOwner(t)
		k, old := b.key(t, issuer.NewKey{Recipient: owner.Recipient().String()})
		before := must(t, ageOf(t, b, k.ID), nil)
		first, err := b.fire(t.Context(), k.ID, "f1", time.Hour)
		must(t, 0, err)
		time.Sleep(time.Hour) // the very moment
		if _, ok := b.gives(old); !ok {
			t.Error("the old one gives nothing, and nobody has another")
		}
		if _, err := b.collect(t, k.ID, old, owner); err == nil {
			t.Error("it is given out when its time is over")
		}
		time.Sleep(10 * time.Second)
		if _, ok := b.gives(old); !ok {
			t.Error("the old one gives nothing")
		}
		now, _ := b.stored(k.ID)
		if now.Rotation != nil || len(b.keys.rows) != 1 || len(b.deliveries.rows) != 0 {
			t.Errorf("left: %+v, %d keys, %d sealed secrets; want the old one alone", now.Rotation, len(b.keys.rows), len(b.deliveries.rows))
		}
		if again, err := b.fire(t.Context(), k.ID, "f1", time.Hour); err != nil || again.Outcome != issuer.UnattendedBack || again.Next != "" {
			t.Errorf("the same firing: %+v, %v", again, err)
		}
		if after := ageOf(t, b, k.ID); after == before {
			t.Error("by its age it would not be tried again")
		}
		is := ageOf(t, b, k.ID)
		next, err := b.fire(t.Context(), k.ID, "f2", time.Hour)
		if err != nil || next.Outcome != issuer.UnattendedSealed || next.Next == first.Next {
			t.Errorf("the next firing: %+v, %v", next, err)
		}
		// Rolled back by hand it is as before, and for its age that stays so.
		must(t, 0, second(b.RollBack(t.Context(), operator(), k.ID, "not now")))
		if got := ageOf(t, b, k.ID); got != is {
			t.Errorf("rolled back by hand it counts as %s, was %s", got, is)
		}
		if again, err := b.fire(t.Context(), k.ID, "f2", time.Hour); err != nil || again.Outcome != issuer.UnattendedBack {
			t.Errorf("the firing that was rolled back: %+v, %v", again, err)
		}
	})
}

func ageOf(t *testing.T, b *bench, id string) string {
	t.Helper()
	a, err := b.AgeOf(t.Context(), scheduler(), issuer.KeyRef{Key: id})
	must(t, 0, err)
	return a.Subject
}

// Whatever fails or loses its answer, and wherever a replica dies: a firing that is repeated is
// one successor, which its owner can collect, and the old key is good as long as nobody has.
func TestFiringWhateverFailsIsOneRotation(t *testing.T) {
	steps := 0
	synctest.Test(t, func(t *testing.T) { steps = fireWith(t, -1, fine, false) })
	if steps < 5 {
		t.Fatalf("only %d steps were seen", steps)
	}
	for _, crash := range []bool{false, true} {
		for _, what := range []outcome{failed, lost} {
			for at := range steps {
				t.Run(fmt.Sprintf("%t/%d/%d", crash, what, at), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { fireWith(t, at, what, crash) })
				})
			}
		}
	}
}

func fireWith(t *testing.T, at int, what outcome, crash bool) (steps int) {
	b, owner := newBench(t), newOwner(t)
	must(t, 0, second(b.CreateRole(t.Context(), operator(), "clerk", []string{"c"}, "test")))
	k, old := b.key(t, issuer.NewKey{Recipient: owner.Recipient().String()})
	must(t, 0, second(b.Bind(t.Context(), operator(), issuer.NewBinding{Subject: "key_" + k.ID, Role: "clerk", Reason: "test"})))
	b.failAt(at, what)
	b.p.dead = crash && at >= 0
	first, err := b.fire(t.Context(), k.ID, "f1", 24*time.Hour)
	b.p.mu.Lock()
	steps = b.p.n
	b.p.at, b.p.dead, b.p.died = -1, false, false
	b.p.mu.Unlock()
	if at >= 0 && err == nil {
		t.Errorf("step %d was not done, and nobody was told", at)
	}
	stop := b.running(t)
	defer stop()
	var got issuer.UnattendedAnswer
	for range 5 { // as the rotator does
		if got, err = b.fire(t.Context(), k.ID, "f1", 24*time.Hour); err == nil {
			break
		}
		if problem.KindOf(err) != problem.Unavailable {
			t.Fatalf("repeated: %v", err)
		}
		if _, ok := b.gives(old); !ok {
			t.Error("the old one gives nothing")
		}
		time.Sleep(30 * time.Second)
	}
	if err != nil || got.Outcome != issuer.UnattendedSealed || at < 0 && got != first {
		t.Fatalf("repeated: %+v, %v", got, err)
	}
	time.Sleep(2 * time.Minute)
	if len(b.keys.rows) != 2 || len(b.deliveries.rows) != 1 || len(b.bindings.rows) != 2 {
		t.Errorf("%d keys, %d sealed secrets and %d bindings; want one successor", len(b.keys.rows), len(b.deliveries.rows), len(b.bindings.rows))
	}
	d, err := b.collect(t, k.ID, old, owner)
	must(t, 0, err)
	c, ok := b.gives(d.Secret)
	if !ok || d.ID != got.Next || !slices.Contains(c.Roles, "clerk") {
		t.Errorf("the new one gives %t %q, is %s, want %s", ok, c.Roles, d.ID, got.Next)
	}
	return steps
}

// Two replicas, or two rotators, at once: one successor.
func TestTwoFiringsAtOnceAreOne(t *testing.T) {
	b, owner := newBench(t), newOwner(t)
	k, _ := b.key(t, issuer.NewKey{Recipient: owner.Recipient().String()})
	var other error
	once := true
	b.keys.onNew = func() { // the first has reserved the key, and makes the successor
		if once {
			once = false
			_, other = b.fire(t.Context(), k.ID, "f1", time.Hour)
		}
	}
	first, err := b.fire(t.Context(), k.ID, "f1", time.Hour)
	must(t, 0, err)
	if problem.KindOf(other) != problem.Unavailable {
		t.Errorf("the other one: %v, want it to ask again", other)
	}
	again, err := b.fire(t.Context(), k.ID, "f1", time.Hour)
	if err != nil || again != first || len(b.keys.rows) != 2 {
		t.Errorf("asked again: %+v, %v, %d keys", again, err, len(b.keys.rows))
	}
}

// Without a recipient a key is due: that is told, and nothing is made.
func TestKeyWithoutARecipientIsDue(t *testing.T) {
	b, owner := newBench(t), newOwner(t)
	k, _ := b.key(t, issuer.NewKey{})
	was := ageOf(t, b, k.ID)
	a, err := b.fire(t.Context(), k.ID, "f1", time.Hour)
	if err != nil || a.Outcome != issuer.UnattendedDue || a.Next != "" || len(b.keys.rows) != 1 {
		t.Errorf("%+v, %v, %d keys", a, err, len(b.keys.rows))
	}
	if len(b.due) != 1 || b.due[0].Key.ID != k.ID || b.due[0].Firing != "f1" || b.due[0].By != "schedule:weekly" {
		t.Errorf("told: %+v", b.due)
	}
	must(t, 0, second(b.SetRecipient(t.Context(), operator(), k.ID, issuer.SetRecipient{Recipient: owner.Recipient().String(), Scope: scopeOf, Reason: "r"})))
	if is := ageOf(t, b, k.ID); is == was {
		t.Error("with a recipient it would not be tried again by its age")
	}
	if a, err = b.fire(t.Context(), k.ID, "f2", time.Hour); err != nil || a.Outcome != issuer.UnattendedSealed {
		t.Errorf("with a recipient: %+v, %v", a, err)
	}
	if _, err := b.SetRecipient(t.Context(), operator(), k.ID, issuer.SetRecipient{Scope: scopeOf, Reason: "r"}); problem.KindOf(err) != problem.Conflict {
		t.Errorf("taken off while it is rotated: %v", err)
	}
	if _, err := b.RotateUnattended(t.Context(), scheduler(), issuer.KeyRef{Key: "A" + k.ID[1:]}, issuer.Unattended{Firing: "f", Reason: "r"}); problem.KindOf(err) != problem.NotFound {
		t.Errorf("a key that is not there: %v", err)
	}
}

// The newest secret of a client is rotated, and after it the one that took its place.
func TestClientIsRotatedByItsNewestSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, owner := newBench(t), newOwner(t)
		stop := b.running(t)
		defer stop()
		cl, _, _, err := b.CreateClient(t.Context(), operator(), issuer.NewClient{Name: "n", Grants: []string{issuer.GrantClientCredentials}, Reason: "r"})
		must(t, 0, err)
		time.Sleep(time.Minute)
		k, secret, err := b.AddSecret(t.Context(), operator(), cl.ID, issuer.NewSecret{Recipient: owner.Recipient().String(), Reason: "r"})
		must(t, 0, err)
		ref := issuer.KeyRef{Client: cl.ID}
		a, err := b.RotateUnattended(t.Context(), scheduler(), ref, issuer.Unattended{Firing: "f1", Overlap: time.Hour, Reason: "r"})
		if err != nil || a.Key != k.ID {
			t.Fatalf("%+v, %v; want %s rotated", a, err, k.ID)
		}
		must(t, 0, second(b.collect(t, k.ID, secret.Reveal(), owner)))
		time.Sleep(2 * time.Hour)
		again, err := b.RotateUnattended(t.Context(), scheduler(), ref, issuer.Unattended{Firing: "f2", Overlap: time.Hour, Reason: "r"})
		if err != nil || again.Key != a.Next {
			t.Errorf("%+v, %v; want %s rotated", again, err, a.Next)
		}
	})
}

// The name of the first key, and the one that a schedule has, stay good however often it is rotated.
func TestAKeyIsFoundByItsOldNameHoweverOftenItIsRotated(t *testing.T) {
	for _, called := range []int{0, 3} { // by the name of the key after so many rotations
		synctest.Test(t, func(t *testing.T) {
			b, owner := newBench(t), newOwner(t)
			stop := b.running(t)
			defer stop()
			k, secret := b.key(t, issuer.NewKey{Recipient: owner.Recipient().String()})
			name := k.ID
			for i := range 2*issuer.MaxBefore + called {
				a, err := b.fire(t.Context(), name, fmt.Sprint("f", i), time.Minute)
				if err != nil || a.Outcome != issuer.UnattendedSealed {
					t.Fatalf("rotation %d by %s: %+v, %v", i, name, a, err)
				}
				d, err := b.collect(t, a.Key, secret, owner)
				must(t, 0, err)
				if secret = d.Secret; i < called {
					name = a.Next
				}
				time.Sleep(2 * time.Minute)
				if n, _ := b.stored(a.Next); len(n.Before) > issuer.MaxBefore {
					t.Fatalf("it knows of %d keys before it", len(n.Before))
				}
			}
			if got, err := b.AgeOf(t.Context(), scheduler(), issuer.KeyRef{Key: k.ID}); err != nil || got.Key.Previous() == "" {
				t.Errorf("by the name of the first: %v", err)
			}
		})
	}
}
