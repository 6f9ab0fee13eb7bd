package app_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/services/issuer/app"
	"github.com/quash-project/quash/services/issuer/delivery"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/keyrotation"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
)

func (w *world) fire(key, firing string) (keyrotation.Rotated, error) {
	w.t.Helper()
	return natsapi.Call[keyrotation.Rotated](w.t.Context(), w.nats.Conn(w.t, identity.Rotator), wire.KeysIssuer+keyrotation.OpRotate, "", keyrotation.Rotate{
		Ref: keyrotation.Ref{Tenant: tenant, Key: key}, Firing: firing, OverlapMS: time.Minute.Milliseconds(), Actor: "schedule:weekly", Reason: "routine",
	})
}

// Two replicas are asked for one firing by many at once: one successor, one sealed secret. Where keys do
// not rotate themselves the owner has it registered by an operator, and collects it all the same.
// What is written is as the schemas say, and the secret is in none of it.
func TestManyAskTwoReplicasForOneFiring(t *testing.T) {
	w := newWorld(t, func(c *app.Config) { c.SelfRotation = "refuse" })
	w.launchApp()
	eventually(t, "both replicas are ready", func() bool { return w.app.Ready() == nil })
	sub, err := w.nats.Conn(t, identity.ControlReader).SubscribeSync(wire.EventAll)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	k := w.newKey(map[string]any{"owner": "pat", "name": "shop"})
	own := w.token(k.Secret).AccessToken
	at := "/v1/keys/" + k.ID
	due, err := w.fire(k.ID, "f0")
	if err != nil || due.Outcome != keyrotation.Due || due.Next != "" {
		t.Errorf("without a recipient: %+v, %v", due, err)
	}
	told(t, sub, "quash.event.issuer.default.key-due", k.ID, "", "")
	recipient := map[string]any{"recipient": owner.Recipient().String(), "current": k.Secret}
	if a := w.api(own, "PUT", at+"/recipient", recipient); a.status != http.StatusForbidden || !strings.Contains(string(a.body), "self_rotation") {
		t.Errorf("a key registers a recipient for itself: %d %s", a.status, a.body)
	}
	delete(recipient, "current")
	w.must(http.StatusOK, "PUT", at+"/recipient", recipient, nil)

	var asking sync.WaitGroup
	var mu sync.Mutex
	nexts := map[string]bool{}
	for range 8 {
		asking.Go(func() {
			for range 100 { // as the rotator does, whose firing is claimed still
				a, err := w.fire(k.ID, "f1")
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					nexts[a.Outcome+a.Next] = true
					return
				}
				if problem.KindOf(err) != problem.Unavailable {
					t.Errorf("%v", err)
					return
				}
			}
			t.Error("it was never done")
		})
	}
	asking.Wait()
	if len(nexts) != 1 {
		t.Fatalf("answered: %v", nexts)
	}
	var d struct{ ID, Sealed, Previous string }
	if a := w.api(own, "POST", at+"/delivery", map[string]any{"current": k.Secret}); a.status != http.StatusOK || json.Unmarshal(a.body, &d) != nil {
		t.Fatalf("collected: %d %s", a.status, a.body)
	}
	c, err := delivery.Open(d.Sealed, owner)
	if err != nil || !nexts[keyrotation.Sealed+c.ID] || c.Previous != k.ID || c.Tenant != tenant {
		t.Fatalf("opened: %v", err)
	}
	told(t, sub, "quash.event.issuer.default.key-rotated", k.ID, c.ID, "")
	w.token(c.Secret)
	w.written("keys", "key", 3, c.Secret) // the operator's is one of them
	w.written("deliveries", "delivery", 1, c.Secret)
	if strings.Contains(w.logs.text(), c.Secret) {
		t.Error("the log has the secret")
	}
}

