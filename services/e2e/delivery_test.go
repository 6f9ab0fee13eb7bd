package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/zap"

	"github.com/quash-project/quash/services/issuer/delivery"
	rotatorapp "github.com/quash-project/quash/services/rotator/app"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/guard/wire"
	"github.com/quash-project/quash/shared/identity"
	"github.com/quash-project/quash/shared/keyrotation"
	"github.com/quash-project/quash/shared/natsapi"
	"github.com/quash-project/quash/shared/problem"
)

// ahead puts a clock forward.
func (c *clock) ahead(d time.Duration) { c.off.Add(int64(d)) }

func (c *clock) toNextMinute() {
	now := c.now()
	c.ahead(now.Truncate(time.Minute).Add(time.Minute).Sub(now))
}

type firedSchedule struct {
	State string
	Last  *struct {
		DueAt     time.Time `json:"due_at"`
		Next      string
		GoodUntil time.Time `json:"good_until"`
		Outcome   string
		Failed    string
	}
}

type sealedSecret struct {
	ID, Previous, Sealed string
	Until                time.Time
}

func newRecipient(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// whenFresh sends a request until the service can tell whether the token is good: after a leap of its
// clock its view of the log counts as old for a moment.
func (s *services) whenFresh(token, method, path string, body any) (r reply) {
	s.t.Helper()
	eventually(s.t, method+" "+path, func() error {
		if r = s.api(token, method, path, body); r.status == http.StatusServiceUnavailable {
			return fmt.Errorf("%s", r.body)
		}
		return nil
	})
	return r
}

// fired waits until a schedule has fired at another time than before.
func (s *services) fired(admin, name string, before time.Time) (f firedSchedule) {
	s.t.Helper()
	eventually(s.t, name+" fires", func() error {
		s.decode(s.whenFresh(admin, http.MethodGet, "/v1/schedules/"+name, nil), http.StatusOK, &f)
		if f.Last == nil || f.Last.DueAt.Equal(before) {
			return fmt.Errorf("%+v", f)
		}
		return nil
	})
	return f
}

// A schedule rotates a key that nobody is there for: two rotators fire it once; its owner alone can
// open what is sealed, with the old secret as the only credential; both keys are good within the
// overlap, and the old one is not afterwards.
func TestAScheduleRotatesAKeyForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	rotators, issuers := clockAt(0), clockAt(0)
	s := inProcess(t, clocks(map[string]*clock{identity.Rotator: rotators, identity.Issuer: issuers}))
	second, err := rotatorapp.New(t.Context(), rotatorapp.Config{Issuer: s.url, IdentityFile: s.identity, KEKFile: s.kek, NoLead: true},
		rotatorapp.Deps{Log: zap.NewNop(), NATS: s.nats.Dial(t, identity.Rotator), Now: rotators.now})
	if err != nil {
		t.Fatal(err)
	}
	s.run("second rotator", second)
	eventually(t, "the second rotator is ready", second.Ready)
	admin := s.token(s.operator)
	g := s.guard(guard.WithNATS(s.nats.URL, s.nats.Creds(t, "orders")))
	g.ready()
	owner := newRecipient(t)
	old, _ := s.issue(admin, "alice")
	path := "/v1/keys/" + old.ID

	// Who may make schedules, and no keys, makes none for a key; and a key that is not there has none.
	weekly := map[string]any{"name": "minutely", "rotate": "key:" + old.ID, "cron": "* * * * *", "overlap": "1h", "reason": "nothing is static"}
	var scheduler apiKey
	s.decode(s.api(admin, http.MethodPost, "/v1/keys", map[string]any{"owner": "cron", "roles": []string{"scheduler"}}), http.StatusCreated, &scheduler)
	if r := s.api(s.token(scheduler.Secret), http.MethodPost, "/v1/schedules", weekly); r.status != http.StatusForbidden {
		t.Errorf("a scheduler schedules a key that it may not rotate: %d %s", r.status, r.body)
	}
	if r := s.api(admin, http.MethodPost, "/v1/schedules", map[string]any{"name": "x", "rotate": "key:AAAAAAAAAAAAAAAAAAAAAA", "cron": "* * * * *", "reason": "r"}); r.status != http.StatusUnprocessableEntity {
		t.Errorf("a schedule for a key that is not there: %d %s", r.status, r.body)
	}

	s.decode(s.api(admin, http.MethodPost, "/v1/schedules", weekly), http.StatusCreated, &ignored)
	rotators.toNextMinute()
	due := s.fired(admin, "minutely", time.Time{})
	if due.State != "active" || due.Last.Next != "" || !strings.Contains(due.Last.Outcome, "is due") {
		t.Errorf("without a recipient: %+v", due.Last)
	}
	own := s.token(old.Secret)
	s.decode(s.api(own, http.MethodPut, path+"/recipient", map[string]any{"recipient": owner.Recipient().String(), "current": old.Secret}), http.StatusOK, &ignored)
	rotators.toNextMinute()
	f := s.fired(admin, "minutely", due.Last.DueAt)
	if f.Last.Next == "" || f.Last.Failed != "" || f.Last.GoodUntil.IsZero() {
		t.Fatalf("%+v", f.Last)
	}
	s.decode(s.api(admin, http.MethodPost, "/v1/schedules/minutely/pause", map[string]any{"reason": "enough"}), http.StatusOK, &ignored)
	s.askedAgain(t, f.Last.Next, old.ID, f.Last.DueAt)

	before, _ := s.tryExchange(old.Secret)
	collect := func(token string, body map[string]any, header ...string) reply {
		return s.api(token, http.MethodPost, path+"/delivery", body, header...)
	}
	if r := collect(own, map[string]any{}); r.status != http.StatusForbidden {
		t.Errorf("collected by a token alone: %d %s", r.status, r.body)
	}
	var got, again sealedSecret
	mine := map[string]any{"current": old.Secret}
	s.decode(collect(own, mine, "Idempotency-Key", "k1"), http.StatusOK, &got)
	s.decode(collect(own, mine, "Idempotency-Key", "k1"), http.StatusOK, &again)
	if again != got {
		t.Error("the same request is answered in another way")
	}
	if r := collect(admin, map[string]any{}); r.status != http.StatusConflict || !strings.Contains(string(r.body), "alice") {
		t.Errorf("collected again by an operator: %d %s; want who has it", r.status, r.body)
	}
	c, err := delivery.Open(got.Sealed, owner)
	if err != nil || c.ID != f.Last.Next || c.Previous != old.ID || c.Tenant != "default" {
		t.Fatalf("opened: %v", err)
	}
	after, _ := s.tryExchange(c.Secret)
	g.until(before, http.StatusOK)
	g.until(after, http.StatusOK)
	if strings.Contains(s.log.String(), c.Secret) || strings.Contains(s.log.String(), "AGE ENCRYPTED") {
		t.Error("the log tells of the secret")
	}
	var shown struct {
		Rotation struct {
			CollectedBy string    `json:"collected_by"`
			NextUsedAt  time.Time `json:"next_used_at"`
		}
	}
	s.decode(s.api(admin, http.MethodGet, path, nil), http.StatusOK, &shown)
	if shown.Rotation.CollectedBy != "alice" || shown.Rotation.NextUsedAt.IsZero() {
		t.Errorf("shown: %+v, want who has collected it, and that it is used", shown.Rotation)
	}

	s.decode(s.api(admin, http.MethodPost, path+"/rotation", map[string]any{"overlap": "1m"}), http.StatusOK, &ignored)
	issuers.ahead(65 * time.Second)
	g.until(before, http.StatusUnauthorized)
	eventually(t, "the old key is refused after its end", func() error {
		if _, r := s.tryExchange(old.Secret); r.status != http.StatusBadRequest {
			return fmt.Errorf("it gives %d", r.status)
		}
		return nil
	})
	g.until(after, http.StatusOK)
	s.askedAgain(t, f.Last.Next, old.ID, f.Last.DueAt)
}

