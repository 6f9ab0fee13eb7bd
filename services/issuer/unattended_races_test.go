package issuer_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quash-project/quash/services/issuer"
	"github.com/quash-project/quash/shared/problem"
)

// sealing is a key with a recipient, on a bench of its own.
func sealing(t *testing.T) (b *bench, id, secret string) {
	t.Helper()
	b = newBench(t)
	k, old := b.key(t, issuer.NewKey{Recipient: newOwner(t).Recipient().String()})
	return b, k.ID, old
}

// One who has looked before the other had reserved the key is told to ask again, and not that the
// key is being rotated: that would be the end of the firing.
func TestWhoComesSecondWithAFiringAsksAgain(t *testing.T) {
	b, id, _ := sealing(t)
	var first issuer.UnattendedAnswer
	once := true
	b.keys.onGet = func() { // the second is about to reserve the key
		if once {
			once = false
			var err error
			first, err = b.fire(t.Context(), id, "f1", time.Hour)
			must(t, 0, err)
		}
	}
	if _, err := b.fire(t.Context(), id, "f1", time.Hour); problem.KindOf(err) != problem.Unavailable {
		t.Errorf("the second: %v, want it to ask again", err)
	}
	if again, err := b.fire(t.Context(), id, "f1", time.Hour); err != nil || again != first {
		t.Errorf("asked again: %+v, %v; want %+v", again, err, first)
	}
}

// What was handed over is not taken back because nobody heard that it was: its owner may have it.
func TestWhatWasHandedOverStaysThoughTheAnswerWasLost(t *testing.T) {
	b, id, _ := sealing(t)
	b.failAt(-1, fine)
	must(t, 0, second(b.fire(t.Context(), id, "f1", time.Hour)))
	steps := b.p.n

	b, id, _ = sealing(t)
	b.failAt(steps-1, lost)
	_, err := b.fire(t.Context(), id, "f1", time.Hour)
	if k, _ := b.stored(id); err == nil || k.Rotation == nil || !k.Rotation.Made || k.Rotation.Back != nil {
		t.Errorf("%v, and the rotation is %+v; want it made", err, k.Rotation)
	}
	if a, err := b.fire(t.Context(), id, "f1", time.Hour); err != nil || a.Outcome != issuer.UnattendedSealed || len(b.keys.rows) != 2 {
		t.Errorf("asked again: %+v, %v, %d keys", a, err, len(b.keys.rows))
	}
}

// The clock of another replica is behind, and it has given out the secret while this one was about
// to take the rotation back: the new key stays, and the old one ends.
func TestWhatIsCollectedInTheLastMomentIsNotTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, id, old := sealing(t)
		first, err := b.fire(t.Context(), id, "f1", time.Hour)
		must(t, 0, err)
		time.Sleep(time.Hour)
		b.keys.onGet = func() {
			b.keys.mu.Lock()
			defer b.keys.mu.Unlock()
			k := b.keys.rows["default."+id]
			if k.Rotation != nil && k.Rotation.CollectedAt.IsZero() {
				r := *k.Rotation
				r.CollectedAt, r.CollectedBy = r.Until.Add(-time.Millisecond), "alice"
				k.Rotation = &r
				b.keys.rows["default."+id] = k
			}
		}
		stop := b.running(t)
		defer stop()
		time.Sleep(10 * time.Second)
		if _, ok := b.gives(old); ok {
			t.Error("the old one gives a token")
		}
		if _, there := b.stored(first.Next); !there {
			t.Error("the new one was taken back, and its owner has it")
		}
	})
}

// Until the sweep comes nothing is given out any more that it takes back.
func TestNothingIsGivenOutWhenItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, id, old := sealing(t)
		must(t, 0, second(b.fire(t.Context(), id, "f1", time.Hour)))
		time.Sleep(time.Hour)
		_, err := b.Collect(t.Context(), self(id), id, issuer.Collect{Current: old, Reason: "r"})
		if problem.KindOf(err) != problem.Conflict || !strings.Contains(err.Error(), "taken back") {
			t.Errorf("%v", err)
		}
		if k, _ := b.stored(id); !k.Rotation.CollectedAt.IsZero() {
			t.Error("it counts as collected")
		}
	})
}

// What is being made, or taken back, is nobody's key yet, or no more.
func TestTheKeyInUseIsTheOneThatSomebodyHas(t *testing.T) {
	b, id, _ := sealing(t)
	was := ageOf(t, b, id)
	var during string
	b.deliveries.onNew = func() { during = ageOf(t, b, id) }
	a, err := b.fire(t.Context(), id, "f1", time.Hour)
	must(t, 0, err)
	if during != was {
		t.Errorf("while the successor is made %s is in use, want %s", during, was)
	}
	if is := ageOf(t, b, id); is != a.Next {
		t.Errorf("then %s, want the successor %s", is, a.Next)
	}
}
