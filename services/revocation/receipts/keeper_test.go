package receipts

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/services/revocation/fleet"
	"github.com/quash-project/quash/services/revocation/ledger"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/seal"
)

// written is a log that the test writes, with a fleet in which an open guard is dead.
type written struct {
	ledger.Broker // where receipts go
	t             *testing.T
	now           time.Time
	entries       []wire.Stored
}

const firstEpoch = 1_700_000_000_000

func idOf(seq uint64) string {
	sum := sha256.Sum256(fmt.Append(nil, seq))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (w *written) write() wire.Stored {
	seq := uint64(len(w.entries) + 1)
	m := wire.Message{Kind: wire.KindEntry, ID: idOf(seq)[:21] + "A", Epoch: firstEpoch, At: w.now.UnixMilli(), Until: w.now.Add(time.Hour).Unix(), Cut: []revoke.Key{{byte(seq)}}}
	w.entries = append(w.entries, wire.Stored{Sequence: seq, Time: w.now.UnixMilli(), Message: m})
	return w.entries[seq-1]
}

func (w *written) Read(_ context.Context, from uint64, yield func(ledger.Raw) (bool, error)) error {
	for _, s := range w.entries[min(from-1, uint64(len(w.entries))):] {
		text, err := wire.Encode(s.Message)
		if err != nil {
			w.t.Fatal(err)
		}
		if more, err := yield(ledger.Raw{Sequence: s.Sequence, Time: w.now, Header: nats.Header{wire.Header: {string(text)}}}); err != nil || !more {
			return err
		}
	}
	return nil
}

func (w *written) Ready() error                                    { return nil }
func (w *written) Epoch() uint64                                   { return firstEpoch }
func (w *written) View() *revoke.View                              { return revoke.NewView() }
func (w *written) WaitApplied(context.Context, revoke.Stamp) error { return nil }

func (w *written) EventAt(_ context.Context, s wire.Stored) (ledger.Event, error) {
	return ledger.Event{Data: ledger.EventData{Op: "revoke", Tenant: "default", Actor: "resp", Reason: "test", Entry: idOf(s.Sequence)}}, nil
}

func (w *written) Find(ctx context.Context, id string) (ledger.Event, wire.Stored, error) {
	for _, s := range w.entries {
		if idOf(s.Sequence) == id {
			ev, err := w.EventAt(ctx, s)
			return ev, s, err
		}
	}
	return ledger.Event{}, wire.Stored{}, ledger.ErrNoMessage
}

func (w *written) Wait(context.Context, fleet.Entry, time.Duration) fleet.Confirmation {
	return fleet.Confirmation{Epoch: firstEpoch, Unconfirmed: []fleet.Unconfirmed{{Name: "orders", Instance: "dead", Open: true}}}
}

// keeper returns one whose queue has room for so many; the test plays its rounds.
func (w *written) keeper(nc *nats.Conn, kek *seal.KEK, most int) *Keeper {
	w.t.Helper()
	k, err := New(Config{NATS: nc, KEK: kek, Ledger: w, Fleet: w, Now: func() time.Time { return w.now }, From: always})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := k.store.run(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.Broker, k.store.broker, k.most = k.store.broker, w, most
	w.round(k)
	return k
}

func (w *written) round(k *Keeper) {
	w.t.Helper()
	w.now = w.now.Add(time.Minute)
	if err := k.round(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// TestADeadOpenGuardHoldsUpNoOtherReceipts: every entry has its first receipt, however
// many wait for a guard that will never confirm; the position that is kept goes on, and
// whoever starts anew ends too.
func TestADeadOpenGuardHoldsUpNoOtherReceipts(t *testing.T) {
	nc := enginetest.NATS(t).Admin(t, identity.Log)
	kek, err := seal.LoadKEK(enginetest.KEK(t))
	if err != nil {
		t.Fatal(err)
	}
	w := &written{t: t, now: time.Now()}
	const most, entries = 5, 40
	k := w.keeper(nc, kek, most)
	for range entries / 2 {
		k.Applied(w.write())
		k.Applied(w.write())
		w.round(k)
	}
	w.round(k)
	for _, s := range w.entries {
		if r, _, err := k.store.get(t.Context(), idOf(s.Sequence)); err != nil || r.Complete || len(r.Unconfirmed) != 1 {
			t.Fatalf("entry %d of %d: %+v, %v", s.Sequence, entries, r, err)
		}
	}
	if st := k.Status(); st.Waiting > most || st.CatchingUp {
		t.Errorf("all have a receipt, and %+v", st)
	}
	again := w.keeper(nc, kek, most) // from a position that is behind
	if st := again.Status(); st.Waiting > most || st.CatchingUp || st.Failed > 0 {
		t.Errorf("after a restart: %+v", st)
	}
	w.now = w.now.Add(giveUp)
	for range 3 {
		w.round(k)
	}
	if c, err := k.store.readCursor(t.Context()); err != nil || c.Sequence != entries || k.Status().Waiting != 0 {
		t.Errorf("the position that is kept is %+v, %v, want that of the last entry; %+v", c, err, k.Status())
	}
}

// always is since when tenants are there of whom nobody had the name before.
func always(context.Context, string) (revoke.Stamp, error) { return revoke.Stamp{}, nil }