// askedAgain asks the issuer for a firing once more, as a rotator that was killed before it could
// note what has become of it does: nothing more comes of it.
func (s *services) askedAgain(t *testing.T, next, key string, due time.Time) {
	t.Helper()
	bucket, err := (&victim{services: s}).streams(t, "CONTROL").KeyValue(t.Context(), "keys")
	if err != nil {
		t.Fatal(err)
	}
	var record struct{ Firing string }
	e, err := bucket.Get(t.Context(), "default."+next)
	if err != nil {
		t.Fatal(err)
	}
	s.decode(reply{status: 200, body: e.Value()}, 200, &record)
	ask := keyrotation.Rotate{Ref: keyrotation.Ref{Tenant: "default", Key: key}, Firing: record.Firing, Actor: "schedule:minutely", Reason: "again"}
	a, err := s.asRotator(ask)
	if err != nil || a.Next != next || a.Outcome != keyrotation.Sealed {
		t.Errorf("the firing of %s again: %+v, %v; want %s", due, a, err, next)
	}
	ask.Reason, ask.Firing = "", "other"
	if _, err := s.asRotator(ask); problem.KindOf(err) != problem.Invalid {
		t.Errorf("without a reason: %v", err)
	}
}

// asRotator asks the issuer for an unattended rotation.
func (s *services) asRotator(ask keyrotation.Rotate) (keyrotation.Rotated, error) {
	return natsapi.Call[keyrotation.Rotated](s.t.Context(), s.nats.Dial(s.t, identity.Rotator), wire.KeysIssuer+keyrotation.OpRotate, "", ask)
}

