package app_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/shared/guard/wire"
)

// joinAndFreeze joins a guard with a limit of 3 s that never says anything more.
func joinAndFreeze(t testing.TB, nc *nats.Conn) {
	t.Helper()
	data, err := json.Marshal(wire.JoinRequest{Instance: "frozeninstance00000000", LimitMS: 3000, Past: wire.PastDeny})
	if err != nil {
		t.Fatal(err)
	}
	m, err := nc.Request(wire.GuardSubject("frozen", wire.OpJoin), data, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var a wire.JoinAnswer
	if err := json.Unmarshal(m.Data, &a); err != nil || a.Error != nil {
		t.Fatalf("join: %v, %v", err, a.Error)
	}
}
