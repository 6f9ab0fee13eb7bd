package app_test

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// The log is lost under everybody: a guard that comes afterwards has never
// heard of the keys, and learns them because the rotator sends them again.
func TestKeysAreSentAgainWhenTheLogWasLost(t *testing.T) {
	w := start(t)
	w.guard("api")
	w.rotate("k", true)
	signs := w.keysIn("signing")[0]
	w.stop["revocation"]()
	js, err := jetstream.New(w.nats.Admin(t, identity.Log))
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), wire.Stream); err != nil {
		t.Fatal(err)
	}
	w.ready("revocation", w.startRevocation())
	g := w.guard("late")
	enginetest.Eventually(t, "the late guard takes a token", func() error {
		token, err := w.token()
		if err != nil {
			return err
		}
		if got := kid(t, token); got != signs {
			t.Fatalf("a token is by %s, want %s", got, signs)
		}
		if d := g.Decide(t.Context(), token, guard.Requirement{}); !d.Allowed() {
			return errors.New(d.Reason)
		}
		return nil
	})
	w.rotate("after", false)
}
