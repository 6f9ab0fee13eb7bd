package e2e

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/kv"
)

// No stream is compressed, for the reason that kv.StreamOf gives, also not one that an older
// version has made so.
func TestNoStreamIsCompressed(t *testing.T) {
	s := inProcess(t)
	seen := map[string]bool{}
	for _, account := range []string{identity.Log, identity.Control} {
		js, err := jetstream.New(s.nats.Admin(t, account))
		if err != nil {
			t.Fatal(err)
		}
		all := js.ListStreams(t.Context())
		for info := range all.Info() {
			seen[info.Config.Name] = true
			if info.Config.Compression != jetstream.NoCompression {
				t.Errorf("%s is compressed: %s", info.Config.Name, info.Config.Compression)
			}
		}
		if err := all.Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{wire.Stream, kv.StreamPrefix + "receipts", kv.StreamPrefix + "keys"} {
		if !seen[name] {
			t.Errorf("%s was not seen", name)
		}
	}
	cfg := kv.StreamOf("old", "of an older version", 1)
	cfg.Compression = jetstream.S2Compression
	js, err := jetstream.New(s.nats.Admin(t, identity.Control))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Make(t.Context(), js, cfg); err != nil {
		t.Fatal(err)
	}
	b, err := kv.Make(t.Context(), js, kv.StreamOf("old", "of an older version", 1))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := b.Status(t.Context()); err != nil || st.IsCompressed() {
		t.Errorf("it stayed compressed, %v", err)
	}
}
