package commit_test

import (
	"testing"

	"github.com/quash-project/quash/shared/commit"
	"github.com/quash-project/quash/shared/guard/revoke"
)

// What nobody is told of is what the issuer cuts of its own, and nothing that a person or a
// foreign issuer could call so.
func TestACanaryIsOfTheIssuerAlone(t *testing.T) {
	token := func(issuer, id string) commit.Target {
		return commit.Target{Issuer: issuer, Kind: revoke.KindToken, ID: id}
	}
	canary := token("", commit.CanaryPrefix+"x")
	for name, c := range map[string]struct {
		service string
		op      commit.Op
		targets []commit.Target
		want    bool
	}{
		"the issuer's":        {"issuer", commit.Revoke, []commit.Target{canary}, true},
		"with its issuer":     {"issuer", commit.Revoke, []commit.Target{token(revoke.Own, canary.ID)}, true},
		"a person's":          {"caller:alice", commit.Revoke, []commit.Target{canary}, false},
		"the rotator's":       {"rotator", commit.Revoke, []commit.Target{canary}, false},
		"of a foreign issuer": {"issuer", commit.Revoke, []commit.Target{token("okta", canary.ID)}, false},
		"a hold":              {"issuer", commit.Hold, []commit.Target{canary}, false},
		"two":                 {"issuer", commit.Revoke, []commit.Target{canary, canary}, false},
		"with something else": {"issuer", commit.Revoke, []commit.Target{canary, token("", "t")}, false},
		"no token":            {"issuer", commit.Revoke, []commit.Target{{Kind: revoke.KindKey, ID: canary.ID}}, false},
		"nothing":             {"issuer", commit.Revoke, nil, false},
	} {
		if got := commit.IsCanary(c.service, c.op, c.targets); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}