// written holds the records of a bucket against their schema, and looks for a secret in them.
func (w *world) written(bucket, def string, most int, secret string) {
	w.t.Helper()
	js, err := jetstream.New(w.nats.Conn(w.t, identity.Issuer))
	if err != nil {
		w.t.Fatal(err)
	}
	kv, err := js.KeyValue(w.t.Context(), bucket)
	if err != nil {
		w.t.Fatal(err)
	}
	keys, err := kv.Keys(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	n := 0
	for _, key := range keys {
		if !strings.HasPrefix(key, tenant+".") {
			continue // beats
		}
		e, err := kv.Get(w.t.Context(), key)
		if err != nil {
			w.t.Fatal(err)
		}
		n++
		schematest.Load(w.t).Valid(w.t, "records.json#/$defs/"+def, e.Value())
		if strings.Contains(string(e.Value()), secret) {
			w.t.Errorf("%s/%s has the secret", bucket, key)
		}
	}
	if n == 0 || n > most {
		w.t.Errorf("%d records in %s, want 1 to %d", n, bucket, most)
	}
}

// What is asked by the rotator is checked, and somebody who may not rotate a key by hand may not have it
// rotated by itself.
func TestWhatTheRotatorAsksIsChecked(t *testing.T) {
	w := newWorld(t)
	k := w.newKey(map[string]any{"owner": "pat", "scopes": []string{"quash:revoke"}})
	nc := w.nats.Conn(t, identity.Rotator)
	good := keyrotation.Rotate{Ref: keyrotation.Ref{Tenant: tenant, Key: k.ID}, Firing: "f", Actor: "schedule:a", Reason: "r"}
	for name, spoil := range map[string]func(r *keyrotation.Rotate){
		"no tenant":       func(r *keyrotation.Rotate) { r.Ref.Tenant = "" },
		"an odd tenant":   func(r *keyrotation.Rotate) { r.Ref.Tenant = "a.b" },
		"nothing named":   func(r *keyrotation.Rotate) { r.Ref.Key = "" },
		"two named":       func(r *keyrotation.Rotate) { r.Ref.Client = "client_x" },
		"no firing":       func(r *keyrotation.Rotate) { r.Firing = "" },
		"no actor":        func(r *keyrotation.Rotate) { r.Actor = "" },
		"a secret":        func(r *keyrotation.Rotate) { r.Reason = k.Secret },
		"a short overlap": func(r *keyrotation.Rotate) { r.OverlapMS = 1 },
		"a past one":      func(r *keyrotation.Rotate) { r.OverlapMS = -1 },
	} {
		r := good
		spoil(&r)
		_, err := natsapi.Call[keyrotation.Rotated](t.Context(), nc, wire.KeysIssuer+keyrotation.OpRotate, "", r)
		if problem.KindOf(err) != problem.Invalid || strings.Contains(err.Error(), k.Secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := good
	other.Ref.Tenant = "acme"
	if _, err := natsapi.Call[keyrotation.Rotated](t.Context(), nc, wire.KeysIssuer+keyrotation.OpRotate, "", other); problem.KindOf(err) != problem.NotFound {
		t.Errorf("by another tenant: %v", err)
	}
	for name, c := range map[string]struct {
		ref    keyrotation.Ref
		scopes []string
		want   problem.Kind
	}{
		"who holds all":             {good.Ref, []string{"quash:keys:write", "quash:revoke"}, 0},
		"who lacks what it gives":   {good.Ref, []string{"quash:keys:write", "quash:rotate"}, problem.Forbidden},
		"who makes no keys":         {good.Ref, []string{"quash:rotate", "quash:revoke"}, problem.Forbidden},
		"of another tenant":         {other.Ref, []string{"quash:keys:write", "quash:clients:write"}, problem.NotFound},
		"who makes none, of no one": {keyrotation.Ref{Tenant: tenant, Key: "AAAAAAAAAAAAAAAAAAAAAA"}, []string{"quash:rotate"}, problem.Forbidden},
	} {
		_, err := natsapi.Call[keyrotation.Yes](t.Context(), nc, wire.KeysIssuer+keyrotation.OpMay, "", keyrotation.May{Ref: c.ref, Actor: "a", Scopes: c.scopes})
		if (err == nil) != (c.want == 0) || err != nil && problem.KindOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
