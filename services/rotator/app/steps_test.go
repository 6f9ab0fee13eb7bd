package app_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/rotator"
	"github.com/quash-project/quash/services/rotator/kvstore"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/seal"
	"github.com/quash-project/quash/shared/signing"
)

// blind is a reader that knows nothing: the steps don't need one.
type blind struct{}

func (blind) Epoch() uint64         { return 0 }
func (blind) Ended(revoke.Key) bool { return false }

// A rotator is killed after every single step, on the real log and buckets, and
// another goes on; meanwhile tokens are made and taken without a pause.
func TestKilledAfterEveryStepNoTokenIsRefused(t *testing.T) {
	w := start(t)
	w.stop["rotator"]()
	guards := []*guard.Guard{w.guard("api")}
	js, err := jetstream.New(w.nats.Conn(t, "rotator"))
	if err != nil {
		t.Fatal(err)
	}
	store := kvstore.New(js, 1, logger(t))
	running := make(chan error, 1)
	ctx := t.Context()
	go func() { running <- store.Run(ctx) }()
	next := func() *rotator.Rotator {
		kek, err := seal.LoadKEK(w.cfg.KEKFile)
		if err != nil {
			t.Fatal(err)
		}
		private, err := rotator.LoadIdentity(w.cfg.IdentityFile)
		if err != nil {
			t.Fatal(err)
		}
		r, err := rotator.New(rotator.Config{
			Home:   rotator.Tenant{Name: "default", Issuer: issuerURL},
			Policy: rotator.Policy{KeyLife: rotator.DefaultKeyLife, TokenLife: wire.MaxTokenLife, Alg: signing.ES256},
		}, rotator.Deps{
			Store: store, Entries: commit.NewClient(w.nats.Conn(t, "rotator"), "rotator"), Keys: commit.NewKeyClient(w.nats.Conn(t, "rotator")),
			Reader: blind{}, KEK: kek, Identity: private, Now: time.Now, Rand: rand.Reader, Log: logger(t),
		})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	revoked := map[string]bool{}
	for i, emergency := range []bool{false, true, false, true} {
		r := next()
		var rot rotator.Rotation
		q := rotator.Request{
			Key: fmt.Sprint(i), Tenant: "default", Actor: "alice", Kind: rotator.KindSigningKey, Reason: "a test", Emergency: emergency,
		}
		enginetest.Eventually(t, "a rotation is recorded", func() (err error) {
			rot, err = r.Start(ctx, q)
			return err
		})
		steps := 0
		enginetest.Eventually(t, "the rotation is over", func() error {
			progress, _, err := next().Advance(ctx, rotator.Tenant{Name: "default", Issuer: issuerURL})
			if err != nil {
				return err
			}
			if progress {
				steps++
			}
			token, err := w.token()
			if err != nil {
				t.Fatalf("step %d: %v", steps, err)
			}
			if d := guards[0].Decide(ctx, token, guard.Requirement{}); !d.Allowed() && !emergency {
				t.Fatalf("step %d: a token by %s is refused: %s", steps, kid(t, token), d.Reason)
			}
			if rot, err = r.Wait(ctx, "default", rot.ID, 0); err != nil {
				return err
			}
			if rot.State != rotator.Signs {
				return errors.New(rot.State)
			}
			return nil
		})
		if steps < 5 {
			t.Errorf("rotation %d had only %d steps", i, steps)
		}
		if revoked[rot.KeyID] {
			t.Errorf("rotation %d let the revoked key %s sign", i, rot.KeyID)
		}
		revoked[rot.Previous] = emergency
		if token := w.mustToken(); kid(t, token) != rot.KeyID {
			t.Errorf("rotation %d: a token is by %s, want %s", i, kid(t, token), rot.KeyID)
		}
	}
}
