package fsck_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/services/revocation/incidents"
	"github.com/quash-project/quash/shared/identity"
)

// TestNotebooksAreLookedAt: they are records like any other, in the account of the log.
func TestNotebooksAreLookedAt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	js, err := jetstream.New(w.nats.Conn(t, identity.Revocation))
	if err != nil {
		t.Fatal(err)
	}
	b, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: identity.Incidents})
	if err != nil {
		t.Fatal(err)
	}
	by := incidents.Account{Actor: "alice", Reason: "a test", At: time.Now()}
	good := incidents.Incident{ID: "inc_20260131120000_aaaaaaaa", Tenant: "default", Title: "t", Severity: "low", Opened: by, Meta: by}
	for _, c := range []struct {
		key  string
		x    incidents.Incident
		want []string
	}{
		{"default.inc_20260131120000_aaaaaaaa", good, nil},
		{"acme.inc_20260131120000_aaaaaaaa", good, []string{"buckets key"}},
		{"default.inc_20260131120000_aaaaaaaa", incidents.Incident{ID: good.ID, Tenant: good.Tenant}, []string{"buckets unreadable"}},
	} {
		data, err := json.Marshal(c.x)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Put(t.Context(), c.key, data); err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, d := range w.check().Differences {
			have = append(have, d.Area+" "+d.Name)
		}
		for _, want := range c.want {
			found := false
			for _, is := range have {
				found = found || is == want
			}
			if !found {
				t.Errorf("%s: %q, want %s", c.key, have, want)
			}
		}
		if len(c.want) == 0 && len(have) > 0 {
			t.Errorf("%s: %q", c.key, have)
		}
		if err := b.Purge(t.Context(), c.key); err != nil {
			t.Fatal(err)
		}
	}
}
