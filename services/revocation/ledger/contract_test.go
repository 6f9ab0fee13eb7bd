package ledger

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard/wire"
)

// Header and body of whatever this service stores are what schemas/ says, and
// speak of the same message.
func TestStoredMessagesAreWhatTheSchemasSay(t *testing.T) {
	nc := enginetest.NATS(t).Conn(t, "revocation")
	l := start(t, nc, nil)
	ctx := t.Context()
	mustCommit(t, l.Ledger, request("k1", commit.Revoke, "principal:alice", "key:K1"))
	hold := request("k2", commit.Hold, "principal:alice")
	hold.ForMS, hold.Then = 3_600_000, wire.ThenRevoke
	mustCommit(t, l.Ledger, hold)
	mustCommit(t, l.Ledger, request("k3", commit.Release, "principal:alice"))
	if _, err := l.Join(ctx, "orders", wire.JoinRequest{Instance: "i1", LimitMS: 15000, Past: wire.PastDeny}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Out(ctx, OutOrder{Name: "orders", Instance: "i1", By: wire.ByOperator, Actor: "bob", Reason: "a test"}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Tick(ctx, true); err != nil {
		t.Fatal(err)
	}

	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, wire.Stream)
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	all, kinds := schematest.Load(t), map[string]int{}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		m, err := stream.GetMsg(ctx, seq)
		if err != nil {
			t.Fatalf("message %d: %v", seq, err)
		}
		header := m.Header.Get(wire.Header)
		all.Valid(t, "message.json", []byte(header))
		part, err := wire.Decode([]byte(header))
		if err != nil {
			t.Fatalf("message %d: %v", seq, err)
		}
		kinds[part.Kind]++
		if len(m.Data) == 0 {
			if part.Kind != wire.KindTick {
				t.Errorf("a message of kind %s without a body", part.Kind)
			}
			continue
		}
		all.Valid(t, "event.json", m.Data)
		var e Event
		if err := json.Unmarshal(m.Data, &e); err != nil || e.ID != part.ID || e.Type != EventPrefix+part.Kind {
			t.Errorf("header and body differ: %s, %s, %v", header, m.Data, err)
		}
	}
	for _, kind := range []string{wire.KindEpoch, wire.KindEntry, wire.KindJoin, wire.KindOut, wire.KindTick} {
		if kinds[kind] == 0 {
			t.Errorf("none of kind %s was stored: %v", kind, kinds)
		}
	}
}

func TestCommitRequestsAndAnswersAreWhatTheSchemasSay(t *testing.T) {
	all := schematest.Load(t)
	r := request("k1", commit.Hold, "principal:alice", "grant:alice/c")
	r.ForMS, r.Then, r.Record = 1000, wire.ThenRelease, true
	for schema, v := range map[string]any{
		"request":     r,
		"answer":      commit.Answer{ID: fmt.Sprintf("%043d", 1), Epoch: 1, Sequence: 2, CommittedAt: time.Now().UnixMilli(), Repeated: true},
		"key_request": commit.KeyRequest{Tenant: "default", KeyID: "k", JWS: "a.b.c", Until: time.Now().Unix()},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		all.Valid(t, "commit.json#/$defs/"+schema, b)
	}
}
