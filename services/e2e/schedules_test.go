package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/shared/guard"
)

type shownSchedule struct {
	Name, State, Cron string
	Next, Last        *struct {
		DueAt    time.Time `json:"due_at"`
		At       time.Time
		FiredAt  time.Time `json:"fired_at"`
		Rotation string
		Failed   string
	}
}

type foreseen struct {
	Firings []struct {
		DueAt time.Time `json:"due_at"`
		At    time.Time
		Local string
		Does  string
		Why   []string
	}
}

// A schedule that somebody makes by the command line rotates the signing key by itself,
// twice, while tokens are fetched and used; not one is refused.
func TestAScheduleRotatesTheSigningKeyUnderLoad(t *testing.T) {
	t.Parallel() // it waits for two full minutes
	q := start(t, t.TempDir())
	made, err := guard.New([]guard.Issuer{{URL: q.env["QUASH_URL"], Trust: []string{q.env["QUASH_TRUST"]}}},
		guard.WithNATS(q.env["QUASH_NATS_URL"], q.env["QUASH_NATS_CREDS"]))
	second := startGuard(t, made, err)
	second.ready()
	key := q.newKey("erin", "--scope", "orders:read")
	u := q.users(key.Secret, second, 20*time.Millisecond)
	defer u.end()
	before := kid(t, q.exchange(key.Secret))
	var s shownSchedule
	q.json(&s, "schedule", "create", "minutely", "--rotate", "signing-key", "--cron", "* * * * *", "--reason", "nothing is static")
	if s.State != "active" || s.Next == nil || s.Next.DueAt.Second() != 0 || time.Until(s.Next.At) > time.Minute {
		t.Fatalf("made: %+v", s)
	}
	seen := map[string]bool{}
	for range 2 {
		eventually(t, "another key signs", func() error {
			if got := kid(t, q.exchange(key.Secret)); got == before {
				return fmt.Errorf("%s does still", got)
			}
			return nil
		})
		before = kid(t, q.exchange(key.Secret))
		eventually(t, "the firing is marked", func() error {
			q.json(&s, "schedule", "show", "minutely")
			if s.Last == nil || seen[s.Last.Rotation] || s.Last.Failed != "" {
				return fmt.Errorf("%+v", s.Last)
			}
			return nil
		})
		seen[s.Last.Rotation] = true
		if late := s.Last.FiredAt.Sub(s.Last.At); late < 0 || late > 30*time.Second {
			t.Errorf("it fired %s late", late)
		}
	}
	q.ok("schedule", "pause", "minutely", "--reason", "enough")
	out := q.ok("audit", "search", "--actor", "schedule:minutely", "-o", "json")
	if !strings.Contains(out, "nothing is static") {
		t.Errorf("the audit does not say why: %s", out)
	}
}

