package app_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quash-project/quash/schemas/schematest"
	"github.com/quash-project/quash/services/issuer/app"
	"github.com/quash-project/quash/shared/guard/wire"
)

type rotatedKey struct{ ID, Secret, Previous, Until string }

// Two replicas find that the time of a rotated key is over: it is ended once, and told once
// of, with every token that came from it; the new key lives on. The policy says how long the
// overlap is, and that keys do not rotate themselves.
func TestRotatedKeyEndsAtItsTimeAndIsToldOf(t *testing.T) {
	w := newWorld(t, func(c *app.Config) { c.KeyOverlap, c.SelfRotation = time.Minute, "refuse" })
	sub, err := w.nats.Conn(t, "control-reader").SubscribeSync(wire.EventAll)
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	tok := w.token(w.operator).AccessToken
	k := w.newKey(map[string]any{"owner": "pat", "name": "shop"})
	own := w.token(k.Secret).AccessToken
	if a := w.api(own, "POST", "/v1/keys/"+k.ID+"/rotate", map[string]any{"current": k.Secret}); a.status != http.StatusForbidden || !strings.Contains(string(a.body), "self_rotation") {
		t.Errorf("a key rotates itself: %d %s", a.status, a.body)
	}
	var next rotatedKey
	if a := w.api(tok, "POST", "/v1/keys/"+k.ID+"/rotate", map[string]any{"reason": "yearly"}); a.status != http.StatusCreated || json.Unmarshal(a.body, &next) != nil || next.Previous != k.ID {
		t.Fatalf("rotate: %d %s", a.status, a.body)
	}
	until, err := time.Parse(time.RFC3339, next.Until)
	if d := time.Until(until); err != nil || d < 50*time.Second || d > time.Minute {
		t.Errorf("the old key is good for %v, want a minute: %v", d, err)
	}
	told(t, sub, "quash.event.issuer.default.key-rotated", k.ID, next.ID, "")
	w.now = func() time.Time { return time.Now().Add(75 * time.Second) }
	w.stopApp()
	for range 2 {
		w.launchApp()
	}
	told(t, sub, "quash.event.issuer.default.key-rotation-ended", k.ID, next.ID, "ended")
	eventually(t, "the issuer is ready", func() bool { return w.app.Ready() == nil })
	eventually(t, "the old key is gone", func() bool {
		return w.api(w.token(w.operator).AccessToken, "GET", "/v1/keys/"+k.ID, nil).status == http.StatusNotFound
	})
	if a := w.exchangeFrom(k.Secret, ""); a.status != http.StatusBadRequest {
		t.Errorf("the old key gives %d", a.status)
	}
	if a := w.api(own, "GET", "/v1/keys", nil); a.status != http.StatusUnauthorized {
		t.Errorf("a token of the old key: %d", a.status)
	}
	w.token(next.Secret)
	if m, err := sub.NextMsg(3 * time.Second); err == nil {
		t.Errorf("told once more: %s", m.Data)
	}
}

// told waits for an event about a key.
func told(t *testing.T, sub *nats.Subscription, subject, id, next, outcome string) {
	t.Helper()
	m, err := sub.NextMsg(20 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	schematest.Load(t).Valid(t, "issuer-event.json", m.Data)
	var e struct {
		Subject string
		Data    struct{ Next, Owner, Name, Outcome string }
	}
	if err := json.Unmarshal(m.Data, &e); err != nil {
		t.Fatal(err)
	}
	if d := e.Data; m.Subject != subject || e.Subject != "key:"+id || d.Next != next || d.Owner != "pat" || d.Name != "shop" || d.Outcome != outcome {
		t.Errorf("%s %s: want %s of %s", m.Subject, m.Data, subject, id)
	}
}
