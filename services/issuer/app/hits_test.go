package app_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/hits"
	"github.com/quash-project/quash/shared/natsapi"
)

// BenchmarkHits asks, as the revocation service does for a preview, what a principal with
// 10,000 keys has; beside it as many records are read from the bucket.
func BenchmarkHits(b *testing.B) {
	w := newWorld(b)
	const n = 10_000
	for from := 0; from < n; from += 200 {
		keys := make([]map[string]any, 200)
		for i := range keys {
			sum := sha256.Sum256(fmt.Appendf(nil, "key %d", from+i))
			keys[i] = map[string]any{"sha256": hex.EncodeToString(sum[:]), "owner": "alice"}
		}
		w.must(http.StatusOK, "POST", "/v1/keys/import", map[string]any{"keys": keys}, nil)
	}
	nc := w.nats.Conn(b, "control-reader")
	b.Run("preview", func(b *testing.B) {
		ask := hits.Request{Tenant: tenant, Op: commit.Revoke, Targets: []commit.Target{{Kind: revoke.KindPrincipal, ID: "alice"}}}
		for b.Loop() {
			a, err := natsapi.Call[hits.Answer](b.Context(), nc, wire.RecordsIssuer+hits.Operation, "", ask)
			if err != nil || a.Keys != n {
				b.Fatalf("%d keys, %v", a.Keys, err)
			}
		}
	})
	b.Run("reads", func(b *testing.B) {
		js, err := jetstream.New(nc)
		if err != nil {
			b.Fatal(err)
		}
		stream, err := js.Stream(b.Context(), "KV_keys")
		if err != nil {
			b.Fatal(err)
		}
		last := stream.CachedInfo().State.LastSeq
		for b.Loop() {
			for i := range uint64(n) {
				if _, err := stream.GetMsg(b.Context(), last-i%(last/2)); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
