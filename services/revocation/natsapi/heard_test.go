package natsapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/natsapi"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
)

// TestWhatOneReplicaHearsTheOthersAreTold, once, and by each kind of message; what
// another replica says of a guard counts under the name alone that it joined by.
func TestWhatOneReplicaHearsTheOthersAreTold(t *testing.T) {
	w := newWorld(t)
	w.join("orders", "o-1")
	other := w.nats.Conn(t, identity.Revocation)
	told, err := other.SubscribeSync(wire.GuardSubject(identity.Revocation, wire.OpHeard+".*"))
	if err != nil || other.Flush() != nil {
		t.Fatal(err)
	}
	at := w.ledger.Head().JSON()
	body, _ := json.Marshal(wire.Report{Instance: "o-1", Position: at})
	for _, op := range []string{wire.OpReport, wire.OpProbe} {
		if op == wire.OpReport {
			if err := w.nats.Conn(t, "orders").Publish(wire.GuardSubject("orders", op), body); err != nil {
				t.Fatal(err)
			}
		} else {
			w.ask("orders", wire.GuardSubject("orders", op), string(body))
		}
		m, err := told.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatalf("%s: %v", op, err)
		}
		b, err := wire.DecodeRequest[wire.HeardBatch](m.Data)
		if want := (wire.Heard{Name: "orders", Instance: "o-1", Position: at}); err != nil || len(b.Heard) != 1 || b.Heard[0] != want {
			t.Errorf("%s: %s, %v: want %+v", op, m.Data, err, want)
		}
	}
	for _, c := range []struct {
		name string
		at   wire.PositionJSON
		want bool
	}{
		{"billing", at, false},
		{"orders", wire.PositionJSON{Epoch: at.Epoch, Sequence: at.Sequence, ID: one}, false},
		{"orders", at, true},
	} {
		f := fleet.New(fleet.Config{Log: w.ledger})
		f.Applied(wire.Stored{Sequence: 1, Message: wire.Message{Kind: wire.KindEpoch, Epoch: at.Epoch}})
		for i, instance := range []string{"o-1", "o-2"} {
			f.Applied(wire.Stored{Sequence: uint64(i) + 2, Time: time.Now().UnixMilli(), Message: wire.Message{
				Kind: wire.KindJoin, Epoch: at.Epoch, Name: "orders", Instance: instance, LimitMS: 15000, Past: wire.PastDeny,
			}})
		}
		end := start(t, &natsapi.Server{NATS: w.nats.Conn(t, identity.Revocation), Ledger: w.ledger, Fleet: f})
		batch := func(h wire.Heard) []byte {
			data, _ := json.Marshal(wire.HeardBatch{Heard: []wire.Heard{h}})
			return data
		}
		stands := func(instance string) bool { g, _ := f.Find(instance); return g.At == at.Position().Stamp }
		enginetest.Eventually(t, "what is told after it counts", func() error {
			for _, h := range []wire.Heard{{Name: c.name, Instance: "o-1", Position: c.at}, {Name: "orders", Instance: "o-2", Position: at}} {
				if err := other.Publish(wire.GuardSubject(identity.Revocation, wire.OpHeard+".another"), batch(h)); err != nil {
					return err
				}
			}
			if !stands("o-2") {
				return errors.New("not yet")
			}
			return nil
		})
		if got := stands("o-1"); got != c.want {
			t.Errorf("%+v counts: %t", c, got)
		}
		end()
	}
}

// start runs a server until end is called.
func start(t *testing.T, s *natsapi.Server) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
