package e2e

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quash-project/quash/services/fsck"
	"github.com/quash-project/quash/shared/engine/enginetest"
	"github.com/quash-project/quash/shared/guard"
	"github.com/quash-project/quash/shared/identity"
)

// TestHowFastRevocationIsHere: it is measured all the time, at each guard and the Redis
// view, and nobody who watches or audits sees anything of it.
func TestHowFastRevocationIsHere(t *testing.T) {
	t.Parallel()
	s := inProcess(t, func(set *setting) { set.redis, set.canary = enginetest.Redis(t), time.Second })
	s.guard(guard.WithNATS(s.nats.URL, s.nats.Creds(t, "orders-api"))).ready()
	token := s.token(s.operator)
	type spread struct {
		Runs, Missed  int
		P50, P99, Max string
	}
	var slo struct {
		Within  string
		Windows []struct {
			spread
			Good int
			Met  bool
		}
		Guards []struct {
			spread
			Name string
		}
	}
	eventually(t, "canaries were measured", func() error {
		slo.Guards = nil
		s.decode(s.api(token, "GET", "/v1/slo", nil), 200, &slo)
		var names []string
		for _, g := range slo.Guards {
			if g.Runs > 0 && (g.Missed > 0 || g.P50 != "") {
				names = append(names, g.Name)
			}
		}
		if want := []string{"(redis view)", "issuer", "orders-api", "revocation", "rotator"}; !slices.Equal(names, want) || slo.Windows[0].Runs == 0 {
			return fmt.Errorf("of %q, want %q: %+v", names, want, slo)
		}
		return nil
	})
	if w := slo.Windows[1]; w.Good > w.Runs || slo.Within != "1s" {
		t.Errorf("%+v", slo)
	}
	// A person's revocation stands where the canaries do not.
	feed := s.watch("?for=3s")
	s.commit(token, "revoke", "principal:mallory")
	text, err := io.ReadAll(feed.Body)
	if err != nil || !strings.Contains(string(text), "mallory") || strings.Contains(string(text), "canary") {
		t.Errorf("the feed has %s, %v; want the revocation of mallory, and no canary", text, err)
	}
	// Nor is anybody who asks for the audit kept waiting for what it leaves out.
	s.commit(token, "revoke", "token:canary.of-nobody")
	found := s.api(token, "GET", "/v1/audit?limit=1000", nil)
	if text := string(found.body); found.status != 200 || !strings.Contains(text, "mallory") || strings.Count(text, "canary") != strings.Count(text, "canary.of-nobody") || !strings.Contains(text, "canary.of-nobody") {
		t.Errorf("the audit answers %d %s; want the revocation of mallory, what a person calls a canary, and no canary", found.status, text)
	}
	eventually(t, "nothing differs for the canaries", func() error {
		r, err := fsck.Check(t.Context(), fsck.Config{Log: s.nats.Conn(t, identity.Revocation), Control: s.nats.Conn(t, identity.ControlReader)})
		if err == nil && (!r.OK || r.Unaudited > 0) {
			err = fmt.Errorf("%+v", r)
		}
		return err
	})
}