// Everything about schedules by the command line, in all its forms.
func TestSchedulesByTheCommandLine(t *testing.T) {
	q := start(t, t.TempDir())
	weekly := []string{"schedule", "create", "weekly", "--rotate", "signing-key", "--cron", "30 2 * * SUN", "--time-zone", "Europe/Berlin", "--reason", "routine"}
	q.ok(weekly...)
	q.ok(weekly...) // the same again
	if r := q.run("", append(weekly[:len(weekly)-1:len(weekly)-1], "another")...); r.code != 1 || !strings.Contains(r.err, "another schedule") {
		t.Errorf("another one of the name: exit code %d, %s", r.code, r.err)
	}
	q.ok("schedule", "create", "old", "--rotate", "signing-key", "--max-age", "60d", "--jitter", "12h", "--window", "Sat,Sun 02:00-06:00", "--freeze", "0 0 20 12 * for 14d", "--missed", "run-once", "--reason", "policy")
	q.ok("schedule", "create", "often", "--rotate", "signing-key", "--every", "7d", "--reason", "routine")
	q.ok("schedule", "create", "ends", "--rotate", "signing-key", "--before-expiry", "14d", "--reason", "routine")
	if out := q.ok("schedule", "list"); !strings.Contains(out, "30 2 * * SUN Europe/Berlin") || !strings.Contains(out, "at the age of 60d") || !strings.Contains(out, "every 7d") || !strings.Contains(out, "14d before its end") {
		t.Errorf("list:\n%s", out)
	}
	var p foreseen
	q.json(&p, "schedule", "preview", "weekly")
	if len(p.Firings) != 10 || !strings.Contains(p.Firings[0].Does, "signs in the place of") {
		t.Errorf("preview: %+v", p)
	}
	for _, f := range p.Firings {
		if !strings.Contains(f.Local, "T02:30:00.000") && !strings.Contains(f.Local, "T03:00:00.000+02:00") {
			t.Errorf("it fires at %s", f.Local)
		}
	}
	q.json(&p, "schedule", "preview", "-n", "3", "--rotate", "signing-key", "--cron", "@daily")
	if len(p.Firings) != 3 {
		t.Errorf("preview of one that is not made: %+v", p)
	}
	if out := q.ok("schedule", "calendar", "--for", "90d"); !strings.Contains(out, "weekly") || !strings.Contains(out, "often") {
		t.Errorf("calendar:\n%s", out)
	}
	if out := q.ok("schedule", "calendar", "--ical"); !strings.HasPrefix(out, "BEGIN:VCALENDAR\r\n") || !strings.HasSuffix(out, "END:VCALENDAR\r\n") {
		t.Errorf("iCalendar:\n%s", out)
	}
	if out := q.ok("schedule", "show", "old", "-o", "yaml"); !strings.Contains(out, "max_age: 60d") {
		t.Errorf("show:\n%s", out)
	}
	var s shownSchedule
	q.json(&s, "schedule", "pause", "weekly", "--reason", "a holiday")
	if s.State != "paused" || s.Next != nil {
		t.Errorf("paused: %+v", s)
	}
	if r := q.run("", "schedule", "preview", "weekly"); r.code != 0 || !strings.Contains(r.err, "paused") {
		t.Errorf("preview of a paused one: %d, %s", r.code, r.err)
	}
	q.json(&s, "schedule", "resume", "weekly", "--reason", "back")
	if s.State != "active" || s.Next == nil {
		t.Errorf("resumed: %+v", s)
	}
	q.ok("schedule", "delete", "weekly", "--reason", "over")
	if r := q.run("", "schedule", "show", "weekly"); r.code != 1 {
		t.Errorf("a deleted one: exit code %d", r.code)
	}
	for _, args := range [][]string{
		{"schedule", "create", "x"},
		{"schedule", "create", "x", "--rotate", "signing-key", "--cron", "@daily"},
		{"schedule", "create", "x", "--rotate", "signing-key", "--cron", "@daily", "--every", "1h", "--reason", "r"},
		{"schedule", "create", "x", "--rotate", "key:abc", "--cron", "@daily", "--reason", "r"},
		{"schedule", "create", "x", "--rotate", "signing-key", "--cron", "whenever", "--reason", "r"},
		{"schedule", "create", "preview", "--rotate", "signing-key", "--cron", "@daily", "--reason", "r"},
		{"schedule", "pause", "old"},
		{"schedule", "calendar", "--ical", "-o", "json"},
		{"schedule", "preview", "old", "--rotate", "signing-key"},
		{"schedule"},
	} {
		if r := q.run("", args...); r.code != 2 {
			t.Errorf("%q: exit code %d, want 2: %s", args, r.code, r.err)
		}
	}
}

// Schedules of tenants are apart, whatever their names, and go with their tenant.
func TestSchedulesOfTenantsAreApartAndGoWithThem(t *testing.T) {
	s := inProcess(t)
	a, b := s.newTenant("acme"), s.newTenant("globex")
	made := func(x *tenantOf, name string) {
		t.Helper()
		body := fmt.Sprintf(`{"name":%q,"rotate":"signing-key","every":"30d","reason":"r"}`, name)
		eventually(t, "the rotator knows "+x.name, func() error {
			if r := x.send("POST", "/v1/schedules", body); r.status/100 != 2 {
				return fmt.Errorf("status %d: %s", r.status, r.body)
			}
			return nil
		})
	}
	made(a, "weekly")
	made(a, "of-acme")
	made(b, "weekly")
	if r := b.send("GET", "/v1/schedules", ""); r.status != 200 || strings.Contains(string(r.body), "acme") || strings.Count(string(r.body), `"weekly"`) != 1 {
		t.Errorf("globex is told %s", r.body)
	}
	if r := b.send("GET", "/v1/schedules/calendar?for=60d", ""); r.status != 200 || strings.Contains(string(r.body), "acme") {
		t.Errorf("the calendar of globex: %s", r.body)
	}
	for method, path := range map[string]string{"GET": "/v1/schedules/of-acme", "DELETE": "/v1/schedules/of-acme"} {
		if r := b.send(method, path, ""); r.status != 404 {
			t.Errorf("%s of a schedule of acme by globex: status %d", method, r.status)
		}
	}
	v := &victim{services: s}
	js := v.streams(t, "CONTROL")
	left := func() (keys []string) {
		t.Helper()
		bucket, err := js.KeyValue(t.Context(), "schedules")
		if err != nil {
			t.Fatal(err)
		}
		all, err := bucket.Keys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range all {
			if strings.HasPrefix(key, "acme.") {
				keys = append(keys, key)
			}
		}
		return keys
	}
	if got := left(); len(got) != 2 {
		t.Fatalf("records of acme: %q", got)
	}
	op := s.token(s.operator)
	var ignored struct{}
	s.decode(s.raw(op, "DELETE", "/v1/tenants/acme?reason=test", ""), 200, &ignored)
	eventually(t, "nothing of its schedules is left", func() error {
		if got := left(); len(got) != 0 {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	if r := b.send("GET", "/v1/schedules/weekly", ""); r.status != 200 {
		t.Errorf("the schedule of globex: status %d", r.status)
	}
}
