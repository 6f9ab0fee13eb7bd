package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quash-project/quash/services/deployment"
	"github.com/quash-project/quash/shared/identity"
)

// TestDoctorLooksAtAllOfIt: with the identities that it can be given nothing is left
// out, and a Quash as it is started has nothing wrong; without them it says what it
// has not looked at, and that is not wrong.
func TestDoctorLooksAtAllOfIt(t *testing.T) {
	q := start(t, t.TempDir())
	ids := "nats"
	if processes != nil {
		ids = "identities"
	}
	creds := func(user string) string { return filepath.Join(q.dir, ids, "creds", user+".creds") }
	more := map[string]string{"QUASH_NATS_MONITOR_CREDS": creds(identity.Monitor)}
	type finding struct {
		Check, Detail, Mend string
		OK                  bool
		NotLooked           bool `json:"not_looked_at"`
	}
	look := func(env map[string]string) (found []finding) {
		t.Helper()
		// Whoever has just started may be told of late, and so may the view.
		eventually(t, "nothing is wrong", func() error {
			r := q.runEnv(env, "", "doctor", "-o", "json")
			var answer struct {
				OK       bool
				Findings []finding
			}
			if err := json.Unmarshal([]byte(r.out), &answer); err != nil {
				return err
			}
			if found = answer.Findings; !answer.OK || r.code != 0 {
				return fmt.Errorf("exit code %d\n%s", r.code, r.out)
			}
			return nil
		})
		return found
	}
	all := look(more)
	for _, check := range []string{
		"metadata", "clock of", "signing keys", "sign-in", "fleet", "NATS ", "NATS rights", "log", "sync mode of", "clock of NATS", "NATS servers",
		"stream QUASH_LOG", "Redis", "Redis role of", "Redis ACL of", "Redis view",
	} {
		seen := false
		for _, f := range all {
			seen = seen || strings.HasPrefix(f.Check, check) && f.OK && !f.NotLooked
		}
		if !seen {
			t.Errorf("%s was not looked at: %+v", check, all)
		}
	}
	if processes != nil {
		wantDeployment(t, q.dir, func(prefix string) (n int) {
			for _, f := range all {
				if strings.HasPrefix(f.Check, prefix) && f.OK && !f.NotLooked {
					n++
				}
			}
			return n
		})
	}
	less := look(map[string]string{"QUASH_NATS_URL": "", "QUASH_REDIS_URL": "", "QUASH_KEY_FILE": ""})
	for _, f := range less {
		if need := map[string]bool{"NATS": true, "Redis": true, "sign-in": true, "fleet": true}; need[f.Check] && (!f.NotLooked || f.Mend == "") {
			t.Errorf("%s: %+v: want what would let it be looked at", f.Check, f)
		}
	}
	if r := q.runEnv(nil, "", "doctor"); !strings.Contains(r.out, "not looked at") || !strings.Contains(r.err, "QUASH_NATS_MONITOR_CREDS") {
		t.Errorf("what was not looked at, and how it can be, is not said:\n%s%s", r.out, r.err)
	}
	if r := q.runEnv(map[string]string{"QUASH_NATS_CREDS": creds(identity.Monitor), "QUASH_REDIS_URL": "redis://127.0.0.1:1"}, "", "doctor"); r.code != 1 || !strings.Contains(r.out, "WRONG") || !strings.Contains(r.err, "Redis: ") {
		t.Errorf("no Redis there: exit code %d\n%s%s", r.code, r.out, r.err)
	}
}

// wantDeployment wants each process with a listener looked at.
func wantDeployment(t *testing.T, dir string, count func(prefix string) int) {
	t.Helper()
	list, err := deployment.Processes(dir)
	if err != nil {
		t.Fatal(err)
	}
	servers := 0
	for _, p := range list {
		if strings.HasPrefix(p.Name, "nats-") {
			servers++
		}
	}
	// The balancer, two replicas each of revocation and rotator, the NATS servers, Redis.
	for prefix, want := range map[string]int{"sync mode of": servers, "certificate of": 1 + 4 + servers + 1, "clock of": 1 + 4 + servers} {
		if got := count(prefix); got != want {
			t.Errorf("%s: %d, want %d", prefix, got, want)
		}
	}
}