// fire rotates a key as a schedule does.
func (s *services) fire(key, firing string) {
	s.t.Helper()
	a, err := s.asRotator(keyrotation.Rotate{Ref: keyrotation.Ref{Tenant: "default", Key: key}, Firing: firing, Actor: "schedule:test", Reason: "r"})
	if err != nil || a.Outcome != keyrotation.Sealed {
		s.t.Fatalf("rotating key %s: %+v, %v", key, a, err)
	}
}

// A client is rotated by its name, and how old its newest secret is is known.
func TestAScheduleRotatesAClientByItsNewestSecret(t *testing.T) {
	t.Parallel()
	rotators := clockAt(0)
	s := inProcess(t, clocks(map[string]*clock{identity.Rotator: rotators}))
	admin := s.token(s.operator)
	owner := newRecipient(t)
	var client struct {
		ID       string    `json:"client_id"`
		SecretID string    `json:"secret_id"`
		Expires  time.Time `json:"secret_expires_at"`
	}
	s.decode(s.api(admin, http.MethodPost, "/v1/clients", map[string]any{
		"name": "n", "grants": []string{"client_credentials"}, "secret_expires_in": "24h", "recipient": owner.Recipient().String(),
	}), http.StatusCreated, &client)
	var p foreseen
	s.decode(s.api(admin, http.MethodPost, "/v1/schedules/preview", map[string]any{"rotate": "client:" + client.ID, "before_expiry": "1h", "reason": "r"}), http.StatusOK, &p)
	if len(p.Firings) == 0 || client.Expires.Sub(p.Firings[0].At) != time.Hour {
		t.Errorf("a firing an hour before %v: %+v", client.Expires, p.Firings)
	}
	s.decode(s.api(admin, http.MethodPost, "/v1/schedules", map[string]any{
		"name": "old", "rotate": "client:" + client.ID, "every": "1m", "overlap": "1h", "reason": "r",
	}), http.StatusCreated, &ignored)
	rotators.ahead(61 * time.Second)
	f := s.fired(admin, "old", time.Time{})
	var got sealedSecret
	s.decode(s.api(admin, http.MethodPost, "/v1/keys/"+client.SecretID+"/delivery", map[string]any{"reason": "for them"}), http.StatusOK, &got)
	c, err := delivery.Open(got.Sealed, owner)
	if err != nil || c.ID != f.Last.Next {
		t.Fatalf("opened: %v", err)
	}
	r := s.form("/oauth/token", map[string][]string{"grant_type": {"client_credentials"}, "client_id": {client.ID}, "client_secret": {c.Secret}})
	if r.status != http.StatusOK {
		t.Errorf("the new secret: %d %s", r.status, r.body)
	}
}
